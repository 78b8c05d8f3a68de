"""PURITY: the op leaves alone what it was given: inputs, cotangents, saved tensors, outputs, the global generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gradverify.autodiff.calling import copies
from gradverify.checks.subject import Subject, at
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare the bytes of everything in reach before and after forward and backward; count elements that changed."""
    subject = at(spec, case)
    with torch.random.fork_rng():
        # A state of our own: an op that seeds the generator may have left just that state behind.
        torch.default_generator.manual_seed(case.seed + 1)
        yield from _watched(subject)


def _watched(subject: Subject) -> Iterator[Evidence]:
    handed = copies(subject.point.primals)
    before = _photograph({n: t for n, t in handed.items() if t is not None})
    state = torch.random.get_rng_state()
    tape = subject.record(primals=handed)
    yield from _changed(subject, before, tape.given, "input", "forward", allowed=_returned(tape.given, tape.outputs))
    us = {f"cotangent {tape.name(i)}": u for i, u in enumerate(subject.cotangents(tape)) if u is not None}
    watched = {
        "cotangent": us,
        "input": tape.given,
        "saved": {f"saved tensor {i}": t for i, t in enumerate(tape.saved())},
        "output": {f"output {tape.name(i)}": y for i, y in enumerate(tape.outputs)},
    }
    pictures = {kind: _photograph(tensors) for kind, tensors in watched.items()}
    tape.vjp([us.get(f"cotangent {tape.name(i)}") for i in range(len(tape.outputs))])
    for kind, tensors in watched.items():
        yield from _changed(subject, pictures[kind], tensors, kind, "backward", allowed=frozenset())
    moved = 0 if subject.spec.stochastic else int((state != torch.random.get_rng_state()).any())
    yield subject.count("the global generator", moved, kind="generator", phase="the call")


def _photograph(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in tensors.items()}


def _returned(given: Mapping[str, Tensor], outputs: tuple[Tensor, ...]) -> frozenset[str]:
    """Inputs that the op returns, marked dirty: changing them is what it says it does."""
    return frozenset(n for n, t in given.items() if any(y is t for y in outputs))


def _changed(
    subject: Subject,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    kind: str,
    phase: str,
    *,
    allowed: frozenset[str],
) -> Iterator[Evidence]:
    for name, t in after.items():
        wrong = 0 if name in allowed else _different(before[name], t.detach())
        yield subject.count(f"`{name}`" if kind == "input" else name, wrong, kind=kind, phase=phase)


def _different(a: Tensor, b: Tensor) -> int:
    if a.shape != b.shape:
        return max(a.numel(), 1)
    return int(((a != b) & ~((a != a) & (b != b))).sum())
