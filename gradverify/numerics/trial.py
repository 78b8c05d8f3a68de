"""A problem on trial: its generator, and what is learnt about it once for all groups of inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gradverify.numerics.difference import Array, Bools
from gradverify.numerics.directions import groups, jitter
from gradverify.numerics.draws import draws
from gradverify.numerics.measurement import Measurement
from gradverify.numerics.picture import Picture
from gradverify.numerics.probe import Probe
from gradverify.numerics.problem import Problem

AROUND = (-4.0, -1.0, -0.5, 0.5, 1.0, 4.0)
"""Steps, in the inputs' own sizes, that show how large the values are that the function rounds."""

WIGGLE = 8
"""Roundings by which x moves when the claim's own scatter is measured."""


@dataclass(slots=True)
class Trial(ABC):
    """What every measurement of one problem shares; its children know in which mode the claim is made.

    `plain`: large weights overflow in its backward, so all outputs weigh alike. `swing`: how far each output moves
    when all inputs move by as much as they are themselves, `noise` how far it scatters, [m]; None until asked for.
    `scale`: the size of every input, [n]. `apart`: the groups of inputs of like size, `labels`: which one each is in.
    `stages`: the most stages of steps that a group took.
    """

    problem: Problem
    rng: np.random.Generator
    plain: bool = False
    swing: Array | None = None
    noise: tuple[tuple[int, Array], ...] | None = None
    scale: Array = field(init=False)
    apart: list[Bools] = field(init=False)
    labels: npt.NDArray[np.intp] = field(init=False)
    stages: int = 1

    def __post_init__(self) -> None:
        self.scale = self.problem.scale()
        self.apart = groups(self.scale)
        self.labels = np.zeros(self.scale.size, dtype=np.intp)
        for k, mask in enumerate(self.apart):
            self.labels[mask] = k

    def jitter(self) -> Array:
        """A random factor of at least one half for every input, [n]."""
        return jitter(self.rng, self.problem.x.size)

    def common(self) -> float:
        """The smallest size among the inputs of the commonest group."""
        group = max(self.apart, key=lambda mask: int(mask.sum()))
        return float(self.scale[group].min())

    def cotangent(self, seen: Picture) -> Array:
        """Random signs over the outputs' bars, [m]."""
        weight = np.sign(seen.weight) if self.plain else seen.weight
        return weight * jitter(self.rng, weight.size)

    def swung(self) -> Array:
        """The swing, measured at the first call: six forwards."""
        if self.swing is None:
            direction = self.jitter() * self.scale
            moved = [self.problem.forward(self.problem.x + t * direction) for t in AROUND]
            with np.errstate(all="ignore"):
                far = np.abs(np.stack(moved) - self.problem.centre)
            self.swing = np.where(np.isfinite(far), far, 0.0).max(axis=0)
        return self.swing

    def heard(self, probe: Probe | None = None) -> tuple[tuple[int, Array], ...]:
        """The forward's noise, (exponent of the spacing, [m]): measured at the first call, for every probe.

        Along `probe`; else where all inputs move.
        """
        if self.noise is None:
            probe = probe or Probe.along(self.problem, self.jitter() * self.scale)
            self.noise = probe.noise()
        return self.noise

    @abstractmethod
    def first(self) -> list[Bools]:
        """The groups of inputs that are moved first: all at once, if the tests tell what they say about each."""

    @abstractmethod
    def held(self, probes: list[Probe], seen: Picture) -> list[Measurement] | Bools:
        """The claim beside every probe, worst place first; or the mask of the inputs whose gradient is not finite."""

    @abstractmethod
    def pursue(self, probes: list[Probe], seen: Picture, tests: list[Measurement]) -> Measurement:
        """From a mismatch in `tests` to its place."""

    @abstractmethod
    def slope(self, direction: Array, j: int) -> tuple[float, float]:
        """The claimed slope of output j along `direction`, and the size of the terms that it adds up."""

    @abstractmethod
    def claimed(self, v: Array, direction: Array, x: Array | None = None) -> float:
        """The claimed slope of <v, outputs> along `direction`, at x or at the point itself."""

    def scatter(self, v: Array, direction: Array) -> float:
        """How far a claimed slope itself scatters when x moves by a few roundings: its condition and rounding."""
        here = self.claimed(v, direction)
        wiggle = WIGGLE * self.problem.unit
        there = []
        for _ in range(draws()):
            x = self.problem.x * (1 + wiggle * self.rng.uniform(-1, 1, self.problem.x.size))
            there.append(abs(self.claimed(v, direction, x) - here))
        return 4 * max((gap for gap in there if np.isfinite(gap)), default=0.0)
