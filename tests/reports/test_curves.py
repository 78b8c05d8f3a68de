"""The V-curve in words."""

from __future__ import annotations

import math

import pytest

from gradverify.reports.curves import told

STEPS = [4.0**-k for k in range(20)]


def curve(error):
    return tuple((h, error(h)) for h in STEPS)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            lambda h: 1e-3 * h**2 + 1e-16 / h,
            ["below it like 1/h (round-off, or a jump)", "above it like h^2 (truncation)"],
        ),
        (lambda h: 1e-3 * h**4 + 1e-16 / h, ["below it like 1/h", "above it like h^4"]),
        (lambda h: 1e-16 / h, ["below it like 1/h"]),
        (lambda h: 1e-3 * h, ["above it like h (truncation)"]),
        (lambda h: 0.3, ["flat: no step is better than another"]),
    ],
    ids=["second order", "fourth order", "linear op", "kink", "flat"],
)
def test_the_branches_are_named(error, said):
    text = told(curve(error), ())
    assert all(word in text for word in said)
    assert text.count(" like ") == sum(" like " in word for word in said)


def test_the_best_step_and_those_that_were_used_are_named():
    text = told(curve(lambda h: 1e-3 * h**2 + 1e-16 / h), (0.25, 0.0625))
    assert text.startswith("least error 6e-12 at h = 6e-05; ")
    assert text.endswith("; used: h = 6e-02 ... 2e-01, dashed")
    assert told(curve(lambda h: 0.0), (0.5,)).startswith("no error at all at h = ")


@pytest.mark.parametrize("points", [(), ((0.0, 1.0),), ((1e-3, math.nan),), ((1e-3, math.inf),)])
def test_without_a_point_there_is_nothing_to_tell(points):
    assert told(points, ()) == "no step could be tried"


def test_few_points_have_no_branches():
    assert told(((0.5, 1e-3), (0.25, 1e-4)), ()) == "least error 1e-4 at h = 2e-01"
