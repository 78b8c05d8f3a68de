"""Of a gradient that is too large to be measured whole, the wrong entries are named."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import Function

from gradverify.diagnosis.entries import wrong_in
from gradverify.engine.at import examine
from gradverify.engine.verify import verify
from gradverify.numerics.culprits import Culprits
from gradverify.numerics.problem import Place
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Spec
from tests.faults.record import arg


def gate(bad):
    """x sigmoid(x), [1024, 64], whose gradient is zero at some entries."""

    class Gate(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x.sigmoid()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            out = g * (x.sigmoid() + x * x.sigmoid() * (1 - x.sigmoid()))
            for where in bad:
                out[where] = 0
            return out

    return Gate


def whole():
    return torch.randn(1024, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([(3, 4)], "wrong in       1 entry of 65536: x[3,4]; all others are right"),
        ([(3, 4), (3, 5), (9, 0)], "wrong in       3 entries of 65536: x[3,4], x[3,5], x[9,0]; all others are right"),
        ([slice(512, 576)], "wrong in       more than 8 entries of 65536, from x[512,0] to x[575,63]"),
        ([slice(None)], "wrong in       more than 8 entries of 65536"),
    ],
    ids=["one", "three", "a block", "all"],
)  # fmt: skip
def test_the_wrong_entries_of_a_large_input_are_named(bad, said):
    assert said in [line.strip() for line in examine(gate(bad).apply, (whole(),)).reason.splitlines()]


def test_so_they_are_under_a_spec_that_gives_its_inputs():
    op = gate([(3, 4), (9, 9)])
    one = Spec(name="gate", op=op, args=(arg("x", "m n"),), inputs=lambda draw: {"x": whole()})
    (result,) = verify(one, Plan(examples=1, claims=("vjp",)), Policy())
    assert "wrong in       2 entries of 65536: x[3,4], x[9,9]; all others are right" in result.finding.lines


def test_what_may_have_escaped_is_said():
    place = Place(argument="x", index=(1,))
    said = "wrong in       at least 1 entry of 5000: x[1]"
    assert list(wrong_in(Culprits(inputs=5000, entries=(place,)))) == [said]


@pytest.mark.parametrize("found", [None, Culprits(inputs=5000), Culprits(inputs=20, many=True)])
def test_nothing_is_said_where_nothing_was_found_or_a_picture_shows_it(found):
    assert not list(wrong_in(found))
