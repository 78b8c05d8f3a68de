"""The gradient of an op held against its truth: finite differences, a verified reference, or a declared formula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff import calling, products
from gradverify.autodiff.calling import Called
from gradverify.autodiff.frozen import Recorder
from gradverify.autodiff.products import Tape
from gradverify.cases import materialise
from gradverify.checks import flat
from gradverify.checks.flat import Array
from gradverify.checks.subject import Subject, compare_gradients, gradient_bars
from gradverify.errors import OpError, SpecError
from gradverify.numerics.comparison import through_float32
from gradverify.numerics.measurement import Measurement
from gradverify.numerics.problem import Problem
from gradverify.numerics.sketch import measure
from gradverify.records.evidence import Estimate, Evidence, Mismatch
from gradverify.records.nested import leaves

DIGITS = {"float64": 52, "float32": 23, "bfloat16": 7, "float16": 10}
"""Stored bits of the significand of each dtype."""

OUTSIDE = 0.1
"""Where more of the outputs are NaN, the inputs lie outside of the op's domain: too few are left to be resolved."""


def against_truth(subject: Subject) -> Iterator[Evidence]:
    """Evidence on the gradient of every differentiable argument, by the truth that the spec names."""
    if subject.spec.contract.kind == "vjp":
        yield from _against_formula(subject)
    elif subject.spec.truth == "reference":
        yield from _against_reference(subject)
    else:
        tape = subject.record()
        yield from _differences(subject, _differentiated(subject), tape, claimed=subject.call, truth=_word(subject))


def _word(subject: Subject) -> str:
    if subject.spec.contract.kind == "backward_of":
        return "central differences of the declared surrogate"
    return "central differences of the forward"


def _differentiated(subject: Subject) -> Called:
    """The function whose derivative backward must return."""
    contract = subject.spec.contract
    if contract.kind == "exact" or contract.formula is None:
        return subject.call
    return calling.companion(subject.spec, Recorder().around(contract.formula), stage="surrogate")


def _differences(subject: Subject, function: Called, tape: Tape, *, claimed: Called, truth: str) -> Iterator[Evidence]:
    if not tape.active:
        name = subject.spec.name
        raise OpError(f"{name}: no output is floating-point, so there is no gradient.", code="GV903", stage="forward")
    problem = problem_of(subject, function, tape, claimed=claimed)
    rng = np.random.default_rng(materialise.generator(subject.case, "directions").initial_seed())
    if problem.x.size == 0 or problem.centre.size == 0:
        return
    outside = float(np.isnan(problem.centre).mean())
    if outside > OUTSIDE or not np.isfinite(problem.centre).any():
        where = "nowhere finite" if outside == 1 or not outside else f"NaN at {outside:.0%} of its outputs"
        facts: dict[str, Any] = {"truth": truth, "cause": f"the forward is {where} here"}
        yield subject.evidence("the forward", **_unknown(), neighbourhood="edge", resolved=0.0, facts=facts)
        return
    float32 = _by_float32(problem, rng)
    for m in measure(problem, rng):
        yield evidence_of(subject, m, truth=truth, float32=float32)


def _unknown() -> dict[str, Any]:
    nan = float("nan")
    return {"analytic": nan, "numeric": Estimate(value=nan, error=nan), "scale": 0.0, "resolution": float("inf")}


def _by_float32(problem: Problem, rng: np.random.Generator) -> bool:
    """Whether the claimed gradient went through float32, in a problem that does not itself live there."""
    return problem.unit < 1e-12 and through_float32(problem.vjp(rng.standard_normal(problem.centre.size)))


