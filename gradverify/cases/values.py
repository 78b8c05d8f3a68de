"""The numbers of a regime, drawn inside a domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from gradverify.cases.crowded import CROWDED, crowd
from gradverify.cases.regimes import (
    EXTREME,
    MASKED,
    OVERFLOW,
    OWN,
    SATURATED,
    SCALED,
    SHIFT,
    highest,
    inside,
    lowest,
    margin,
)
from gradverify.records.spec import Domain

F64 = torch.float64

SIZES = {**SCALED, **EXTREME}

GAP = 0.05
"""Least distance between two entries under `avoid_ties`, for entries of size 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a regime is filled from.

    Shape, generator, domain; for `index` the size, for `prob` the axis, for `parameter` the values of the module.
    `base`: a number of [0, 1) that all arguments of a case share.
    """

    shape: tuple[int, ...]
    generator: Generator
    domain: Domain
    size: int = 1
    axis: int = -1
    dtype: str = "float64"
    own: Tensor | None = None
    base: float = 0.0

    def normal(self) -> Tensor:
        """Standard normal numbers, float64 on the CPU."""
        return torch.randn(self.shape, generator=self.generator, dtype=F64)

    def uniform(self, lo: float, hi: float) -> Tensor:
        """Uniform numbers of [lo, hi)."""
        return lo + (hi - lo) * torch.rand(self.shape, generator=self.generator, dtype=F64)

    def integer(self, lo: int, hi: int) -> Tensor:
        """Integers lo to hi inclusive, as float64."""
        return torch.randint(lo, max(hi, lo) + 1, self.shape, generator=self.generator).to(F64)

    def pick(self, *values: float) -> Tensor:
        """Each entry one of these values."""
        return torch.tensor(values, dtype=F64)[self.integer(0, len(values) - 1).long()]

    def ramp(self) -> Tensor:
        """1/n, 2/n, ... 1 in row-major order."""
        n = math.prod(self.shape)
        return (torch.arange(1, n + 1, dtype=F64) / max(n, 1)).reshape(self.shape)


def fill(regime: str, draw: Draw) -> Tensor:
    """Values of a regime inside the domain, float64 on the CPU.

    Raises KeyError for a regime that the domain does not offer.
    """
    if regime in _ARRANGED:
        return _ARRANGED[regime](fill("normal", draw))
    kind = draw.domain.kind
    if kind not in ("real", "positive"):
        return _SPECIAL[kind][regime](draw)
    if regime in CROWDED:
        return _away(crowd(regime, draw.normal(), draw.domain, base=draw.base), draw.domain)
    values = _scaled(regime, draw) if regime in SIZES else _REAL[regime](draw)
    if draw.domain.avoid_ties:
        values = _apart(values, scale=SIZES.get(regime, 1.0))
    return _away(_fit(values, regime, draw), draw.domain)


def _scaled(regime: str, draw: Draw) -> Tensor:
    return _normal(draw) * SIZES[regime]


def _normal(draw: Draw) -> Tensor:
    # Log-normal where only positive numbers are: no entry is so small that it is a case of its own.
    return (0.5 * draw.normal()).exp() if draw.domain.kind == "positive" else draw.normal()


def _saturated(draw: Draw) -> Tensor:
    return _signed(draw, draw.uniform(*SATURATED))


def _overflow(draw: Draw) -> Tensor:
    return _signed(draw, draw.uniform(*OVERFLOW[draw.dtype]))


def _signed(draw: Draw, size: Tensor) -> Tensor:
    sides = [s for s, able in ((1.0, highest(draw.domain) > 0), (-1.0, lowest(draw.domain) < 0)) if able]
    return size * draw.pick(*sides)


def _bounds(draw: Draw) -> Tensor:
    domain = draw.domain
    ends = [b for b in (domain.lo, domain.hi) if b is not None and not (domain.kind == "positive" and b <= 0)]
    points = ends or [v for v in (0.0, 1.0, -1.0) if inside(domain, v)] or [2.0]
    inner = _fit(_normal(draw), "normal", draw)
    return torch.where(draw.pick(0, 1) > 0, draw.pick(*points), inner)


def _zeros(draw: Draw) -> Tensor:
    # All of them in one draw of four, else about half.
    keep = (
        draw.pick(0.0, 1.0)
        if float(torch.rand((), generator=draw.generator)) > 0.25
        else torch.zeros(draw.shape, dtype=F64)
    )
    return _normal(draw) * keep


def _ties(draw: Draw) -> Tensor:
    return draw.pick(0.5, 1.5, 2.0) if draw.domain.kind == "positive" else draw.pick(-1.0, 0.5, 2.0)


def _decimals(draw: Draw) -> Tensor:
    if draw.domain.kind == "positive":
        return draw.integer(1, 300) / 100
    return draw.integer(-300, 300) / 100


def _fit(values: Tensor, regime: str, draw: Draw) -> Tensor:
    """Values into the bounds: what lies in them stays, unless many lie outside, then all are mapped onto them."""
    lo, hi = lowest(draw.domain), highest(draw.domain)
    if values.numel() == 0 or (bool((values >= lo).all()) and bool((values <= hi).all())):
        return values
    if regime in ("bounds", "zeros", "saturated", "overflow"):
        return values.clamp(lo, hi)
    # A scale is offered only where each bound is 0 or far: a reflection at 0 keeps it.
    if math.isinf(lo) or math.isinf(hi) or regime in SIZES:
        return _reflected(values, lo, hi, distinct=draw.domain.avoid_ties)
    mapped = lo + (hi - lo) * _unit(values)
    short = ((mapped * 100).round() / 100).clamp(lo if lo else min(0.01, hi), hi)
    return short if regime in ("decimals", "ones") and not draw.domain.avoid_ties else mapped


def _reflected(values: Tensor, lo: float, hi: float, *, distinct: bool) -> Tensor:
    """Values on the right side of the bound that they crossed; shifted instead where a reflection might make ties."""
    if distinct:
        room = (values.max() - values.min() + GAP * values.abs().max()) / max(values.numel(), 1)
        return values - values.min() + lo + room if bool((values < lo).any()) else values - values.max() + hi - room
    return lo + (values - lo).abs() if bool((values < lo).any()) else hi - (values - hi).abs()


def _unit(values: Tensor) -> Tensor:
    """A monotone map of the reals into (0, 1), steep enough to use all of it."""
    unit: Tensor = torch.special.ndtr(values.clamp(-3.0, 3.0))
    return unit


def _apart(values: Tensor, *, scale: float) -> Tensor:
    """Values in the same order with gaps of GAP between neighbours, equal ones in any order."""
    order = values.reshape(-1).argsort(stable=True).argsort().to(F64)
    # Bounded domains map (-3, 3) onto themselves: many entries share that room.
    room = min(GAP, 4.0 / max(values.numel(), 1))
    return values.clamp(-3 * scale, 3 * scale) * 0.25 + (room * scale * (order - values.numel() / 2)).reshape(
        values.shape
    )


def _away(values: Tensor, domain: Domain) -> Tensor:
    """Values within the margin of a point to avoid, moved off it: to their own side, or to that inside the bounds."""
    lo, hi = lowest(domain), highest(domain)
    for point in domain.avoid:
        width = margin(domain, point)
        gap = values - point
        side = torch.where(gap < 0, -1.0, 1.0)
        side = torch.where(point + 2 * width * side > hi, -1.0, torch.where(point + 2 * width * side < lo, 1.0, side))
        values = torch.where(gap.abs() < width, point + side * (width + gap.abs()), values)
    return values


def _softmax(draw: Draw, sharpness: float) -> Tensor:
    return torch.softmax(sharpness * draw.normal(), draw.axis) if draw.shape else torch.ones((), dtype=F64)


def _spd(draw: Draw, noise: float) -> Tensor:
    n = draw.shape[-1]
    root = draw.normal()
    return torch.eye(n, dtype=F64).expand(draw.shape) + noise * (root @ root.mT) / max(n, 1)


def _limits(draw: Draw) -> tuple[int, int]:
    domain = draw.domain
    if domain.kind == "index":
        return 0, max(draw.size - 1, 0)
    # Where nothing is said, 0 and 1: an integer that is an index in truth rarely points outside with them.
    lo = 0 if domain.lo is None else math.ceil(domain.lo)
    return lo, lo + 1 if domain.hi is None else math.floor(domain.hi)


def _constant(draw: Draw, value: float) -> Tensor:
    lo, hi = _limits(draw)
    return torch.full(draw.shape, min(max(value, lo), hi), dtype=F64)


def _masked(draw: Draw) -> Tensor:
    """The first row along the last axis all False, the last of several all True, the others as they come."""
    out = draw.pick(0.0, 1.0)
    if out.ndim and out.numel():
        rows = out.reshape(-1, out.shape[-1])
        rows[-1], rows[0] = 1.0, 0.0
    return out


def _onehot(draw: Draw) -> Tensor:
    """Along the last axis (of a simplex along its own) one 1, the others 0."""
    axis = draw.axis if draw.shape else 0
    top = draw.normal()
    return (top == top.amax(axis, keepdim=True)).to(F64) if top.numel() else top


def _excluded(kept: Tensor) -> Tensor:
    """0 where an entry is kept, -inf where it is not."""
    return torch.zeros_like(kept).masked_fill(kept == 0, -math.inf)


def _constant_rows(values: Tensor) -> Tensor:
    return values[..., :1].expand(values.shape).clone() if values.ndim else values


def _sorted(values: Tensor, *, descending: bool) -> Tensor:
    return values.sort(-1, descending=descending).values if values.ndim else values


def _integer_ramp(draw: Draw) -> Tensor:
    lo, hi = _limits(draw)
    return (lo + torch.arange(math.prod(draw.shape)) % (hi - lo + 1)).reshape(draw.shape).to(F64)


Regime = Callable[[Draw], Tensor]

_ARRANGED: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "constant": _constant_rows,
        "sorted": lambda v: _sorted(v, descending=False),
        "reversed": lambda v: _sorted(v, descending=True),
    }
)
"""Ordinary numbers, arranged along the last axis."""

_REAL: Mapping[str, Regime] = MappingProxyType(
    {
        "ones": lambda d: torch.ones(d.shape, dtype=F64),
        "decimals": _decimals,
        "ramp": Draw.ramp,
        "normal": _normal,
        "zeros": _zeros,
        "ties": _ties,
        "bounds": _bounds,
        "saturated": _saturated,
        "shifted": lambda d: _normal(d) + SHIFT,
        "overflow": _overflow,
        "minus zeros": lambda d: torch.full(d.shape, -0.0, dtype=F64),
        "onehot": _onehot,
    }
)
_INTEGER: Mapping[str, Regime] = MappingProxyType(
    {
        "ones": lambda d: _constant(d, 1.0),
        "ramp": _integer_ramp,
        "normal": lambda d: d.integer(*_limits(d)),
        "zeros": lambda d: _constant(d, 0.0),
        "bounds": lambda d: d.pick(*_limits(d)),
        "lowest": lambda d: torch.full(d.shape, float(_limits(d)[0]), dtype=F64),
        "highest": lambda d: torch.full(d.shape, float(_limits(d)[1]), dtype=F64),
    }
)


def _held(draw: Draw) -> Tensor:
    assert draw.own is not None
    return draw.own.detach().to("cpu", F64)


def _near_own(draw: Draw) -> Tensor:
    """Each parameter times a factor of its own: signs stay, ones are no longer alike, zeros become small numbers."""
    own = _held(draw)
    size = own.square().mean().sqrt() if own.any() else torch.tensor(1.0)
    return torch.where(own == 0, 0.5 * size * draw.normal(), own * draw.uniform(0.5, 1.5))


_SPECIAL: Mapping[str, Mapping[str, Regime]] = MappingProxyType(
    {
        "index": _INTEGER,
        "integers": _INTEGER,
        "boolean": {
            "ones": lambda d: torch.ones(d.shape, dtype=F64),
            "normal": lambda d: d.pick(0.0, 1.0),
            "zeros": lambda d: torch.zeros(d.shape, dtype=F64),
            MASKED: _masked,
            "onehot": _onehot,
        },
        "additive_mask": {
            "normal": lambda d: _excluded(torch.maximum(d.pick(0.0, 1.0), _onehot(d))),
            "zeros": lambda d: torch.zeros(d.shape, dtype=F64),
            MASKED: lambda d: _excluded(_masked(d)),
            "onehot": lambda d: _excluded(_onehot(d)),
        },
        "prob": {
            "ones": lambda d: _softmax(d, 0.0),
            "normal": lambda d: _softmax(d, 1.0),
            "saturated": lambda d: _softmax(d, 8.0),
            "onehot": _onehot,
        },
        "spd": {"ones": lambda d: _spd(d, 0.0), "normal": lambda d: _spd(d, 1.0)},
        "parameter": {OWN: _held, "normal": _near_own},
    }
)
