"""The gradient of an op held against its truth: finite differences, a verified reference, or a declared formula."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff import calling, products
from gradverify.autodiff.calling import Called
from gradverify.autodiff.frozen import Recorder
from gradverify.autodiff.products import Tape
from gradverify.cases import materialise
from gradverify.checks import flat, wirtinger
from gradverify.checks.flat import Array
from gradverify.checks.problem import problem_of
from gradverify.checks.subject import (
    Subject,
    compare_gradients,
    gradient_bars,
    scatter,
    shaken,
    shaken_cotangents,
)
from gradverify.errors import OpError, SpecError
from gradverify.numerics.comparison import rounding_bar, through_float32
from gradverify.numerics.difference import Bools
from gradverify.numerics.draws import draws
from gradverify.numerics.forward_mode import measure_jvp
from gradverify.numerics.infinite import not_finite
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.problem import Place, Problem
from gradverify.numerics.reverse import Reverse
from gradverify.numerics.sketch import glance, measure
from gradverify.records.evidence import Estimate, Evidence, Mismatch
from gradverify.records.nested import leaves

VERIFIED = "autograd of the reference, itself verified by differences"
DECLARED = "the declared formula of backward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How a derivative is claimed: the measurement, one claim to look at, and what a place is called."""

    measure: Callable[[Problem, np.random.Generator], Iterator[Measurement]]
    sample: Callable[[Problem, np.random.Generator], Array]
    quantity: Callable[[Place | None], str]


def _gradient(place: Place | None) -> str:
    return f"the gradient of `{place.argument}`" if place is not None and place.argument else "the gradient"


def _tangent(place: Place | None) -> str:
    return "the tangents" if place is None or place.output is None else f"the tangent of output {place.output_name}"


REVERSE = Mode(measure=measure, sample=lambda p, rng: p.vjp(rng.standard_normal(p.centre.size)), quantity=_gradient)
FORWARD = Mode(measure=measure_jvp, sample=lambda p, rng: p.jvp(rng.standard_normal(p.x.size)), quantity=_tangent)

OUTSIDE = 0.1
"""Where more of the outputs are NaN, the inputs lie outside of the op's domain: too few are left to be resolved."""


def against_truth(subject: Subject, *, own_slope: bool = False) -> Iterator[Evidence]:
    """Evidence on the gradient of every differentiable argument, by the truth that the spec names.

    `own_slope`: where that is a reference, the op's own forward is differenced, too, along one direction.
    """
    if subject.spec.contract.kind == "vjp":
        yield from _against_formula(subject)
    elif subject.spec.truth == "reference":
        yield from _against_reference(subject, own_slope=own_slope)
    else:
        tape = subject.record()
        yield from differences(subject, differentiated(subject), tape, claimed=subject.call, truth=word(subject))


def word(subject: Subject) -> str:
    """The name of the truth where it is differences."""
    if subject.spec.contract.kind == "backward_of":
        return "central differences of the declared surrogate"
    return "central differences of the forward"


def differentiated(subject: Subject) -> Called:
    """The function whose derivative backward must return."""
    contract = subject.spec.contract
    if contract.kind == "exact" or contract.formula is None:
        return subject.call
    return calling.companion(subject.spec, Recorder().around(contract.formula), stage="surrogate")


def differences(
    subject: Subject, function: Called, tape: Tape, *, claimed: Called, truth: str, mode: Mode = REVERSE
) -> Iterator[Evidence]:
    """Evidence from central differences of `function` on what `claimed` says in a mode."""
    if not tape.active:
        name = subject.spec.name
        raise OpError(f"{name}: no output is floating-point, so there is no gradient.", code="GV903", stage="forward")
    problem = problem_of(subject, function, tape, claimed=claimed)
    for e in measured(subject, problem, truth=truth, mode=mode):
        told = wirtinger.told(problem, e) if mode is REVERSE else e
        yield msgspec.structs.replace(told, facts={**told.facts, **_without_gradient(tape, e)})


def _without_gradient(tape: Tape, e: Evidence) -> dict[str, str]:
    """What is to be said of outputs that carry no gradient."""
    remedy = _unless_meant(tape, e)
    marked = ", ".join(tape.name(k) for k in sorted(tape.marked - tape.declared_nondiff))
    return ({"remedy": remedy} if remedy else {}) | ({"marked": marked} if marked else {})


