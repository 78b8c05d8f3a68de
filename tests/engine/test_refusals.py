"""A size that an op refuses aloud is left out and told; one that it promised, or stumbles over, is an error."""

import pytest
import torch

import gradverify as gv
from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Dim, Spec


def one(claim, op, **fields):
    s = Spec(name="op", op=op, args=(Arg(name="x", shape="n"),), **fields)
    (result,) = verify(s, Plan(examples=20, claims=(claim,)), Policy())
    return result


def said(result):
    return result.outcome.value, result.code


def twice(x):
    return 2 * x


def not_empty(x):
    """As torch's own ops do: from C++, in whichever words."""
    return twice(x) * x.amax()


def two_at_least(x):
    if len(x) < 2:
        raise ValueError(f"two elements at least, got {len(x)}")
    return twice(x)


def slips(x):
    """A bug at one element, not a refusal."""
    return twice(x) * x[:2].reshape(2).sum() if len(x) else twice(x)


def refuses_all(x):
    raise ValueError("out of luck")


class OnlyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        if not g.numel():
            raise ValueError("empty")
        return 2 * g


@pytest.mark.parametrize(
    ("op", "words"),
    [(not_empty, "n=0 (RuntimeError: amax(): Expected"), (two_at_least, "(ValueError: two elements at least, got ")],
)
def test_a_size_that_forward_refuses_is_told_where_sizes_are_the_claim_and_left_out_elsewhere(op, words):
    edges, vjp = one("edges", op), one("vjp", op)
    assert said(edges) == ("PASS", "GV905")
    assert words in describe(edges)
    assert "gv.dim(lo=2)" in edges.finding.remedy
    assert said(vjp) == ("PASS", "")
    assert edges.cases.invalid > 0


@pytest.mark.parametrize("claim", ["vjp", "edges"])
@pytest.mark.parametrize(
    ("op", "fields"),
    [
        (slips, {}),
        (two_at_least, {"reference": twice}),
        (two_at_least, {"dims": {"n": gv.dim(lo=1)}}),
        (two_at_least, {"dims": {"n": Dim(choices=(1,))}}),
        (refuses_all, {}),
    ],
    ids=["an accident", "the reference takes it", "declared", "declared alone", "every size"],
)
def test_what_is_no_refusal_of_a_size_is_an_error(op, fields, claim):
    assert said(one(claim, op, **fields)) == ("ERROR", "GV902")


def test_a_reference_that_refuses_it_too_says_nothing_against_it():
    assert said(one("edges", two_at_least, reference=two_at_least)) == ("PASS", "GV905")


def test_a_backward_that_raises_where_forward_does_not_is_an_error():
    assert said(one("edges", OnlyBackward)) == ("ERROR", "GV902")
