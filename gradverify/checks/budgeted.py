"""PRECISION entry by entry: each beside the budget that is derived for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff.rounded import in_float64
from gradverify.cases.materialise import dtype_named
from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import at, scatter
from gradverify.checks.wide import Compared, Results, compared, over, quantity
from gradverify.errors import OpError
from gradverify.numerics.budget import Budget, budget
from gradverify.numerics.ranges import percent
from gradverify.records.evidence import Evidence

NEIGHBOURS = 3
"""Points beside the point itself at which a plain computation is held against the truth."""

AGAIN = 16
"""Neighbours for what is over its budget: whatever one rounding turns (a mask, a maximum) shows among them."""

REPEATS = 3
"""Calls beside the first one, of what is declared to differ from call to call."""

FAR = 2.0
"""So many times over the budget is no luck."""

NEARER = 2.0**-10
"""An op with a wrong formula is as wrong in float64."""

DIGITS = {"digits lost": True, "said": "in float64 the op is right at the same numbers: its digits are lost on the way"}

OTHERS = 2
"""Points at which an entry that is a little over its budget is looked for again: one in thousands is so by luck."""


def check(here: Compared) -> Iterator[tuple[Evidence, str, Budget]]:
    """Each entry beside its own budget; what is over it, beside one from more neighbours, and at other points."""
    for name, b in budgets(here, NEIGHBOURS).items():
        e = held(here, name, b)
        if over(e):
            e = _again(here, name, e, b)
        yield e, name, b


def _noise(here: Compared) -> dict[str, Array]:
    """How far entries lie apart between calls that are alike, at least what half of them do; where it is declared."""
    if not here.sides.narrow.nondeterministic:
        return {}
    again = [here.recalled() for _ in range(REPEATS)]
    return {n: scatter(flat(here.got[n]), [flat(a[n]) for a in again]) for n in here.truth}


def _again(here: Compared, name: str, e: Evidence, b: Budget) -> Evidence:
    """What is over its budget, or nearly within it by luck: a wrong entry is so at other points, too."""
    more = budgets(here, AGAIN)[name]
    again = held(here, name, replace(more, bar=np.maximum(b.bar, more.bar)))
    if over(again) and (over(again, times=FAR) or here.subject.case.data is not None or _elsewhere(here, name)):
        right = here.sides.narrow.reference is not None and _right_in_float64(here, name)
        return msgspec.structs.replace(again, facts={**again.facts, **(DIGITS if right else {})})
    return msgspec.structs.replace(e, facts={**e.facts, "kink": True})


def _right_in_float64(here: Compared, name: str) -> bool:
    """Whether the op, called in float64 at the same numbers, is nearer to the truth by a thousand times and more."""
    wide = here.widened()
    try:
        with in_float64():
            fine = wide.recalled().get(name)
    except OpError:
        return False
    t = here.truth[name]
    if fine is None or fine.shape != t.shape:
        return False
    gaps = [np.abs(flat(g) - flat(t)) for g in (fine, here.got[name])]
    return bool(np.max(gaps[0], initial=0.0) < NEARER * np.max(gaps[1], initial=0.0))


def _elsewhere(here: Compared, name: str) -> bool:
    """Whether some entry of a quantity is over its budget at one of two other points."""
    case = here.subject.case
    for k in range(1, OTHERS + 1):
        there = compared(here.sides, at(here.sides.narrow, msgspec.structs.replace(case, seed=case.seed + k)))
        if over(held(there, name, budgets(there, AGAIN)[name])):
            return True
    return False


def held(here: Compared, name: str, b: Budget) -> Evidence:
    """A quantity beside its truth; what leaves the range of the dtype is left out."""
    got, want = here.got[name], here.truth[name].clone()
    beyond = torch.from_numpy(_beyond(here, name, b).reshape(want.shape)) if not want.is_complex() else None
    bar = b.bar
    if beyond is not None and bool(beyond.any()):
        want = torch.where(beyond.to(want.device), got.to(want), want)
        bar = np.where(beyond.numpy().reshape(-1), 0.0, bar)
    facts = {"kind": "over budget", "truth": here.sides.word, "budget": _said(here, b)}
    e = here.subject.compare(quantity(name), name, got, want, bar, **facts)
    lost = 0.0 if beyond is None or not beyond.numel() else float(beyond.double().mean())
    cause = {"cause": _cause(here, name, lost)} if lost else {}
    return msgspec.structs.replace(e, resolved=1 - lost, facts={**e.facts, **cause})


def _cause(here: Compared, name: str, share: float) -> str:
    return f"{percent(share)} of {quantity(name)} cannot be told: it leaves the range of {here.subject.case.dtype}"


def _beyond(here: Compared, name: str, b: Budget) -> np.typing.NDArray[np.bool_]:
    """Where nothing is promised: the truth lies outside of the dtype's range, or the plain computation leaves it."""
    top = torch.finfo(dtype_named(here.subject.case.dtype)).max
    with np.errstate(all="ignore"):
        return np.asarray(~(np.abs(flat(here.truth[name])) < top) | ~np.isfinite(b.bar))


