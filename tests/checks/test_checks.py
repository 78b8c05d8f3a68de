"""Each check passes a right op and fails a wrong one, by the evidence that it yields."""

import msgspec
import pytest
import torch
from torch.autograd import Function

from gradverify.autodiff.frozen import frozen
from gradverify.cases.materialise import datum
from gradverify.checks import CHECKS
from gradverify.checks.partial import subsets
from gradverify.diagnosis.explain import explain
from gradverify.engine.verify import verify
from gradverify.errors import OpError, SpecError
from gradverify.judge import conclude, judge, of_case
from gradverify.records.case import Case
from gradverify.records.claims import CLAIMS
from gradverify.records.evidence import Evidence
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Contract, Dim, Domain, Spec
from gradverify.records.verdict import Cases, Outcome


def wave(x, w):
    return torch.sin(x) * w


class Wave(Function):
    """sin(x) w, right in every respect; a fault is a change of one method."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        ctx.save_for_forward(x, w)
        return torch.sin(x) * w

    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        return u * torch.cos(x) * w, u * torch.sin(x)

    @staticmethod
    def jvp(ctx, vx, vw):
        x, w = ctx.saved_tensors
        return vx * torch.cos(x) * w + torch.sin(x) * vw


class Turned(Wave):
    """x exp(i w): real inputs, a complex output."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * torch.exp(1j * w)

    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        turned = u * torch.exp(-1j * w)
        return turned.real, x * turned.imag


class TurnedOn(Turned):
    @staticmethod
    def backward(ctx, u):
        return Turned.backward(ctx, u.conj())


class OneTerm(Wave):
    @staticmethod
    def jvp(ctx, vx, _):
        x, w = ctx.saved_tensors
        return vx * torch.cos(x) * w


class Off(Wave):
    @staticmethod
    def forward(ctx, x, w):
        return 1.001 * Wave.forward(ctx, x, w)


class NoFactor(Wave):
    @staticmethod
    def backward(ctx, u):
        x, _ = ctx.saved_tensors
        return u * torch.cos(x), u * torch.sin(x)


class Squared(Wave):
    @staticmethod
    def backward(ctx, u):
        return Wave.backward(ctx, u * u.abs())


class Raw(Wave):
    @staticmethod
    def backward(ctx, u):
        return Wave.backward(ctx, u if u.is_contiguous() else torch.zeros_like(u))


class InPlace(Wave):
    @staticmethod
    def backward(ctx, u):
        gx, gw = Wave.backward(ctx, u)
        u.mul_(2)
        return gx, gw


class Counting(Wave):
    calls = 0

    @staticmethod
    def backward(ctx, u):
        Counting.calls += 1
        gx, gw = Wave.backward(ctx, u)
        return gx * (1 + Counting.calls / 8), gw


class OneElement(Wave):
    @staticmethod
    def backward(ctx, u):
        return Wave.backward(ctx, 2 * u if u.numel() == 1 else u)


class BothOrNone(Wave):
    @staticmethod
    def backward(ctx, u):
        gx, gw = Wave.backward(ctx, u)
        return (gx, gw) if all(ctx.needs_input_grad) else (0 * gx, 0 * gw)


class Detached(Wave):
    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        return u * torch.cos(x).detach() * w, u * torch.sin(x)


class OnContext(Wave):
    @staticmethod
    def forward(ctx, x, w):
        ctx.inputs = x, w
        return Wave.forward(ctx, x, w)

    @staticmethod
    def backward(ctx, u):
        x, w = ctx.inputs
        return u * torch.cos(x) * w, u * torch.sin(x)


class Narrow(Wave):
    @staticmethod
    def backward(ctx, u):
        gx, gw = Wave.backward(ctx, u)
        return gx, gw.half()


