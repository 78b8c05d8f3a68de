"""ADJOINT: <u, J v> = <J^T u, v>: forward and reverse mode are transposes of each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec

from gradverify.autodiff.products import Tape
from gradverify.checks import duality, jvp
from gradverify.checks.gradient import DECLARED, differentiated, word
from gradverify.checks.problem import problem_of
from gradverify.checks.subject import Subject, at
from gradverify.errors import NotApplicableError, OpError
from gradverify.numerics.duality import Disagreement, opinion
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.problem import Problem, axis
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Hold <u, jvp(v)> against <backward(u), v>; where they differ, ask the truth which of the two is off."""
    subject = at(spec, case)
    tape = subject.record()
    _both(subject, tape)
    truth = differentiated(subject) if spec.contract.kind == "backward_of" else subject.call
    problem = problem_of(subject, truth, tape, claimed=subject.call)
    if problem.x.size == 0 or problem.centre.size == 0:
        return
    found = duality.disagreement(subject, problem)
    e = duality.told(subject, found, problem, truth="backward()")
    yield _judged(subject, e, found, problem, tape) if found.measurement.off else e


def _both(subject: Subject, tape: Tape) -> None:
    """Raises NotApplicableError where one of the two modes is missing."""
    jvp.called(subject, tape)
    if not any(tape.outputs[i].requires_grad for i in tape.active):
        raise NotApplicableError("no gradient flows back")
    try:
        tape.vjp(subject.cotangents(tape))
    except OpError as error:
        if isinstance(error.__cause__, NotImplementedError):
            raise NotApplicableError("the op has no backward") from error
        raise


def _judged(subject: Subject, e: Evidence, found: Disagreement, problem: Problem, tape: Tape) -> Evidence:
    """The evidence with a third opinion on the entry: at a kink both modes may be right and differ."""
    if found.i is None or found.j is None:
        return e
    if subject.spec.contract.kind == "vjp":
        formula = duality.by_formula(subject, problem, tape)
        third = _exactly(formula.vjp(axis(problem.centre.size, found.j))[found.i], found.measurement)
        return _with(e, **_verdict(third, found.measurement, DECLARED))
    third = opinion(problem, found.i, found.j)
    if third.interval is not None and _inside(third, found.measurement):
        return msgspec.structs.replace(e, neighbourhood="kink", interval=third.interval)
    return _with(e, **_verdict(third, found.measurement, word(subject)))


def _with(e: Evidence, **facts: Fact) -> Evidence:
    return msgspec.structs.replace(e, facts={**e.facts, **facts})


def _exactly(value: float, like: Measurement) -> Measurement:
    return replace(like, value=float(value))


def _inside(third: Measurement, found: Measurement) -> bool:
    """Whether both claims lie between the one-sided slopes."""
    assert third.interval is not None
    low, high = (end + sign * SAFETY * third.error for end, sign in zip(third.interval, (-1, 1), strict=True))
    return low <= found.analytic <= high and low <= found.value <= high


def _verdict(third: Measurement, found: Measurement, word: str) -> dict[str, Fact]:
    """Which of the two is off, where the third opinion is sharp enough to tell them apart."""
    gap = abs(found.analytic - found.value)
    # Where this holds, at least one of the two is off.
    if not 2 * SAFETY * (third.error + found.error) <= gap or third.code not in ("smooth", "flat"):
        return {"third": word, "third_said": "cannot tell which is off"}
    off = {
        name: abs(claim - third.value) > SAFETY * (third.error + found.error)
        for name, claim in (("jvp()", found.analytic), ("backward()", found.value))
    }
    said = "both are off" if all(off.values()) else f"{next((n for n, is_off in off.items() if is_off), 'none')} is off"
    return {"third": word, "third_value": third.value, "third_error": third.error, "third_said": said}
