"""FORWARD: the op's outputs equal the reference's, to the rounding that this point's condition allows."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from gradverify.autodiff import calling
from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import DRAWS, Subject, at, scatter, shaken
from gradverify.numerics.comparison import rounding_bar
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare every output with the reference's: number, shape, dtype kind, then values.

    The error bar of an element is the scatter of the reference when its inputs move by one rounding, and the rounding
    of the value, 8-fold; so an ill-conditioned point has a wide bar, and a step function at its step a useless one.
    """
    subject = at(spec, case)
    assert spec.reference is not None
    yield from against_reference(subject)


def against_reference(subject: Subject) -> Iterator[Evidence]:
    """The outputs, held against those of the reference."""
    assert subject.spec.reference is not None
    called = calling.companion(subject.spec, subject.spec.reference)
    want = subject.values(called, calling.copies(subject.point.primals))
    got = subject.values(subject.call, calling.copies(subject.point.primals))
    if len(got) != len(want):
        yield subject.count("the number of outputs", 1, kind="count", found=len(got), wanted=len(want))
        return
    if not _named_alike(got, want):
        names = {"found": ", ".join(calling.output_names(got)), "wanted": ", ".join(calling.output_names(want))}
        yield subject.count("the names of the outputs", 1, kind="names", **names)
        return
    moved = [subject.values(called, shaken(subject, subject.point.primals, draw=k)) for k in range(DRAWS)]
    spread = [scatter(flat(w), [flat(m[k]) for m in moved]) for k, w in enumerate(want)]
    terms = max((t.numel() for t in subject.point.primals.values() if t is not None), default=1)
    for k, (a, b, s) in enumerate(zip(got, want, spread, strict=True)):
        yield from _one(subject, calling.label(got, k), a, b, rounding_bar(flat(b), s, unit=subject.unit, terms=terms))


def _named_alike(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> bool:
    """Keys must agree; a plain tuple may stand for fields, which have an order."""
    one, other = calling.output_names(got), calling.output_names(want)
    return one == other or not any("['" in n for n in (*one, *other))


def _one(subject: Subject, quantity: str, got: Tensor, want: Tensor, bar: Array) -> Iterator[Evidence]:
    if got.shape != want.shape:
        yield subject.count(quantity, 1, kind="shape", found=str(list(got.shape)), wanted=str(list(want.shape)))
    elif (got.is_floating_point(), got.is_complex()) != (want.is_floating_point(), want.is_complex()):
        yield subject.count(quantity, 1, kind="dtype", found=str(got.dtype), wanted=str(want.dtype))
    else:
        yield subject.compare(quantity, quantity, got, want, bar, truth="the reference")