class Split(Function):
    """sin(x) w once more, in two parts as torch.func needs it, and batched by torch's own rule."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, w):
        return torch.sin(x) * w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, u):
        return Wave.backward(ctx, u)


class FirstOfTheBatch(Split):
    generate_vmap_rule = False

    @staticmethod
    def vmap(info, in_dims, x, w):
        first = [t if d is None else t.select(d, 0) for t, d in zip((x, w), in_dims, strict=True)]
        return Split.apply(*first).expand(info.batch_size, *first[0].shape), 0


class GradMode(Split):
    @staticmethod
    def backward(ctx, u):
        return Wave.backward(ctx, 2 * u if torch.is_grad_enabled() else u)


class ReadTwice(Wave):
    @staticmethod
    def backward(ctx, u):
        return u * torch.cos(ctx.saved_tensors[0]) * ctx.saved_tensors[1], u * torch.sin(ctx.saved_tensors[0])


class OnCtx(Wave):
    @staticmethod
    def forward(ctx, x, w):
        ctx.slope = torch.cos(x) * w
        return Wave.forward(ctx, x, w)

    @staticmethod
    def backward(ctx, u):
        return u * ctx.slope, Wave.backward(ctx, u)[1]


class DoubledUnderAutocast(Wave):
    @staticmethod
    def forward(ctx, x, w):
        ctx.narrow = torch.is_autocast_enabled(x.device.type)
        return Wave.forward(ctx, x, w)

    @staticmethod
    def backward(ctx, u):
        return Wave.backward(ctx, 2 * u if ctx.narrow else u)


class OneBuffer(Wave):
    """Its sine is written to a buffer that all threads share."""

    buffer = torch.zeros(3, 4, dtype=torch.float64)

    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        torch.sin(x, out=OneBuffer.buffer)
        return u * torch.cos(x) * w, u * OneBuffer.buffer


class Module(torch.nn.Module):
    def forward(self, x, w):
        self.last = Wave.apply(x, w)
        return self.last


class Forgetful(Module):
    def forward(self, x, w):
        y = super().forward(x, w)
        del self.last
        return y


def cut_where_compiled(x, w):
    return wave(x, w.detach() if torch.compiler.is_compiling() else w)


def registered(name, fake):
    def kernel(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return wave(x, w)

    op = torch.library.custom_op(f"gradverify_tests::{name}", kernel, mutates_args=())
    op.register_fake(fake)
    op.register_autograd(Wave.backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
    return op


class Divided(Wave):
    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        return u * torch.cos(x) * w, u * (w * torch.sin(x)) / w


def spec(op=Wave, **fields):
    given = {"args": (Arg(name="x", shape="b n"), Arg(name="w", shape="b n")), "reference": wave, **fields}
    return Spec(name="wave", op=op, **given)


# What varies under each claim, and an op that is wrong there.
VARIED = {
    "forward": {},
    "vjp": {},
    "linear": {},
    "layout": {"layouts": (("x", "transposed"),), "cotangents": ("transposed",)},
    "purity": {},
    "repeat": {},
    "edges": {"dims": (("b", 1), ("n", 1))},
    "partial": {"differentiate": ("w",)},
    "jvp": {},
    "adjoint": {},
    "double_backward": {},
    "lifetime": {},
    "memory": {},
    "complex": {"layouts": (("x", "lazy"),), "cotangents": ("lazy",)},
    "convention": {},
    **{claim: {} for claim in CLAIMS if claim.startswith("transforms.")},
    "special": {"values": (("x", "shifted"), ("w", "zeros"))},
}
# Where Wave has not what the claim is about.
RIGHT = {
    "transforms.vmap": Split,
    "transforms.func": Split,
    "complex": Turned,
    "transforms.pickle": Forgetful(),
    "transforms.opcheck": registered("wave", lambda x, w: torch.empty_like(x)),
}
WRONG = {
    "forward": (Off, "GV208"),
    "vjp": (NoFactor, "GV199"),
    "linear": (Squared, "GV201"),
    "layout": (Raw, "GV203"),
    "purity": (InPlace, "GV202"),
    "repeat": (Counting, "GV209"),
    "edges": (OneElement, "GV206"),
    "partial": (BothOrNone, "GV205"),
    "jvp": (OneTerm, "GV401"),
    "adjoint": (OneTerm, "GV402"),
    "double_backward": (Detached, "GV505"),
    "lifetime": (OnContext, "GV212"),
    "memory": (OnContext, "GV207"),
    "complex": (TurnedOn, "GV216"),
    "convention": (Narrow, "GV109"),
    "transforms.vmap": (FirstOfTheBatch, "GV502"),
    "transforms.func": (GradMode, "GV509"),
    "transforms.checkpoint": (ReadTwice, "GV506"),
    "transforms.hooks": (OnCtx, "GV210"),
    "transforms.autocast": (DoubledUnderAutocast, "GV507"),
    "transforms.threads": (OneBuffer, "GV511"),
    "transforms.pickle": (Module(), "GV510"),
    "transforms.compile": (cut_where_compiled, "GV503"),
    "transforms.opcheck": (registered("wave_flat", lambda x, w: x.new_empty(x.numel())), "GV504"),
    "special": (Divided, "GV111"),
}


def case(claim, **changes):
    plain = {"dims": (("b", 3), ("n", 4)), "differentiate": ("x", "w"), "seed": 5}
    return Case(spec="wave", claim=claim, **{**plain, **VARIED[claim], **changes})


def evidence(s, claim, **changes):
    return list(CHECKS[claim](s, case(claim, **changes)))


def verdict(s, claim, **changes):
    return of_case([judge(e, Policy()) for e in evidence(s, claim, **changes)])


def said(s, claim="vjp", **changes):
    v = verdict(s, claim, **changes)
    return v.outcome.value, v.code


IN_FLOAT64 = tuple(c for c in CLAIMS if c != "precision")
"""`precision` is about narrower dtypes: test_precision."""


def test_the_table_of_checks_is_the_list_of_claims_in_its_order():
    assert tuple(CHECKS) == tuple(CLAIMS)
    assert set(VARIED) == set(WRONG) == set(IN_FLOAT64)


@pytest.mark.parametrize("claim", IN_FLOAT64)
def test_a_right_op_passes(claim):
    right = spec(RIGHT.get(claim, Wave))
    found = evidence(right, claim)
    assert found
    assert all(isinstance(e, Evidence) and e.claim == claim for e in found)
    assert said(right, claim) == ("PASS", "")


@pytest.mark.parametrize("claim", IN_FLOAT64)
def test_a_wrong_op_fails(claim):
    op, code = WRONG[claim]
    assert said(spec(op), claim) == ("FAIL", code)


def test_at_its_steps_a_forward_is_not_known_and_beside_them_it_is():
    s = Spec(torch.round, name="round", args=(Arg("n", name="x"),), reference=torch.round)
    at_steps = datum(torch.tensor([0.5, 1.5, 2.25, 3.0, 4.0], dtype=torch.float64))
    beside = datum(torch.tensor([0.7, 1.2, 2.25, 3.0, 4.0], dtype=torch.float64))
    (e,) = evidence(s, "forward", dims=(("n", 5),), differentiate=("x",), data=(("x", at_steps),))
    assert (e.resolved, e.neighbourhood) == (0.6, "jump")
    assert e.resolution < 1e-13
    v = judge(e, Policy())
    assert (v.outcome, v.code, v.moot) == (Outcome.INCONCLUSIVE, "GV301", True)
    (e,) = evidence(s, "forward", dims=(("n", 5),), differentiate=("x",), data=(("x", beside),))
    assert (e.resolved, judge(e, Policy()).outcome) == (1.0, Outcome.PASS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_forward_in_a_narrow_dtype_is_known_to_its_own_rounding(dtype):
    (e,) = evidence(spec(lambda x, w: wave(x, w)), "forward", dtype=dtype)
    assert (e.resolved, judge(e, Policy()).outcome) == (1.0, Outcome.PASS)


@pytest.mark.parametrize("claim", ["layout", "partial", "edges"])
def test_a_fault_on_another_axis_is_not_seen_where_that_axis_is_plain(claim):
    plain = {"dims": (("b", 3), ("n", 4)), "differentiate": ("x", "w"), "layouts": (), "cotangents": ()}
    assert said(spec(WRONG[claim][0]), "vjp", **plain) == ("PASS", "")


def test_a_wrong_entry_is_named_with_both_numbers_and_the_error():
    class Entry(Wave):
        @staticmethod
        def backward(ctx, u):
            gx, gw = Wave.backward(ctx, u)
            gx = gx.clone()
            gx[2, 1] = 0
            return gx, gw

    worst = verdict(spec(Entry), "vjp").evidence.worst
    assert (worst.argument, worst.index, worst.output_index) == ("x", (2, 1), (2, 1))
    assert worst.analytic == 0
    assert abs(worst.numeric) > 1e6 * worst.error > 0


# Contracts.


class Rounded(Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, u):
        return u


class Halved(Rounded):
    @staticmethod
    def backward(ctx, u):
        return u / 2


def rounded(op=Rounded, formula=None, kind="backward_of", **fields):
    contract = Contract() if formula is None else Contract(kind=kind, formula=formula)
    return Spec(name="wave", op=op, args=(Arg(name="x", shape="b n"),), contract=contract, **fields)


def straight(x):
    return x + frozen(torch.round(x) - x)


def forgotten(x):
    return x + (torch.round(x) - x).detach()


ONLY_X = {"differentiate": ("x",)}


def test_a_straight_through_rounding_fulfils_its_contract_and_half_of_it_does_not():
    assert said(rounded(formula=straight), **ONLY_X) == ("PASS", "")
    assert said(rounded(Halved, straight), **ONLY_X) == ("FAIL", "GV199")


def test_a_straight_through_rounding_without_a_contract_is_told_to_declare_one():
    codes = {said(rounded(), **ONLY_X, seed=seed) for seed in range(6)}
    assert ("FAIL", "GV112") in codes
    assert {code for _, code in codes} <= {"GV112", "GV303"}


def test_a_forgotten_frozen_is_no_pass_and_with_it_it_is():
    assert verdict(rounded(formula=forgotten), "vjp", **ONLY_X).outcome is not Outcome.PASS
    assert verdict(rounded(formula=straight), "vjp", **ONLY_X).outcome is Outcome.PASS


class Weighted(Function):
    """x times a weight that carries no gradient."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(torch.exp(-x))
        return x * torch.exp(-x)

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0]


