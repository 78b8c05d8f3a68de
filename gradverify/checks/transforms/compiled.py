"""TRANSFORMS.COMPILE: a compiled op has the values and the gradients of the op."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gradverify.autodiff.transforms import compiled
from gradverify.autodiff.transforms.compiled import compiling
from gradverify.autodiff.transforms.pure import TransformError
from gradverify.checks.subject import at
from gradverify.checks.transforms import beside
from gradverify.checks.transforms.alone import Alone
from gradverify.errors import NotApplicableError
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact
from gradverify.records.spec import Spec

SIZES = {"compiled": False, "compiled for any sizes": True}


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Forward and backward, compiled for these sizes and for any; then plain eager once more."""
    subject = at(spec, case)
    beside.unless_declared(subject, "compile")
    if spec.stochastic:
        raise NotApplicableError("the op draws random numbers, and a compiled one may draw others")
    plain = Alone.of(subject)
    for how, dynamic in SIZES.items():
        yield from _judged(plain, how, dynamic=dynamic)
    yield from plain.beside(subject.record().vjp(plain.us), "eager after torch.compile")


def _judged(plain: Alone, how: str, *, dynamic: bool) -> Iterator[Evidence]:
    """A graph break is a note; nothing is said of an op that torch compiles nothing of, or gives up on."""
    subject = plain.subject
    try:
        with compiling():
            call = compiled.called(subject.spec, subject.point, dynamic=dynamic)
            grads = call.vjp(plain.us)
    except TransformError as error:
        if error.refused:
            raise NotApplicableError(f"torch.compile gives up: {error}") from error
        yield beside.raised(subject, error, how)
        return
    if not call.graphs:
        why = f": {call.why}" if call.why else ""
        raise NotApplicableError(f"torch.compile compiles nothing of it{why}")
    evidence = [*beside.outputs(subject, call.tape.outputs, plain.tape.outputs, how), *plain.beside(grads, how)]
    notes: dict[str, Fact] = {"graph breaks": call.breaks} if call.breaks else {}
    yield from (msgspec.structs.replace(e, facts={**e.facts, **notes}) for e in evidence)
