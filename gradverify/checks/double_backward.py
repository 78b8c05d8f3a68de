"""DOUBLE_BACKWARD: what backward returns, B(x; u) = J(x)^T u, is differentiated rightly by x and by u, or refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from torch import Tensor

from gradverify.autodiff import second
from gradverify.autodiff.second import Twice
from gradverify.checks import flat, gradient_map, modes
from gradverify.checks.elsewhere import with_other_values
from gradverify.checks.gradient import measured
from gradverify.checks.gradient_map import problem_of, truth_of
from gradverify.checks.subject import Gradients, Subject, at
from gradverify.errors import NotApplicableError, OpError
from gradverify.numerics.comparison import norm
from gradverify.numerics.measurement import SAFETY
from gradverify.numerics.problem import Problem
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

FEATURE = "double_backward"

SAME = 1e-6
"""A first-order gradient that is further from its contract is not differentiated: VJP says what is wrong with it."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Hold the derivative of <w, B(x; u)> by x and u against central differences of B.

    Raises NotApplicableError where backward refuses, as it may unless `supports` says otherwise.
    """
    subject = at(spec, case)
    tape = subject.record()
    us = subject.cotangents(tape)
    first = tape.vjp(us)
    if all(g is None for g in first.values()):
        raise NotApplicableError("no gradient comes back that could be differentiated")
    try:
        recorded = second.twice(tape, us)
        recorded.vjp({n: g for n, g in first.items() if g is not None})
    except OpError as error:
        yield _raises(subject, error)
        return
    yield from _works(subject, recorded, first)


def _raises(subject: Subject, error: OpError) -> Evidence:
    """A refusal is no fault unless it breaks a promise; an accident is one unless it is announced."""
    declared = subject.spec.supports.get(FEATURE)
    said = str(error).partition(": ")[2]
    if declared:
        remedy = 'declare supports={"double_backward": False}, or let torch differentiate backward'
        return _promise(subject, f"{FEATURE} is declared to work, and it raises", said=said, remedy=remedy)
    if declared is False or second.refused(error):
        raise NotApplicableError(_refusal(error)) from error
    return subject.count("it fails, and does not say that there is none", 1, kind="accident", said=said)


def _promise(subject: Subject, quantity: str, **facts: str) -> Evidence:
    return subject.count(quantity, 1, kind="declared", **facts)


def _refusal(error: OpError) -> str:
    if "once_differentiable" in str(error.__cause__):
        return "refused: backward is marked @once_differentiable"
    return f"refused: {(str(error.__cause__).strip().splitlines() or [''])[0]}"


def _works(subject: Subject, recorded: Twice, first: Gradients) -> Iterator[Evidence]:
    problem = problem_of(subject, recorded)
    if problem.x.size == 0 or problem.centre.size == 0:
        return
    _same(subject, problem, first, recorded.tape.leaves)
    found = [_told(subject, e, recorded, problem) for e in measured(subject, problem, truth=truth_of(subject))]
    yield from found
    if not all(map(_agrees, found)):
        if not any(e.confirmed or e.interval is not None for e in found):
            yield from modes.symmetric(subject)
        return
    yield from modes.forward(subject)
    if subject.spec.supports.get(FEATURE) is False:
        remedy = 'take it out of supports=, or declare {"double_backward": True}'
        yield _promise(
            subject,
            f"{FEATURE} is declared not to work, and it does",
            said="every second derivative of this case is right",
            remedy=remedy,
        )


def _agrees(e: Evidence) -> bool:
    """Whether a measurement has shown agreement; a kink or a wide bar has shown nothing."""
    gap = abs(e.analytic - e.numeric.value)
    return e.interval is None and gap <= SAFETY * e.numeric.error and e.neighbourhood in ("smooth", "flat")


def _same(subject: Subject, problem: Problem, first: Gradients, leaves: Mapping[str, Tensor]) -> None:
    """Raise NotApplicableError where backward is not the gradient that the truth differentiates."""
    own = flat.array([first.get(n) for n in leaves], list(leaves.values()))
    finite = np.isfinite(own) & np.isfinite(problem.centre)
    gap = norm((own - problem.centre)[finite])
    if gap > max(SAME, 64 * subject.unit) * norm(own[finite]):
        raise NotApplicableError("backward is not the gradient of its contract: see vjp")


def _told(subject: Subject, e: Evidence, recorded: Twice, problem: Problem) -> Evidence:
    """The evidence in the words of second derivatives: of which gradient by what, and what has no history."""
    facts: dict[str, Any] = dict(e.facts)
    argument = e.worst.argument if e.worst is not None else ""
    gradient = "the gradient"
    if e.worst is not None and e.worst.output is not None:
        facts["gradient"] = problem.outputs[e.worst.output].name
        gradient = f"the gradient of `{facts['gradient']}`"
    history = "" if _agrees(e) else _lost(subject, recorded, argument)
    if history:
        facts["history"] = history
    if subject.spec.supports.get(FEATURE) and not _agrees(e):
        facts["said"] = f'supports={{"{FEATURE}": True}} says that it works'
    quantity = f"{gradient} by `{argument}`" if argument else gradient
    return msgspec.structs.replace(e, quantity=quantity, facts=facts)


def _lost(subject: Subject, recorded: Twice, argument: str) -> str:
    """Why the derivative by `argument` lacks terms, as far as the graph shows it; empty where it does not."""
    weights = {n: g.detach() for n, g in recorded.grads.items() if g is not None}
    found = recorded.vjp(weights)
    inputs = dict(zip(gradient_map.names(recorded), recorded.inputs, strict=True))
    asked = [argument in ("", *flat.names(n, t)) for n, t in inputs.items()]
    cut = [n for n, g, told in zip(inputs, found, asked, strict=True) if g is None and told]
    without = second.uncut(recorded, weights)
    names = without.names
    pairs = zip(found, without.derivatives, asked, strict=False)
    changed = names and any(told and not _equal(a, b) for a, b, told in pairs)
    by_primal = any(told for n, told in zip(inputs, asked, strict=True) if n in recorded.tape.leaves)
    kept = (*second.without_history(recorded.tape), *_numbers(subject, recorded)) if by_primal else ()
    by = ", ".join(f"`{n}`" for n in cut)
    words = [f"backward has no history by {by}" if cut else "backward loses terms"] if cut or changed else []
    words = [f"{words[0]}, cut by {', '.join(names)}"] if changed else words
    words += [f"backward makes numbers of tensors, by {', '.join(without.numbers)}"] if without.numbers else []
    words += [f"forward kept {', '.join(kept)} without history"] if kept else []
    return "; ".join(words)


def _numbers(subject: Subject, recorded: Twice) -> tuple[str, ...]:
    """Python numbers on the contexts that follow the values of the inputs; none where the op raises elsewhere."""
    try:
        return second.numbers_kept(recorded.tape, with_other_values(subject).record())
    except OpError:
        return ()


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two derivatives are the same to the last bit; a missing one is zero."""
    if a is None or b is None:
        return a is b or not (b if a is None else a).any()  # type: ignore[union-attr]
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
