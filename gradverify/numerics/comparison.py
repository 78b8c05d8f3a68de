"""Comparing two float64 results that should be equal: in error bars, never in a tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ROUNDINGS = 8.0
"""Two evaluations in different order are taken to differ by this many unit roundoffs of the terms that they add."""

STRETCH = 2**14
"""Products are formed in stretches that stay in the cache."""

SMALLEST = 1e-280
"""Below it, and above its inverse, a sum of squares may have lost terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The worst of n entries: its flat index, both numbers, the error bar, and the scale that they are relative to.

    `index` is -1 where there was nothing to compare. `resolution`: the smallest relative difference of the whole
    array (in the Euclidean norm) that would have been seen.
    """

    index: int
    analytic: float
    numeric: float
    error: float
    scale: float
    resolution: float


def inner(a: Array, b: Array) -> float:
    """<a, b> in float64, zero where either is zero even if the other is not finite."""
    with np.errstate(all="ignore"):
        total = _dot(a, b)
        return total if np.isfinite(total) else float(_products(a, b).sum())


def norm(a: Array) -> float:
    """Euclidean norm that neither overflows nor underflows."""
    with np.errstate(all="ignore"):
        squares = _dot(a, a)
    if SMALLEST < squares < 1 / SMALLEST:
        return float(np.sqrt(squares))
    top = float(np.max(np.abs(a))) if a.size else 0.0
    if top == 0 or not np.isfinite(top):
        return top
    return top * float(np.sqrt(np.sum((a / top) ** 2)))


@dataclass(frozen=True, slots=True)
class Moments:
    """What the products of the entries of two arrays add up to: their sum, that of their sizes, their norm."""

    total: float
    absolute: float
    norm: float


def moments(a: Array, b: Array) -> Moments:
    """The products' moments, a product being zero where either is zero even if the other is not finite."""
    with np.errstate(all="ignore"):
        if a.size <= STRETCH:
            total, absolute, squares = _sums(a, b)
        else:
            rows = [_sums(a[k : k + STRETCH], b[k : k + STRETCH]) for k in range(0, a.size, STRETCH)]
            total, absolute, squares = (float(np.sum(column)) for column in zip(*rows, strict=True))
        large = SMALLEST < squares < 1 / SMALLEST
        return Moments(total, absolute, float(np.sqrt(squares)) if large else norm(_products(a, b)))


def _sums(a: Array, b: Array) -> tuple[float, float, float]:
    products = a * b
    total = float(products.sum())
    if not np.isfinite(total):
        products = _products(a, b)
        total = float(products.sum())
    return total, float(np.abs(products).sum()), float(np.square(products).sum())


def _products(a: Array, b: Array) -> Array:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _dot(a: Array, b: Array) -> float:
    """The sum of the products, each stretch added in pairs: rounding errors do not add up along the array."""
    stretches = (slice(k, k + STRETCH) for k in range(0, a.size, STRETCH))
    return float(np.sum([np.sum(a[s] * b[s]) for s in stretches]))


def rounding_bar(a: Array, spread: Array, *, unit: float, terms: int) -> Array:
    """Error bar of each entry of a result, [n].

    The scatter that is seen when the inputs move by one rounding (`spread`), which holds condition and cancellation
    as they are at this point, and the rounding of the value itself; sqrt(terms) roundings add up in a sum of `terms`.
    """
    size = np.where(np.isfinite(a), np.abs(a), 0.0)
    return np.asarray(ROUNDINGS * (spread + unit * np.sqrt(max(terms, 1)) * size))


def worst_gap(analytic: Array, numeric: Array, bar: Array) -> Gap:
    """The entry whose difference is the most error bars; both finite and equal, or both the same infinity, is 0."""
    if analytic.size == 0:
        return Gap(index=-1, analytic=0.0, numeric=0.0, error=0.0, scale=0.0, resolution=float("nan"))
    with np.errstate(all="ignore"):
        difference = np.abs(analytic - numeric)
        if np.isnan(difference).any():
            same = (analytic == numeric) | (np.isnan(analytic) & np.isnan(numeric))
            difference[np.isnan(difference)] = np.inf
            difference[same] = 0.0
        bars = np.maximum(bar, np.finfo(np.float64).tiny)
        ratio = np.divide(difference, bars, out=np.zeros_like(difference), where=difference != 0)
    i = int(np.argmax(ratio)) if ratio.any() else int(np.argmax(np.isfinite(numeric)))
    finite = np.isfinite(numeric)
    size = norm(numeric[finite])
    scale = max(abs(float(analytic[i])), abs(float(numeric[i]))) if np.isfinite(difference[i]) else size
    resolution = 3 * norm(bar[finite]) / size if size else float("nan")
    return Gap(
        index=i,
        analytic=float(analytic[i]),
        numeric=float(numeric[i]),
        error=float(bar[i]),
        scale=scale,
        resolution=resolution,
    )


def units_apart(a: Array, b: Array, *, unit: float, least: float) -> float:
    """The largest distance of two results, [n], in units in the last place of a dtype; infinite if one is not finite.

    `unit`: its unit roundoff; `least`: its smallest number above zero, the last place of all that is subnormal.
    """
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    x, y = a[~same], b[~same]
    if not (np.isfinite(x) & np.isfinite(y)).all():
        return float("inf")
    _, exponents = np.frexp(np.maximum(np.abs(x), np.abs(y)))
    return float(np.max(np.abs(x - y) / np.maximum(np.ldexp(unit, exponents), least)))


def through_float32(a: Array) -> bool:
    """Whether every entry is representable in float32: the sign of a result that went through it."""
    nonzero = a[(a != 0) & np.isfinite(a)]
    with np.errstate(all="ignore"):
        return nonzero.size > 2 and bool(np.all(nonzero.astype(np.float32).astype(np.float64) == nonzero))