def _unless_meant(tape: Tape, e: Evidence) -> str:
    """What to declare where the output in question carries no gradient although others do: that may be meant."""
    k = None if e.worst is None else e.worst.output
    if k is None or any(y.is_complex() for y in tape.outputs):
        return ""
    if tape.outputs[k].requires_grad or not any(y.requires_grad for y in tape.outputs):
        return ""
    name = tape.name(k)
    word = name if name.isdigit() else f'"{name}"'
    return (
        f"output {name} carries no gradient (detach or no_grad): if that is meant, declare nondiff=[{word}] in a spec"
    )


def measured(subject: Subject, problem: Problem, *, truth: str, mode: Mode = REVERSE) -> Iterator[Evidence]:
    """Evidence on a problem: its claim in a mode held against central differences of its function."""
    rng = _directions(subject)
    if problem.x.size == 0 or problem.centre.size == 0:
        return
    outside = float(np.isnan(problem.centre).mean())
    if outside > OUTSIDE or not np.isfinite(problem.centre).any():
        where = "nowhere finite" if outside == 1 or not outside else f"NaN at {outside:.0%} of its outputs"
        facts: dict[str, Any] = {"truth": truth, "cause": f"the forward is {where} here"}
        yield subject.evidence("the forward", **_unknown(), neighbourhood="edge", resolved=0.0, facts=facts)
        return
    float32 = problem.unit < 1e-12 and through_float32(mode.sample(problem, rng))
    for m in mode.measure(problem, rng):
        yield evidence_of(subject, m, quantity=mode.quantity(m.place), truth=truth, float32=float32)


def where_not_finite(subject: Subject, tape: Tape, lost: Mapping[str, Bools]) -> Iterator[Evidence]:
    """Evidence on entries of the gradient that are not finite: what the truth's function does there. `lost`: masks."""
    function, claimed = differentiated(subject), subject.call
    where = np.concatenate([lost.get(n, flat.zeros(t)) for n, t in tape.leaves.items()]).astype(np.bool_)
    if subject.spec.contract.kind == "vjp" or not where.any() or not any(tape.outputs[i].numel() for i in tape.active):
        return
    problem = problem_of(subject, function, tape, claimed=claimed)
    rng = _directions(subject)
    for m in not_finite(Reverse(problem, rng), where):
        yield evidence_of(subject, m, quantity=_gradient(m.place), truth=word(subject), float32=False)


def _unknown() -> dict[str, Any]:
    nan = float("nan")
    return {"analytic": nan, "numeric": Estimate(value=nan, error=nan), "scale": 0.0, "resolution": float("inf")}


def evidence_of(subject: Subject, m: Measurement, *, quantity: str, truth: str, float32: bool) -> Evidence:
    """A measurement of numerics as evidence."""
    worst = None
    if m.place is not None:
        name = m.place.output_name
        worst = Mismatch(
            argument=m.place.argument,
            index=m.place.index,
            output=int(name) if name.isdigit() else m.place.output,
            output_name="" if name.isdigit() else name,
            output_index=m.place.output_index,
            analytic=m.analytic,
            numeric=m.value,
            error=m.error,
        )
    return subject.evidence(
        quantity,
        analytic=m.analytic,
        numeric=Estimate(value=m.value, error=m.error, steps=m.steps),
        scale=m.scale,
        resolution=m.resolution,
        resolved=m.resolved,
        neighbourhood=m.code,
        interval=m.interval,
        confirmed=m.confirmed,
        worst=worst,
        facts={**m.facts, "truth": truth, "float32": float32, "contract": subject.spec.contract.kind},
    )


def _against_reference(subject: Subject, *, own_slope: bool) -> Iterator[Evidence]:
    """Autograd of the reference, itself held against differences at this point; then the op against it."""
    own = verified_reference(subject)
    if own.doubt is not None:
        yield own.doubt
        return
    tape = subject.record()
    us = subject.cotangents(tape)
    given = matching(us, own.tape.outputs)
    want = own.tape.vjp(given)
    bars = gradient_bars(replace(subject, call=own.called), given, want)
    got = tape.vjp(us)
    found = list(compare_gradients(subject, got, want, bars, tape.leaves, truth=VERIFIED, kink=own.kink))
    if any(map(_off, found)):
        # The op may round where the reference is exact, as tiles of a saturated softmax do: by its own scatter.
        mine = gradient_bars(subject, us, got)
        bars = {n: b + mine.get(n, flat.zeros(tape.leaves[n])) for n, b in bars.items()}
        found = list(compare_gradients(subject, got, want, bars, tape.leaves, truth=VERIFIED, kink=own.kink))
    yield from found
    if own_slope and not own.kink and not any(map(_off, found)) and subject.spec.contract.kind == "exact":
        yield from _own_slope(subject, tape)


