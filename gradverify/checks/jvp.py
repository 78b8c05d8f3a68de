"""JVP: forward mode returns J v, for tangents on any subset of the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff import forward_mode
from gradverify.autodiff.forward_mode import Dual, Tangents
from gradverify.autodiff.products import Tape
from gradverify.checks import duality, flat
from gradverify.checks.flat import Array
from gradverify.checks.gradient import FORWARD, differences, differentiated, word
from gradverify.checks.subject import Subject, at, ordinary, scatter, shaken, wiggled
from gradverify.errors import NotApplicableError, OpError
from gradverify.numerics.comparison import rounding_bar
from gradverify.numerics.draws import draws, looking_closely
from gradverify.numerics.problem import axis
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Mismatch
from gradverify.records.spec import Spec

SCALE = 2.5
"""Not a power of two, so that a tangent that is rounded or quantised on its way shows."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Hold jvp(v) against the truth of J v; its tangents' form; its linearity; and what frozen arguments add to it.

    Only the arguments that the case differentiates have a tangent, the others none.
    """
    subject = at(spec, case)
    try:
        tape = subject.record()
        dual = called(subject, tape)
        for e in _judged(subject, tape, dual):
            yield _masked(subject, e)
    except OpError as error:
        if error.stage != "jvp":
            raise
        yield _masked(subject, _refused(subject, error))


def called(subject: Subject, tape: Tape) -> Dual:
    """One call in forward mode. Raises NotApplicableError where the op, or torch, has none for it."""
    if not tape.active:
        raise NotApplicableError("no output is floating-point")
    vs = subject.tangents()
    dual = subject.jvp(vs)
    if any(dual.tangents[i] is None and tape.outputs[i].requires_grad for i in tape.active):
        subject.reseed()
        why = forward_mode.refused(subject.call, subject.point, vs)
        if why:
            raise NotApplicableError(why)
    return dual


def _judged(subject: Subject, tape: Tape, dual: Dual) -> Iterator[Evidence]:
    misfits = list(_form(tape, dual, subject))
    yield from misfits
    if misfits or not any(tape.outputs[i].numel() for i in tape.active):
        return
    yield from _untouched(subject, dual)
    yield from _frozen(subject, tape)
    yield from _linear(subject, tape)
    if subject.spec.contract.kind == "vjp" or subject.spec.truth == "reference":
        yield from duality.against_gradient(subject, tape)
        return
    truth = differences(subject, differentiated(subject), tape, claimed=subject.call, truth=word(subject), mode=FORWARD)
    for e in truth:
        yield _alone_said(subject, tape, _none_said(e, tape, dual))


def _masked(subject: Subject, e: Evidence) -> Evidence:
    """The evidence with which tangents there were, where not all were."""
    given = subject.point.differentiate
    if given == _everything(subject):
        return e
    return msgspec.structs.replace(e, facts={**e.facts, "mask": f"a tangent for {', '.join(given)} alone"})


def _everything(subject: Subject) -> tuple[str, ...]:
    return tuple(n for n in subject.spec.differentiable() if subject.point.primals[n] is not None)


def _refused(subject: Subject, error: OpError) -> Evidence:
    """What torch refuses of a jvp is wrong; so is one that raises only where an input has no tangent."""
    if error.code != "GV401" and not _runs_with_all(subject):
        raise error
    quantity = "what jvp returns" if error.code == "GV401" else "jvp raises where an input has no tangent"
    return subject.count(quantity, 1, kind="refused", said=str(error))


def _runs_with_all(subject: Subject) -> bool:
    whole = replace(subject, point=replace(subject.point, differentiate=_everything(subject)))
    try:
        whole.jvp(whole.tangents())
    except OpError:
        return False
    return True


def _form(tape: Tape, dual: Dual, subject: Subject) -> Iterator[Evidence]:
    """A tangent has the shape and the dtype of its output."""
    for i in tape.active:
        tangent, y = dual.tangents[i], tape.outputs[i]
        if tangent is not None and tangent.shape != y.shape:
            found, wanted = str(list(tangent.shape)), str(list(y.shape))
            yield subject.count(f"the tangent of output {tape.name(i)}", 1, kind="shape", found=found, wanted=wanted)
        elif tangent is not None and tangent.dtype != y.dtype:
            found, wanted = str(tangent.dtype), str(y.dtype)
            yield subject.count(f"the tangent of output {tape.name(i)}", 1, kind="dtype", found=found, wanted=wanted)


def _untouched(subject: Subject, dual: Dual) -> Iterator[Evidence]:
    """A tangent may change only where the op changes its input in place."""
    vs = subject.tangents()
    for name, (primal, tangent) in dual.given.items():
        before = subject.point.primals[name]
        assert before is not None
        if torch.equal(torch.nan_to_num(primal), torch.nan_to_num(before)):
            wrong = int((tangent != vs[name]).sum())
            if wrong:
                yield subject.count(f"the tangent of `{name}`", wrong, kind="changed")


def _frozen(subject: Subject, tape: Tape) -> Iterator[Evidence]:
    """What is declared to carry no gradient adds nothing, even when it has a tangent."""
    frozen = tuple(
        a.name for a in subject.spec.args if a.role == "frozen" and subject.point.primals[a.name] is not None
    )
    for name in frozen:
        alone = replace(subject, point=replace(subject.point, differentiate=(name,)))
        dual = alone.jvp(alone.tangents())
        moved = sum(int((flat.flat(t) != 0).sum()) for i in tape.active if (t := dual.tangents[i]) is not None)
        if moved:
            yield subject.count(f"the output tangents from the frozen `{name}`", moved, kind="frozen")


def _linear(subject: Subject, tape: Tape) -> Iterator[Evidence]:
    """J(2.5 v - w) = 2.5 J v - J w."""
    vs, ws = subject.tangents(0), subject.tangents(1)
    jv, jw = _values(subject, tape, vs), _values(subject, tape, ws)
    mixed = _values(subject, tape, {n: SCALE * v - ws[n] for n, v in vs.items()})
    bars = [SCALE * b + c for b, c in zip(_bars(subject, tape, vs, jv), _bars(subject, tape, ws, jw), strict=True)]
    wanted = [SCALE * a - b for a, b in zip(jv, jw, strict=True)]
    for i, got, want, bar in zip(tape.active, mixed, wanted, bars, strict=True):
        known = torch.isfinite(got) & torch.isfinite(want)
        a, b = (torch.where(known, t, 0.0) for t in (got, want))
        relation = "J(2.5 v - w) against 2.5 J v - J w"
        name = f"output {tape.name(i)}"
        yield subject.compare(f"the tangent of {name}", name, a, b, bar, relation=relation)


def _values(subject: Subject, tape: Tape, vs: Tangents) -> list[Tensor]:
    dual = subject.jvp(vs)
    given = ((dual.tangents[i], tape.outputs[i].detach()) for i in tape.active)
    return [torch.zeros_like(y) if t is None else t for t, y in given]


def _bars(subject: Subject, tape: Tape, vs: Mapping[str, Tensor], base: list[Tensor]) -> list[Array]:
    """The scatter of J v when x and v move by a few roundings, and the rounding of its terms."""
    moved = [_moved(subject, tape, vs, draw) for draw in range(draws())]
    terms = sum(v.numel() for v in vs.values())
    hidden = _ordinary_sizes(subject, tape, vs)
    bars = []
    for k, b in enumerate(base):
        y = flat.flat(b)
        spread = scatter(y, [flat.flat(m[k]) for m in moved]) + subject.unit * hidden.get(k, 0.0)
        bars.append(rounding_bar(y, spread, unit=subject.unit, terms=terms))
    return bars


def _ordinary_sizes(subject: Subject, tape: Tape, vs: Mapping[str, Tensor]) -> dict[int, float]:
    """The largest entry of each J v where the inputs are scaled to 1, where a fault is at stake."""
    there = ordinary(subject) if looking_closely() else None
    if there is None:
        return {}
    try:
        values = _values(there, tape, vs)
    except OpError:
        return {}
    tops = {k: float(y.abs().max()) for k, y in enumerate(values) if y.numel()}
    return {k: top for k, top in tops.items() if np.isfinite(top)}


def _moved(subject: Subject, tape: Tape, vs: Mapping[str, Tensor], draw: int) -> list[Tensor]:
    primals = shaken(subject, subject.point.primals, draw=draw)
    away = replace(subject, point=replace(subject.point, primals=primals))
    return _values(away, tape, wiggled(subject, vs, draw=draws() + draw))


def _position(tape: Tape, place: Mismatch) -> int | None:
    """Which of all outputs a mismatch is in; None where it is in no single one."""
    if place.output is None or not place.output_name:
        return place.output
    owners = [i for i in tape.active for _ in flat.names(tape.name(i), tape.outputs[i])]
    return owners[place.output]


def _none_said(e: Evidence, tape: Tape, dual: Dual) -> Evidence:
    """A missing tangent counts as zero; the report says that it is missing."""
    k = None if e.worst is None else _position(tape, e.worst)
    if k is None or dual.tangents[k] is not None:
        return e
    said = f"output {tape.name(k)} has no tangent, which counts as zero"
    return msgspec.structs.replace(e, facts={**e.facts, "said": said})


def _alone_said(subject: Subject, tape: Tape, e: Evidence) -> Evidence:
    """Whether an entry is wrong only while the other inputs have no tangent at all, where zeros would do."""
    place, k = e.worst, None if e.worst is None else _position(tape, e.worst)
    if place is None or place.index is None or k is None or len(tape.leaves) < 2 or e.analytic == e.numeric.value:
        return e
    entry = _entry(subject, tape, place, place.index)
    if abs(entry - e.numeric.value) < abs(entry - e.analytic):
        return msgspec.structs.replace(e, facts={**e.facts, "mask": f"a tangent for {place.argument} alone"})
    return e


def _entry(subject: Subject, tape: Tape, place: Mismatch, index: tuple[int, ...]) -> float:
    """The claimed entry of J at a place, with zeros as the other tangents."""
    like, outputs = list(tape.leaves.values()), [tape.outputs[i] for i in tape.active]
    column = next(p for p in flat.parts(tape.leaves) if p.name == place.argument).position(index)
    vs = flat.tensors(axis(sum(map(flat.size, like)), column), like)
    pushed = flat.array(_values(subject, tape, dict(zip(tape.leaves, vs, strict=True))), outputs)
    rows = flat.parts({tape.name(i): tape.outputs[i] for i in tape.active})
    row = next(p for p in rows if p.name == (place.output_name or str(place.output)))
    return float(pushed[row.position(place.output_index or ())])
