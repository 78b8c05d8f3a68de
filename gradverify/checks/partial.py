"""PARTIAL: any subset of inputs may require grad, any subset of outputs may be used; the rest stays the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.checks.flat import flat
from gradverify.checks.subject import Subject, at, compare_gradients, gradient_bars
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare the gradients under a mask and with unused outputs with those of a call that uses everything.

    An output that is not used is one whose cotangent is zero. A frozen argument gets None or zeros.
    """
    subject = at(spec, case)
    everything = tuple(n for n in spec.differentiable() if subject.point.primals[n] is not None)
    whole = replace(subject, point=replace(subject.point, differentiate=everything))
    base = whole.record()
    us = subject.cotangents(base)
    zeros = [torch.zeros_like(y) if u is None and i in base.active else u for i, (y, u) in enumerate(_pairs(base, us))]
    want = base.vjp(zeros)
    bars = gradient_bars(whole, zeros, want)
    tape = subject.record()
    words = f"gradients for {', '.join(subject.point.differentiate)}; outputs used {_used(base, us)}"
    masked = {n: want[n] for n in tape.leaves}
    yield from compare_gradients(subject, tape.vjp(us), masked, bars, base.leaves, mask=words)
    yield from _frozen(subject, everything)


def _pairs(tape: Tape, us: Sequence[Tensor | None]) -> list[tuple[Tensor, Tensor | None]]:
    return list(zip(tape.outputs, us, strict=True))


def _used(tape: Tape, us: Sequence[Tensor | None]) -> str:
    return ", ".join(str(i) for i in tape.active if us[i] is not None) or "none"


def _frozen(subject: Subject, everything: tuple[str, ...]) -> Iterator[Evidence]:
    """What is declared to carry no gradient must get None or zeros even when it asks for one."""
    frozen = [a.name for a in subject.spec.args if a.role == "frozen" and subject.point.primals[a.name] is not None]
    if not frozen:
        return
    tape = subject.record(point=replace(subject.point, differentiate=(*everything, *frozen)))
    grads = tape.vjp(subject.cotangents(tape))
    for name in frozen:
        grad = grads[name]
        wrong = 0 if grad is None else int((flat(grad) != 0).sum())
        yield subject.count(f"the gradient of the frozen `{name}`", wrong, kind="frozen")