def _said(here: Compared, b: Budget) -> str:
    """What a budget is made of, each part relative to the whole tensor."""
    dtype = here.subject.case.dtype
    noise = f", equal calls lie apart by {b.noise:.1e}" if b.noise else ""
    return (
        f"{here.sides.plain_word} in {dtype} is off by {b.plain:.1e}, one rounding is {b.rounding:.1e}, "
        f"one of the inputs makes {b.condition:.1e}{noise}"
    )


def budgets(here: Compared, count: int) -> dict[str, Budget]:
    """The budget of every quantity, from so many neighbours."""
    subject, sides, noise = here.subject, here.sides, _noise(here)
    errors = [_errors(sides.plain(subject, here.us), here.truth)]
    errors += [
        _errors(sides.plain(s, us, draw=k), sides.truth(s, us))
        for k, (s, us) in enumerate(here.near(count, by=8 * subject.unit))
    ]
    moved = [sides.truth(s, us) for s, us in here.widened().near(count, by=subject.unit, draw=AGAIN)]
    rounded = sides.rounded_keywords(subject)
    moved += [] if rounded is None else [sides.truth(rounded, here.us)]
    return {
        name: budget(
            flat(t),
            [flat(m[name]) for m in moved if m[name].shape == t.shape],
            [e[name] for e in errors if name in e],
            unit=subject.unit,
            least=here.least + subject.unit**2 * _whole(here, name),
            order=here.order,
            noise=noise.get(name),
            sizes=_moduli(t) if t.is_complex() else None,
        )
        for name, t in here.truth.items()
    }


def _moduli(t: Tensor) -> Array:
    """|z| for either part of z: a product of complex numbers is right to u |z|, and no part of it to u of its own."""
    return np.tile(flat(t.detach().abs()), 2)


def _whole(here: Compared, name: str) -> float:
    """The size of what may have cancelled: of the largest entry, and of <u, y> / x, which has a gradient's units.

    In saturation a gradient is what rounding leaves of that; a rounding of its rounding is zero.
    """
    top = _top(here.truth[name])
    x = here.subject.point.primals.get(name)
    size = 0.0 if x is None or not x.numel() else float(np.sqrt(np.mean(np.square(flat(x)))))
    product = max((_top(u) for u in here.us if u is not None), default=0.0) * max(
        (_top(t) for n, t in here.truth.items() if n not in here.subject.point.primals), default=0.0
    )
    return top + (product / size if size > 0 and math.isfinite(product / size) else 0.0)


def _top(t: Tensor) -> float:
    sizes = np.abs(flat(t))
    return float(np.max(sizes[np.isfinite(sizes)], initial=0.0))


def _errors(got: Results, truth: Results) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        return {n: flat(got[n]) - flat(t) for n, t in truth.items() if n in got and got[n].shape == t.shape}
