"""What leaves the range of a dtype, beside what torch's own casts lose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradverify.numerics.ranges import Lost, Range, highest, lost, percent

HALF = Range(largest=65504.0, normal=2.0**-14, least=2.0**-24)


def halved(values):
    return torch.tensor(values, dtype=torch.float64).half().double().numpy()


def test_nothing_is_lost_of_what_the_dtype_holds():
    assert lost(np.array([1.0, -3.0, 2.0**-14, 0.0, np.nan]), HALF) == Lost(under=0.0, over=0.0, power=0, left=0.0)


def test_nothing_is_lost_of_nothing():
    assert lost(np.zeros(3), HALF).share == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_shares_are_those_of_a_cast(seed):
    values = np.exp(np.random.default_rng(seed).normal(-8, 8, 400))
    cast = halved(values)
    found = lost(values, HALF)
    assert found.under == np.mean(cast == 0)
    assert found.over == pytest.approx(np.mean(np.isinf(cast)), abs=0.003)


def test_the_scale_makes_all_entries_normal_and_is_the_smallest_that_does():
    values = np.array([1.0, 3e-6, 1e-8])
    found = lost(values, HALF)
    assert (found.under, found.left) == (pytest.approx(1 / 3), 0.0)
    assert min(values) * 2.0**found.power >= HALF.normal > min(values) * 2.0 ** (found.power - 1)
    assert (halved(values * 2.0**found.power) >= HALF.normal).all()


def test_the_scale_leaves_the_largest_entry_finite_and_says_what_is_lost_still():
    values = np.array([100.0, 1e-7, 1e-20, 1e-21])
    found = lost(values, HALF)
    assert np.isfinite(halved(values * 2.0**found.power)).all()
    assert found.under == 0.5
    assert found.left == 0.5
    assert halved(values * 2.0**found.power)[1] > 0


def test_what_is_too_large_is_scaled_down():
    found = lost(np.array([1e6, 1.0]), HALF)
    assert (found.over, found.under, found.power) == (0.5, 0.0, -4)
    assert 1e6 * 2.0**-4 < HALF.largest < 1e6 * 2.0**-3


@pytest.mark.parametrize(
    ("size", "bound", "power"), [(1.0, 8.0, 3), (3.0, 8.0, 1), (1.0, 0.25, -2), (5e-324, 1.0, 1074)]
)
def test_the_highest_power(size, bound, power):
    assert highest(size, bound) == power


@pytest.mark.parametrize(("share", "words"), [(1.0, "100 %"), (0.0234, "2.3 %"), (0.5, "50 %"), (1e-5, "0.001 %")])
def test_a_share_has_two_digits(share, words):
    assert percent(share) == words
