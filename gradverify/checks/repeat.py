"""REPEAT: the same call gives the same bits, again, and after a call with other data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gradverify.checks.elsewhere import with_other_values
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Subject, at, gradient_bars, order_bar
from gradverify.numerics.comparison import rounding_bar
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare outputs and gradients of a first call with: backward again; a second call; a call after other data.

    The call with other data comes once between forward and backward, and once before both.
    """
    subject = at(spec, case)
    first = subject.record()
    us = subject.cotangents(first)
    grads = first.vjp(us)
    outputs = {first.name(k): y.detach().clone() for k, y in enumerate(first.outputs)}
    bars = gradient_bars(subject, us, grads)
    yield from _same(subject, outputs, grads, first.outputs, first.vjp(us), bars, kind="backward again")
    second = subject.record()
    yield from _same(subject, outputs, grads, second.outputs, second.vjp(us), bars, kind="again")
    third = subject.record()
    _elsewhere(subject)
    yield from _same(subject, outputs, grads, third.outputs, third.vjp(us), bars, kind="after other data")
    fourth = subject.record()
    yield from _same(subject, outputs, grads, fourth.outputs, fourth.vjp(us), bars, kind="after other data")


def _elsewhere(subject: Subject) -> None:
    """A call with other values of the same shapes, forward and backward."""
    away = with_other_values(subject)
    tape = away.record()
    tape.vjp(away.cotangents(tape, 7))


def _same(
    subject: Subject,
    outputs: Mapping[str, Tensor],
    grads: Mapping[str, Tensor | None],
    again: tuple[Tensor, ...],
    regrads: Mapping[str, Tensor | None],
    bars: Mapping[str, Array],
    *,
    kind: str,
) -> Iterator[Evidence]:
    for name, a, b in zip(outputs, again, outputs.values(), strict=True):
        bar = rounding_bar(flat(b), zeros(b), unit=subject.unit, terms=b.numel())
        yield _graded(subject, f"output {name}", f"output {name}", a, b, bar, kind)
    for name, first in grads.items():
        quantity, second = f"the gradient of `{name}`", regrads[name]
        if (first is None) != (second is None):
            yield subject.count(quantity, 1, kind=kind, said="one call returns it, and an equal one returns None")
        elif first is not None and second is not None:
            own = bars[name] if subject.spec.nondeterministic else order_bar(subject, first)
            yield _graded(subject, quantity, name, second, first, own, kind)


def _graded(subject: Subject, quantity: str, argument: str, a: Tensor, b: Tensor, bar: Array, kind: str) -> Evidence:
    """Bitwise, unless the spec says that rounding may differ; how many elements differ, and by how much."""
    differ = int((~torch.isclose(a, b, rtol=0, atol=0, equal_nan=True)).sum())
    declared = subject.spec.nondeterministic
    return subject.compare(quantity, argument, a, b, bar, kind=kind, differ=differ, declared=declared)
