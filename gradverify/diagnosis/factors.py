"""Measured factors: what two are taken for equal by, and how many digits of one are printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SAFETY = 4.0
"""A pattern fits, and two factors are one, within so many error bars: one more than make an entry wrong, for what was
returned has a rounding of its own."""

DIGITS = 7
"""No more are printed: a reader recognises a number by fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A least-squares factor, and the error that the bars of the entries leave in it."""

    value: float
    error: float

    def is_near(self, number: float) -> bool:
        """Whether it may be that number."""
        return abs(self.value - number) <= SAFETY * self.error


def alike(factors: Sequence[Factor]) -> bool:
    """Whether all may be one number."""
    least = min(f.value + SAFETY * f.error for f in factors)
    return all(f.value - SAFETY * f.error <= least for f in factors)


def numbers(factors: Sequence[Factor]) -> str:
    """`2`, `0.5 or 0.25`: each to the digits that its error leaves."""
    return " or ".join(dict.fromkeys(f"{f.value:.{_digits(f)}g}" for f in factors))


def _digits(factor: Factor) -> int:
    relative = factor.error / abs(factor.value) if factor.value else 0.0
    return max(1, min(DIGITS, math.floor(-math.log10(relative)))) if relative else DIGITS
