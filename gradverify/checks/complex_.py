"""COMPLEX: with complex inputs or outputs both parts of a gradient are right, and lazy conjugates change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.cases.layouts import LAZY
from gradverify.cases.materialise import with_layout
from gradverify.checks.flat import PARTS, flat, zeros
from gradverify.checks.gradient import against_truth, differentiated, measured, word
from gradverify.checks.problem import problem_of
from gradverify.checks.subject import Gradients, Subject, at, compare_gradients, gradient_bars
from gradverify.errors import NotApplicableError, OpError
from gradverify.numerics.comparison import rounding_bar
from gradverify.numerics.duality import opinion
from gradverify.numerics.problem import Part, Problem, axis
from gradverify.numerics.wirtinger import Block, numbers, relation
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact, Mismatch
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
        raise NotApplicableError("no argument is declared complex (gv.complex), and no output is")
    drawn = plain.cotangents(tape)
    us = [None if u is None else with_layout(u, "contiguous") for u in drawn]
    yield from _parts(plain, tape)
    want = tape.vjp(us)
    bars = gradient_bars(plain, us, want)
    if LAZY in dict(case.layouts).values():
        yield from _inputs(subject, tape, us, want, bars)
    if LAZY in case.cotangents:
        yield from _cotangents(plain, tape, drawn, want, bars)


def _resolved(subject: Subject) -> dict[str, Tensor | None]:
    return {n: None if t is None else with_layout(t, "contiguous") for n, t in subject.point.primals.items()}


# Both parts.


def _parts(subject: Subject, tape: Tape) -> Iterator[Evidence]:
    if subject.spec.contract.kind == "vjp" or subject.spec.truth == "reference":
        yield from against_truth(subject)
        return
    problem = problem_of(subject, differentiated(subject), tape, claimed=subject.call)
    for e in measured(subject, problem, truth=word(subject)):
        yield _told(problem, e)


def _told(problem: Problem, e: Evidence) -> Evidence:
    """The evidence with the complex numbers behind an entry that is off, and what one is to the other."""
    block = None if e.worst is None or not e.confirmed or e.interval is not None else _block(problem, e.worst)
    if block is None:
        return e
    name = e.worst.argument.rpartition(" ")[2] if e.worst is not None else ""
    found, wanted = (_spoken(b, name, block.slack) for b in (block.claimed, block.true))
    facts: dict[str, Fact] = {"found": found, "wanted": wanted}
    said = relation(block)
    return msgspec.structs.replace(e, facts={**e.facts, **facts, **({"said": said} if said else {})})


def _block(problem: Problem, place: Mismatch) -> Block | None:
    """All real entries between one element of an input and one of an output; None where there is one, or none known."""
    columns = _positions(problem.parts, place.argument, place.index)
    name = place.output_name or str(place.output)
    rows = _positions(problem.outputs, name, place.output_index)
    if len(rows) * len(columns) < 2:
        return None
    claimed = np.array([problem.vjp(axis(problem.centre.size, j))[columns] for j in rows])
    truth = [[opinion(problem, i, j) for i in columns] for j in rows]
    if any(m.code not in ("smooth", "flat") or not np.isfinite(m.value + m.error) for row in truth for m in row):
        return None
    value, error = (np.array([[getattr(m, f) for m in row] for row in truth]) for f in ("value", "error"))
    return Block(claimed=claimed, true=value, error=error)


def _positions(parts: tuple[Part, ...], name: str, index: tuple[int, ...] | None) -> list[int]:
    """Where an element lies in the flat vector: once, or once for each part of a complex one."""
    if index is None:
        return []
    prefix, _, bare = name.partition(" ")
    words = [f"{p} {bare}" for p in PARTS] if prefix in PARTS else [name]
    return [p.position(index) for p in parts if p.name in words]


def _spoken(block: np.ndarray, name: str, least: float) -> str:
    """The complex numbers of a block of the argument `name`; what lies below `least` is zero."""
    found = {n: [0.0 if abs(v) <= least else v for v in (z.real, z.imag)] for n, z in numbers(block).items()}
    return ", ".join(
        f"{n.replace('dz', f'd{name}')} = {re:.6g} {'-' if im < 0 else '+'} {abs(im):.6g}i"
        for n, (re, im) in found.items()
    )


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
