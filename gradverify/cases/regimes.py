"""Which regimes of values a domain can do: the numbers in an argument are ordinary, or special in one way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import torch

from gradverify.records.spec import Domain

POWERS = tuple(p for p in range(-6, 7) if p)
SCALED = {f"scaled 1e{p:+d}": 10.0**p for p in POWERS}
SHIFT = 1e3
SATURATED = (20.0, 100.0)

REPEATED = "repeated"
"""Constant along the axis that the layout `expanded` gives stride 0; drawn together with that layout only."""

ABSENT = "none"
"""An optional argument is None."""

MARGIN = 0.05
"""Distance kept from a point to avoid, relative to max(1, |point|): more than the first steps of differences (2^-9)."""

COMMON = {
    "ones": 1,
    "decimals": 3,
    "ramp": 2,
    "normal": 16,
    "zeros": 1,
    "ties": 1,
    "bounds": 1,
    "saturated": 1,
    "shifted": 1,
}
"""How often each regime is offered, the simplest first; each scale is offered once."""

_INTEGER = frozenset({"ones", "ramp", "normal", "zeros", "bounds"})
_KINDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "index": _INTEGER,
        "integers": _INTEGER,
        "boolean": frozenset({"ones", "normal", "zeros"}),
        "prob": frozenset({"ones", "normal", "saturated"}),
        "spd": frozenset({"ones", "normal"}),
    }
)
"""Of the domains that are no interval: what each can do."""


@lru_cache(maxsize=256)
def regimes(domain: Domain, dtype: str) -> tuple[str, ...]:
    """Names of the regimes that a domain can do in a floating dtype; the simplest first, common ones repeated."""
    offered = [name for name, times in COMMON.items() if _offers(domain, name) for _ in range(times)]
    return (*offered, *(name for name in SCALED if _offers_scale(domain, SCALED[name], dtype)))


@lru_cache(maxsize=256)
def tame(domain: Domain, *, scaled: bool = False, dtype: str = "float64") -> tuple[str, ...]:
    """The regimes that trouble no op: short decimals and normal numbers; and the scales where these are asked for."""
    wanted = {"decimals": 1, "normal": 4}
    offered = [name for name, times in wanted.items() if _offers(domain, name) for _ in range(times)]
    return (*offered, *(n for n in SCALED if scaled and _offers_scale(domain, SCALED[n], dtype)))


def _offers(domain: Domain, name: str) -> bool:
    if name == "normal":
        return True
    if domain.kind not in ("real", "positive"):
        return name in _KINDS[domain.kind]
    if domain.avoid_ties and name != "ramp":
        return False
    match name:
        case "zeros":
            return inside(domain, 0.0)
        case "ones":
            return inside(domain, 1.0)
        case "saturated":
            return _reaches(domain, SATURATED[1])
        case "shifted":
            return domain.hi is None or domain.hi > SHIFT + 10
        case "decimals":
            return _span(domain) > 0.5
        case _:
            return True


def _offers_scale(domain: Domain, scale: float, dtype: str) -> bool:
    if domain.kind not in ("real", "positive") or (0.0 in domain.avoid and scale < 1):
        return False
    limits = torch.finfo(getattr(torch, dtype))
    representable = limits.smallest_normal * 100 < scale < limits.max / 100
    sides = [b for b in (domain.lo, domain.hi) if b is not None]
    return representable and all(b == 0.0 or abs(b) >= 10 * scale for b in sides) and _wide(domain)


def _wide(domain: Domain) -> bool:
    return (domain.lo is None or domain.lo <= 0) and (domain.hi is None or domain.hi >= 0)


def _reaches(domain: Domain, size: float) -> bool:
    return (
        domain.hi is None or domain.hi >= size or (domain.kind == "real" and (domain.lo is None or domain.lo <= -size))
    )


def lowest(domain: Domain) -> float:
    """The lower bound, minus infinity where there is none; 0, which is not taken, of positive numbers."""
    if domain.kind == "positive":
        return max(domain.lo or 0.0, 0.0)
    return -math.inf if domain.lo is None else domain.lo


def highest(domain: Domain) -> float:
    """The upper bound, infinity where there is none."""
    return math.inf if domain.hi is None else domain.hi


def _span(domain: Domain) -> float:
    return highest(domain) - lowest(domain)


def inside(domain: Domain, value: float) -> bool:
    """Whether a domain allows a value."""
    if domain.kind == "positive" and value <= 0:
        return False
    lo, hi = (-math.inf if domain.lo is None else domain.lo), highest(domain)
    return lo <= value <= hi and all(abs(value - p) >= margin(domain, p) for p in domain.avoid)


def margin(domain: Domain, point: float) -> float:
    """The distance to keep from a point to avoid: MARGIN, or a quarter of the way to the next point or bound."""
    others = [abs(point - p) for p in (*domain.avoid, domain.lo, domain.hi) if p is not None and p != point]
    return min([MARGIN * max(1.0, abs(point)), *(d / 4 for d in others)])
