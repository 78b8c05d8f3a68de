"""What of a result leaves the range of a dtype, and the power of two that brings it back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Of a dtype: its largest number, its smallest normal one, and its smallest one above zero."""

    largest: float
    normal: float
    least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Shares of the entries that are not zero.

    `under`: rounded to zero; `over`: beyond the largest number; `power`: multiplied by 2^power most of them are
    normal numbers, and none is too large; `left`: what is rounded to zero then.
    """

    under: float
    over: float
    power: int
    left: float

    @property
    def share(self) -> float:
        """What is lost as it is."""
        return self.under + self.over


def lost(values: Array, r: Range) -> Lost:
    """What a dtype loses of exact values; nothing of those that are not finite, or zero."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not sizes.size:
        return Lost(under=0.0, over=0.0, power=0, left=0.0)
    under, over = _under(sizes, r), float(np.mean(sizes > r.largest))
    power = _power(sizes, r) if under or over else 0
    return Lost(under=under, over=over, power=power, left=_under(np.ldexp(sizes, power), r) if power else under)


def _under(sizes: Array, r: Range) -> float:
    """What lies half way to the smallest number, or below, is rounded to zero."""
    return float(np.mean(sizes <= r.least / 2))


def _power(sizes: Array, r: Range) -> int:
    """The least power that makes as many entries normal as any does which leaves the largest one finite."""
    most = highest(float(sizes.max()), r.largest)
    wanted = np.ceil(np.log2(r.normal) - np.log2(sizes[sizes < r.normal]))
    usable = wanted[wanted <= most]
    return int(usable.max()) if usable.size and usable.max() > 0 else min(most, int(wanted.max()) if wanted.size else 0)


def percent(share: float) -> str:
    """`3 %`, `0.24 %`, `100 %`: two digits of a share."""
    return f"{float(f'{100 * share:.2g}'):g} %"


def highest(size: float, bound: float) -> int:
    """The largest k with 2^k size <= bound. Raises ValueError where size is not positive."""
    return math.floor(math.log2(bound) - math.log2(size))
