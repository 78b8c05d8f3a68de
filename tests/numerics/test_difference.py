"""A slope comes with an error bar, and the bar covers the true error."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradverify.numerics.difference import AMPLIFICATION, CHUNK, FIRST, SECOND, THIRD, UP, Ladder, chunks
from gradverify.numerics.noise import noise_levels

ROUNDOFF = 2.0**-53
EVERY = FIRST + SECOND + THIRD

# name: (float64 function, mpmath's own, base points)
FUNCTIONS = {
    "sin": (np.sin, mpmath.sin, (0.1, 1.0, 30.0)),
    "exp": (np.exp, mpmath.exp, (-20.0, 0.5, 8.0)),
    "log": (np.log, mpmath.log, (1e-8, 1.5, 1e12)),
    "sqrt": (np.sqrt, mpmath.sqrt, (1e-6, 2.0, 1e9)),
    "tanh": (np.tanh, mpmath.tanh, (1e-3, 0.7, 6.0)),
    "reciprocal": (lambda x: 1 / x, lambda x: 1 / x, (1e-5, 3.0, 1e7)),
    "cube": (lambda x: x**3, lambda x: x**3, (1e-6, 1.25, 1e6)),
    "arctan": (np.arctan, mpmath.atan, (1e-4, 0.9, 50.0)),
    "offset": (lambda x: 1e10 + x * x, lambda x: 10**10 + x * x, (1e-3, 1.0, 1e4)),
    "stiff": (lambda x: np.sin(1e3 * x), lambda x: mpmath.sin(1000 * x), (1e-3, 0.3, 1.0)),
}
POINTS = [(name, x) for name, (_, _, xs) in FUNCTIONS.items() for x in xs]


def ladder(path, levels=EVERY, **fields):
    def many(t):
        return np.atleast_1d(np.asarray(path(t), dtype=np.float64))

    out = Ladder(path=many, centre=many(0.0), unit=ROUNDOFF, **fields)
    out.sample(levels)
    return out


def slope(path, levels=EVERY):
    best = ladder(path, levels).best()
    return float(best.value[0]), float(best.bar[0])


def at(function, x):
    scale = 2.0 ** np.floor(np.log2(abs(x)))
    return lambda t: function(x + t * scale), scale


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=5))
def test_the_slope_is_exact_on_polynomials_up_to_rounding(coefficients):
    size = 1 + sum(map(abs, coefficients))
    value, bar = slope(lambda t: np.polyval([*coefficients[::-1], 1.0], t), FIRST)
    assert abs(value - coefficients[0]) <= 64 * ROUNDOFF * size * 2.0**8
    assert bar <= 1e-6 * size


def test_a_polynomial_beyond_the_extrapolation_is_not_exact_but_covered():
    value, bar = slope(lambda t: (2.0**5 * t) ** 7 + t, (-3, -4, -5))
    assert abs(value - 1) > 1e-6
    assert abs(value - 1) <= 3 * bar


@pytest.mark.parametrize(("name", "x"), POINTS)
def test_three_error_bars_cover_the_true_error(name, x):
    function, exact, _ = FUNCTIONS[name]
    path, scale = at(function, x)
    with mpmath.workdps(40):
        truth = float(mpmath.diff(exact, mpmath.mpf(x))) * scale
    for levels in (FIRST, FIRST + SECOND, EVERY):
        value, bar = slope(path, levels)
        assert abs(value - truth) <= 3 * bar, levels


@pytest.mark.parametrize(("name", "x"), POINTS)
def test_the_error_bar_is_small_enough_to_be_worth_having(name, x):
    function, exact, _ = FUNCTIONS[name]
    path, scale = at(function, x)
    with mpmath.workdps(40):
        truth = abs(float(mpmath.diff(exact, mpmath.mpf(x))) * scale)
    _, bar = slope(path)
    assert bar <= 1e-5 * truth + 1e3 * ROUNDOFF * abs(function(x))


def test_a_claim_wrong_by_a_millionth_lies_outside_three_bars():
    value, bar = slope(lambda t: np.sin(1 + t))
    assert abs(np.cos(1) * (1 + 1e-6) - value) > 3 * bar
    assert abs(np.cos(1) - value) <= 3 * bar


def test_numdifftools_agrees_within_both_error_bars():
    numdifftools = pytest.importorskip("numdifftools")
    for name, x in POINTS[:21]:
        function, _, _ = FUNCTIONS[name]
        path, scale = at(function, x)
        value, bar = slope(path)
        theirs, info, *_ = numdifftools.Derivative(function, base_step=x / 64, full_output=True)(x)
        error = float(np.max(np.abs(np.asarray(getattr(info, "error_estimate", info), dtype=float))))
        assert abs(float(np.squeeze(theirs)) * scale - value) <= 3 * bar + 10 * error * scale


def test_the_amplification_is_that_of_the_extrapolation():
    assert pytest.approx((64 * 4 + 20 * 2 + 1) / 45) == AMPLIFICATION


def test_measured_noise_widens_the_bar_and_keeps_it_honest():
    rng = np.random.default_rng(0)

    def path(t):
        return np.atleast_1d(np.sin(1 + t) + 1e-9 * rng.standard_normal())

    blind = ladder(path)
    blind.noise = ()
    told = ladder(path)
    told.noise = noise_levels(path)
    assert told.best().bar[0] > 10 * blind.windows().bar.min()
    assert abs(told.best().value[0] - np.cos(1)) <= 3 * told.best().bar[0]


def test_a_bounded_function_is_not_constant_at_huge_steps():
    value, bar = slope(lambda t: np.tanh(1e4 * t), EVERY + UP)
    assert abs(value - 1e4) <= 3 * bar
    assert bar < 1e-3 * 1e4


def test_a_narrow_plateau_is_no_evidence_of_slope_zero():
    narrow = ladder(lambda t: float(np.float32(1 + t)))
    assert abs(narrow.best().value[0] - 1) <= 3 * narrow.best().bar[0]
    flat = ladder(lambda t: 1.0)
    assert flat.best().value[0] == 0
    assert flat.best().bar[0] < 1e-12


def test_the_dead_side_of_a_clamp_is_one_sided_and_a_rounding_is_not():
    assert ladder(lambda t: max(t, 0.0)).one_sided()[0]
    assert not ladder(lambda t: np.round(16 * (t + 0.3)) / 16).one_sided()[0]


def test_a_step_is_paid_for_once_and_never_below_the_finest():
    calls = []
    out = ladder(lambda t: calls.append(t) or t, FIRST, finest=-9)
    assert out.levels == (-8, -9)
    out.sample(FIRST)
    assert len(calls) == 1 + 4


def test_every_output_has_a_window_of_its_own_also_across_stretches():
    fast = np.where(np.arange(CHUNK + 5) % 2, 1.0, 1e3)
    best = ladder(lambda t: np.sin(fast * t + 1)).best()
    assert (np.abs(best.value - fast * np.cos(1)) <= 3 * best.bar).all()
    assert best.top[0] < best.top[1]
    assert best.top[CHUNK] < best.top[CHUNK + 1]
    assert sum(s.stop - s.start for s in chunks(2 * CHUNK)) == 2 * CHUNK


def test_what_is_not_finite_has_an_infinite_bar():
    assert np.isinf(slope(lambda t: np.sqrt(t) if t >= 0 else np.nan)[1])
    assert np.isfinite(slope(lambda t: np.sqrt(1 + t))[1])
