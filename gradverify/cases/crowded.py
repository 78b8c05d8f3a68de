"""Values that lie closer together than to zero, so that what is wanted of them is left of a cancellation."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from gradverify.cases.regimes import INTERVALS, highest, lowest
from gradverify.records.spec import Domain

REACH = 3.0
"""Normal numbers are cut there, in units of what the values spread by."""

STEP = 4
"""Powers of two between one ratio and the next one below it."""

SHIFTED = {f"shifted 2^{k}": k for k in range(1, 13)}
"""2^k + n, n normal: far from zero, as sums of squares and exponentials see it."""

CLOSE = {f"close 2^-{k}": k for k in range(1, 13)}
"""b (1 + n / 2^k) with one b of ordinary size for all arguments: near each other, as differences see it."""

CROWDED = {**SHIFTED, **CLOSE}
"""Name -> the power of two by which values are larger than their spread."""


def powers(dtype: str) -> tuple[int, ...]:
    """The powers to try in a dtype: up to u^-1/2, where squares of the values have no digit of their spread left."""
    unit = torch.finfo(getattr(torch, dtype)).eps / 2
    most = int(-math.log2(unit) / 2)
    return tuple(range(most, 1, -STEP))[::-1]


@lru_cache(maxsize=256)
def crowded(domain: Domain, dtype: str) -> tuple[str, ...]:
    """The names that a domain can do in a dtype."""
    if domain.kind not in INTERVALS or domain.avoid_ties:
        return ()
    wanted = powers(dtype)
    shifted = [name for name, k in SHIFTED.items() if k in wanted and _side(domain, 2.0**k)]
    close = [name for name, k in CLOSE.items() if k in wanted and _narrower(domain, k)]
    return (*shifted, *close)


def crowd(name: str, noise: Tensor, domain: Domain, *, base: float) -> Tensor:
    """Values of that name, from normal numbers and a number of [0, 1) that all arguments share."""
    noise = noise.clamp(-REACH, REACH)
    if name in SHIFTED:
        size = 2.0 ** SHIFTED[name]
        return _side(domain, size) * (size + noise)
    return _centre(domain, base) * (1 + noise / 2.0 ** CLOSE[name])


def _side(domain: Domain, size: float) -> float:
    """1 or -1, the sign with which all of size +- REACH lies inside; 0 where neither has."""
    for side in (1.0, -1.0):
        near, far = side * (size - REACH), side * (size + REACH)
        if all(lowest(domain) <= v <= highest(domain) for v in (near, far)):
            return side
    return 0.0


def _narrower(domain: Domain, k: int) -> bool:
    """Whether the values lie closer together than what is drawn anyway, wherever their centre is."""
    lo, hi = _one_side(domain)
    widest = max(abs(_centre(domain, base)) for base in (0.0, 1.0)) / 2.0**k
    return 4 * REACH * widest <= hi - lo


def _centre(domain: Domain, base: float) -> float:
    """A number in the middle half of the interval on one side of zero; of size 3/4 to 7/4 where that has no end."""
    lo, hi = _one_side(domain)
    if math.isinf(hi):
        return lo + (0.75 + base) * (lo or 1.0)
    if math.isinf(lo):
        return hi + (0.75 + base) * (hi or -1.0)
    return lo + (0.25 + 0.5 * base) * (hi - lo)


def _one_side(domain: Domain) -> tuple[float, float]:
    """The domain, or the wider part of it where it has zero inside, the positive one of two alike."""
    lo, hi = lowest(domain), highest(domain)
    if not lo < 0 < hi:
        return lo, hi
    return (0.0, hi) if hi >= -lo else (lo, 0.0)
