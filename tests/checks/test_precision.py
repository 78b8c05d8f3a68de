"""What precision is held to: the truth that it takes, the budget that it derives, and what it says of both."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import Function

from gradverify.checks import CHECKS
from gradverify.engine.verify import verify
from gradverify.errors import NotApplicableError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Contract, Dim, Domain, Spec, Times, Tolerance
from tests.faults.cancellation import FAULTS as CANCELLING
from tests.faults.narrow import FAULTS, Product, Shifted, Softplus, shifted, softplus

NAMED = {f.name: f for f in (*FAULTS, *CANCELLING)}


def spec(op, *, reference=None, **fields):
    return Spec(**{"name": "f", "op": op, "args": (Arg(name="x", shape="n"),), "reference": reference, **fields})


def case(dtype="bfloat16", n=64, **changes):
    given = {"dims": (("n", n),), "dtype": dtype, "seed": 5, "differentiate": ("x",), **changes}
    return Case(spec="f", claim="precision", **given)


def evidence(op, *, reference=None, dtype="bfloat16", n=64, **fields):
    return list(CHECKS["precision"](spec(op, reference=reference, **fields), case(dtype, n)))


def result(s, dtype="bfloat16", **plan):
    (r,) = verify(s, Plan(claims=("precision",), dtypes=(dtype,), **plan), Policy())
    return r


def off_by(factor):
    """The gradient of softplus times a factor, rounded once."""

    class Off(Softplus):
        @staticmethod
        def backward(ctx, g):
            return (Softplus.backward(ctx, g.float()).float() * factor).to(g.dtype)

    return Off


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_right_op_passes_with_a_budget_that_says_what_it_was_derived_from(dtype):
    r = result(spec(Softplus, reference=softplus), dtype)
    unit = torch.finfo(getattr(torch, dtype)).eps / 2
    assert (r.outcome.value, r.code, r.truth) == ("PASS", "", "the reference in float64")
    assert r.budget is not None
    order = 64 if dtype == "float32" else 1  # the root of the most elements that are drawn
    assert unit < r.budget.value < 16 * unit * order
    assert unit / 10 < r.budget.common < r.budget.value / 2
    assert r.budget.derived_from.startswith(f"the reference in {dtype} is off by ")
    assert f"one rounding is {unit:.1e}" in r.budget.derived_from
    assert not r.budget.loosened


def test_without_a_reference_the_op_in_float64_is_the_truth():
    r = result(spec(torch.nn.functional.softplus))
    assert (r.outcome.value, r.truth) == ("PASS", "the op itself in float64")
    assert "the op, each step rounded, in bfloat16 is off by" in r.budget.derived_from


def test_float64_is_skipped_and_says_why():
    (r,) = verify(spec(Softplus), Plan(claims=("precision",)), Policy())
    assert (r.outcome.value, r.reason) == (
        "SKIP",
        "it is about narrower dtypes: --dtype bfloat16, or dtypes= in a spec",
    )
    with pytest.raises(NotApplicableError, match="float64 is what the others are held against"):
        evidence(Softplus, dtype="float64")


def test_random_numbers_are_others_in_another_dtype():
    r = result(spec(torch.nn.functional.dropout, stochastic=True))
    assert (r.outcome.value, r.reason) == ("SKIP", "it draws random numbers, which are others in another dtype")


@pytest.mark.parametrize("claim", ["forward", "vjp", "jvp", "double_backward", "special"])
def test_what_rests_on_differences_is_left_to_precision_in_a_narrow_dtype(claim):
    (r,) = verify(spec(Softplus, reference=softplus), Plan(claims=(claim,), dtypes=("float16",)), Policy())
    assert (r.outcome.value, r.reason) == (
        "SKIP",
        "a forward in float16 is too coarse for it: `precision` judges the op there",
    )


class RotatedSquare(Function):
    """z^2, whose real part is left of two squares."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return 2 * g * z.conj()


@pytest.mark.parametrize("reference", [None, torch.square])
def test_a_complex_product_is_right_to_a_rounding_of_its_modulus(reference):
    args = (Arg(name="z", shape="n", complex=True),)
    assert result(spec(RotatedSquare, args=args, reference=reference), "float32").outcome.value == "PASS"


