"""Several wrong entries of a large gradient are all found, for a number of forwards that grows like k log n."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradverify.numerics.culprits import MOST, culprits
from tests.numerics.test_sketch import Op

TEST, LEAF, ROUND = 2, 40, 6
"""Forwards for a set that is tried, for an entry on a ladder of its own, and for a direction through all inputs."""


def spoilt(n, bad, *, by=0.5):
    """The sums of x^3 over rows of 16, with the gradient of some entries `by` times as large."""
    x = 1 + np.random.default_rng(n).random(n)
    weight = np.ones(n)
    weight[bad] = by
    return Op(lambda z: (z * z * z).reshape(-1, 16).sum(1), lambda z, v: weight * np.repeat(v, 16) * 3 * z * z, x)


def some(n, k):
    return sorted(np.random.default_rng(k).choice(n, k, replace=False).tolist())


def found(op, seed=0):
    problem = op.problem()
    op.forwards = 0
    answer = culprits(problem, np.random.default_rng(seed))
    return answer, [place.index[0] for place in answer.entries]


@pytest.mark.parametrize("n", [2**10, 2**16, 10**6])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_all_wrong_entries_are_found_for_k_log_n_forwards(n, k):
    op, bad = spoilt(n, some(n, k)), some(n, k)
    answer, places = found(op)
    assert places == bad
    assert (answer.inputs, answer.complete, answer.many) == (n, True, False)
    # At most two rounds find them, two more directions agree, and the function's swing is measured once.
    assert op.forwards <= TEST * k * math.ceil(math.log2(n)) + LEAF * k + ROUND * 5


@pytest.mark.parametrize("by", [0.0, 0.999, 1 + 1e-7, -3.0])
def test_an_error_of_any_size_is_found(by):
    bad = some(4096, 3)
    assert found(spoilt(4096, bad, by=by))[1] == bad


@pytest.mark.parametrize("seed", range(20))
def test_equal_errors_do_not_hide_each_other(seed):
    pairs = [12, 13, 900, 3000]
    op = Op(lambda z: np.array([z.sum()]), lambda z, v: v * (1 + np.isin(np.arange(4096), pairs)), np.ones(4096))
    answer, places = found(op, seed)
    assert places == pairs
    assert answer.complete


def test_a_small_error_is_found_beside_a_large_one():
    weight = np.ones(4096)
    weight[[100, 2000]] = 1e6, 1 + 1e-4
    op = Op(np.sin, lambda z, v: weight * v * np.cos(z), np.random.default_rng(1).standard_normal(4096))
    answer, places = found(op)
    assert places == [100, 2000]
    assert answer.complete


def test_inputs_of_very_different_sizes_are_tried_apart():
    x = np.random.default_rng(2).standard_normal(4096) * np.where(np.arange(4096) % 2, 1e-6, 1e6)
    weight = np.ones(4096)
    weight[[10, 11, 4001]] = 2.0
    assert found(Op(lambda z: z * z, lambda z, v: 2 * weight * v * z, x))[1] == [10, 11, 4001]


def test_outputs_at_a_kink_do_not_hide_the_others():
    x, bad = np.random.default_rng(3).standard_normal(4096), [7, 70, 700]
    x[bad] = 2.0
    weight = np.where(np.isin(np.arange(4096), bad), 0.0, 1.0)
    op = Op(lambda z: np.maximum(z - 1, 0), lambda z, v: weight * v * (z > 1), x)
    assert found(op)[1] == bad


def test_a_gradient_for_an_input_that_nothing_depends_on_is_found():
    free = np.isin(np.arange(4096), [5, 1234])
    op = Op(lambda z: np.where(free, 0, z * z), lambda z, v: np.where(free, v, 2 * v * z), np.ones(4096))
    assert found(op)[1] == [5, 1234]


def test_of_too_many_it_is_told_where_they_lie_and_the_search_ends_soon():
    op = spoilt(2**16, slice(1000, 2000))
    answer, places = found(op)
    assert answer.many
    assert not places
    first, last = (place.index[0] for place in answer.among)
    assert (first, last) == (1000, 1999)
    assert op.forwards <= TEST * 2 * MOST + TEST * 4 * 16 + ROUND * 4


def test_of_all_entries_no_place_is_told():
    op = spoilt(2**16, slice(None))
    answer, _ = found(op)
    assert (answer.many, answer.among) == (True, None)
    assert op.forwards <= TEST * 2 * MOST + TEST * 2 * 16 + ROUND * 2


def test_nothing_is_found_in_a_right_gradient():
    op = spoilt(2**16, [])
    answer, places = found(op)
    assert (places, answer.many) == ([], False)
    assert op.forwards == 2 * ROUND
