"""The forward's own noise: from a table of differences (Hamming; More & Wild, Estimating computational noise, 2011)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import factorial

import numpy as np

from gradverify.numerics.difference import Array, Bools, Path

POINTS = 7
ORDERS = (3, 4, 5, 6)
SPACINGS = (-31, -20, -10)

POOL = 4
"""From so many outputs on, the noise of the others tells where that of one was measured as too small by chance."""

OFF_GRID = 1.2718281828
"""Factor of the spacings: on powers of two a forward that rounds to a narrower float would look exact."""

UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Unit roundoff u of each dtype: half the distance from 1 to the next number."""


TF32 = 2.0**-11
"""That of float32 in products on tensor cores, which read ten bits of it."""

_of_float32 = ContextVar("unit roundoff of float32", default=UNITS["float32"])


def unit_roundoff(dtype: str) -> float:
    """The unit roundoff of a floating dtype. Raises KeyError for one that is not real floating."""
    return _of_float32.get() if dtype == "float32" else UNITS[dtype]


@contextmanager
def float32_is_tf32() -> Iterator[None]:
    """Within it float32 has the roundoff that its products have where tf32 is allowed."""
    token = _of_float32.set(TF32)
    try:
        yield
    finally:
        _of_float32.reset(token)


def noise_levels(path: Path, *, finest: int = -31) -> tuple[tuple[int, Array], ...]:
    """Three standard deviations of the noise of one evaluation, (exponent of the spacing, [m]), finest first.

    At each spacing delta, phi is sampled at 7 equally spaced t; a k-th difference of smooth data is O(delta^k), of
    noise it has variance sigma^2 (2k)! / (k!)^2; the least of orders 3 to 6 is taken. Noise may grow with the spacing
    (a rounding to float32 is still below its own grid), but what grows in proportion to it is a kink, and counts as
    none. 7 forwards a spacing. Outputs that are not finite get infinity.
    """
    levels: list[tuple[int, Array]] = []
    for e in SPACINGS:
        if e < finest:
            continue
        sigma, still, both = _at_spacing(path, OFF_GRID * 2.0**e)
        sigma = np.where(np.isfinite(sigma), 3 * sigma, np.inf)
        # Samples that are all equal below ones that are not: a staircase, whose noise is the same down to its grid;
        # where one side stands still, a clamp, which has none.
        below = np.where(still, -1.0, np.where(both, sigma, 0.0))
        levels = [(f, np.where(finer < 0, below, finer)) for f, finer in levels]
        if levels:
            kinked = _kinked(levels[-1][1], sigma, e - levels[-1][0])
            levels[-1] = (levels[-1][0], np.where(kinked, 0.0, levels[-1][1]))
            sigma = np.where(kinked, 0.0, np.maximum(levels[-1][1], sigma))
        levels.append((e, np.where(still, -1.0, sigma)))
    return tuple((e, np.maximum(sigma, 0.0)) for e, sigma in levels)


def pooled(levels: tuple[tuple[int, Array], ...], size: Array, still: Bools) -> tuple[tuple[int, Array], ...]:
    """Each output's noise, at least what three quarters of the outputs have relative to their `size`, [m].

    Seven samples of one output may happen to lie on its grid; those of many do not. What is `still` at fine steps lies
    on a grid, or in a region where it is constant: that says nothing of outputs that move there.
    """
    with np.errstate(all="ignore"):
        return tuple((e, np.fmax(sigma, _shares(sigma, size, still) * size)) for e, sigma in levels)


def _shares(sigma: Array, size: Array, still: Bools) -> Array:
    every = _quartile(sigma, size)
    return np.where(still, every, _quartile(sigma[~still], size[~still]) if still.any() else every)


def _quartile(sigma: Array, size: Array) -> float:
    usable = np.isfinite(sigma) & (size > 0) & np.isfinite(size)
    return float(np.quantile(sigma[usable] / size[usable], 0.75)) if usable.sum() >= POOL else 0.0


def _kinked(finer: Array, coarser: Array, octaves: int) -> Bools:
    """Whether the differences grow in proportion to the spacing: both then show the kink, and neither the noise.

    At a kink the growth is 1, noise on top of it apart, for which a factor of 4 leaves room; constant noise grows by
    2^-octaves, a curvature by 2^octaves and more: between spacings that are 10 octaves apart, half way is 32.
    """
    with np.errstate(all="ignore"):
        growth = coarser / finer * 2.0**-octaves
    return np.asarray((growth > 0.25) & (growth < 4))


def _at_spacing(path: Path, spacing: float) -> tuple[Array, Bools, Bools]:
    """Standard deviation of the noise, where all samples are equal, and where both sides move; [m]."""
    samples = np.stack([path((k - POINTS // 2) * spacing) for k in range(POINTS)])
    with np.errstate(all="ignore"):
        sigmas = [_sigma(np.diff(samples, n=k, axis=0), k) for k in ORDERS]
    moved = samples != samples[POINTS // 2]
    both = moved[: POINTS // 2].any(axis=0) & moved[POINTS // 2 + 1 :].any(axis=0)
    return np.asarray(np.min(np.stack(sigmas), axis=0)), ~moved.any(axis=0), np.asarray(both)


def _sigma(differences: Array, order: int) -> Array:
    return np.asarray(np.sqrt(np.mean(differences**2, axis=0) * factorial(order) ** 2 / factorial(2 * order)))
