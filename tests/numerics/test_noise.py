"""The noise of a forward is measured, not assumed."""

import numpy as np
import pytest

from gradverify.numerics.noise import noise_levels, pooled, unit_roundoff

HERE = np.linspace(0.5, 2.0, 200)


def finest(path):
    return noise_levels(path)[0][1]


def test_float32_inside_is_measured_within_a_factor_of_ten():
    levels = noise_levels(lambda t: np.sin((HERE + t).astype(np.float32)).astype(np.float64))
    typical = np.median(levels[-1][1])
    assert 2.0**-24 / 10 <= typical / 3 <= 10 * 2.0**-24


def test_float64_has_no_more_than_its_own_rounding():
    for _, sigma in noise_levels(lambda t: np.sin(HERE + t)):
        assert np.median(sigma) <= 100 * 2.0**-53


@pytest.mark.parametrize("size", [1e-12, 1e-9, 1e-6])
def test_additive_noise_is_measured_within_a_factor_of_ten(size):
    rng = np.random.default_rng(1)
    levels = noise_levels(lambda t: np.sin(HERE + t) + size * rng.standard_normal(HERE.size))
    assert size / 10 <= np.median(levels[-1][1]) / 3 <= 10 * size


def test_a_stiff_smooth_function_is_not_noisy_at_fine_spacings():
    assert np.max(finest(lambda t: np.sin(1e3 * (HERE + t)))) < 1e-9


def test_a_kink_at_the_point_is_no_noise():
    levels = noise_levels(lambda t: np.array([abs(t)]))
    assert all(sigma[0] == 0 for _, sigma in levels[:2])


def test_a_staircase_has_the_noise_of_its_grid_at_every_spacing():
    levels = noise_levels(lambda t: np.round(512 * (HERE + t)) / 512)
    coarse = np.median(levels[-1][1])
    assert coarse > 1e-4
    assert np.median(levels[0][1]) >= coarse / 10


def test_what_is_not_finite_has_infinite_noise():
    assert np.isinf(finest(lambda t: np.array([np.nan]))[0])


def test_spacings_below_the_finest_step_are_left_out():
    assert [e for e, _ in noise_levels(lambda t: np.array([t]), finest=-20)] == [-20, -10]


def test_one_lucky_output_takes_the_noise_of_the_many():
    levels = ((-20, np.array([0.0, 1e-7, 1e-7, 1e-7, 1e-7])),)
    ((_, sigma),) = pooled(levels, np.full(5, 2.0), np.zeros(5, dtype=bool))
    assert sigma[0] == pytest.approx(1e-7)
    ((_, few),) = pooled(((-20, np.array([0.0, 1e-7])),), np.ones(2), np.zeros(2, dtype=bool))
    assert few[0] == 0


def test_the_unit_roundoff_is_half_the_distance_to_the_next_number():
    for name, dtype in {"float64": np.float64, "float32": np.float32, "float16": np.float16}.items():
        assert unit_roundoff(name) == np.finfo(dtype).eps / 2
    with pytest.raises(KeyError):
        unit_roundoff("int64")
