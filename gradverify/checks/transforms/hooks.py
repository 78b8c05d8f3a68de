"""TRANSFORMS.HOOKS: what backward needs passes through saved-tensor hooks, and may come back as a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import msgspec
import torch
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms import hooked
from gradverify.autodiff.transforms.pure import Gradients, TransformError, transforming
from gradverify.cases.modules import in_dtype
from gradverify.checks.elsewhere import with_other_values
from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import Subject, at, compare_gradients, gradient_bars, scatter, shaken
from gradverify.checks.transforms import beside
from gradverify.errors import OpError
from gradverify.numerics.comparison import rounding_bar
from gradverify.numerics.draws import draws
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

Hooks = Callable[[], AbstractContextManager[None]]

HOOKS: dict[str, Hooks] = {
    "saved tensors handed back as copies": hooked.as_copies,
    "saved tensors handed back contiguous": hooked.as_contiguous,
}


ELSEWHERE = (
    "whatever hooks hand back it gives the same, and not so for other inputs: it reads a closure, a global or an "
    "object; pass that to ctx.save_for_backward"
)


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """The gradients under two pairs of hooks; in float32; then what backward reads where no hook sees it.

    Each tensor on ctx is spoilt, to see whether backward reads it; then all that is saved, to see whether it does.
    """
    subject = at(spec, case)
    beside.unless_declared(subject, "hooks")
    plain = subject.record()
    us = beside.cotangents(subject, plain)
    want = plain.vjp(us)
    for how, hooks in HOOKS.items():
        yield from _under(subject, plain, us, want, how=how, hooks=hooks)
    yield from _narrow(subject, plain, us, want)
    unseen = list(_unseen(subject, plain, us, want))
    yield from unseen
    if not any(e.analytic for e in unseen):
        yield from _elsewhere(subject, plain, us, want)


def _under(
    subject: Subject, plain: Tape, us: beside.Used, want: Gradients, *, how: str, hooks: Hooks
) -> Iterator[Evidence]:
    try:
        with transforming():
            with hooks():
                tape = subject.record()
            got = tape.vjp(us)
    except TransformError as error:
        yield beside.raised(subject, error, how)
        return
    yield from beside.gradients(subject, got, want, us, plain.leaves, how)


def _narrow(subject: Subject, plain: Tape, us: beside.Used, want: Gradients) -> Iterator[Evidence]:
    """Saved tensors in float32, as hooks that save memory keep them: backward raises, or is right to their digits.

    Torch's own nodes are not asked: they count on the dtype that they saved.
    """
    if subject.case.dtype != "float64" or subject.spec.stochastic or not _is_function(subject.spec):
        return
    try:
        got = _pulled(subject, us, hooked.as_float32())
        moved = list(_computed_narrow(subject, us))
        hidden = _terms_in_narrow(subject, us)
    except (TransformError, OpError):
        return
    bars = {n: _bar(g, [m[n] for m in moved]) + hidden.get(n, 0.0) for n, g in want.items() if g is not None}
    how = "saved tensors handed back in float32"
    yield from compare_gradients(subject, got, want, bars, plain.leaves, **beside.facts(how))


def _computed_narrow(subject: Subject, us: beside.Used) -> Iterator[Gradients]:
    """The gradients of the whole call in float32, at points moved by a few of its roundings."""
    case: Case = msgspec.structs.replace(subject.case, dtype="float32")
    narrow = at(in_dtype(subject.spec, "float32"), case)
    for k in range(draws()):
        primals = shaken(narrow, narrow.point.primals, draw=k)
        tape = narrow.record(point=replace(narrow.point, primals=primals))
        yield tape.vjp([None if u is None else u.to(y.dtype) for u, y in zip(us, tape.outputs, strict=True)])


def _terms_in_narrow(subject: Subject, us: beside.Used) -> Mapping[str, Array]:
    """The error bars that a gradient has in float32, with the rounding of terms that cancel in it."""
    case: Case = msgspec.structs.replace(subject.case, dtype="float32")
    narrow = at(in_dtype(subject.spec, "float32"), case)
    tape = narrow.record()
    given = [None if u is None else u.to(y.dtype) for u, y in zip(us, tape.outputs, strict=True)]
    return gradient_bars(narrow, given, tape.vjp(given))


def _bar(want: Tensor, moved: Sequence[Tensor | None]) -> Array:
    near = [flat(m) for m in moved if m is not None and m.shape == want.shape]
    return rounding_bar(flat(want), scatter(flat(want), near or [flat(want)]), unit=hooked.FLOAT32, terms=want.numel())


def _is_function(spec: Spec) -> bool:
    return isinstance(spec.op, type) and issubclass(spec.op, torch.autograd.Function)


def _pulled(subject: Subject, us: beside.Used, hooks: AbstractContextManager[None]) -> Gradients:
    with transforming():
        with hooks:
            tape = subject.record()
        return tape.vjp(us)


def _elsewhere(subject: Subject, plain: Tape, us: beside.Used, want: Gradients) -> Iterator[Evidence]:
    """Where all that is saved is spoilt, and the gradient is what it was although it depends on the inputs."""
    if subject.spec.stochastic or not _is_function(subject.spec) or hooked.keeps_numbers(plain):
        return
    other = with_other_values(subject)
    try:
        there = other.record().vjp(us)
        seen = [
            not beside.same_bits(_pulled(s, us, hooked.as_spoilt()), g) for s, g in ((subject, want), (other, there))
        ]
    except (OpError, TransformError):
        return
    wrong = int(not any(seen) and not beside.same_bits(there, want))
    said = {"said": ELSEWHERE} if wrong else {}
    yield subject.count("what backward reads", wrong, kind="elsewhere", **said)


def _unseen(subject: Subject, plain: Tape, us: beside.Used, want: Gradients) -> Iterator[Evidence]:
    for name, count in hooked.kept(plain).items():
        tape = subject.record()
        hooked.spoil(tape, name)
        said = f"`ctx.{name}` holds {count} elements that hooks do not see; pass them to ctx.save_for_backward"
        wrong = count if _changes(tape, us, want) else 0
        yield subject.count(f"`ctx.{name}`", wrong, kind="unseen", said=said)


def _changes(tape: Tape, us: beside.Used, want: Gradients) -> bool:
    try:
        with transforming():
            return not beside.same_bits(tape.vjp(us), want)
    except TransformError:
        return True
