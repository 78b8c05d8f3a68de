"""Every pattern that is printed is the right one, and most faults are named."""

from __future__ import annotations

from functools import cache

import pytest

from gradverify.diagnosis.patterns import pattern_of
from gradverify.diagnosis.sample import samples, wrong
from gradverify.records.case import Case
from tests.diagnosis.injected import INJECTIONS, OPS, spec_of

PAIRS = [(op, i) for op in OPS for i in INJECTIONS if i.where(op)]


@cache
def named(op, injection):
    spec = spec_of(op, injection)
    letters = sorted({c for s in op.shapes.values() for c in s.split()})
    failing = Case(
        spec=spec.name, claim="vjp", dims=tuple((c, 2) for c in letters), differentiate=spec.differentiable()
    )
    found = [s for s in samples(spec, failing) if op.spoilt in wrong(s)]
    return pattern_of(found, op.spoilt), {n for s in found for n in wrong(s)}


@pytest.mark.parametrize(("op", "injection"), PAIRS, ids=lambda x: x.name)
def test_no_pattern_is_printed_that_is_not_there(op, injection):
    pattern, off = named(op, injection)
    assert off == {op.spoilt}
    if pattern is not None:
        assert pattern.code == injection.code, pattern.said
        assert injection.said in pattern.said
        assert pattern.residual < 1e-8 or injection.name == "bfloat16"


def test_four_in_five_are_named():
    wanted = [(op, i) for op, i in PAIRS if i.code]
    missed = [f"{op.name}: {i.name}" for op, i in wanted if named(op, i)[0] is None]
    assert len({i.name for _, i in wanted}) >= 24
    assert len(missed) <= 0.2 * len(wanted), missed
