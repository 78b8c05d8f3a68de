"""PRECISION: values and gradients in a dtype are as good as that dtype allows, entry by entry and on average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec

from gradverify.autodiff.rounded import in_float64
from gradverify.autodiff.settings import has_tf32, tf32
from gradverify.cases.crowded import CROWDED
from gradverify.checks import averages, budgeted, gradient, lengths, lines, ranges
from gradverify.checks.lengths import Growth
from gradverify.checks.subject import at
from gradverify.checks.wide import FINE, Compared, NoTruth, Sides, compared, over, quantity
from gradverify.errors import CannotJudgeError, NotApplicableError
from gradverify.numerics.noise import float32_is_tf32
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Hold every output and gradient in the dtype of the case against its float64 truth at the same inputs.

    Where nothing runs in float64, what can be said without a truth. Raises NotApplicableError in float64, and for ops
    that draw random numbers.
    """
    if case.dtype == FINE:
        raise NotApplicableError("float64 is what the others are held against")
    if spec.stochastic:
        raise NotApplicableError("it draws random numbers, which are others in another dtype")
    if case.dtype == "float32" and has_tf32(case.device):
        yield from _with_and_without_tf32(spec, case)
    else:
        yield from _checked(spec, case)


def _with_and_without_tf32(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Float32 is float32 where tf32 is not allowed; where it is, the plain computation takes it, too."""
    with tf32(allowed=True), float32_is_tf32():
        there = list(_checked(spec, case))
    widths = [e.resolution for e in there if "budget" in e.facts and math.isfinite(e.resolution)]
    within: dict[str, Fact] = {"tf32": f"with tf32 allowed within {max(widths):.0e}"} if widths else {}
    with tf32(allowed=False):
        here = list(_checked(spec, case))
    yield from (msgspec.structs.replace(e, facts={**e.facts, **within}) for e in here)
    # The budget of the result is that of float32.
    for e in there:
        yield msgspec.structs.replace(e, resolution=math.nan, facts={"phase": "with tf32 allowed", **e.facts})


def _checked(spec: Spec, case: Case) -> Iterator[Evidence]:
    sides = Sides.of(spec)
    subject = at(spec, case)
    try:
        here = compared(sides, subject)
    except NoTruth as why:
        if _crowded(case):
            raise CannotJudgeError("along a line of them, nothing but their rounding moves") from why
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
    if _crowded(case):
        yield from _cancelled(here)
        return
    growths = lengths.growths(sides, case)
    noted = {**_steepest(growths), **ranges.noted(here)}
    for e, name in _measured(here):
        adds_up = [str(g) for g in growths if g.name == name and g.adds_up and over(e)]
        said = "; ".join([*([str(e.facts["said"])] if "said" in e.facts else []), *adds_up])
        yield msgspec.structs.replace(e, facts={**e.facts, **noted, **({"said": said} if said else {})})


def _crowded(case: Case) -> bool:
    return any(word in CROWDED for _, word in case.values)


def _cancelled(here: Compared) -> Iterator[Evidence]:
    """Entry by entry, where most digits of the inputs cancel: that the budget is wide there is no news of the op."""
    for e, *_ in budgeted.check(here):
        told = over(e) or not e.resolution < 1
        yield msgspec.structs.replace(
            e, resolution=e.resolution if told else math.nan, facts={**e.facts, "common": math.nan}
        )


def _steepest(growths: Sequence[Growth]) -> dict[str, Fact]:
    return {"growth": str(growths[-1]), "exponent": growths[-1].exponent} if growths else {}


def _measured(here: Compared) -> Iterator[tuple[Evidence, str]]:
    """Entry by entry, on average, and far down and far up in the range of the dtype; each with its quantity."""
    # Given data are one point, whose roundings are what they are.
    case = here.subject.case
    averaged = [] if case.data is not None else list(averages.check(here.sides, case))
    common = {str(e.facts["of"]): e.resolution for e in averaged if e.facts["kind"] == "bias"}
    found = list(budgeted.check(here))
    for e, name, _ in found:
        yield msgspec.structs.replace(e, facts={**e.facts, "common": common.get(name, math.nan)}), name
    yield from ((e, str(e.facts["of"])) for e in averaged)
    if not any(over(e) for e, *_ in found):
        yield from ranges.check(here, {name: b for _, name, b in found})


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


def _misshapen(here: Compared) -> Iterator[Evidence]:
    """What is promised in another shape, or not returned."""
    for name, t in here.truth.items():
        got = here.got.get(name)
        if got is None or got.shape != t.shape:
            found = "none" if got is None else str(list(got.shape))
            yield here.subject.count(quantity(name), 1, kind="shape", found=found, wanted=str(list(t.shape)))
