"""PRECISION at the ends of a dtype's range: what is lost to it, the loss scale that helps, and losses on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec
import numpy as np
import torch

from gradverify.cases.materialise import dtype_named
from gradverify.checks.budgeted import AGAIN, FAR, budgets, held
from gradverify.checks.flat import Array, flat
from gradverify.checks.wide import Compared, compared_at, over, quantity
from gradverify.errors import OpError
from gradverify.numerics.budget import Budget
from gradverify.numerics.ranges import Lost, Range, highest, lost, percent
from gradverify.records.evidence import Evidence, Fact

WORTH = 0.01
"""A share of the entries that is worth a word."""

ROOM = {"float16": (2.0**8, 2.0**4)}
"""Dtype -> how far the largest entry is kept from the smallest normal number, and from the largest one."""

AMPLE = (2.0**48, 2.0**48)
"""The same where the range is wide: exponentials that a right backward multiplies by have room, squares have not."""

REMEDY = "compute in float32 inside and round once, or multiply by what is near 1 before what is not"

FLUSHED = 0.5
"""Most of the subnormal numbers that are returned as zero: they are flushed."""


def noted(here: Compared) -> dict[str, Fact]:
    """What the dtype itself loses of the exact gradients, and the loss scale that saves it; and flushing to zero."""
    return {**_losses(here), **_subnormals(here)}


def check(here: Compared, known: Mapping[str, Budget]) -> Iterator[tuple[Evidence, str]]:
    """The gradients once more at cotangents so small, and so large, that these are near the ends of the range.

    A backward is linear, so that the error may grow by the same power of two: what is lost beside it was lost on the
    way. `known`: the budgets at the cotangents as they are. What the plain computation loses, too, is left out.
    """
    if not here.sides.narrow.linear:
        return
    for power in _ends(here):
        try:
            there = compared_at(here, power)
        except OpError:
            continue
        for name, b in known.items():
            if name in here.subject.point.primals:
                yield _end(there, name, replace(b, bar=_bar(there, name, b, power)), power)


def _bar(there: Compared, name: str, b: Budget, power: int) -> Array:
    """The budget times the power, and half of the smallest number; what is subnormal may be flushed to zero."""
    r = _range(there)
    with np.errstate(all="ignore"):
        flushed = np.where(np.abs(flat(there.truth[name])) < r.normal, r.normal, r.least / 2)
        return np.asarray(np.ldexp(b.bar, power) + flushed)


def _end(there: Compared, name: str, b: Budget, power: int) -> tuple[Evidence, str]:
    e = held(there, name, b)
    if over(e):
        more = budgets(there, AGAIN)[name]
        e = held(there, name, replace(more, bar=np.maximum(b.bar, more.bar)))
        e = msgspec.structs.replace(e, facts={**e.facts, "kink": not over(e, times=FAR)})
    cotangents = f"cotangents of 2^{power}"
    way = "underflows" if power < 0 else "overflows"
    top = f"with {cotangents} its largest entry is {_top(there, name):.1e}, which {there.subject.case.dtype} holds"
    facts: dict[str, Fact] = {
        "kind": "range",
        "truth": there.sides.word,
        "phase": cotangents,
        "few": True,
        "said": f"{top}; something {way} on the way",
        "remedy": REMEDY,
    }
    kept = {k: v for k, v in e.facts.items() if k in ("kink", "cause", "float32")}
    return msgspec.structs.replace(e, resolution=float("nan"), facts={**kept, **facts}), name


def _ends(here: Compared) -> tuple[int, ...]:
    """Powers of two that bring the largest entry of a gradient near the smallest normal number, and the largest."""
    tops = [_top(here, n) for n in here.truth if n in here.subject.point.primals]
    largest = max([*tops, *(_size(u) for u in here.us if u is not None)], default=0.0)
    low, high = ROOM.get(here.subject.case.dtype, AMPLE)
    r = _range(here)
    if not tops or max(tops) <= 0 or not 0 < largest < np.inf:
        return ()
    powers = (highest(max(tops), low * r.normal), highest(largest, r.largest / high))
    return tuple(p for p, way in zip(powers, (-1, 1), strict=True) if p * way > 0)


def _losses(here: Compared) -> dict[str, Fact]:
    """The gradient of which the dtype loses the largest share, in words."""
    r = _range(here)
    found = {n: lost(flat(t), r) for n, t in here.truth.items() if n in here.subject.point.primals}
    if not found:
        return {}
    name = max(found, key=lambda n: found[n].share)
    worst = found[name]
    return {"lost": _words(here, name, worst), "lost share": worst.share} if worst.share > WORTH else {}


def _words(here: Compared, name: str, found: Lost) -> str:
    parts = {"rounded to zero": found.under, "too large": found.over}
    shares = " and ".join(f"{percent(share)} {word}" for word, share in parts.items() if share)
    helped = "saves it" if not found.left else f"leaves {percent(found.left)}"
    saves = f"a loss scale of 2^{found.power} {helped}" if found.power else "no loss scale saves it"
    return f"of {quantity(name)} {here.subject.case.dtype} has {shares}; {saves}"


def _subnormals(here: Compared) -> dict[str, Fact]:
    """Whether subnormal numbers come back as zero, by the op alone or by the plain computation, too."""
    r = _range(here)
    top = max((_top(here, n) for n in here.truth if n in here.subject.point.primals), default=0.0)
    if not 0 < top < np.inf or not here.sides.narrow.linear:
        return {}
    power = highest(top, r.normal / 2)
    try:
        there = compared_at(here, power)
    except OpError:
        return {}
    # A machine that flushes makes zeros of the cotangents already.
    there = replace(there, truth={n: t * 2.0**power for n, t in here.truth.items()})
    if not _flushes(there, r):
        return {}
    plain = replace(there, got=here.sides.plain(there.subject, there.us))
    if _flushes(plain, r) and not _machine_flushes(here):
        # A product that is too small on the way, as (u / n) x is for many n.
        return {}
    who = "here, also by plain torch" if _flushes(plain, r) else "by the op, not by plain torch"
    return {"subnormals": f"numbers below {r.normal:.0e} are flushed to zero {who}"}


def _machine_flushes(here: Compared) -> bool:
    """Whether a subnormal number is zero once it was multiplied by one."""
    subject = here.subject
    small = torch.full((1,), _range(here).normal / 2, dtype=torch.float64).to(dtype_named(subject.case.dtype))
    return not bool((small.to(subject.case.device) * 1.0).any())


def _flushes(there: Compared, r: Range) -> bool:
    """Whether most entries that the dtype holds as subnormal numbers are zero."""
    shares = []
    for name in there.subject.point.primals:
        if name in there.truth:
            sizes, got = np.abs(flat(there.truth[name])), flat(there.got[name])
            able = (sizes >= 8 * r.least) & (sizes < r.normal)
            shares += list(got[able] == 0)
    return bool(shares) and float(np.mean(shares)) > FLUSHED


def _range(here: Compared) -> Range:
    f = torch.finfo(dtype_named(here.subject.case.dtype))
    return Range(largest=f.max, normal=f.smallest_normal, least=f.smallest_normal * f.eps)


def _top(here: Compared, name: str) -> float:
    return _size(here.truth[name])


def _size(t: torch.Tensor) -> float:
    sizes = np.abs(flat(t))
    return float(np.max(sizes[np.isfinite(sizes)], initial=0.0))
