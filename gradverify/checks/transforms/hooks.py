"""TRANSFORMS.HOOKS: what backward needs passes through saved-tensor hooks, and may come back as a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms import hooked
from gradverify.autodiff.transforms.pure import Gradients, TransformError, transforming
from gradverify.checks.subject import Subject, at
from gradverify.checks.transforms import beside
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

Hooks = Callable[[], AbstractContextManager[None]]

HOOKS: dict[str, Hooks] = {
    "saved tensors handed back as copies": hooked.as_copies,
    "saved tensors handed back contiguous": hooked.as_contiguous,
}


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """The gradients under two pairs of hooks; then each tensor on ctx is spoilt, to see whether backward reads it."""
    subject = at(spec, case)
    beside.unless_declared(subject, "hooks")
    plain = subject.record()
    us = beside.cotangents(subject, plain)
    want = plain.vjp(us)
    for how, hooks in HOOKS.items():
        yield from _under(subject, plain, us, want, how=how, hooks=hooks)
    yield from _unseen(subject, plain, us, want)


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
