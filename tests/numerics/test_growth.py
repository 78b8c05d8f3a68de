"""How bytes grow with sizes."""

from __future__ import annotations

import math

import pytest

from gradverify.numerics.growth import exponent, fitted, monomial, powers

SIZES = (4, 8, 16, 32)


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_the_exponent_of_a_power_is_exact(power):
    assert exponent(SIZES, [24.0 * n**power for n in SIZES]) == pytest.approx(power, abs=1e-12)


def test_a_sum_of_powers_has_no_exponent_that_is_an_integer():
    found = exponent(SIZES, [8.0 * n * n + 32.0 * n for n in SIZES])
    assert 1.02 < found < 1.98
    assert monomial(256.0, {"n": 4}, {"n": found}) is None


def test_what_cannot_be_fitted_is_unknown():
    assert math.isnan(exponent((4,), [8.0]))
    assert math.isnan(exponent(SIZES, [0.0, 1.0, 2.0, 3.0]))


def test_a_monomial_has_its_coefficient_and_its_powers():
    assert monomial(8 * 4 * 16.0, {"b": 4, "s": 4}, {"b": 1.0, "s": 2.0}) == (8.0, "b s^2")


def test_powers_that_round_to_zero_are_left_out():
    assert powers({"b": 1.04, "s": 1.94, "d": 0.01}) == "b s^1.9"


def test_an_exponent_has_the_standard_error_of_what_its_line_leaves():
    sizes = [21, 21, 85, 85, 340, 340, 1361, 1361]
    exact, none = fitted(sizes, [n**0.5 for n in sizes])
    assert (exact, none) == (pytest.approx(0.5), pytest.approx(0.0, abs=1e-9))
    slope, error = fitted(sizes, [n**0.5 * (1.3 if k % 2 else 1 / 1.3) for k, n in enumerate(sizes)])
    assert abs(slope - 0.5) < 1e-9
    assert 0.01 < error < 0.15


@pytest.mark.parametrize("amounts", [[0.0, 1.0, 2.0], [math.nan, 1.0, 2.0]])
def test_there_is_no_exponent_of_what_is_zero_or_unknown(amounts):
    assert all(map(math.isnan, fitted([4, 8, 16], amounts)))


def test_two_sizes_say_nothing_of_the_error():
    assert math.isnan(fitted([4, 8], [1.0, 2.0])[1])
