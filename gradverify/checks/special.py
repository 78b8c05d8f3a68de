"""SPECIAL: at zeros, ties, masks and extreme sizes the gradient is finite, and right where differences can judge."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from gradverify.autodiff import calling, products
from gradverify.autodiff.products import Tape
from gradverify.cases.regimes import EXTREME
from gradverify.checks.flat import Array, flat
from gradverify.checks.gradient import against_truth, where_not_finite
from gradverify.checks.subject import Gradients, Subject, at
from gradverify.errors import OpError
from gradverify.numerics.difference import Bools
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Finite outputs and gradients where they can be, then the gradient beside its truth, but for extreme sizes.

    A gradient that is not finite is held against what the forward does around the point, and against the reference's.
    """
    subject = at(spec, case)
    tape = subject.record()
    reference = _reference(subject)
    if reference is not None:
        yield from _outputs(subject, tape, reference)
    us = subject.cotangents(tape)
    grads = tape.vjp(us)
    lost = {n: ~np.isfinite(flat(g)) for n, g in grads.items() if g is not None}
    want = _wanted(reference, us) if any(mask.any() for mask in lost.values()) else {}
    if not any(mask.any() for mask in lost.values()):
        yield subject.count("the gradient", 0, kind="gradient not finite")
    yield from _beside(subject, grads, want)
    if any(word in EXTREME for _, word in case.values):
        # Where the reference's gradient is lost as well, the size is beyond what the formula can do.
        yield from where_not_finite(subject, tape, {n: m & _finite(want.get(n)) for n, m in lost.items()})
    else:
        yield from against_truth(subject)


def _reference(subject: Subject) -> Tape | None:
    """The reference's own call; None where there is none, or it refuses the point."""
    spec = subject.spec
    if spec.reference is None:
        return None
    try:
        subject.reseed()
        return products.record(spec, calling.companion(spec, spec.reference), subject.point)
    except OpError:
        return None


def _outputs(subject: Subject, tape: Tape, reference: Tape) -> Iterator[Evidence]:
    """An output that is not finite where the reference's is."""
    for k, (got, want) in enumerate(zip(tape.outputs, reference.outputs, strict=False)):
        if got.shape == want.shape:
            yield _lost(subject, f"output {k}", f"output {k}", got, want, kind="output not finite")


def _wanted(reference: Tape | None, us: tuple[Tensor | None, ...]) -> Gradients:
    """The reference's gradient, as evidence of what is finite; empty where it is none of what backward promises."""
    if reference is None or reference.spec.contract.kind != "exact":
        return {}
    try:
        return reference.vjp([_like(u, y) for u, y in zip(us, reference.outputs, strict=True)])
    except (OpError, ValueError):
        return {}


def _finite(grad: Tensor | None) -> Bools | bool:
    return True if grad is None else np.isfinite(flat(grad))


def _beside(subject: Subject, grads: Gradients, want: Gradients) -> Iterator[Evidence]:
    """A gradient that is NaN where the reference's is finite: an infinite one may be the slope itself."""
    for name, other in want.items():
        grad = grads[name]
        if grad is not None and other is not None and bool(grad.isnan().any()):
            nan = grad.where(grad.isnan(), 0.0)
            yield _lost(subject, f"the gradient of `{name}`", name, nan, other, kind="gradient not finite")


def _like(u: Tensor | None, y: Tensor) -> Tensor | None:
    return None if u is None else u.to(y.dtype)


def _lost(subject: Subject, quantity: str, name: str, got: Tensor, want: Tensor, *, kind: str) -> Evidence:
    """How many elements are not finite although the reference's are; the first of them is told."""
    a, b = flat(got), flat(want)
    lost = np.flatnonzero(~np.isfinite(a) & np.isfinite(b))
    if not lost.size:
        return subject.count(quantity, 0, kind=kind)
    place = _place(name, int(lost[0]), tuple(got.shape))
    found, wanted = f"{place} = {_number(a, lost[0])}", f"{_number(b, lost[0])} as the reference's"
    return subject.count(quantity, int(lost.size), kind=kind, found=found, wanted=wanted)


def _place(name: str, i: int, shape: tuple[int, ...]) -> str:
    index = ",".join(map(str, np.unravel_index(i, shape))) if shape else ""
    head = name if name.startswith("output") else f"grad {name}"
    return f"{head}[{index}]" if index else head


def _number(values: Array, i: int) -> str:
    return f"{values[i]:.10g}"
