"""DOUBLE_BACKWARD: what is refused, promised, lost and left out; its messages to the letter."""

import math

import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gradverify.autodiff.frozen import frozen
from gradverify.cases.signatures import spec_from_op
from gradverify.checks import CHECKS
from gradverify.engine.verify import verify
from gradverify.errors import NotApplicableError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Contract, Dim, Domain, Spec
from tests.faults import double_backward as ops
from tests.faults.record import NONEMPTY, arg, index

ONE = [arg("x", "b n")]


def spec(op, args=ONE, **fields):
    letters = {w.strip("*#") for a in args for w in a.shape.split()}
    return Spec(name="op", op=op, args=tuple(args), dims=dict.fromkeys(letters, NONEMPTY), **fields)


def evidence(s, **changes):
    plain = {"dims": (("b", 3), ("n", 4)), "differentiate": s.differentiable(), "seed": 5}
    return list(CHECKS["double_backward"](s, Case(spec="op", claim="double_backward", **{**plain, **changes})))


def said(s, **changes):
    v = of_case([judge(e, Policy()) for e in evidence(s, **changes)])
    return v.outcome.value, v.code


def relations(s):
    return [e.facts["relation"] for e in evidence(s) if "relation" in e.facts]


def result(s, examples=10):
    (found,) = verify(s, Plan(examples=examples, claims=("double_backward",)), Policy())
    return found


