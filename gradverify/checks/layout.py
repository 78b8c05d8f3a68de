"""LAYOUT: outputs and gradients depend on the values of inputs and cotangents, not on how they lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor

from gradverify.cases.materialise import with_layout
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Subject, at, compare_gradients, gradient_bars, scatter, shaken
from gradverify.errors import CannotJudgeError, OpError
from gradverify.numerics.comparison import rounding_bar
from gradverify.numerics.draws import draws
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare outputs and gradients in the drawn layouts with those at contiguous copies of the same values."""
    subject = at(spec, case)
    plain = replace(subject, point=replace(subject.point, primals=_contiguous(subject)))
    base = plain.record()
    us = subject.cotangents(base)
    straight = [None if u is None else with_layout(u, "contiguous") for u in us]
    want = base.vjp(straight)
    bars = gradient_bars(plain, straight, want)
    words = _words(case)
    overlapping = [n for n in base.written if dict(case.layouts).get(n) == "expanded"]
    if overlapping:
        raise CannotJudgeError(f"torch lets nothing be written to `{overlapping[0]}` where its elements share memory")
    try:
        tape = subject.record()
        got = tape.vjp(us)
    except OpError as error:
        yield subject.count("the call", 1, kind="layout refused", layouts=words, said=str(error))
        return
    if not spec.stochastic:
        for k, (a, b) in enumerate(zip(tape.outputs, base.outputs, strict=False)):
            name = f"output {base.name(k)}"
            yield subject.compare(name, name, a, b, _bar(plain, k, a, b), layouts=words)
        yield from compare_gradients(subject, got, want, bars, base.leaves, layouts=words)
    yield from _cotangents_alone(plain, words)


def _bar(plain: Subject, k: int, got: Tensor, want: Tensor) -> Array:
    """The rounding of an output; with its scatter where that is not enough: what cancels may leave nothing but that."""
    base, terms = flat(want), want.numel()
    narrow = rounding_bar(base, zeros(want), unit=plain.unit, terms=terms)
    with np.errstate(invalid="ignore"):
        within = got.shape != want.shape or bool(np.all(np.abs(flat(got) - base) <= narrow))
    if within:
        return narrow
    moved = [plain.values(plain.call, shaken(plain, plain.point.primals, draw=d))[k] for d in range(draws())]
    spread = scatter(base, [flat(m) for m in moved if m.shape == want.shape] or [base])
    return rounding_bar(base, spread, unit=plain.unit, terms=terms)


def _cotangents_alone(plain: Subject, words: str) -> Iterator[Evidence]:
    """The layouts of the cotangents on contiguous inputs: a fault of theirs must not hide behind the inputs'."""
    tape = plain.record()
    us = plain.cotangents(tape, 1)
    straight = [None if u is None else with_layout(u, "contiguous") for u in us]
    want = tape.vjp(straight)
    bars = gradient_bars(plain, straight, want)
    yield from compare_gradients(plain, tape.vjp(us), want, bars, tape.leaves, layouts=words)


def _contiguous(subject: Subject) -> dict[str, Tensor | None]:
    return {n: None if t is None else with_layout(t, "contiguous") for n, t in subject.point.primals.items()}


def _words(case: Case) -> str:
    drawn = [f"{n} {word}" for n, word in case.layouts if word != "contiguous"]
    return ", ".join([*drawn, *(f"cotangent {w}" for w in dict.fromkeys(case.cotangents) if w != "contiguous")])
