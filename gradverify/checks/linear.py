"""LINEAR: backward is linear in the cotangent, B(a u + w) = a B(u) + B(w)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from gradverify.checks.subject import at, compare_gradients, gradient_bars
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

SCALE = 2.5
"""Not a power of two, so that a cotangent that is rounded or quantised on its way shows."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare B(2.5 u) with 2.5 B(u), B(-u) with -B(u), and B(u + w) with B(u) + B(w)."""
    subject = at(spec, case)
    tape = subject.record()
    us, ws = subject.cotangents(tape, 0), subject.cotangents(tape, 1)
    bu, bw = tape.vjp(us), tape.vjp(ws)
    bars = gradient_bars(subject, us, bu)
    wide = {n: b + gradient_bars(subject, ws, bw).get(n, np.zeros_like(b)) for n, b in bars.items()}
    for factor in (SCALE, -1.0):
        scaled = tape.vjp([None if u is None else factor * u for u in us])
        want = {n: None if g is None else factor * g for n, g in bu.items()}
        facts = {"relation": f"B({factor:g} u) against {factor:g} B(u)"}
        yield from compare_gradients(
            subject, scaled, want, {n: SCALE * b for n, b in bars.items()}, tape.leaves, **facts
        )
    added = tape.vjp([None if u is None or w is None else u + w for u, w in zip(us, ws, strict=True)])
    want = {n: _sum(bu[n], bw[n]) for n in bu}
    yield from compare_gradients(subject, added, want, wide, tape.leaves, relation="B(u + w) against B(u) + B(w)")


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