def test_a_factor_as_a_python_number_is_no_bias():
    class MeanSquare(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square().mean(-1)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g[:, None] * x * (2 / x.shape[-1])

    rows = {"args": (Arg(name="x", shape="b n"),), "dims": {"b": Dim(lo=1), "n": Dim(lo=3, hi=3)}}
    r = result(spec(MeanSquare, reference=lambda x: x.square().mean(-1), **rows), "float32")
    assert (r.outcome.value, r.code) == ("PASS", "")


def test_complex_numbers_there_are_skipped():
    (r,) = verify(
        spec(torch.sin, args=(Arg(name="input", shape="n", complex=True),)),
        Plan(claims=("linear",), dtypes=("float16",)),
        Policy(),
    )
    assert (r.outcome.value, r.reason) == ("SKIP", "torch has no complex numbers in float16")


# The truth.


def upcast(x):
    return torch.expm1(x.float()).to(x.dtype)


def test_a_reference_that_asks_for_float32_is_computed_in_float64():
    (entry, *_) = evidence(torch.expm1, reference=upcast, dtype="float32")
    x = torch.randn(64)
    exact = evidence(torch.expm1, reference=torch.expm1, dtype="float32")[0]
    assert x.dtype is torch.float32
    assert entry.numeric.value == exact.numeric.value
    assert torch.tensor(entry.numeric.value).float().item() != entry.numeric.value


def test_a_truth_whose_own_gradient_is_wrong_is_no_truth():
    def detached(x):
        return x * torch.sin(x).detach()

    r = result(spec(torch.sin, reference=detached, args=(Arg(name="input", shape="n"),)))
    assert (r.outcome.value, r.code) == ("INCONCLUSIVE", "GV303")
    assert "the reference's own gradient does not agree with its differences" in r.finding.summary


# No truth at all.


def narrow(function, factor=1.0):
    """An op that refuses all but bfloat16, and whose gradient is off by a factor."""

    class Narrow(Function):
        @staticmethod
        def forward(ctx, x):
            assert x.dtype is torch.bfloat16, "bfloat16 only"
            ctx.save_for_backward(x)
            return function(x)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (grad,) = torch.autograd.grad(function(x), x, g)
            return (grad.float() * factor).to(g.dtype)

    return Narrow


@pytest.mark.parametrize("function", [torch.sin, torch.relu, torch.nn.functional.silu], ids=lambda f: f.__name__)
def test_without_any_truth_the_op_is_held_against_its_own_values(function):
    r = result(spec(narrow(function), dims={"n": Dim(lo=64)}))
    assert (r.outcome.value, r.truth) == ("PASS", "its own values in bfloat16")
    assert r.budget.value < 0.02
    assert "lines, where the roundings of the op in bfloat16 make" in r.budget.derived_from


@pytest.mark.parametrize("factor", [1.02, 0.5, 0.0, -1.0])
def test_without_any_truth_an_error_of_all_entries_is_found(factor):
    r = result(spec(narrow(torch.sin, factor), dims={"n": Dim(lo=64)}))
    assert (r.outcome.value, r.code) == ("FAIL", "GV601")
    assert r.worst.evidence.analytic == pytest.approx(factor, abs=0.01)
    assert "the mean of the gradient of `x` along lines" in r.finding.summary


def test_without_a_truth_and_with_roundings_as_large_as_the_gradient_it_is_open():
    def coarse(x):
        return x + 1000

    r = result(spec(narrow(coarse)))
    assert (r.outcome.value, r.code) == ("INCONCLUSIVE", "GV303")
    assert "the roundings of the op hide the gradient, and it has no reference" in r.finding.summary


# What is declared.


def jittery(x):
    """Differs from call to call, as atomics do."""
    return torch.sin(x) * (1 + 0.05 * torch.rand((), dtype=torch.float64).to(x.dtype))


@pytest.mark.parametrize(("declared", "outcome"), [(True, "PASS"), (False, "FAIL")])
def test_what_differs_from_call_to_call_is_in_the_budget_where_it_is_declared(declared, outcome):
    def plain(x):
        return torch.sin(x) * 1.025

    s = spec(jittery, reference=plain, nondeterministic=declared)
    case_ = case("float32", n=64)
    entries = [e for e in CHECKS["precision"](s, case_) if e.worst is not None]
    assert of_case([judge(e, Policy()) for e in entries]).outcome.value == outcome


class Jittery(Softplus):
    """Each entry of the gradient is off by up to four roundings, others in each call, as atomics make it."""

    calls = 0

    @staticmethod
    def backward(ctx, g):
        Jittery.calls += 1
        noise = 2 * torch.rand(g.shape, generator=torch.Generator().manual_seed(Jittery.calls)) - 1
        grad = Softplus.backward(ctx, g.float()).float()
        return (grad * (1 + noise * 2.0**-6)).to(g.dtype)


def test_noise_that_is_declared_is_in_the_averages_and_in_what_the_budget_says():
    r = result(spec(Jittery, reference=softplus, nondeterministic=True))
    assert r.outcome.value == "PASS", describe(r)
    assert ", equal calls lie apart by " in r.budget.derived_from
    assert result(spec(Jittery, reference=softplus)).outcome.value == "FAIL"


def test_a_surrogate_is_the_truth_of_the_gradient_and_the_reference_that_of_the_values():
    class Rounded(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.round(x)

        @staticmethod
        def backward(ctx, g):
            return g * (ctx.saved_tensors[0].abs() <= 1)

    def straight(x):
        return x.clamp(-1, 1)

    right = spec(Rounded, reference=torch.round, contract=Contract(kind="backward_of", formula=straight))
    assert result(right).outcome.value == "PASS"
    assert result(right.with_(contract=Contract(kind="backward_of", formula=torch.sin))).code == "GV601"


def test_a_declared_formula_is_the_truth_of_the_gradient():
    def formula(x, u):
        return u * torch.sigmoid(x)

    right = spec(Softplus, reference=softplus, contract=Contract(kind="vjp", formula=formula))
    assert result(right).outcome.value == "PASS"
    assert result(right.with_(op=off_by(0.5))).code == "GV601"


# The budget.


def test_a_multiple_of_the_budget_is_allowed_where_it_is_asked_for():
    wrong = spec(off_by(1.02), reference=softplus)
    assert result(wrong).outcome.value == "FAIL"
    loose = result(wrong.with_(tol={"bfloat16": Times(factor=50.0)}))
    assert loose.outcome.value == "PASS"
    tight = result(spec(Softplus, reference=softplus))
    assert loose.budget.value == pytest.approx(50 * tight.budget.value, rel=0.3)
    assert not loose.budget.loosened


def test_a_raw_tolerance_is_allowed_and_told():
    r = result(spec(off_by(1.02), reference=softplus, tol={"bfloat16": Tolerance(rtol=0.05, atol=1e-3)}))
    assert (r.outcome.value, r.budget.loosened) == ("PASS", "rtol=0.05, atol=0.001")


def test_only_the_dtype_that_a_tolerance_names_is_loosened():
    r = result(spec(off_by(1.02), reference=softplus, tol={"float16": Tolerance(rtol=0.05)}))
    assert r.outcome.value == "FAIL"


def test_a_keyword_that_the_dtype_rounds_is_no_bias():
    def threshold(x, lambd=0.3):
        return torch.nn.functional.softshrink(x, lambd)

    r = result(spec(threshold, kwargs={"lambd": (0.3,)}))
    assert r.outcome.value == "PASS", describe(r)


def test_what_leaves_the_range_in_the_plain_computation_too_is_not_judged():
    def squares(x):
        return x * x

    large = (Arg(name="x", shape="n", domain=Domain(lo=300.0, hi=400.0)),)
    r = result(spec(squares, reference=squares, args=large), "float16")
    assert r.outcome.value == "INCONCLUSIVE"


# What it says.


def test_an_entry_over_its_budget_is_named_with_what_is_allowed():
    r = result(NAMED["tail_of_two_byte_vectors"].wrong)
    assert (r.outcome.value, r.code) == ("FAIL", "GV601")
    text = describe(r)
    assert "over the precision budget: the gradient of `b`" in text
    assert "in bfloat16               grad b[" in text
    assert "the reference in float64  grad b[" in text
    assert "allowed are 3 error bars; the reference in bfloat16 is off by " in text
    assert "try: compute in float32 inside and round once" in text


def test_a_bias_is_told_as_a_factor():
    (r,) = verify(NAMED["all_off_by_1e-3"].wrong, Plan(claims=("precision",)), Policy())
    text = describe(r)
    assert r.code == "GV603"
    assert "bias: the mean of the gradient of `x` over the truth" in text
    assert "in bfloat16               the mean of the gradient of `x` over the truth = 1.00" in text
    assert "over 16 independent points, where roundings cancel and this does not" in text
    assert r.worst.evidence.analytic == pytest.approx(1.001, abs=3e-4)


@pytest.mark.parametrize("percent", [0.05, 0.1, 0.2, -0.1])
def test_a_common_error_far_below_the_budget_of_an_entry_is_found(percent):
    """A rounding of bfloat16 is 0.4 %: no entry tells."""
    wrong = off_by(1 + percent / 100)
    found = [e for e in evidence(wrong, reference=softplus, n=2000) if judge(e, Policy()).outcome.value == "FAIL"]
    expected = abs(percent) >= 0.1
    assert [e.facts["kind"] for e in found] == (["bias"] if expected else [])
    assert not expected or found[0].analytic == pytest.approx(1 + percent / 100, abs=2e-4)


def test_roundings_that_entries_share_are_no_bias():
    """All entries of a row have the rounding of its sum: one draw, however many entries there are."""

    class Normed(Function):
        @staticmethod
        def forward(ctx, x):
            total = x.float().square().sum().sqrt().to(x.dtype)
            ctx.save_for_backward(x, total)
            return x / total

        @staticmethod
        def backward(ctx, g):
            x, total = (t.float() for t in ctx.saved_tensors)
            y = x / total
            return ((g.float() - y * (y * g.float()).sum()) / total).to(g.dtype)

    def plain(x):
        return x / x.float().square().sum().sqrt().to(x.dtype)

    told = [judge(e, Policy()) for s in range(6) for e in evidence_at(Normed, plain, seed=s)]
    assert of_case(told).outcome.value == "PASS"


def evidence_at(op, reference, *, seed):
    return CHECKS["precision"](spec(op, reference=reference), case(n=256, seed=seed))


@pytest.mark.parametrize(("terms", "found"), [(8, set()), (1361, {"b"})])
def test_an_accumulator_is_found_by_what_long_sums_lose(terms, found):
    s = NAMED["bias_summed_in_its_own_dtype"].wrong
    dims = (("m", terms), ("n", 3))
    long = Case(spec=s.name, claim="precision", dims=dims, dtype="bfloat16", seed=4, differentiate=("x", "b"))
    failing = [e for e in CHECKS["precision"](s, long) if judge(e, Policy()).outcome.value == "FAIL"]
    assert {e.facts.get("of") or e.worst.argument for e in failing} == found


def test_the_sweep_has_a_long_size_of_each_letter():
    from gradverify.cases.sweep import sweep

    args = (Arg(name="x", shape="m n"), Arg(name="b", shape="n"))
    given = Spec(name="f", op=Shifted, args=args, reference=shifted, dims={"m": Dim(lo=1), "n": Dim(lo=1, hi=40)})
    sizes = [dict(c.dims) for c, _ in sweep(given, "precision", dtype="bfloat16")]
    assert {d["m"] for d in sizes} >= {1361}
    assert {d["n"] for d in sizes} >= {40}


# Digits that cancel.


def near(s, word, **dims):
    names = [a.name for a in s.args]
    values = tuple((n, word) for n in names) if word else ()
    given = {"dims": tuple(sorted(dims.items())), "values": values, "differentiate": tuple(names), "seed": 1}
    return of_case([judge(e, Policy()) for e in CHECKS["precision"](s, case("float32", **given))])


@pytest.mark.parametrize(
    ("name", "word", "dims"),
    [
        ("raw_moments_in_backward", "shifted 2^8", {"b": 2, "n": 8}),
        ("weights_from_the_logsumexp", "shifted 2^4", {"m": 4, "n": 3, "d": 1, "e": 3}),
        ("distances_expanded_in_backward", "shifted 2^8", {"m": 3, "n": 4, "d": 2}),
        ("logarithmic_mean_of_near_numbers", "close 2^-8", {"b": 20}),
    ],
)
def test_digits_that_cancel_far_from_zero_are_missed_and_at_ordinary_numbers_are_not(name, word, dims):
    fault = NAMED[name]
    found = near(fault.wrong, word, **dims)
    assert (found.outcome.value, found.code) == ("FAIL", "GV601")
    assert found.evidence.facts["digits lost"]
    assert near(fault.right, word, **dims).outcome.value == "PASS"
    if word.startswith("shifted"):
        assert near(fault.wrong, "", **dims).outcome.value == "PASS"


def test_what_the_reference_loses_too_is_allowed():
    """Its own error is what the budget is made of."""
    fault = NAMED["raw_moments_in_backward"]

    def raw(x):
        mean = x.mean(-1, keepdim=True)
        r = torch.rsqrt((x.square().mean(-1, keepdim=True) - mean.square()).clamp_min(0) + 1e-3)
        return (x - mean) * r

    assert near(fault.wrong.with_(order=(), reference=raw), "shifted 2^8", b=2, n=8).outcome.value == "PASS"


def test_a_wrong_formula_is_no_loss_of_digits():
    (r,) = verify(spec(off_by(1.05), reference=softplus), Plan(claims=("precision",), dtypes=("float32",)), Policy())
    assert r.outcome.value == "FAIL"
    assert "digits lost" not in r.worst.evidence.facts


def test_numbers_of_which_digits_cancel_do_not_widen_the_budget_of_the_others():
    whole = result(NAMED["raw_moments_in_backward"].right, "float32")
    assert whole.cases.run > 12
    assert whole.budget.value < 1e-3


def test_without_a_truth_numbers_that_lie_close_together_are_left_out():
    """A line among them moves nothing but roundings: they would leave the claim open."""

    def narrow_only(x):
        if x.dtype == torch.float64:
            raise TypeError("no float64")
        return torch.tanh(x)

    r = result(spec(narrow_only), "float16")
    assert (r.outcome.value, r.truth) == ("PASS", "its own values in float16")
    assert r.cases.invalid > 0


def test_lost_digits_say_that_the_formula_is_right():
    (r,) = verify(NAMED["distances_expanded_in_backward"].wrong, Plan(claims=("precision",)), Policy())
    text = describe(r)
    assert "smallest case  d=2  m=1  n=1  x near 16  y near 16" in text
    assert "in float64 the op is right at the same numbers: its digits are lost on the way" in text


def test_shapes_that_are_not_promised_are_told():
    class Flat(Product):
        @staticmethod
        def forward(ctx, a, b):
            return Product.forward(ctx, a, b).reshape(-1)

        @staticmethod
        def backward(ctx, g):
            return Product.backward(ctx, g.reshape(3, 3))

    args = (Arg(name="a", shape="m k"), Arg(name="b", shape="k n"))
    s = Spec(name="f", op=Flat, args=args, reference=torch.matmul)
    dims = (("k", 4), ("m", 3), ("n", 3))
    small = Case(spec="f", claim="precision", dims=dims, dtype="float16", seed=3, differentiate=("a", "b"))
    found = [judge(e, Policy()) for e in CHECKS["precision"](s, small)]
    assert of_case(found).code == "GV601"
    assert of_case(found).evidence.facts["found"] == "[9]"


def test_resolutions_are_finite_where_it_passes():
    found = [e for e in evidence(Softplus, reference=softplus, n=64) if e.facts["kind"] != "range"]
    assert found
    assert all(not math.isnan(e.resolution) for e in found)
