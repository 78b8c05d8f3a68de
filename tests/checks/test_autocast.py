"""What autocast is held to: which accuracy, which state, and what it skips."""

import pytest
import torch
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function

from gradverify.checks import CHECKS
from gradverify.checks.subject import at
from gradverify.checks.transforms.autocast import REMEDY
from gradverify.engine.verify import verify
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Dim, Spec

MARKED, KEPT = custom_fwd(device_type="cpu"), custom_bwd(device_type="cpu")


def spec(op, **fields):
    args = (Arg(name="x", shape="b n"), Arg(name="w", shape="n d"))
    return Spec(**{"name": "product", "op": op, "args": args, "dims": {k: Dim(lo=1) for k in "bnd"}, **fields})


def case(**changes):
    dims = (("b", 3), ("n", 4), ("d", 5))
    given = {"differentiate": ("x", "w"), "seed": 5, **changes}
    return Case(spec="product", claim="transforms.autocast", dims=dims, **given)


def evidence(op, **fields):
    return list(CHECKS["transforms.autocast"](spec(op, **fields), case()))


def verdict(op):
    return of_case([judge(e, Policy()) for e in evidence(op)])


def said(op):
    v = verdict(op)
    return v.outcome.value, v.code


class Product(Function):
    """x w; nothing is marked, and backward multiplies what it saved by a cotangent of another dtype."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        return u @ w.T, x.T @ u


class Marked(Product):
    forward = staticmethod(MARKED(Product.forward))
    backward = staticmethod(KEPT(Product.backward))


class HalfMarked(Marked):
    @staticmethod
    def backward(ctx, u):
        return Product.backward(ctx, u.float())


class Unmarked(Product):
    backward = HalfMarked.backward


def test_a_backward_that_meets_another_dtype_says_what_torch_said_and_what_to_mark():
    e = verdict(Product).evidence
    assert said(Product) == ("FAIL", "GV507")
    assert e.facts["said"] == (
        "it raised RuntimeError: expected m1 and m2 to have the same dtype, but got: c10::BFloat16 != float"
    )
    assert e.facts["remedy"] == REMEDY


def test_a_backward_under_its_callers_state_fails_where_forward_is_marked_and_warns_where_it_is_not():
    assert (said(Marked), said(HalfMarked), said(Unmarked)) == (("PASS", ""), ("FAIL", "GV507"), ("PASS", "GV507"))
    e = verdict(HalfMarked).evidence
    assert e.quantity == "the backward of HalfMarked"
    assert e.facts["said"] == (
        "called under autocast it gives 32 other numbers than outside: it takes its caller's precision"
    )


def off_by(factor):
    class Off(Marked):
        """Right in plain eager."""

        @staticmethod
        def forward(ctx, x, w):
            ctx.factor = factor if torch.is_autocast_enabled("cpu") else 1.0
            return Marked.forward(ctx, x, w)

        @staticmethod
        def backward(ctx, u):
            gx, gw = Marked.backward(ctx, u)
            return gx * ctx.factor, gw

    return Off


@pytest.mark.parametrize(
    ("factor", "outcome"), [(0.0, "FAIL"), (-1.0, "FAIL"), (2.0, "FAIL"), (1.5, "FAIL"), (1.002, "PASS")]
)
def test_a_mismatch_is_judged_to_the_accuracy_of_the_narrow_dtype(factor, outcome):
    assert said(off_by(factor))[0] == outcome


class Elementwise(Function):
    """x w, element by element: autocast changes nothing in it, and 0.2 % are seen."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.factor = 1.002 if torch.is_autocast_enabled("cpu") else 1.0
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        return u * w * ctx.factor, u * x


def test_what_is_computed_in_float32_is_judged_to_its_rounding():
    same = (Arg(name="x", shape="n d"), Arg(name="w", shape="n d"))
    found = [judge(e, Policy()) for e in evidence(Elementwise, args=same)]
    assert of_case(found).code == "GV507"


def test_a_mask_that_one_rounding_turns_is_within_the_scatter():
    point = at(spec(torch.matmul), case()).point
    x, w = point.primals["x"].float(), point.primals["w"].float()
    wide, narrow = x @ w, (x.bfloat16() @ w.bfloat16()).float()
    k = int((wide - narrow).abs().argmax())
    threshold = float(wide.flatten()[k] + narrow.flatten()[k]) / 2
    assert said(lambda x, w: torch.relu(x @ w - threshold)) == ("PASS", "")


def test_a_mismatch_that_other_values_do_not_show_is_a_kink_and_no_finding():
    here, there = (at(spec(torch.matmul), case(seed=k)).point.primals["x"] for k in (5, 6))
    k = int((here * there).argmin())
    sign = float(here.flatten()[k].sign())

    class Sometimes(off_by(2.0)):
        @staticmethod
        def backward(ctx, u):
            same = ctx.saved_tensors[0].flatten()[k] * sign > 0
            return (off_by(2.0) if same else Marked).backward(ctx, u)

    assert said(Sometimes) == ("INCONCLUSIVE", "GV302")
    assert verdict(Sometimes).moot


@pytest.mark.parametrize(
    ("fields", "dtype", "reason"),
    [
        ({}, "bfloat16", "the inputs are narrow already"),
        ({"dtypes": ("float64",)}, "float64", "autocast leaves float64 alone, and the spec takes no float32"),
        ({"supports": {"autocast": False}}, "float64", "the spec says that autocast is not supported"),
        ({"stochastic": True}, "float64", "the op draws random numbers, and may draw others in a narrow dtype"),
    ],
)
def test_where_autocast_says_nothing_it_is_skipped_with_the_reason(fields, dtype, reason):
    plan = Plan(examples=2, claims=("transforms.autocast",), dtypes=(dtype,))
    (found,) = verify(spec(torch.matmul, **fields), plan, Policy())
    assert (found.outcome.value, found.reason) == ("SKIP", reason)


def test_an_op_of_float64_alone_is_skipped():
    def fine(x, w):
        return x.to(torch.float64) @ (w * torch.ones((), dtype=torch.float64))

    (found,) = verify(spec(fine), Plan(examples=2, claims=("transforms.autocast",)), Policy())
    assert found.outcome.value == "SKIP"
    assert found.reason.startswith("without autocast, in float32: product: the forward raised RuntimeError")
    assert not torch.is_autocast_enabled("cpu")