def _off(e: Evidence) -> bool:
    return not abs(e.analytic - e.numeric.value) <= SAFETY * e.numeric.error


def _own_slope(subject: Subject, tape: Tape) -> Iterator[Evidence]:
    """The op's backward against its own forward along one direction; along as many as it takes where that is unclear.

    A forward and a backward that are both held to a reference within their bars need not fit each other.
    """
    problem = problem_of(subject, subject.call, tape, claimed=subject.call)
    if problem.x.size and problem.centre.size:
        seen = glance(problem, _directions(subject)) if np.isfinite(problem.centre).all() else None
        if seen is None:
            yield from measured(subject, problem, truth=word(subject))
        else:
            yield evidence_of(subject, seen, quantity=_gradient(None), truth=word(subject), float32=False)


def _directions(subject: Subject) -> np.random.Generator:
    return np.random.default_rng(materialise.generator(subject.case, "directions").initial_seed())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A reference at a point: its tape; the evidence against its own gradient, or None; whether it has a kink here."""

    called: Called
    tape: Tape
    doubt: Evidence | None
    kink: bool


def verified_reference(subject: Subject) -> Verified:
    """The reference, its own gradient held against differences."""
    spec = subject.spec
    assert spec.reference is not None
    called = calling.companion(spec, spec.reference)
    own = products.record(spec, called, subject.point)
    kink = False
    doubt = None
    for e in differences(subject, called, own, claimed=called, truth="central differences of the reference"):
        kink |= e.interval is not None
        if e.interval is None and _off(e):
            doubt = _with(e, kind="reference")
            break
    return Verified(called=called, tape=own, doubt=doubt, kink=kink)


def _with(e: Evidence, **facts: Any) -> Evidence:
    import msgspec

    return msgspec.structs.replace(e, facts={**e.facts, **facts})


def matching(us: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The cotangents in the dtypes of other outputs."""
    return tuple(None if u is None else u.to(y.dtype) for u, y in zip(us, outputs, strict=False))


def _against_formula(subject: Subject) -> Iterator[Evidence]:
    """The declared formula of the gradients, evaluated at two cotangents."""
    spec = subject.spec
    formula = spec.contract.formula
    assert formula is not None
    tape = subject.record()
    for draw in range(2):
        us = subject.cotangents(tape, draw)
        want = formula_of(subject, formula, us)
        bars = _formula_bars(subject, formula, us, want)
        got = {n: g for n, g in tape.vjp(us).items() if n in want}
        yield from compare_gradients(subject, got, want, bars, tape.leaves, truth=DECLARED)


def _formula_bars(
    subject: Subject, formula: Any, us: Sequence[Tensor | None], want: Mapping[str, Tensor]
) -> dict[str, Array]:
    """How far the formula itself moves when inputs and cotangents move by a few roundings, as in LINEAR."""
    moved = []
    for draw in range(draws()):
        away = replace(subject, point=replace(subject.point, primals=shaken(subject, subject.point.primals, draw=draw)))
        moved.append(formula_of(away, formula, shaken_cotangents(subject, us, draw=draw)))
    terms = sum(u.numel() for u in us if u is not None)
    bars = {}
    for name, g in want.items():
        base = flat.flat(g)
        spread = scatter(base, [flat.flat(m[name]) for m in moved if name in m] or [base])
        bars[name] = rounding_bar(base, spread, unit=subject.unit, terms=terms)
    return bars


def formula_of(subject: Subject, formula: Any, us: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """The gradients that a declared formula gives for these cotangents."""
    spec = subject.spec
    names = subject.point.differentiate
    accepted = calling.accepted(formula, spec)
    given = calling.handed(spec, subject.point.primals, {})
    primals = [given[n] for n in spec.parameters()]
    kwargs = {k: v for k, v in subject.point.kwargs.items() if k in accepted}
    with torch.no_grad():
        out = formula(*primals, *us, **kwargs)
    grads = tuple(g for _, g in leaves(out, ""))
    every = spec.differentiable()
    if len(grads) != len(every):
        raise SpecError(
            f"{spec.name}: vjp= returned {len(grads)} gradients; return one for each of {', '.join(every)}."
        )
    return {n: g for n, g in zip(every, grads, strict=True) if n in names and g is not None}
