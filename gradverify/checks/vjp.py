"""VJP: for random cotangents u and every differentiable argument, backward returns J^T u."""

from __future__ import annotations

from collections.abc import Iterator

from gradverify.checks.gradient import against_truth
from gradverify.checks.subject import at
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Hold <vjp(u), d> against <u, J d> along random directions d, with J d from the spec's truth."""
    yield from against_truth(at(spec, case), own_slope=True)
