"""Which inputs are perturbed together, and by how much: random signs and sizes that are exact in floating point."""

from __future__ import annotations

import numpy as np

from gradverify.numerics.difference import Array, Bools

GROUP = 10
"""Inputs whose sizes differ by more than 2^10 may have to be perturbed apart: the large ones drown the small ones."""

FACTORS = np.array([sign * k / 8 for sign in (1, -1) for k in range(4, 9)])

STRAGGLERS = 0.01
"""Groups of a smaller share of the inputs are perturbed together. Of normal numbers up to 8 standard deviations, 0.6 %
are smaller than the largest by 2^GROUP."""


def groups(scale: Array) -> list[Bools]:
    """Masks of inputs of like size, each spanning at most 2^GROUP, the largest first; stragglers in one group, last.

    Among many normal numbers a few are tiny by chance: they are no population of their own.
    """
    exponent = np.log2(scale)
    out, left = [], np.ones(scale.size, dtype=np.bool_)
    stragglers = np.zeros(scale.size, dtype=np.bool_)
    while left.any():
        mask = left & (exponent > exponent[left].max() - GROUP)
        left &= ~mask
        if few(mask):
            stragglers |= mask
        else:
            out.append(mask)
    return [*out, stragglers] if stragglers.any() else out


def few(mask: Bools) -> bool:
    """Whether a group is one of stragglers."""
    return bool(mask.sum() < STRAGGLERS * mask.size)


def jitter(rng: np.random.Generator, size: int) -> Array:
    """+-k/8 with k in 4..8: exact in a product with a power of two, and equal errors do not cancel in pairs."""
    return FACTORS[rng.integers(FACTORS.size, size=size, dtype=np.int8)]


def some(rng: np.random.Generator, choices: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the choices."""
    return choices if choices.size <= count else rng.choice(choices, size=count, replace=False)
