"""Kink, jump, staircase, flat and edge are told apart, and from what is smooth."""

import numpy as np
import pytest

from gradverify.numerics.difference import CHUNK, FIRST, SECOND, THIRD, Ladder
from gradverify.numerics.neighbourhood import NAMES, survey
from gradverify.numerics.noise import noise_levels

# name: path, what it is where nothing is resolved
PATHS = {
    "kink at x": (abs, "kink"),
    "relu at 0": (lambda t: max(t, 0.0), "kink"),
    "hidden kink": (lambda t: 1e3 * t + abs(t), "kink"),
    "jump at x": (lambda t: 1.0 if t > 0 else 0.0, "jump"),
    "jump on a slope": (lambda t: 3 * t + (t >= 0), "jump"),
    "staircase": (lambda t: np.round(64 * (t + 0.3)) / 64, "staircase"),
    "bfloat16": (lambda t: np.round(256 * (1 + t)) / 256, "staircase"),
    "flat": (lambda t: 2.0, "flat"),
    "edge": (lambda t: np.sqrt(t) if t >= 0 else np.nan, "edge"),
    "pole": (lambda t: np.inf if t == 0 else 1 / t, "edge"),
    "kink nearby": (lambda t: abs(t - 2e-4), "unsettled"),
    "cusp": (lambda t: np.sqrt(abs(t)), "unsettled"),
    "smooth": (lambda t: np.sin(1 + t), "unsettled"),
}


def ladder(path):
    def many(t):
        return np.atleast_1d(np.asarray(path(t), dtype=np.float64))

    out = Ladder(path=many, centre=many(0.0), unit=2.0**-53)
    out.sample(FIRST + SECOND + THIRD)
    return out


def name(path, *, resolved=False):
    return NAMES[int(survey(ladder(path), resolved=np.array([resolved])).code[0])]


@pytest.mark.parametrize("what", PATHS)
def test_each_neighbourhood_is_named(what):
    path, wanted = PATHS[what]
    assert name(path) == wanted


@pytest.mark.parametrize("what", PATHS)
def test_what_is_resolved_is_smooth_unless_it_stands_still_or_jumps(what):
    path, wanted = PATHS[what]
    assert name(path, resolved=True) == (wanted if wanted in ("flat", "jump") else "smooth")


def test_the_one_sided_slopes_at_a_kink_are_measured():
    around = survey(ladder(lambda t: 3 * t if t > 0 else -0.5 * t), resolved=np.array([False]))
    low, high, error = around.low[0], around.high[0], around.error[0]
    assert abs(low + 0.5) <= 3 * error + 1e-12
    assert abs(high - 3) <= 3 * error + 1e-12
    assert error < 1e-3


def test_a_curved_kink_keeps_its_slopes_and_a_kink_nearby_is_resolved_below_it():
    curved = survey(ladder(lambda t: abs(t) + np.exp(t)), resolved=np.array([False]))
    assert NAMES[int(curved.code[0])] == "kink"
    assert abs(curved.low[0] - 0) < 1e-2
    best = ladder(PATHS["kink nearby"][0]).best()
    assert best.value[0] == pytest.approx(-1)
    assert best.bar[0] < 1e-6


def test_a_noisy_forward_is_noisy_and_a_quiet_one_is_not():
    rng = np.random.default_rng(0)

    def path(t):
        return np.atleast_1d(np.sin(1 + t) + 1e-9 * rng.standard_normal())

    noisy = ladder(path)
    noisy.noise = noise_levels(path)
    assert NAMES[int(survey(noisy, resolved=np.array([False])).code[0])] == "noisy"
    quiet = ladder(lambda t: np.sin(1 + t))
    quiet.noise = noise_levels(quiet.path)
    assert NAMES[int(survey(quiet, resolved=np.array([False])).code[0])] == "unsettled"


def test_outputs_are_told_apart_one_by_one_also_across_stretches():
    last = CHUNK

    def path(t):
        out = np.sin(1 + t) * np.ones(CHUNK + 1)
        out[0], out[1], out[last] = abs(t), float(t > 0), 2.0
        return out

    code = survey(ladder(path), resolved=np.zeros(CHUNK + 1, dtype=np.bool_)).code
    assert [NAMES[int(code[k])] for k in (0, 1, 2, last)] == ["kink", "jump", "unsettled", "flat"]
