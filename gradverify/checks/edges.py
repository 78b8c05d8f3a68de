"""EDGES: sizes 0 and 1, and sizes just below, at and above a block, are as right as any other."""

from __future__ import annotations

from collections.abc import Iterator

from gradverify.autodiff.products import Tape
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.forward import against_reference
from gradverify.checks.gradient import against_truth
from gradverify.checks.subject import Subject, at
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

FEW = 4
"""So many wrong values are shown."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Forward and gradient at an edge size; where nothing flows, the gradient must be zeros of the input's shape."""
    subject = at(spec, case)
    if spec.reference is not None:
        yield from against_reference(subject)
    tape = subject.record()
    active = sum(tape.outputs[i].numel() for i in tape.active)
    if active and any(t.numel() for t in tape.leaves.values()):
        yield from against_truth(subject)
    else:
        yield from _nothing_flows(subject, tape)


def _nothing_flows(subject: Subject, tape: Tape) -> Iterator[Evidence]:
    us = subject.cotangents(tape)
    for name, grad in tape.vjp(us).items():
        quantity = f"the gradient of `{name}`"
        values = zeros(tape.leaves[name]) if grad is None else flat(grad)
        wrong = values[values != 0]
        facts = {"found": _listed(wrong), "wanted": "zeros, or None: no output has an element"} if wrong.size else {}
        yield subject.count(quantity, wrong.size, kind="empty", shape=str(list(tape.leaves[name].shape)), **facts)


def _listed(values: Array) -> str:
    return ", ".join(f"{v:.4g}" for v in values[:FEW]) + (", ..." if values.size > FEW else "")