def problem_of(subject: Subject, function: Called, tape: Tape, *, claimed: Called) -> Problem:
    """The truth's function and the gradient that `claimed` returned on `tape`, as flat float64 vectors.

    Away from the point itself, where the function raises it is taken as not finite: the edge of its domain.
    """
    leaves = {n: tape.leaves[n] for n in tape.leaves}
    active = [tape.outputs[i] for i in tape.active]
    like = list(leaves.values())
    x = flat.array([t.detach() for t in like], like)
    others = {n: t for n, t in subject.point.primals.items() if n not in leaves}

    def forward(z: Array) -> Array:
        primals = {**subject.point.primals, **others, **dict(zip(leaves, flat.tensors(z, like), strict=True))}
        outputs = subject.values(function, calling.copies(primals) if tape.written else primals)
        chosen = [outputs[i] for i in tape.active if i < len(outputs)]
        if [t.shape for t in chosen] != [t.shape for t in active]:
            got, want = ([list(t.shape) for t in ts] for ts in (chosen, active))
            raise SpecError(f"{subject.spec.name}: the surrogate returns shapes {got}, the op {want}; they must agree.")
        return flat.array(chosen, active)

    def pulled(tape: Tape, v: Array) -> Array:
        cotangents: list[Tensor | None] = [None] * len(tape.outputs)
        for i, u in zip(tape.active, flat.tensors(v, active), strict=True):
            cotangents[i] = u
        grads = tape.vjp(cotangents)
        return flat.array([grads[n] for n in leaves], like)

    def vjp_at(z: Array, v: Array) -> Array:
        primals = {**subject.point.primals, **dict(zip(leaves, flat.tensors(z, like), strict=True))}
        moved = replace(subject, call=claimed, point=replace(subject.point, primals=primals))
        return pulled(moved.record(), v)

    def nearby(z: Array) -> Array:
        try:
            return forward(z)
        except OpError:
            return np.full(centre.shape, np.nan)

    centre = forward(x.copy())
    return Problem(
        x=x,
        parts=flat.parts(leaves),
        outputs=flat.parts({tape.name(i): tape.outputs[i] for i in tape.active}),
        centre=centre,
        rerun=_difference(forward(x.copy()), centre),
        forward=nearby,
        vjp=lambda v: pulled(tape, v),
        vjp_at=vjp_at,
        unit=subject.unit,
        digits=DIGITS[subject.case.dtype],
    )


def _difference(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.where((a == b) | ~np.isfinite(a) | ~np.isfinite(b), 0.0, np.abs(a - b))


def evidence_of(subject: Subject, m: Measurement, *, truth: str, float32: bool) -> Evidence:
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
    named = m.place is not None and m.place.argument
    quantity = f"the gradient of `{m.place.argument}`" if m.place is not None and named else "the gradient"
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


def _against_reference(subject: Subject) -> Iterator[Evidence]:
    """Autograd of the reference, itself held against differences at this point; then the op against it."""
    spec = subject.spec
    assert spec.reference is not None
    called = calling.companion(spec, spec.reference)
    own = products.record(spec, called, subject.point)
    for e in _differences(subject, called, own, claimed=called, truth="central differences of the reference"):
        gap = abs(e.analytic - e.numeric.value)
        if e.interval is None and not gap <= 3 * e.numeric.error:
            yield _with(e, kind="reference")
            return
    tape = subject.record()
    us = subject.cotangents(tape)
    want = own.vjp(_matching(us, own.outputs))
    bars = gradient_bars(replace(subject, call=called), _matching(us, own.outputs), want)
    truth = "autograd of the reference, itself verified by differences"
    yield from compare_gradients(subject, tape.vjp(us), want, bars, tape.leaves, truth=truth)


def _with(e: Evidence, **facts: Any) -> Evidence:
    import msgspec

    return msgspec.structs.replace(e, facts={**e.facts, **facts})


def _matching(us: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    return tuple(None if u is None else u.to(y.dtype) for u, y in zip(us, outputs, strict=False))


def _against_formula(subject: Subject) -> Iterator[Evidence]:
    """The declared formula of the gradients, evaluated at two cotangents."""
    spec = subject.spec
    formula = spec.contract.formula
    assert formula is not None
    tape = subject.record()
    for draw in range(2):
        us = subject.cotangents(tape, draw)
        want = _formula(subject, formula, us)
        moved = _formula(subject, formula, [None if u is None else u * (1 + 2.0**-30) for u in us])
        bars = {n: _scatter(want[n], moved[n], subject.unit) for n in want}
        got = {n: g for n, g in tape.vjp(us).items() if n in want}
        yield from compare_gradients(subject, got, want, bars, tape.leaves, truth="the declared formula of backward")


def _scatter(a: Tensor, b: Tensor, unit: float) -> Array:
    x, y = flat.flat(a), flat.flat(b)
    top = np.max(np.abs(x), initial=0.0)
    with np.errstate(all="ignore"):
        return np.asarray(64 * unit * (np.abs(x - y) * 2.0**30 + np.abs(x) + 1e-3 * top))


def _formula(subject: Subject, formula: Any, us: Sequence[Tensor | None]) -> dict[str, Tensor]:
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
