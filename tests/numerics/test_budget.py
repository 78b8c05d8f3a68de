"""Budgets, means and spreads from literal numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gradverify.numerics.budget import bias_bar, budget, mean_of, quartile, slope_of, spread_of

UNIT = 2.0**-8


def of(truth, moved=(), errors=(), least=0.0):
    return budget(np.array(truth), [np.array(m) for m in moved], [np.array(e) for e in errors], unit=UNIT, least=least)


def test_with_nothing_else_known_it_is_one_rounding():
    b = of([1.0, 2.0, 4.0])
    assert b.bar.tolist() == [2 * UNIT, 2 * UNIT, 4 * UNIT]  # the least of them has what half of them have
    assert (b.plain, b.rounding, b.condition) == (0.0, UNIT, 0.0)


def test_the_condition_adds_to_it():
    b = of([1.0, 1.0], moved=[[1.25, 0.75]])
    assert b.bar.tolist() == [0.25 + UNIT, 0.25 + UNIT]
    assert b.condition == 0.25


def test_the_largest_error_of_a_plain_computation_is_allowed_to_its_entry():
    b = of([1.0] * 20, errors=[[0.0] * 19 + [0.5], [0.0] * 19 + [-0.25]])
    assert b.bar[-1] == 0.5
    assert b.bar[0] == UNIT
    assert b.plain == pytest.approx(0.5 / 20**0.5)


def test_what_most_entries_are_off_by_is_allowed_to_all():
    b = of([1.0] * 20, errors=[[0.1] * 19 + [0.0]])
    assert b.bar == pytest.approx([0.1] * 20)


def test_an_entry_whose_plain_computation_is_not_finite_has_no_bar():
    assert of([1.0, 1.0, 1.0], errors=[[0.0, np.nan, np.inf]]).bar.tolist() == [UNIT, np.inf, np.inf]


def test_below_the_smallest_number_nothing_is_asked_for():
    assert of([0.0, 0.0], least=1e-8).bar.tolist() == [1e-8, 1e-8]


def test_nothing_has_an_empty_budget():
    assert of([]).bar.size == 0


def test_a_common_factor_is_the_slope():
    truth = np.array([1.0, -2.0, 3.0])
    assert slope_of(1.25 * truth, truth, np.abs(truth), unit=UNIT * 8) == pytest.approx(0.25)


def test_entries_that_say_nothing_are_left_out_of_the_slope():
    truth = np.array([1.0, 0.0, np.inf, 2.0])
    assert slope_of(np.array([1.5, 7.0, 1.0, np.nan]), truth, np.ones(4), unit=1.0) == pytest.approx(0.5)
    assert np.isnan(slope_of(np.zeros(2), np.zeros(2), np.ones(2), unit=1.0))


def test_the_error_of_a_mean_is_that_of_independent_points():
    m = mean_of([1.0, 3.0, 2.0, float("nan")])
    assert (m.value, m.error, m.points) == (2.0, pytest.approx(1 / 3**0.5), 3)


def test_two_points_have_no_mean():
    assert np.isnan(mean_of([1.0, 2.0]).value)


def test_the_bar_of_a_mean_holds_two_errors_the_rounding_and_what_else_is_biased():
    own, plain, unknown = mean_of([1.0, 3.0, 2.0]), mean_of([0.5, 0.5, 0.5]), mean_of([])
    assert bias_bar(own, unit=0.24) == pytest.approx(2 * own.error + 0.01)
    assert bias_bar(own, plain, unknown, unit=0.24) == pytest.approx(2 * own.error + 0.01 + 0.5)


def test_a_factor_that_was_rounded_to_float32_is_no_bias():
    """(2 / 3) x in float32 is off by 3e-8 in every entry."""
    own = mean_of([2.98e-8 + k * 1e-11 for k in range(8)])
    for unit in (2.0**-24, 2.0**-11):
        assert own.value < 3 * bias_bar(own, unit=unit)
    assert mean_of([4e-6 + k * 1e-9 for k in range(8)]).value > 3 * bias_bar(own, unit=2.0**-24)


def test_a_rounding_may_be_relative_to_more_than_the_entry():
    b = budget(np.array([1e-9, 2.0]), [], [], unit=UNIT, least=0.0, sizes=np.array([2.0, 2.0]))
    assert b.bar.tolist() == [2 * UNIT, 2 * UNIT]


def test_the_spread_is_relative_to_the_sizes():
    assert spread_of(np.array([1.5, 4.0]), np.array([1.0, 2.0]), np.array([1.0, 4.0]), unit=1.0) == 0.5
    assert np.isnan(spread_of(np.zeros(0), np.zeros(0), np.zeros(0), unit=1.0))


def test_a_quartile_leaves_out_what_is_unknown_and_needs_three():
    assert quartile([1.0, float("nan"), 2.0, 3.0], 0.5) == 2.0
    assert np.isnan(quartile([1.0, 2.0], 0.5))


def test_an_entry_that_is_far_off_is_no_matter_of_averages():
    truth = np.array([1.0, 1.0, 1.0])
    found = np.array([1.01, 1.01, 0.0])
    assert slope_of(found, truth, truth, unit=UNIT) == pytest.approx(0.01)
    assert spread_of(found, truth, truth, unit=UNIT) == pytest.approx(0.01)


def test_rows_in_which_nothing_is_kept_do_not_make_the_bar_of_what_has_cancelled_zero():
    truth = np.array([0.0] * 12 + [1.0, -2.0, 0.5])
    moved = [truth * (1 + 2.0**-24)]
    plain = [np.where(truth == 0, 0.0, 3e-8)]
    found = budget(truth, moved, plain, unit=2.0**-24, least=1e-45)
    assert found.bar[0] > 3e-8
    assert found.bar[0] == np.median(found.bar[:12])
    assert budget(np.zeros(4), [np.zeros(4)], [np.zeros(4)], unit=2.0**-24, least=1e-45).bar.max() < 1e-44