def test_a_detached_weight_needs_frozen_in_the_surrogate():
    good = rounded(Weighted, lambda x: x * frozen(torch.exp(-x)))
    assert said(good, **ONLY_X) == ("PASS", "")
    bad = rounded(Weighted, lambda x: x * torch.exp(-x).detach())
    assert said(bad, **ONLY_X) == ("FAIL", "GV199")


def test_a_declared_formula_of_backward_is_held_to_the_letter():
    good = rounded(formula=lambda x, u: u, kind="vjp")
    assert said(good, **ONLY_X) == ("PASS", "")
    assert said(rounded(Halved, lambda x, u: u, kind="vjp"), **ONLY_X) == ("FAIL", "GV199")
    assert evidence(good, "vjp", **ONLY_X)[0].facts["truth"] == "the declared formula of backward"


def test_a_formula_of_the_wrong_number_of_gradients_is_refused():
    with pytest.raises(SpecError, match=r"vjp= returned 2 gradients; return one for each of x\."):
        evidence(rounded(formula=lambda x, u: (u, u), kind="vjp"), "vjp", **ONLY_X)


def test_a_surrogate_of_other_shapes_is_refused():
    with pytest.raises(SpecError, match="the surrogate returns shapes"):
        evidence(rounded(formula=lambda x: x.sum()), "vjp", **ONLY_X)


