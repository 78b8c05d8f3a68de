"""Reverse mode: the claim gives a gradient for every cotangent, and slopes are what it says along a direction."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradverify.numerics import cotangents, pursuit
from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import Array, Bools
from gradverify.numerics.measurement import Measurement
from gradverify.numerics.picture import Picture
from gradverify.numerics.probe import Probe, terms
from gradverify.numerics.problem import axis
from gradverify.numerics.trial import Trial


@dataclass(slots=True)
class Reverse(Trial):
    """A vjp on trial. `rows`: the claimed gradients of single outputs that were looked at."""

    rows: dict[int, Array] = field(default_factory=dict)

    def first(self) -> list[Bools]:
        """All inputs at once: the gradient of each is known, and so what a test says about it."""
        return [np.ones(self.problem.x.size, dtype=np.bool_)]

    def held(self, probes: list[Probe], seen: Picture) -> list[Measurement] | Bools:
        """Random cotangents of all outputs beside every direction."""
        return cotangents.held(self, probes, seen)

    def pursue(self, probes: list[Probe], seen: Picture, tests: list[Measurement]) -> Measurement:
        """Halve the outputs, then the inputs."""
        return pursuit.pursue(self, probes, seen, tests)

    def slope(self, direction: Array, j: int) -> tuple[float, float]:
        """<row j, d>, and the norm of its terms."""
        if j not in self.rows:
            self.rows[j] = self.problem.vjp(axis(self.problem.centre.size, j))
        return inner(self.rows[j], direction), norm(terms(self.rows[j], direction))

    def claimed(self, v: Array, direction: Array, x: Array | None = None) -> float:
        """<vjp(v), d>."""
        return inner(self.problem.vjp(v) if x is None else self.problem.vjp_at(x, v), direction)