class Twin(Function):
    """sin(a) b and cos(a): needs_input_grad, undefined cotangents, two outputs."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a, b)
        return a.sin() * b, a.cos()

    @staticmethod
    def backward(ctx, g, h):
        a, b = ctx.saved_tensors
        da = db = None
        if g is not None:
            da = g * a.cos() * b if ctx.needs_input_grad[0] else None
            db = g * a.sin() if ctx.needs_input_grad[1] else None
        if h is not None and ctx.needs_input_grad[0]:
            da = -h * a.sin() if da is None else da - h * a.sin()
        return da, db


TWO = [arg("a", "b n"), arg("b", "b n")]


@pytest.mark.parametrize("mask", [("a", "b"), ("a",), ("b",)])
@pytest.mark.parametrize("words", [(), ("contiguous", "none"), ("none", "contiguous")])
def test_masks_undefined_cotangents_and_several_outputs_are_no_matter(mask, words):
    if mask == ("b",) and words == ("none", "contiguous"):
        with pytest.raises(NotApplicableError, match="no gradient comes back"):
            evidence(spec(Twin, TWO), differentiate=mask, cotangents=words)
    else:
        assert said(spec(Twin, TWO), differentiate=mask, cotangents=words) == ("PASS", "")


def test_a_gradient_that_is_not_finite_is_left_to_vjp():
    class Lost(Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx, g):
            a, _ = ctx.saved_tensors
            return g * math.nan, g * a

    found = result(spec(Lost, TWO))
    assert found.outcome.value not in ("FAIL", "ERROR")


def test_an_integer_argument_is_no_matter():
    args = [arg("x", "n k"), index("rows", "b", "n")]
    picked = spec(lambda x, rows: x[rows].square(), args)
    assert said(picked, dims=(("b", 3), ("k", 2), ("n", 4))) == ("PASS", "")


def test_a_linear_op_has_no_history_by_its_input_rightly():
    assert said(spec(lambda x: 3 * x.cumsum(-1))) == ("PASS", "")


def test_a_piecewise_linear_op_is_decided_at_once():
    found = result(spec(torch.relu))
    assert (found.outcome.value, found.cases.redrawn) == ("PASS", 0)


def test_a_gradient_that_is_zero_up_to_rounding_is_decided():
    """x / sqrt(x^2 + eps) of one element: its terms cancel, and their residue is no second derivative."""
    one = spec(lambda x: x * (x.square().mean(-1, keepdim=True) + 1e-9).rsqrt())
    assert said(one, dims=(("b", 3), ("n", 1))) == ("PASS", "")


def test_a_refusal_is_seen_although_autograd_grad_returns_none_for_it():
    """A gradient under once_differentiable is joined to its inputs by no path: grad(..., allow_unused) is silent."""
    x, u = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    (g,) = torch.autograd.grad(ops.BellRefused.apply(x), x, u, create_graph=True)
    assert torch.autograd.grad(g.sum(), (x, u), allow_unused=True) == (None, None)
    with pytest.raises(NotApplicableError, match="refused: backward is marked @once_differentiable"):
        evidence(spec(ops.BellRefused))


class NotWritten(ops.Bell):
    @staticmethod
    def backward(ctx, g):
        if torch.is_grad_enabled():
            raise NotImplementedError("only once")
        return ops.Bell.backward(ctx, g)


def test_not_implemented_is_a_refusal():
    found = result(spec(NotWritten))
    assert (found.outcome.value, found.reason) == ("SKIP", "refused: only once")


def test_torch_not_implemented_is_a_refusal():
    assert result(spec(torch.nn.functional.hardsigmoid)).outcome.value == "SKIP"


@pytest.mark.parametrize(
    ("op", "declared", "wanted"),
    [
        (ops.Bell, True, ("PASS", "")),
        (ops.Bell, False, ("FAIL", "GV508")),
        (ops.BellRefused, True, ("FAIL", "GV508")),
        (ops.BellRefused, False, ("SKIP", "")),
        (ops.BellOnContext, True, ("FAIL", "GV505")),
        (ops.BellOnContext, False, ("FAIL", "GV505")),
        (ops.SoftSignUnsigned, False, ("FAIL", "GV501")),
        (ops.RunningByAccident, None, ("FAIL", "GV501")),
        (ops.RunningByAccident, True, ("FAIL", "GV508")),
        (ops.RunningByAccident, False, ("SKIP", "")),
    ],
)
def test_what_is_declared_is_held_against_what_is_found(op, declared, wanted):
    supports = {} if declared is None else {"double_backward": declared}
    found = result(spec(op, supports=supports))
    assert (found.outcome.value, found.code) == wanted


def test_a_stand_in_is_differentiated_as_its_contract_says():
    """round(x) x with the rounding held still: what is frozen carries no second derivative either."""

    class Held(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.round() * x

        @staticmethod
        def backward(ctx, g):
            return g * (ctx.saved_tensors[0].round() + 2 * ctx.saved_tensors[0])

    class Forgotten(Held):
        @staticmethod
        def backward(ctx, g):
            return g * (ctx.saved_tensors[0].round() + 2 * ctx.saved_tensors[0].detach())

    contract = Contract(kind="backward_of", formula=lambda x: frozen(x.round()) * x + x.square())
    assert said(spec(Held, contract=contract)) == ("PASS", "")
    assert said(spec(Forgotten, contract=contract)) == ("FAIL", "GV505")
    formula = Contract(kind="vjp", formula=lambda x, u: u * (frozen(x.round()) + 2 * x))
    assert said(spec(Held, contract=formula)) == ("PASS", "")
    assert said(spec(Forgotten, contract=formula)) == ("FAIL", "GV505")


def test_a_wrong_first_derivative_is_left_to_vjp():
    class Off(ops.Bell):
        @staticmethod
        def backward(ctx, g):
            return 1.01 * ops.Bell.backward(ctx, g)

    assert said(spec(Off)) == ("PASS", "")
    contract = Contract(kind="backward_of", formula=ops.bell)
    with pytest.raises(NotApplicableError, match="see vjp"):
        evidence(spec(Off, contract=contract))


def test_a_promise_that_is_kept_wrongly_is_told_beside_what_is_wrong():
    promised = spec(ops.BellOnContext, supports={"double_backward": True})
    assert said(promised) == ("FAIL", "GV505")
    assert 'supports={"double_backward": True} says that it works' in describe(result(promised))


def test_a_verified_reference_may_be_the_truth():
    assert said(spec(ops.Bell, reference=ops.bell, truth="reference")) == ("PASS", "")
    assert said(spec(ops.BellOnContext, reference=ops.bell, truth="reference")) == ("FAIL", "GV505")


def test_forward_mode_is_held_against_reverse_mode_where_there_is_one():
    both = ["forward over reverse against reverse over reverse", "reverse over forward against reverse over reverse"]
    assert relations(spec(torch.tanh)) == relations(spec(ops.BellBothWays)) == both
    assert relations(spec(ops.Bell)) == []


def test_a_wrong_jvp_is_left_to_the_claims_on_forward_mode():
    class Off(ops.BellBothWays):
        @staticmethod
        def jvp(ctx, v):
            return 1.01 * ops.BellBothWays.jvp(ctx, v)

    assert relations(spec(Off)) == []
    assert said(spec(Off)) == ("PASS", "")


def normed(x):
    return torch.nn.functional.layer_norm(x, x.shape[-1:])


def test_torch_loses_terms_of_layer_norm_in_reverse_over_forward():
    """If this fails, torch is mended: take the marks out of tests/torch_specs/normalisation.py."""
    (wrong,) = [e for e in evidence(spec(normed)) if judge(e, Policy()).code]
    assert wrong.facts["relation"].startswith("reverse over forward")
    assert wrong.facts["torch"] == "layer_norm"


@pytest.mark.parametrize(
    ("op", "outcome", "names"),
    [
        (lambda x: normed(x).tanh(), "PASS", "layer_norm"),
        (lambda x: torch.linalg.slogdet(normed(x.t() @ x) + torch.eye(x.shape[1]))[1], "PASS", "layer_norm, slogdet"),
        (lambda x: ops.BellBothWays.apply(normed(x)), "PASS", "layer_norm"),
        (lambda x: ops.BellSlopeForForward.apply(normed(x)), "FAIL", None),
        (ops.BellDetachedTangent, "FAIL", None),
    ],
)
def test_what_torch_loses_is_told_from_what_the_op_loses(op, outcome, names):
    assert said(spec(op)) == (outcome, "GV501")
    assert result(spec(op)).worst.evidence.facts.get("torch") == names


def test_a_module_that_writes_to_its_buffers_is_told_from_torch_too():
    args = {"input": "b 3"}
    normed_module = spec_from_op(torch.nn.BatchNorm1d(3), name="bn", target="", shapes=args).with_(
        dims={"b": Dim(lo=2)}
    )
    found = result(normed_module, examples=2)
    assert (found.outcome.value, found.code) == ("PASS", "GV501")
    assert found.worst.evidence.facts["torch"] == "batch_norm"


def test_what_is_of_torch_is_said_so_and_passes():
    text = describe(result(spec(normed)))
    assert "GV501 torch's own layer_norm loses terms in reverse over forward; all else is right\n" in text
    assert "differentiate in reverse twice" in text


class Noisy(Function):
    """x0 x1^2, and a gradient with a noise of 1e-3 that no history knows of: no difference shows its derivative."""

    right = True

    @staticmethod
    def forward(ctx, x, right):
        ctx.save_for_backward(x)
        ctx.right = right
        return x[..., 0] * x[..., 1].square()

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors[0].unbind(-1)
        g = g * (1 + 1e-3 * torch.sin(1e9 * (a + b).detach()))
        return torch.stack([g * b.square(), 2 * g * b * (a if ctx.right else a.detach())], -1), None


@pytest.mark.parametrize(("right", "wanted"), [(True, "INCONCLUSIVE"), (False, "FAIL")])
def test_symmetry_speaks_where_differences_say_nothing(right, wanted):
    noisy = spec(lambda x: Noisy.apply(x, right), [arg("x", "b 2")])
    assert relations(noisy) == ["<w, H v> against <v, H w>"]
    assert said(noisy)[0] == wanted


DETACHED = (
    "compute it in backward from saved inputs, without detach, .data, numpy, item or no_grad; or mark backward "
    "@once_differentiable, which refuses"
)
MESSAGES = {
    "GV505 number": (
        spec(ops.MomentKeptAsNumber),
        "silently detached: the gradient of `x` by `x`",
        "forward kept ctx.mean without history",
        DETACHED,
    ),
    "GV505 item": (
        spec(ops.MomentByItem),
        "silently detached: the gradient of `x` by `x`",
        "backward makes numbers of tensors, by item",
        DETACHED,
    ),
    "GV505 autograd": (
        spec(ops.MomentByAutograd),
        "silently detached: the gradient of `x` by `x`",
        "backward has no history by `x`",
        DETACHED,
    ),
    "GV505": (
        spec(ops.RmsNormRootSaved, [Arg(name="x", shape="n"), Arg(name="w", shape="n")]),
        "silently detached: the gradient of `x` by `x`",
        "forward kept saved tensor 2 without history",
        DETACHED,
    ),
    "GV505 ctx": (
        spec(ops.BellOnContext),
        "silently detached: the gradient of `x` by `x`",
        "forward kept ctx.gate without history",
        DETACHED,
    ),
    "GV505 numpy": (
        spec(ops.RunningInNumpy),
        "silently detached: the gradient of `x` by `u1`",
        "backward has no history by `u1`",
        DETACHED,
    ),
    "GV501": (
        spec(ops.RunningByAccident),
        "wrong double backward: it fails, and does not say that there is none",
        "the double backward raised RuntimeError: Can't call numpy() on Tensor that requires grad. "
        "Use tensor.detach().numpy() instead.",
        "compute it right, or refuse: mark backward @once_differentiable",
    ),
    "GV508 refused": (
        spec(ops.BellRefused, supports={"double_backward": True}),
        "supports disagrees with what was found: double_backward is declared to work, and it raises",
        "the double backward raised RuntimeError: trying to differentiate twice a function that was marked with "
        "@once_differentiable",
        'declare supports={"double_backward": False}, or let torch differentiate backward',
    ),
    "GV508 works": (
        spec(ops.Bell, supports={"double_backward": False}),
        "supports disagrees with what was found: double_backward is declared not to work, and it does",
        "every second derivative of this case is right",
        'take it out of supports=, or declare {"double_backward": True}',
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_finding_reads_so(name):
    s, summary, line, remedy = MESSAGES[name]
    found = result(s)
    assert found.code == name.split()[0], describe(found)
    assert (found.finding.summary, found.finding.remedy) == (summary, remedy)
    assert line in found.finding.lines


def test_both_numbers_stand_in_the_message():
    text = describe(result(spec(ops.DragCrossed, [arg("x", "n", Domain(lo=1)), arg("v", "n", Domain(lo=1))])))
    assert "backward, differentiated         d(grad x[0])/d(v[0]) = -" in text
    assert "central differences of backward  d(grad x[0])/d(v[0]) = " in text


def test_once_differentiable_with_a_constant_cotangent_would_pass_unseen():
    """Why the cotangent requires grad: with a constant one the gradient just has no history."""

    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(Once.apply(x).sum(), x, create_graph=True)
    assert not g.requires_grad
