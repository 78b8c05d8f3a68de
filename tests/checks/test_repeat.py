"""How far equal calls lie apart is measured in units in the last place, whether it is declared or not."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.autograd import Function

from gradverify.engine.verify import verify
from gradverify.numerics.comparison import units_apart
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Dim, Spec
from gradverify.reports.lines import result_lines
from gradverify.reports.style import Style


class Unordered(Function):
    """A sum whose last bits depend on which thread comes first: each call takes the next order."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        Unordered.calls += 1
        return g * (1 + Unordered.calls % 3 * torch.finfo(g.dtype).eps)


class Ordered(Unordered):
    """The same bits each time."""

    @staticmethod
    def backward(ctx, g):
        return g * (1 + torch.finfo(g.dtype).eps)


def result(op, **fields):
    s = Spec(name="f", op=op, args=(Arg(name="x", shape="n"),), dims={"n": Dim(lo=4)}, **fields)
    (r,) = verify(s, Plan(claims=("repeat",)), Policy())
    return r


@pytest.mark.parametrize("declared", [True, False])
def test_what_differs_is_told_in_units_in_the_last_place_declared_or_not(declared):
    r = result(Unordered, nondeterministic=declared)
    assert (r.outcome.value, r.code) == ("PASS", "" if declared else "GV204")
    told = str(r.measured["apart"])
    assert told.startswith("the gradient of `x` differs between equal calls in 100 % of its entries, by up to ")
    assert re.search(r"by up to (3|4) units in the last place \([23] bits\)$", told)
    text = " ".join(" ".join(result_lines(r, style=Style())).split())
    assert f"{told}, which rounding explains{', as declared' if declared else ''}" in text


def test_equal_bits_are_no_news():
    r = result(Ordered)
    assert (r.outcome.value, r.code) == ("PASS", "")
    assert "apart" not in r.measured


@pytest.mark.parametrize(
    ("dtype", "eps", "least"),
    [(np.float64, 2.0**-52, 5e-324), (np.float32, 2.0**-23, 2.0**-149), (np.float16, 2.0**-10, 2.0**-24)],
)
@pytest.mark.parametrize("start", [1.0, 1.9, -3.0, 1e-3, 0.0])
def test_units_are_counted_as_numpy_counts_them(dtype, eps, least, start):
    a = np.array([start, 7.0], dtype=dtype)
    b = a.copy()
    for _ in range(3):
        b[0] = np.nextafter(b[0], dtype(np.inf if start >= 0 else -np.inf))
    found = units_apart(a.astype(np.float64), b.astype(np.float64), unit=eps / 2, least=least)
    assert found == pytest.approx(3)


def test_nothing_lies_between_equal_numbers_and_no_number_next_to_infinity():
    a = np.array([1.0, np.nan, np.inf])
    assert units_apart(a, a.copy(), unit=2.0**-53, least=5e-324) == 0
    assert units_apart(a, np.array([1.0, np.nan, 1.0]), unit=2.0**-53, least=5e-324) == np.inf
