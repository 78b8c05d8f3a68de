"""COMPLEX: with complex inputs or outputs both parts of a gradient are right, and lazy conjugates change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.cases.layouts import LAZY
from gradverify.cases.materialise import with_layout
from gradverify.checks.flat import flat, zeros
from gradverify.checks.gradient import against_truth
from gradverify.checks.subject import Gradients, Subject, at, compare_gradients, gradient_bars
from gradverify.errors import NotApplicableError, OpError
from gradverify.numerics.comparison import rounding_bar
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact
from gradverify.records.spec import Spec

Cotangents = Sequence[Tensor | None]

COPIES = "resolved copies"


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Hold the gradient by real and imaginary parts against its truth; then the same at views of conjugates.

    Raises NotApplicableError where neither an input nor an output is complex.
    """
    subject = at(spec, case)
    plain = replace(subject, point=replace(subject.point, primals=_resolved(subject)))
    tape = plain.record()
    if not any(t is not None and t.is_complex() for t in (*subject.point.primals.values(), *tape.outputs)):
        raise NotApplicableError("no input or output is complex")
    drawn = plain.cotangents(tape)
    us = [None if u is None else with_layout(u, "contiguous") for u in drawn]
    yield from against_truth(plain)
    want = tape.vjp(us)
    bars = gradient_bars(plain, us, want)
    if LAZY in dict(case.layouts).values():
        yield from _inputs(subject, tape, us, want, bars)
    if LAZY in case.cotangents:
        yield from _cotangents(plain, tape, drawn, want, bars)


def _resolved(subject: Subject) -> dict[str, Tensor | None]:
    return {n: None if t is None else with_layout(t, "contiguous") for n, t in subject.point.primals.items()}


# Views that torch has not resolved.


def _lazily(t: Tensor) -> str:
    return "lazily conjugated" if t.is_complex() else "lazily negated"


def _facts(relation: str) -> dict[str, Fact]:
    remedy = "before memory is read, call resolve_conj() and, for real tensors, resolve_neg()"
    return {"relation": relation, "base": COPIES, "remedy": remedy}


def _inputs(
    subject: Subject, base: Tape, us: Cotangents, want: Gradients, bars: dict[str, np.ndarray]
) -> Iterator[Evidence]:
    given = {n: subject.point.primals[n] for n, w in subject.case.layouts if w == LAZY}
    facts = _facts(", ".join(f"`{n}` {_lazily(t)}" for n, t in given.items() if t is not None))
    try:
        tape = subject.record()
        got = tape.vjp(us)
    except OpError as error:
        kind = "refused" if error.stage == "forward" else "refused in backward"
        yield subject.count("the call", 1, kind=kind, said=str(error), **facts)
        return
    if not subject.spec.stochastic:
        for k, (a, b) in enumerate(zip(tape.outputs, base.outputs, strict=False)):
            bar = rounding_bar(flat(b), zeros(b), unit=subject.unit, terms=b.numel())
            name = f"output {base.name(k)}"
            yield subject.compare(name, name, a, b, bar, **facts)
    yield from compare_gradients(subject, got, want, bars, base.leaves, **facts)


def _cotangents(
    plain: Subject, tape: Tape, us: Cotangents, want: Gradients, bars: dict[str, np.ndarray]
) -> Iterator[Evidence]:
    words = dict.fromkeys(f"a cotangent {_lazily(u)}" for u in us if u is not None)
    facts = _facts(", ".join(words))
    try:
        got = tape.vjp(us)
    except OpError as error:
        yield plain.count("backward", 1, kind="refused in backward", said=str(error), **facts)
        return
    yield from compare_gradients(plain, got, want, bars, tape.leaves, **facts)
