"""The benchmark's own truth: right ops are right, planted bugs are wrong."""

from __future__ import annotations

import dataclasses

import pytest

from ci.bench.op import LEAST_FAULT, complex_step_gap, fault_size
from ci.bench.ops import KINDS, scaled, small_ops

OPS = small_ops()
BUGS = [(op, bug) for op in OPS for bug in op.bugs]
by_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


def test_every_class_has_ops_and_the_table_is_as_large_as_it_says():
    assert {op.kind for op in OPS} == set(KINDS)
    assert len(OPS) >= 43
    assert len(BUGS) >= 46


@by_op
def test_autograd_agrees_with_the_complex_step_where_the_op_takes_complex_numbers(op):
    gap = complex_step_gap(op)
    assert gap is None or gap < 1e-10


def test_most_smooth_ops_take_complex_numbers():
    assert sum(complex_step_gap(op) is not None for op in OPS) >= 30


@pytest.mark.parametrize(("op", "bug"), BUGS, ids=lambda case: case.name)
def test_a_planted_bug_is_wrong_by_more_than_imprecision(op, bug):
    assert fault_size(op, bug) > LEAST_FAULT


def test_no_fault_measures_as_none():
    assert fault_size(OPS[0], scaled(1.0)) == 0.0


def test_a_wrong_autograd_formula_does_not_agree_with_the_complex_step():
    op = dataclasses.replace(OPS[0], fn=lambda a, b: OPS[0].fn(a, b) + (a - a.detach() if not a.is_complex() else 0))
    assert complex_step_gap(op) > 1e-3
