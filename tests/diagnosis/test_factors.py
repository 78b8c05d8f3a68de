"""A measured factor is a number as far as its error tells, and no further."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradverify.diagnosis.factors import Factor, alike, numbers
from gradverify.diagnosis.patterns import pattern_of
from gradverify.diagnosis.sample import Part, Sample
from gradverify.diagnosis.sizes import recognised
from gradverify.records.case import Case


def factor(value, error=1e-13):
    return Factor(value=value, error=error)


def sample(*, factor=1.0, bar=1e-13, rows=3):
    """The identity of 5 numbers beside a gradient that is a factor times the true one; each slope has an error bar."""
    us = np.random.default_rng(rows).standard_normal((2, 5))
    return Sample(
        case=Case(spec="identity", claim="vjp", dims=(("b", rows),)),
        us=us,
        outputs=(Part(name="0", shape=(5,), at=slice(0, 5)),),
        y=np.ones(5),
        x={"x": np.ones(5)},
        shape={"x": (5,)},
        got={"x": factor * us},
        missing=frozenset(),
        jacobian={"x": np.eye(5)},
        error={"x": bar * np.eye(5)},
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([factor(2.0)], "2"),
        ([factor(1 / 3)], "0.3333333"),
        ([factor(1 / 3, 1e-3)], "0.33"),
        ([factor(0.5), factor(0.25), factor(0.5)], "0.5 or 0.25"),
        ([factor(-1.25, 1.0)], "-1"),
    ],
)
def test_as_many_digits_are_printed_as_the_error_leaves(given, told):
    assert numbers(given) == told


def test_two_factors_are_one_within_their_errors():
    assert alike([factor(2.0), factor(2.0 + 1e-13)])
    assert not alike([factor(2.0), factor(2.0 + 1e-11)])
    assert alike([factor(2.0, 1e-11), factor(2.0 + 1e-11)])


def test_a_known_number_is_told_from_one_nearby():
    samples = [sample(rows=3), sample(rows=4)]
    assert recognised(samples, [factor(math.log(2))] * 2) == "log 2"
    assert recognised(samples, [factor(math.log(2) + 1e-11)] * 2) == ""
    assert recognised(samples, [factor(1 / 3), factor(1 / 4)]) == "1/b"


def test_a_factor_that_is_known_badly_is_no_known_number():
    assert recognised([sample()], [factor(math.log(2), 1e-3)]) == ""


@pytest.mark.parametrize("bar", [1e-13, 1e-7, 1e-4])
def test_minus_one_is_a_sign_and_what_differs_from_it_beyond_its_error_is_a_scale(bar):
    def code(c):
        return pattern_of([sample(factor=c, bar=bar), sample(factor=c, bar=bar, rows=4)], "x").code

    assert code(-1.0) == "GV102"
    assert code(-1 - bar / 10) == "GV102"
    assert code(-1 - 100 * bar) == "GV101"
