"""What is judged: a function and a claim of its gradient, both of one flat vector that several tensors make up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from gradverify.numerics.comparison import norm
from gradverify.numerics.difference import Array

LEAST = 1e-6
"""Part of an output's terms, below which a slope is taken for zero where the problem says how large they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch [start, stop) of a flat vector that is one tensor."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]

    def index(self, flat: int) -> tuple[int, ...]:
        """The tensor's own index of a flat position."""
        return tuple(int(i) for i in np.unravel_index(flat - self.start, self.shape)) if self.shape else ()

    def position(self, index: tuple[int, ...]) -> int:
        """The flat position of an index of the tensor."""
        return self.start + (int(np.ravel_multi_index(index, self.shape)) if self.shape else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where: element `index` of part `argument` and `output_index` of output `output`; None where not one element.

    `output_name`: the name of the output's part.
    """

    argument: str
    index: tuple[int, ...] | None = None
    output: int | None = None
    output_index: tuple[int, ...] | None = None
    output_name: str = ""


def _unclaimed(*_: Array) -> Array:
    raise TypeError("this problem makes no claim in that mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be judged: x [n], the truth's function [n] -> [m], the claims and the roundoff.

    The claims are vjp [m] -> [n] and jvp [n] -> [m]; a problem that is judged in one mode may lack the other's.
    `vjp_at`, `jvp_at`: the claim at another point, (x [n], v [m]) -> [n] and (x [n], d [n]) -> [m].
    `rerun`: the difference of two evaluations at x, [m]. `terms`: the size of what cancels in each output, [m], where
    that is known: a slope below LEAST of it is zero.
    """

    x: Array
    parts: tuple[Part, ...]
    outputs: tuple[Part, ...]
    centre: Array
    rerun: Array
    forward: Callable[[Array], Array]
    vjp: Callable[[Array], Array]
    vjp_at: Callable[[Array, Array], Array]
    unit: float
    jvp: Callable[[Array], Array] = field(default=_unclaimed)
    jvp_at: Callable[[Array, Array], Array] = field(default=_unclaimed)
    digits: int = 52
    terms: Array | None = None

    @property
    def finest(self) -> int:
        """Exponent of the finest step that is exact in the inputs' dtype, with 3 bits for the direction's factor."""
        return 6 - self.digits

    @property
    def finite_centre(self) -> Array:
        """The function's values at x, zero where they are not finite; [m]."""
        return np.where(np.isfinite(self.centre), self.centre, 0.0)

    @property
    def largest(self) -> float:
        """The largest value that the function returns at x, terms that cancel in it among them."""
        return float(np.max(np.abs(self.finite_centre), initial=_top(self.terms)))

    def scale(self) -> Array:
        """The size of every input, [n]."""
        return sizes(self.x, self.parts)

    def least(self) -> Array | float:
        """The slope of each output that need not be told from zero, [m]; 0: every slope must be."""
        return 0.0 if self.terms is None else LEAST * self.terms

    def place(self, i: int | None, j: int | None) -> Place:
        """Where input i and output j stand; None for all of them."""
        argument = next((p for p in self.parts if i is not None and p.start <= i < p.stop), None)
        output = next((k for k, p in enumerate(self.outputs) if j is not None and p.start <= j < p.stop), None)
        return Place(
            argument=argument.name if argument else "",
            index=argument.index(i) if argument and i is not None else None,
            output=output,
            output_index=self.outputs[output].index(j) if output is not None and j is not None else None,
            output_name=self.outputs[output].name if output is not None else "",
        )


def _top(terms: Array | None) -> float:
    return 0.0 if terms is None else float(np.max(terms, initial=0.0))


def sizes(x: Array, parts: Iterable[Part]) -> Array:
    """s_i = 2^floor(log2 |x_i|); a zero takes the root mean square of its tensor's finite entries, or 1.

    Steps t s_i are exact.
    """
    magnitude = np.abs(x)
    for part in parts:
        piece = magnitude[part.start : part.stop]
        finite = piece[np.isfinite(piece)]
        rms = norm(finite) / np.sqrt(max(finite.size, 1))
        piece[piece == 0] = rms if rms > 0 else 1.0
    _, exponent = np.frexp(np.clip(magnitude, 1e-290, 1e290))
    return np.asarray(np.ldexp(1.0, exponent - 1))


def axis(size: int, at: int) -> Array:
    """The unit vector along one coordinate, [size]."""
    out = np.zeros(size)
    out[at] = 1.0
    return out
