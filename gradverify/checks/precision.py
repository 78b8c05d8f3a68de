"""PRECISION: values and gradients in a dtype are as good as that dtype allows, entry by entry and on average."""

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
from gradverify.checks import averages, gradient, lines
from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import at, scatter
from gradverify.checks.wide import FINE, Compared, NoTruth, Results, Sides, compared, over, quantity
from gradverify.errors import NotApplicableError
from gradverify.numerics.budget import Budget, budget
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

NEIGHBOURS = 3
"""Points beside the point itself at which a plain computation is held against the truth."""

AGAIN = 16
"""Neighbours for what is over its budget: whatever one rounding turns (a mask, a maximum) shows among them."""


FAR = 2.0
"""So many times over the budget is no luck."""

OTHERS = 2
"""Points at which an entry that is a little over its budget is looked for again: one in thousands is so by luck."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Hold every output and gradient in the dtype of the case against its float64 truth at the same inputs.

    Where nothing runs in float64, what can be said without a truth. Raises NotApplicableError in float64, and for ops
    that draw random numbers.
    """
    if case.dtype == FINE:
        raise NotApplicableError("float64 is what the others are held against")
    if spec.stochastic:
        raise NotApplicableError("it draws random numbers, which are others in another dtype")
    sides = Sides.of(spec)
    subject = at(spec, case)
    try:
        here = compared(sides, subject)
    except NoTruth:
        yield from lines.check(spec, case)
        return
    doubt = _doubted(here)
    if doubt is not None:
        yield doubt
        return
    odd = list(_misshapen(here))
    yield from odd
    if odd:
        return
    # Given data are one point, whose roundings are what they are.
    averaged = [] if case.data is not None else list(averages.check(sides, case))
    common = {str(e.facts["of"]): e.resolution for e in averaged if e.facts["kind"] == "bias"}
    for e, name in _entries(here):
        yield msgspec.structs.replace(e, facts={**e.facts, "common": common.get(name, math.nan)})
    yield from averaged


def _doubted(here: Compared) -> Evidence | None:
    """Evidence that the truth's own gradient is wrong, as differences of it in float64 see it; None where it is not."""
    wide = here.widened().subject
    if wide.spec.contract.kind == "vjp" or not wide.point.differentiate:
        return None
    function, truth = here.sides.promising(wide), "central differences of the truth"
    with in_float64():
        tape = replace(wide, call=function).record()
        found = list(gradient.differences(wide, function, tape, claimed=function, truth=truth))
    for e in found:
        gap = abs(e.analytic - e.numeric.value)
        if e.interval is None and e.confirmed and gap > max(3 * e.numeric.error, here.subject.unit * e.scale):
            return msgspec.structs.replace(e, case=here.subject.case, facts={**e.facts, "kind": "reference"})
    return None


# Entry by entry.


def _misshapen(here: Compared) -> Iterator[Evidence]:
    """What is promised in another shape, or not returned."""
    for name, t in here.truth.items():
        got = here.got.get(name)
        if got is None or got.shape != t.shape:
            found = "none" if got is None else str(list(got.shape))
            yield here.subject.count(quantity(name), 1, kind="shape", found=found, wanted=str(list(t.shape)))


def _entries(here: Compared) -> Iterator[tuple[Evidence, str]]:
    """Each entry beside its own budget; what is over it, beside one from more neighbours, and at other points."""
    noise = _noise(here)
    for name, own in _budgets(here, NEIGHBOURS).items():
        b = replace(own, bar=own.bar + noise[name]) if name in noise else own
        e = _compared(here, name, b)
        if over(e):
            e = _again(here, name, e, b)
        yield e, name


def _noise(here: Compared) -> dict[str, Array]:
    """How far entries lie apart between calls that are alike, at least what half of them do; where it is declared."""
    if not here.sides.narrow.nondeterministic:
        return {}
    again = [here.recalled() for _ in range(NEIGHBOURS)]
    return {n: scatter(flat(here.got[n]), [flat(a[n]) for a in again]) for n in here.truth}


def _again(here: Compared, name: str, e: Evidence, b: Budget) -> Evidence:
    """What is over its budget, or nearly within it by luck: a wrong entry is so at other points, too."""
    more = _budgets(here, AGAIN)[name]
    again = _compared(here, name, replace(more, bar=np.maximum(b.bar, more.bar)))
    if over(again) and (over(again, times=FAR) or here.subject.case.data is not None or _elsewhere(here, name)):
        return again
    return msgspec.structs.replace(e, facts={**e.facts, "kink": True})


def _elsewhere(here: Compared, name: str) -> bool:
    """Whether some entry of a quantity is over its budget at one of two other points."""
    case = here.subject.case
    for k in range(1, OTHERS + 1):
        there = compared(here.sides, at(here.sides.narrow, msgspec.structs.replace(case, seed=case.seed + k)))
        if over(_compared(there, name, _budgets(there, AGAIN)[name])):
            return True
    return False


def _compared(here: Compared, name: str, b: Budget) -> Evidence:
    got, want = here.got[name], here.truth[name].clone()
    beyond = torch.from_numpy(_beyond(here, name, b).reshape(want.shape)) if not want.is_complex() else None
    bar = b.bar
    if beyond is not None and bool(beyond.any()):
        want = torch.where(beyond.to(want.device), got.to(want), want)
        bar = np.where(beyond.numpy().reshape(-1), 0.0, bar)
    e = here.subject.compare(
        quantity(name), name, got, want, bar, kind="over budget", truth=here.sides.word, budget=_said(here, b)
    )
    lost = 0.0 if beyond is None or not beyond.numel() else float(beyond.double().mean())
    return msgspec.structs.replace(e, resolved=1 - lost)


def _beyond(here: Compared, name: str, b: Budget) -> np.typing.NDArray[np.bool_]:
    """Where nothing is promised: the truth lies outside of the dtype's range, or the plain computation leaves it."""
    top = torch.finfo(dtype_named(here.subject.case.dtype)).max
    with np.errstate(all="ignore"):
        return np.asarray(~(np.abs(flat(here.truth[name])) < top) | ~np.isfinite(b.bar))


def _said(here: Compared, b: Budget) -> str:
    """What a budget is made of, each part relative to the whole tensor."""
    dtype = here.subject.case.dtype
    return (
        f"{here.sides.plain_word} in {dtype} is off by {b.plain:.1e}, one rounding is {b.rounding:.1e}, "
        f"one of the inputs makes {b.condition:.1e}"
    )


def _budgets(here: Compared, count: int) -> dict[str, Budget]:
    """The budget of every quantity, from so many neighbours."""
    subject, sides = here.subject, here.sides
    errors = [_errors(sides.plain(subject, here.us), here.truth)]
    errors += [_errors(sides.plain(s, us), sides.truth(s, us)) for s, us in here.near(count, by=8 * subject.unit)]
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
        )
        for name, t in here.truth.items()
    }


def _whole(here: Compared, name: str) -> float:
    """The size of what may have cancelled: of the largest entry, and of <u, y> / x, which has a gradient's units.

    In saturation a gradient is what rounding leaves of that; a rounding of its rounding is zero.
    """
    top = _top(here.truth[name])
    x = here.subject.point.primals.get(name)
    size = 0.0 if x is None or not x.numel() else float(x.double().square().mean().sqrt())
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
