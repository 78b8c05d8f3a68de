"""What precision says of a dtype's range, and of errors that grow with the number of terms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import Function

from gradverify.checks import CHECKS
from gradverify.checks.lengths import growths
from gradverify.checks.wide import Sides
from gradverify.engine.verify import verify
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Dim, Domain, Spec
from tests.faults.narrow import FAULTS, ScaledTanh, Softplus, scaled_tanh, softplus

NAMED = {f.name: f for f in FAULTS}


def spec(op, *, reference=None, **fields):
    return Spec(**{"name": "f", "op": op, "args": (Arg(name="x", shape="n"),), "reference": reference, **fields})


def result(s, dtype):
    (r,) = verify(s, Plan(claims=("precision",), dtypes=(dtype,)), Policy())
    return r


def evidence(s, dtype, dims):
    differentiate = tuple(a.name for a in s.args if a.role == "differentiable")
    case = Case(spec=s.name, claim="precision", dims=dims, dtype=dtype, seed=7, differentiate=differentiate)
    return list(CHECKS["precision"](s, case))


# What the dtype itself loses.


def decaying(x):
    return torch.exp(-x.float()).to(x.dtype)


@pytest.mark.parametrize(("lo", "hi", "lost"), [(10.0, 25.0, True), (1.0, 8.0, False)])
def test_the_share_of_a_gradient_that_float16_loses_is_told_with_the_loss_scale_that_saves_it(lo, hi, lost):
    s = spec(decaying, args=(Arg(name="x", shape="n", domain=Domain(lo=lo, hi=hi)),))
    found = evidence(s, "float16", (("n", 500),))
    if not lost:
        assert all("lost" not in e.facts for e in found)
        return
    told = found[0].facts
    # Zero is what lies half way to 2^-24: exp(-x) |u| for x above about 17.3.
    assert float(told["lost share"]) == pytest.approx((25 - 17.3) / 15, abs=0.06)
    assert str(told["lost"]).startswith("of the gradient of `x` float16 has ")
    assert "% rounded to zero; a loss scale of 2^" in str(told["lost"])
    r = result(s, "float16")
    assert "a loss scale of 2^" in str(r.measured["lost"])


def test_what_is_beyond_the_range_is_said_where_nothing_else_can_be():
    def squares(x):
        return x * x

    s = spec(squares, reference=squares, args=(Arg(name="x", shape="n", domain=Domain(lo=300.0, hi=400.0)),))
    r = result(s, "float16")
    assert r.outcome.value == "INCONCLUSIVE"
    assert "100 % of output 0 cannot be told: it leaves the range of float16" in describe(r)


# What is lost on the way.


def test_an_intermediate_that_overflows_where_the_cotangents_are_large_is_told():
    text = describe(result(NAMED["large_cotangents_overflow"].wrong, "float16"))
    assert "GV604 lost on the way: the gradient of `x` (cotangents of 2^12)" in text
    assert "in float16                grad x[0,0] = inf" in text
    assert "with cotangents of 2^12 its largest entry is " in text
    assert "which float16 holds; something overflows on the way" in text
    assert "try: compute in float32 inside and round once, or multiply by what is near 1 before what is not" in text


def test_what_the_plain_computation_loses_too_is_not_held_against_the_op():
    def plain(x):
        class Small(Function):
            @staticmethod
            def forward(ctx, x):
                return x.view_as(x)

            @staticmethod
            def backward(ctx, g):
                return g / 2048 * 2048

        return Small.apply(x)

    assert result(spec(plain, reference=plain), "float16").outcome.value == "PASS"
    straight = spec(plain, reference=lambda x: x * 1)
    assert result(straight, "float16").code == "GV604"


def test_a_backward_that_is_not_linear_is_not_tried_at_other_cotangents():
    class Signs(Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, g):
            return torch.sign(g)

    from gradverify.records.spec import Contract

    formula = Contract(kind="vjp", formula=lambda x, u: torch.sign(u))
    assert result(spec(Signs, contract=formula, linear=False), "float16").outcome.value == "PASS"


# Subnormal numbers.


class Flushing(ScaledTanh):
    """A kernel that was compiled with flush-to-zero."""

    @staticmethod
    def backward(ctx, g):
        grad = ScaledTanh.backward(ctx, g)
        return torch.where(grad.abs() < torch.finfo(grad.dtype).smallest_normal, 0, grad)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("op", "said"), [(ScaledTanh, None), (Flushing, "by the op, not by plain torch")])
def test_flushing_of_subnormal_numbers_is_told_and_is_no_failure(op, said, dtype):
    r = result(spec(op, reference=scaled_tanh), dtype)
    assert (r.outcome.value, r.code) == ("PASS", "")
    found = r.measured.get("subnormals")
    assert found is None if said is None else str(found).endswith(f"are flushed to zero {said}")


def test_flushing_by_the_machine_is_told_as_such():
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush")
    try:
        r = result(spec(ScaledTanh, reference=scaled_tanh), "float32")
    finally:
        torch.set_flush_denormal(False)
    assert (r.outcome.value, r.code) == ("PASS", "")
    assert str(r.measured["subnormals"]).endswith("are flushed to zero here, also by plain torch")


def test_a_product_that_is_too_small_on_the_way_is_no_flushing_of_the_machine():
    """u / n has no bit left in bfloat16 where u / n x is a subnormal number."""

    def mean_square(x):
        return x.square().mean(-1)

    rows = (Arg(name="x", shape="b n"),)
    r = result(spec(mean_square, reference=mean_square, args=rows, dims={"b": Dim(lo=1), "n": Dim(lo=1)}), "bfloat16")
    assert r.outcome.value == "PASS"
    assert "subnormals" not in r.measured


# Growth.


def grown(name, dims, which="wrong", dtype="bfloat16", letter="m"):
    s = getattr(NAMED[name], which)
    differentiate = tuple(a.name for a in s.args if a.role == "differentiable")
    case = Case(spec=s.name, claim="precision", dims=dims, dtype=dtype, seed=5, differentiate=differentiate)
    return {g.name: g for g in growths(Sides.of(s), case)}


def test_the_error_of_a_narrow_accumulator_grows_with_the_length_and_that_of_a_wide_one_does_not():
    dims = (("m", 1361), ("n", 16))
    wrong, right = (grown("bias_summed_in_its_own_dtype", dims, which)["b"] for which in ("wrong", "right"))
    assert 0.3 < wrong.exponent < 1.1
    assert wrong.adds_up
    assert abs(right.exponent) < 0.15
    assert not right.adds_up
    assert wrong.letter == "m"
    assert abs(wrong.plain) < 0.15
    assert str(wrong).startswith("the error of the gradient of `b` grows like m^0.")
    assert ", that of the reference like m^" in str(wrong)


def test_a_finding_says_how_the_error_grows():
    found = evidence(NAMED["bias_summed_in_its_own_dtype"].wrong, "bfloat16", (("m", 1361), ("n", 16)))
    told = [str(e.facts.get("said", "")) for e in found if "`b`" in e.quantity]
    assert any("the error of the gradient of `b` grows like m^" in t for t in told)


def test_short_sums_have_no_growth():
    assert grown("bias_summed_in_its_own_dtype", (("m", 64), ("n", 16))) == {}


def test_a_result_says_how_the_error_grows():
    r = result(spec(Softplus, reference=softplus, dims={"n": Dim(lo=1)}), "bfloat16")
    assert str(r.measured["growth"]).startswith("the error of ")
    assert math.isfinite(float(r.resolution))
