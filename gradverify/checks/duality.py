"""<u, J v> = <J^T u, v>: a jvp held against a vjp, whichever truth the vjp is taken from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np

from gradverify.autodiff.products import Tape
from gradverify.cases import materialise
from gradverify.checks import flat
from gradverify.checks.flat import Array
from gradverify.checks.gradient import DECLARED, VERIFIED, evidence_of, formula_of, verified_reference
from gradverify.checks.problem import problem_of
from gradverify.checks.subject import Subject
from gradverify.numerics.comparison import through_float32
from gradverify.numerics.duality import Disagreement, measure_adjoint
from gradverify.numerics.problem import Problem
from gradverify.records.evidence import Evidence


def against_gradient(subject: Subject, tape: Tape) -> Iterator[Evidence]:
    """The op's jvp against the gradients that its spec declares: a formula, or autograd of a verified reference."""
    problem = problem_of(subject, subject.call, tape, claimed=subject.call)
    if subject.spec.contract.kind == "vjp":
        yield held(subject, by_formula(subject, problem, tape), truth=DECLARED)
        return
    own = verified_reference(subject)
    if own.doubt is not None:
        yield own.doubt
        return
    reference = problem_of(subject, own.called, own.tape, claimed=own.called)
    e = held(subject, replace(problem, vjp=reference.vjp, vjp_at=reference.vjp_at), truth=VERIFIED)
    yield msgspec.structs.replace(e, facts={**e.facts, "kink": own.kink})


def held(subject: Subject, problem: Problem, *, truth: str) -> Evidence:
    """The evidence on the two sides."""
    return told(subject, disagreement(subject, problem), problem, truth=truth)


def disagreement(subject: Subject, problem: Problem) -> Disagreement:
    """The two sides at random cotangents and tangents of the case's own generator."""
    return measure_adjoint(problem, _rng(subject))


def told(subject: Subject, found: Disagreement, problem: Problem, *, truth: str) -> Evidence:
    """What was measured as evidence."""
    float32 = problem.unit < 1e-12 and through_float32(problem.jvp(_rng(subject).standard_normal(problem.x.size)))
    return evidence_of(subject, found.measurement, quantity="<u, J v>", truth=truth, float32=float32)


def _rng(subject: Subject) -> np.random.Generator:
    return np.random.default_rng(materialise.generator(subject.case, "directions").initial_seed())


def by_formula(subject: Subject, problem: Problem, tape: Tape) -> Problem:
    """The problem with the declared formula in the place of backward."""
    leaves = list(tape.leaves)
    like = [tape.leaves[n] for n in leaves]
    active = [tape.outputs[i] for i in tape.active]

    def pulled(at: Subject, u: Array) -> Array:
        given = dict(zip(tape.active, flat.tensors(u, active), strict=True))
        grads = formula_of(at, at.spec.contract.formula, [given.get(i) for i in range(len(tape.outputs))])
        return flat.array([grads.get(n) for n in leaves], like)

    def moved(z: Array) -> Subject:
        primals = {**subject.point.primals, **dict(zip(leaves, flat.tensors(z, like), strict=True))}
        return replace(subject, point=replace(subject.point, primals=primals))

    return replace(problem, vjp=lambda u: pulled(subject, u), vjp_at=lambda z, u: pulled(moved(z), u))
