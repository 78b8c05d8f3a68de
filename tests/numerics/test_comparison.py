"""Two results are compared in error bars, entry by entry."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradverify.numerics.comparison import inner, norm, rounding_bar, through_float32, worst_gap

FINITE = arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e6, 1e6))


@given(FINITE)
def test_an_array_has_no_gap_to_itself(a):
    gap = worst_gap(a, a, np.full(a.size, 1e-9))
    assert gap.analytic == gap.numeric


@given(FINITE, st.integers(0, 100))
def test_the_entry_that_is_most_bars_off_is_named(a, k):
    k %= a.size
    b = a.copy()
    b[k] += 1.0 + abs(a[k])
    gap = worst_gap(b, a, np.full(a.size, 1e-9))
    assert gap.index == k
    assert gap.analytic == b[k]
    assert gap.numeric == a[k]


def test_a_wide_bar_hides_a_large_difference_and_a_narrow_one_shows_a_small():
    gap = worst_gap(np.array([2.0, 1.001]), np.array([1.0, 1.0]), np.array([10.0, 1e-6]))
    assert gap.index == 1


def test_a_nan_against_a_number_is_the_worst_of_all_and_a_nan_against_a_nan_is_none():
    bar = np.full(2, 1e-9)
    assert worst_gap(np.array([5.0, np.nan]), np.array([4.0, 1.0]), bar).index == 1
    gap = worst_gap(np.array([1.0, np.nan]), np.array([1.0, np.nan]), bar)
    assert gap.index == 0


def test_nothing_to_compare_has_no_index_and_no_resolution():
    gap = worst_gap(np.zeros(0), np.zeros(0), np.zeros(0))
    assert gap.index == -1
    assert np.isnan(gap.resolution)


def test_the_resolution_is_three_bars_of_the_whole():
    gap = worst_gap(np.full(4, 2.0), np.full(4, 2.0), np.full(4, 1e-6))
    assert np.isclose(gap.resolution, 3 * 1e-6 / 2)


def test_the_norm_neither_overflows_nor_underflows():
    assert np.isclose(norm(np.array([3e200, 4e200])), 5e200)
    assert np.isclose(norm(np.array([3e-200, 4e-200])), 5e-200)
    assert norm(np.zeros(3)) == norm(np.zeros(0)) == 0


def test_a_zero_weight_keeps_what_is_not_finite_out_of_an_inner_product():
    assert inner(np.array([0.0, 2.0]), np.array([np.inf, 3.0])) == 6
    assert not np.isfinite(inner(np.array([1.0]), np.array([np.inf])))


def test_the_rounding_bar_grows_with_the_scatter_the_value_and_the_terms():
    base = rounding_bar(np.ones(1), np.zeros(1), unit=2.0**-53, terms=1)
    assert 0 < base < 1e-14
    assert rounding_bar(np.ones(1), np.ones(1), unit=2.0**-53, terms=1) >= 8
    assert rounding_bar(np.ones(1), np.zeros(1), unit=2.0**-53, terms=100) == 10 * base


def test_a_result_that_went_through_float32_is_recognised():
    values = np.random.default_rng(0).standard_normal(100)
    assert through_float32(values.astype(np.float32).astype(np.float64))
    assert not through_float32(values)
    assert not through_float32(np.zeros(100))
