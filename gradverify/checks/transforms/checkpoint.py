"""TRANSFORMS.CHECKPOINT: a forward that is called again during the backward changes no gradient."""

from __future__ import annotations

from collections.abc import Iterator

from gradverify.autodiff.transforms import checkpointed
from gradverify.autodiff.transforms.pure import TransformError
from gradverify.checks.subject import at
from gradverify.checks.transforms import beside
from gradverify.checks.transforms.alone import Alone
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
    plain, between = Alone.of(subject), Alone.of(beside.elsewhere(subject, 1))
    for how, reentrant in VARIANTS.items():
        yield from _judged(plain, between, how, reentrant=reentrant)


def _judged(plain: Alone, between: Alone, how: str, *, reentrant: bool) -> Iterator[Evidence]:
    try:
        yield from _checkpointed(plain, between, how, reentrant=reentrant)
    except TransformError as error:
        yield beside.raised(plain.subject, error, how)


def _checkpointed(plain: Alone, between: Alone, how: str, *, reentrant: bool) -> Iterator[Evidence]:
    first = _again(plain, reentrant=reentrant)
    second = _again(between, reentrant=reentrant)
    yield from beside.outputs(plain.subject, first.outputs, plain.tape.outputs, f"output of a {how}")
    yield from plain.beside(first.vjp(plain.us), how)
    yield from between.beside(second.vjp(between.us), f"{how}, of two that were recorded the second")
    after = plain.subject.record().vjp(plain.us)
    yield from plain.beside(after, f"eager after a {how}")


def _again(plain: Alone, *, reentrant: bool) -> checkpointed.Checkpointed:
    plain.subject.reseed()
    return checkpointed.record(plain.subject.spec, plain.subject.point, reentrant=reentrant)