VERIFIED = "autograd of the reference, itself verified by differences"


def test_a_verified_reference_is_a_truth_and_the_report_names_it():
    s = spec(truth="reference")
    assert said(s) == ("PASS", "")
    assert [e.facts["truth"] for e in evidence(s, "vjp")] == [VERIFIED, VERIFIED, "central differences of the forward"]
    assert {e.facts["truth"] for e in evidence(s, "edges")[1:]} == {VERIFIED}


class TwiceWave(Wave):
    @staticmethod
    def forward(ctx, x, w):
        return 2 * Wave.forward(ctx, x, w)


class Counted(Wave):
    calls = 0

    @staticmethod
    def forward(ctx, x, w):
        Counted.calls += 1
        return Wave.forward(ctx, x, w)


def test_beside_a_verified_reference_the_op_is_differenced_along_one_direction():
    assert said(spec(TwiceWave, truth="reference")) == ("FAIL", "GV199")
    before = Counted.calls
    assert said(spec(Counted, truth="reference")) == ("PASS", "")
    assert Counted.calls - before <= 9


def test_a_wrong_op_fails_against_a_verified_reference():
    assert said(spec(NoFactor, truth="reference")) == ("FAIL", "GV199")


class WrongReference(Wave):
    @staticmethod
    def backward(ctx, u):
        return u, u


