"""FORWARD: the op's outputs equal the reference's, to the rounding that this point's condition allows."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from torch import Tensor

from gradverify.autodiff import calling
from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import WIGGLE, Subject, at, scatter, shaken
from gradverify.numerics.comparison import ROUNDINGS, norm, rounding_bar
from gradverify.numerics.cotangents import wanted_in
from gradverify.numerics.draws import draws
from gradverify.numerics.measurement import SAFETY
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

CONDITION = 64
"""A value that moves by no more than so many times as much as its inputs is ill-conditioned at most: it has no step."""


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
    moved = [subject.values(called, shaken(subject, subject.point.primals, draw=k)) for k in range(draws())]
    spread = [scatter(flat(w), [flat(m[k]) for m in moved]) for k, w in enumerate(want)]
    terms = max((t.numel() for t in subject.point.primals.values() if t is not None), default=1)
    for k, (a, b, s) in enumerate(zip(got, want, spread, strict=True)):
        bar = rounding_bar(flat(b), s, unit=subject.unit, terms=terms)
        for e in _one(subject, calling.label(got, k), a, b, bar):
            yield _at_steps(e, flat(b), bar, unit=subject.unit) if "truth" in e.facts else e


def _at_steps(e: Evidence, want: Array, bar: Array, *, unit: float) -> Evidence:
    """The evidence with the share of the values that are known, and with their resolution.

    A step function at its step has a bar that says nothing: which side is right, rounding decides. Unknown is what
    has neither a bar as fine as is wanted of a measurement, nor one that an ordinary condition explains.
    """
    limit = max(wanted_in(unit), SAFETY * ROUNDINGS * CONDITION * WIGGLE * unit)
    finite = np.isfinite(want)
    value, bar = np.abs(want[finite]), bar[finite]
    beside = np.maximum(value, norm(value) / np.sqrt(max(value.size, 1)))
    known = SAFETY * bar <= limit * beside
    if known.all():
        return e
    size = norm(value[known])
    return msgspec.structs.replace(
        e,
        resolved=float(known.mean()),
        resolution=SAFETY * norm(bar[known]) / size if size else e.resolution,
        neighbourhood="jump",
        facts={**e.facts, "cause": "the reference jumps at these inputs: rounding decides what it returns"},
    )


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
