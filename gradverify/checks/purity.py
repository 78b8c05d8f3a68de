"""PURITY: the op leaves alone what it was given: inputs, cotangents, saved tensors, outputs, the global generator."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gradverify.autodiff.calling import copies
from gradverify.checks.subject import Subject, at
from gradverify.checks.watch import changed, generator_moved, photograph, returned
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare everything in reach before and after forward and backward, bytes and versions; count what changed."""
    subject = at(spec, case)
    with torch.random.fork_rng():
        # A state of our own: an op that seeds the generator may have left just that state behind.
        torch.default_generator.manual_seed(case.seed + 1)
        yield from _watched(subject)


def _watched(subject: Subject) -> Iterator[Evidence]:
    handed = copies(subject.point.primals)
    before = photograph({n: t for n, t in handed.items() if t is not None})
    state = torch.random.get_rng_state()
    tape = subject.record(primals=handed)
    allowed = returned(tape.given, tape.outputs)
    yield from changed(subject, before, tape.given, "input", "forward", allowed=allowed, written=tape.written)
    us = {f"cotangent {tape.name(i)}": u for i, u in enumerate(subject.cotangents(tape)) if u is not None}
    watched = {
        "cotangent": us,
        "input": tape.given,
        "saved": {f"saved tensor {i}": t for i, t in enumerate(tape.saved())},
        "output": {f"output {tape.name(i)}": y for i, y in enumerate(tape.outputs)},
    }
    pictures = {kind: photograph(tensors) for kind, tensors in watched.items()}
    tape.vjp([us.get(f"cotangent {tape.name(i)}") for i in range(len(tape.outputs))])
    for kind, tensors in watched.items():
        yield from changed(subject, pictures[kind], tensors, kind, "backward")
    moved = 0 if subject.spec.stochastic else generator_moved(state)
    yield subject.count("the global generator", moved, kind="generator", phase="the call")
