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

INTERVALS = ("real", "positive")
"""The kinds of domains that are an interval of numbers."""

_WIDE, _SINGLE, _HALF = ((30, -30, 150, -150), (300, -300, -310)), ((10, -10, 18, -18), (30, -30, -40)), ((), ())
_EXTREMES = {"float64": _WIDE, "float32": _SINGLE, "bfloat16": _SINGLE, "float16": _HALF}
"""Powers of ten whose squares are finite and no zero in a dtype; and those that are so themselves, or subnormal."""

EXTREME = {f"scaled 1e{p:+d}": 10.0**p for able, held in (_WIDE, _SINGLE) for p in (*able, *held)}
"""Sizes at which some terms of a right formula under- or overflow: only whether a result is finite is asked there."""

MASKED = "masked"
"""Along the last axis nothing is kept in one row, and everything in another."""
SATURATED = (20.0, 100.0)

REPEATED = "repeated"
"""Constant along the axis that the layout `expanded` gives stride 0; drawn together with that layout only."""

OWN = "own"
"""A parameter has exactly the values that its module holds."""

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

SPECIAL = (
    "zeros",
    "minus zeros",
    "ties",
    "bounds",
    "saturated",
    "overflow",
    "shifted",
    "constant",
    "sorted",
    "reversed",
    "onehot",
)
"""What an interval of numbers offers to the claim `special`."""
ORDERED = ("sorted", "reversed")

OVERFLOW = {"float64": (690.0, 709.0), "float32": (84.0, 88.0), "bfloat16": (84.0, 88.0), "float16": (10.0, 11.0)}
"""Numbers whose exponential is finite, and a sum of a few of them hardly."""

_INTEGER = frozenset({"ones", "ramp", "normal", "zeros", "bounds"})
_KINDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "index": _INTEGER,
        "integers": _INTEGER,
        "boolean": frozenset({"ones", "normal", "zeros"}),
        "additive_mask": frozenset({"normal", "zeros"}),
        "prob": frozenset({"ones", "normal", "saturated"}),
        "spd": frozenset({"ones", "normal"}),
        "parameter": frozenset({"normal"}),
    }
)
"""Of the domains that are no interval: what each can do."""
_SPECIAL_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "index": ("zeros", "lowest", "highest", "bounds", *ORDERED),
        "integers": ("zeros", "lowest", "highest", "bounds", *ORDERED),
        "boolean": ("ones", "zeros", MASKED, "onehot"),
        "additive_mask": ("zeros", MASKED, "onehot"),
        "prob": ("ones", "saturated", "onehot"),
        "spd": ("ones",),
        "parameter": (),
    }
)


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


@lru_cache(maxsize=256)
def special(domain: Domain, dtype: str) -> tuple[str, ...]:
    """The regimes of the claim `special` that a domain can do, but for the sizes."""
    if domain.kind in _SPECIAL_KINDS:
        return _SPECIAL_KINDS[domain.kind]
    reaches = _reaches(domain, OVERFLOW[dtype][1])
    return tuple(name for name in SPECIAL if _offers(domain, name) and (name != "overflow" or reaches))


@lru_cache(maxsize=256)
def extreme(domain: Domain, dtype: str, *, referenced: bool) -> tuple[str, ...]:
    """The sizes of EXTREME that a domain and a dtype can do: those whose squares are finite and no zero.

    With a reference, which shows what is finite there, all that the dtype can represent.
    """
    if domain.kind not in INTERVALS:
        return ()
    able, held = _EXTREMES[dtype]
    names = (f"scaled 1e{p:+d}" for p in (*able, *(held if referenced else ())))
    return tuple(n for n in names if _bounds_allow(domain, EXTREME[n]))


def _offers(domain: Domain, name: str) -> bool:
    if name == "normal":
        return True
    if domain.kind not in INTERVALS:
        return name in _KINDS[domain.kind]
    if domain.avoid_ties and name not in ("ramp", *ORDERED):
        return False
    match name:
        case "zeros" | "minus zeros":
            return inside(domain, 0.0)
        case "onehot":
            return inside(domain, 0.0) and inside(domain, 1.0)
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
    limits = torch.finfo(getattr(torch, dtype))
    representable = limits.smallest_normal * 100 < scale < limits.max / 100
    return domain.kind in INTERVALS and representable and _bounds_allow(domain, scale)


def _bounds_allow(domain: Domain, scale: float) -> bool:
    sides = [b for b in (domain.lo, domain.hi) if b is not None]
    near = 0.0 in domain.avoid and scale < 1
    return not near and all(b == 0.0 or abs(b) >= 10 * scale for b in sides) and _wide(domain)


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