def test_a_reference_whose_own_gradient_is_wrong_says_nothing_about_the_op():
    s = spec(truth="reference", reference=lambda x, w: WrongReference.apply(x, w))
    assert said(s) == ("INCONCLUSIVE", "GV303")
    assert evidence(s, "vjp")[-1].facts["kind"] == "reference"


def test_each_contract_names_its_truth():
    assert evidence(spec(), "vjp")[0].facts["truth"] == "central differences of the forward"
    surrogate = evidence(rounded(formula=straight), "vjp", **ONLY_X)
    assert surrogate[0].facts["truth"] == "central differences of the declared surrogate"


# What is counted.


def rooted(op, **fields):
    """x^(1/2) or the like on x >= 0."""
    args = (Arg(name="x", shape="n", domain=Domain(lo=0.0)),)
    return Spec(name="wave", op=op, args=args, **fields)


def at_special(s, regime):
    return said(s, "special", dims=(("n", 3),), values=(("x", regime),), differentiate=("x",))


def test_an_infinite_slope_is_no_finding_and_one_that_exists_on_one_side_is():
    class Root(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sqrt()

        @staticmethod
        def backward(ctx, u):
            (x,) = ctx.saved_tensors
            return u * 0.5 / x.sqrt()

    class Power(Root):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x.sqrt()

        @staticmethod
        def backward(ctx, u):
            (x,) = ctx.saved_tensors
            return u * 1.5 * x / x.sqrt()

    assert at_special(rooted(Root.apply), "zeros")[0] != "FAIL"
    assert at_special(rooted(Power.apply), "zeros") == ("FAIL", "GV111")


def test_an_extreme_size_asks_for_finite_numbers_only_and_the_reference_tells_which_can_be():
    def squares(x):
        return x.square().sum().sqrt() * x

    def scaled(x):
        top = x.abs().amax().clamp_min(1e-320).detach()
        return (x / top).square().sum().sqrt() * top * (x / top)

    huge = rooted(squares)
    assert at_special(huge, "scaled 1e+150")[1] in ("", "GV303")
    found = evidence(
        rooted(squares, reference=scaled),
        "special",
        dims=(("n", 3),),
        values=(("x", "scaled 1e+300"),),
        differentiate=("x",),
    )
    failing = [judge(e, Policy()) for e in found if judge(e, Policy()).outcome is Outcome.FAIL]
    assert {v.code for v in failing} == {"GV208"}
    assert failing[0].evidence.facts["wanted"].endswith("as the reference's")


def test_at_a_kink_the_reference_is_one_truth_among_many():
    class Half(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.abs()

        @staticmethod
        def backward(ctx, u):
            (x,) = ctx.saved_tensors
            return u * torch.where(x == 0, 0.5, x.sign())

    s = Spec(name="wave", op=Half.apply, args=(Arg(name="x", shape="n"),), reference=torch.abs, truth="reference")
    assert at_special(s, "zeros") == ("INCONCLUSIVE", "GV302") or at_special(s, "zeros")[0] == "PASS"
    s = s.with_(op=lambda x: Half.apply(x) * 1.0 + 0.1 * (x - x.detach()))
    assert at_special(s, "ones") == ("FAIL", "GV215")


def test_an_input_that_is_changed_is_counted_by_its_elements():
    def op(x, w):
        y = torch.sin(x) + w
        with torch.no_grad():
            w[0] += 1
        return y

    worst = verdict(spec(op), "purity", differentiate=("x",))
    assert (worst.outcome, worst.code) == (Outcome.FAIL, "GV202")
    assert worst.evidence.analytic == 4
    assert worst.evidence.facts["phase"] == "forward"


def test_a_moved_global_generator_is_impure_unless_the_op_is_stochastic():
    def op(x, w):
        torch.rand(3)
        return wave(x, w)

    assert said(spec(op), "purity") == ("FAIL", "GV202")
    assert said(spec(op, stochastic=True), "purity") == ("PASS", "")


def test_a_wrong_shape_or_number_of_outputs_is_exact():
    assert said(spec(lambda x, w: wave(x, w)[0]), "forward") == ("FAIL", "GV208")
    found = evidence(spec(lambda x, w: (x, w)), "forward")
    assert [e.facts["kind"] for e in found] == ["count"]


def test_a_gradient_of_the_wrong_shape_is_refused_with_its_code():
    class Reduced(Wave):
        @staticmethod
        def backward(ctx, u):
            gx, gw = Wave.backward(ctx, u)
            return gx[:, :2], gw

    with pytest.raises(OpError) as caught:
        evidence(spec(Reduced), "vjp")
    assert caught.value.code == "GV109"


def test_state_kept_between_calls_has_a_code_of_its_own():
    class Stateful(Wave):
        kept = None

        @staticmethod
        def forward(ctx, x, w):
            Stateful.kept = w
            ctx.save_for_backward(x, w)
            return torch.sin(x) * w

        @staticmethod
        def backward(ctx, u):
            x, _ = ctx.saved_tensors
            return u * torch.cos(x) * Stateful.kept, u * torch.sin(x)

    assert said(spec(Stateful), "repeat") == ("FAIL", "GV209")


def test_a_frozen_argument_gets_nothing_even_when_it_asks():
    args = (Arg(name="x", shape="b n"), Arg(name="w", shape="b n", role="frozen"))
    assert said(spec(args=args), "partial", differentiate=("x",)) == ("FAIL", "GV205")

    def still(x, w):
        return wave(x, w.detach())

    assert said(spec(still, args=args), "partial", differentiate=("x",)) == ("PASS", "")

    def refusing(x, w):
        if w.requires_grad:
            raise RuntimeError("not differentiable with respect to argument 'w'")
        return wave(x, w)

    assert said(spec(refusing, args=args), "partial", differentiate=("x",)) == ("PASS", "")


def test_an_error_bar_is_measured_inside_the_domain():
    seen = []

    def loss(x):
        seen.append(float(x.detach().max()))
        return (x * x).sum(-1)

    s = Spec(name="wave", op=loss, args=(Arg(name="x", shape="b n", domain=Domain(lo=-1.0, hi=1.0)),))
    list(
        CHECKS["transforms.checkpoint"](s, case("transforms.checkpoint", values=(("x", "ones"),), differentiate=("x",)))
    )
    assert max(seen) == 1.0
    assert len(seen) > 3


def test_a_derivative_that_is_zero_by_its_type_is_a_number():
    s = Spec(name="wave", op=torch.abs, args=(Arg(name="x", shape="b n"),))
    assert said(s, "double_backward", differentiate=("x",))[0] != "FAIL"


@pytest.mark.parametrize("seed", range(6))
def test_ties_may_be_sorted_in_any_order_and_a_slope_beyond_all_nearby_is_wrong(seed):
    """One-sided slopes are two of the many generalised ones, of a row of ties and of a sum of rows all the more."""

    def steep(x):
        y = torch.relu(x)
        return y.detach() + (y - y.detach()) + 3 * (x - x.detach()) * (x == 0)

    outcomes = []
    for op in (lambda x: torch.sort(x, -1).values, steep):
        s = Spec(name="wave", op=op, args=(Arg(name="x", shape="b n"),))
        dims = (("b", 5), ("n", 8))
        outcomes.append(said(s, "special", dims=dims, values=(("x", "zeros"),), differentiate=("x",), seed=seed)[0])
    assert outcomes[0] != "FAIL"
    assert outcomes[1] == "FAIL"


def test_an_op_that_refuses_a_layout_says_what_it_said():
    def op(x, w):
        if not x.is_contiguous():
            raise RuntimeError("x must be contiguous")
        return wave(x, w)

    worst = verdict(spec(op), "layout")
    assert (worst.outcome, worst.code) == (Outcome.FAIL, "GV203")
    assert "x must be contiguous" in worst.evidence.facts["said"]


@pytest.mark.parametrize("dims", [(("b", 0), ("n", 4)), (("b", 3), ("n", 0))])
def test_where_nothing_flows_the_gradient_is_empty(dims):
    assert said(spec(), "edges", dims=dims) == ("PASS", "")


def test_a_gradient_out_of_nothing_is_wrong():
    class Ghost(Function):
        @staticmethod
        def forward(ctx, x):
            return x[:, :0]

        @staticmethod
        def backward(ctx, u):
            return u.new_ones(3, 4)

    s = Spec(name="wave", op=Ghost, args=(Arg(name="x", shape="b n"),))
    assert said(s, "edges", dims=(("b", 3), ("n", 4)), differentiate=("x",)) == ("FAIL", "GV206")


def test_what_is_not_finite_on_both_sides_makes_no_noise():
    def op(x):
        return torch.where(x > 0, torch.inf, x)

    s = Spec(name="wave", op=op, args=(Arg(name="x", shape="b n"),), reference=op)
    for claim in ("forward", "layout", "repeat"):
        assert verdict(s, claim, differentiate=("x",), layouts=()).outcome is not Outcome.FAIL


def test_a_number_where_the_reference_is_infinite_differs():
    def op(x):
        return torch.where(x > 0, 5.0, x)

    def reference(x):
        return torch.where(x > 0, torch.inf, x)

    s = Spec(name="wave", op=op, args=(Arg(name="x", shape="b n"),), reference=reference)
    assert said(s, "forward", differentiate=("x",)) == ("FAIL", "GV208")
    assert said(s.with_(op=reference), "forward", differentiate=("x",)) == ("PASS", "")


# Partial: what the faults there show by outcome, here in words.


def told(s, **changes):
    v = verdict(s, "partial", **{"differentiate": ("x", "w"), **changes})
    result = conclude([v], claim="partial", device="cpu", dtype="float64", cases=Cases(run=1))
    return describe(msgspec.structs.replace(result, finding=explain(s, result, runs=0)))


class Aliased(Wave):
    """Adds up what autograd adds up."""

    @staticmethod
    def backward(ctx, u):
        x, w = ctx.saved_tensors
        gx, gw = Wave.backward(ctx, u)
        return (gx + gw, gx + gw) if x.data_ptr() == w.data_ptr() else (gx, gw)


def test_a_tensor_in_two_places_gets_the_sum_of_their_gradients():
    lines = told(spec(Aliased)).splitlines()
    assert lines[0] == (
        "FAIL partial[cpu-float64] GV205 wrong under partial differentiation: the gradient of `x` "
        "(`x` and `w` are one tensor)"
    )
    assert lines[2].startswith("    backward()         grad x[")
    assert lines[3].startswith("    two equal tensors  grad x[")
    assert told(spec()) == "PASS partial[cpu-float64]"


class Several(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        return x * w, torch.sin(x)

    @staticmethod
    def backward(ctx, u, v):
        x, w = ctx.saved_tensors
        gx = u * w if v is None else u * w + v * torch.cos(x)
        return gx, u * x


def several(x, w):
    y, z = Several.apply(x, w)
    return {"product": y, "aux": {"sine": z}}


def test_what_works_with_all_outputs_must_work_with_some():
    lines = told(spec(several, reference=None)).splitlines()
    assert lines[0] == (
        "FAIL partial[cpu-float64] GV205 wrong under partial differentiation: the call "
        "(gradients for x, w; outputs used y['aux']['sine'])"
    )
    assert lines[2] == (
        "  wave: the backward raised TypeError: unsupported operand type(s) for *: 'NoneType' and 'Tensor'"
    )


def test_a_declared_output_that_carries_a_gradient_is_named():
    lines = told(spec(lambda x, w: (x * w, w), reference=None, nondiff=(1,))).splitlines()
    assert lines[0].endswith("wrong under partial differentiation: the gradient through output 1")
    assert lines[2] == "  12 elements not zero"
    assert told(spec(lambda x, w: (x * w, w.detach()), reference=None, nondiff=(1,))) == "PASS partial[cpu-float64]"


def test_a_declared_name_that_no_output_has_is_refused():
    with pytest.raises(
        SpecError, match=r"^wave: nondiff names 'sin'; the outputs are y\['aux'\]\['sine'\], y\['product'\]"
    ):
        evidence(spec(several, nondiff=("sin",)), "partial")


def test_what_is_written_to_unseen_has_an_old_version():
    class Unseen(Wave):
        @staticmethod
        def forward(ctx, x, w):
            x.data.mul_(2)
            return x

        @staticmethod
        def backward(ctx, u):
            return 2 * u, None

    lines = told(spec(Unseen, reference=None)).splitlines()
    assert lines[0].endswith("the version of `x`, which was written to,")
    assert lines[2] == "  12 elements changed"


def test_many_outputs_are_used_alone_all_but_one_and_all():
    assert len(subsets(range(4))) == 16
    assert len(subsets(range(6))) == 1 + 6 + 6 + 1
    assert subsets((2,)) == [(2,), ()]


def test_an_output_goes_by_its_key_in_every_claim():
    class Half(Wave):
        @staticmethod
        def backward(ctx, u):
            gx, gw = Wave.backward(ctx, u)
            return gx / 2, gw

    worst = verdict(spec(lambda x, w: {"wave": Half.apply(x, w)}, reference=None), "vjp").evidence.worst
    assert (worst.output, worst.output_name) == (0, "y['wave']")


def test_outputs_of_other_names_than_the_references_differ():
    s = spec(lambda x, w: {"wave": wave(x, w)}, reference=lambda x, w: {"waves": wave(x, w)})
    worst = verdict(s, "forward").evidence
    assert (worst.quantity, worst.facts["found"], worst.facts["wanted"]) == (
        "the names of the outputs",
        "y['wave']",
        "y['waves']",
    )


class _WithStatistic(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        norm = x.norm(dim=-1)
        ctx.save_for_backward(x)
        ctx.mark_non_differentiable(norm)
        return x.square(), norm

    @staticmethod
    def backward(ctx, g, _):
        (x,) = ctx.saved_tensors
        return 2 * g * x


def with_statistic(x):
    return x.square(), x.detach().norm(dim=-1)


@pytest.mark.parametrize(("op", "marked"), [(_WithStatistic, "1"), (with_statistic, None)])
def test_an_output_without_a_gradient_is_marked_by_the_op_or_told_how_to_be_declared(op, marked):
    positive = Domain(lo=0.5, hi=2.0)
    wrong = Spec(name="op", op=op, args=(Arg(name="x", shape="b n", domain=positive),))
    sizes = {"dims": {"n": Dim(lo=1), "b": Dim(lo=1)}}
    (found,) = verify(wrong.with_(**sizes), Plan(claims=("vjp",), examples=3), Policy())
    if marked:
        assert (found.outcome, found.measured["marked"]) == (Outcome.PASS, marked)
    else:
        assert found.outcome is Outcome.FAIL
        assert found.finding.remedy == (
            "output 1 carries no gradient (detach or no_grad): if that is meant, declare nondiff=[1] in a spec"
        )
    (found,) = verify(wrong.with_(nondiff=(1,), **sizes), Plan(claims=("vjp",), examples=3), Policy())
    assert (found.outcome, found.measured) == (Outcome.PASS, {})
