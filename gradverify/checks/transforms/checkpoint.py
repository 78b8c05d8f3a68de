"""TRANSFORMS.CHECKPOINT: a forward that is called again during the backward changes no gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms import checkpointed
from gradverify.autodiff.transforms.pure import Gradients, TransformError
from gradverify.checks.flat import Array
from gradverify.checks.subject import Subject, at, compare_gradients, gradient_bars
from gradverify.checks.transforms import beside
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

VARIANTS = {"checkpoint, reentrant": True, "checkpoint": False}


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Both variants, each with a second checkpointed call of other values between forward and backward.

    Then plain eager once more: what a second forward leaves behind shows there.
    """
    subject = at(spec, case)
    beside.unless_declared(subject, "checkpoint")
    plain, between = _eager(subject), _eager(beside.elsewhere(subject, 1))
    for how, reentrant in VARIANTS.items():
        yield from _judged(plain, between, how, reentrant=reentrant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eager:
    """A plain call, its gradients and their bars, taken before a checkpoint can have left anything behind."""

    subject: Subject
    tape: Tape
    us: beside.Used
    grads: Gradients
    bars: Mapping[str, Array]

    def again(self, *, reentrant: bool) -> checkpointed.Checkpointed:
        """The same call under a checkpoint."""
        self.subject.reseed()
        return checkpointed.record(self.subject.spec, self.subject.point, reentrant=reentrant)

    def beside(self, got: Gradients, how: str) -> Iterator[Evidence]:
        """Evidence that gradients are those of the plain call."""
        bars = {} if beside.same_bits(got, self.grads) else self.bars
        yield from compare_gradients(self.subject, got, self.grads, bars, self.tape.leaves, **beside.facts(how))


def _eager(subject: Subject) -> Eager:
    tape = subject.record()
    beside.unless_writing(tape)
    us = beside.cotangents(subject, tape)
    grads = tape.vjp(us)
    return Eager(subject=subject, tape=tape, us=us, grads=grads, bars=gradient_bars(subject, us, grads))


def _judged(plain: Eager, between: Eager, how: str, *, reentrant: bool) -> Iterator[Evidence]:
    try:
        yield from _checkpointed(plain, between, how, reentrant=reentrant)
    except TransformError as error:
        yield beside.raised(plain.subject, error, how)


def _checkpointed(plain: Eager, between: Eager, how: str, *, reentrant: bool) -> Iterator[Evidence]:
    first = plain.again(reentrant=reentrant)
    second = between.again(reentrant=reentrant)
    yield from beside.outputs(plain.subject, first.outputs, plain.tape.outputs, f"output of a {how}")
    yield from plain.beside(first.vjp(plain.us), how)
    yield from between.beside(second.vjp(between.us), f"{how}, of two that were recorded the second")
    after = plain.subject.record().vjp(plain.us)
    yield from plain.beside(after, f"eager after a {how}")
