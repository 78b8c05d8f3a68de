"""What the transforms skip, what they count as a finding, and that they leave nothing behind."""

import pytest
import torch
from torch.autograd import Function

from gradverify.checks import CHECKS
from gradverify.engine.verify import verify
from gradverify.errors import NotApplicableError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Dim, Spec


class Square(Function):
    """x^2, in two parts."""

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 2 * x * u


class Old(Function):
    """x^2, in one part."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 2 * x * u


class Batched(Square):
    generate_vmap_rule = True


def spec(op, **fields):
    return Spec(**{"name": "square", "op": op, "args": (Arg(name="x", shape="n"),), "dims": {"n": Dim(lo=1)}, **fields})


def case(claim, n=3):
    return Case(spec="square", claim=f"transforms.{claim}", dims=(("n", n),), differentiate=("x",), seed=5)


def evidence(claim, op, **fields):
    return list(CHECKS[f"transforms.{claim}"](spec(op, **fields), case(claim)))


def relations(claim, op, **fields):
    return {str(e.facts.get("relation")) for e in evidence(claim, op, **fields)}


def said(claim, op, **fields):
    v = of_case([judge(e, Policy()) for e in evidence(claim, op, **fields)])
    return v.outcome.value, v.code


def result(claim, op, **fields):
    (found,) = verify(spec(op, **fields), Plan(examples=4, claims=(f"transforms.{claim}",)), Policy())
    return found


def dropped_across(x):
    """Drops elements of a transposed matrix: in eager in the order of its memory, in torch.func of its rows."""
    return torch.nn.functional.dropout(x.outer(x + 1).t(), 0.5)


def dropped(x):
    return torch.dropout(x, 0.5, True)


@pytest.mark.parametrize(
    ("claim", "op", "fields", "reason"),
    [
        ("vmap", Old, {}, "the op has no setup_context, which torch.func needs"),
        ("func", Old, {}, "the op has no setup_context, which torch.func needs"),
        ("vmap", Square, {}, "the op has neither a vmap of its own nor generate_vmap_rule"),
        ("vmap", dropped, {"stochastic": True}, "the op draws random numbers, and a batch may draw others"),
        ("func", dropped_across, {"stochastic": True}, "the op draws other random numbers under torch.func"),
        ("vmap", Batched, {"supports": {"vmap": False}}, "the spec says that vmap is not supported"),
        ("func", Square, {"supports": {"func": False}}, "the spec says that func is not supported"),
        ("checkpoint", Old, {"supports": {"checkpoint": False}}, "the spec says that checkpoint is not supported"),
        ("hooks", Old, {"supports": {"hooks": False}}, "the spec says that hooks is not supported"),
        ("checkpoint", torch.sign, {"nondiff": (0,)}, "no output carries a gradient"),
    ],
)
def test_a_claim_that_says_nothing_of_an_op_is_skipped_with_the_reason(claim, op, fields, reason):
    found = result(claim, op, **fields)
    assert (found.outcome.value, found.code) == ("SKIP", "")
    assert found.reason.startswith(reason)


def by_value(x):
    """Control flow that vmap refuses."""
    return x * x if x.sum() > 0 else -x * x


def test_what_torch_refuses_is_a_finding_only_where_the_op_says_that_it_can():
    with pytest.raises(NotApplicableError, match="data-dependent control flow"):
        evidence("vmap", by_value)
    assert said("vmap", by_value, supports={"vmap": True}) == ("FAIL", "GV502")


class BackwardWithoutBatch(Old):
    """Mixes up what backward is batched over: wrong without any vmap of the forward."""

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 2 * x * (u.flip(0) if torch._C._functorch.is_legacy_batchedtensor(u) else u)


def test_a_backward_batched_over_cotangents_is_judged_though_the_forward_takes_no_vmap():
    assert said("vmap", BackwardWithoutBatch) == ("FAIL", "GV502")
    with pytest.raises(NotApplicableError):
        evidence("vmap", Old)


def test_every_subset_of_the_tensors_is_batched_in_front_and_behind():
    def product(x, w):
        return x * w

    two = (Arg(name="x", shape="n"), Arg(name="w", shape="n"))
    found = relations("vmap", product, args=two)
    assert {r for r in found if r.startswith("vmap") and "gradient" not in r} == {
        "vmap, batch at axis 0 of `x`, 0 of `w`",
        "vmap, batch at axis 1 of `x`",
        "vmap, batch at axis 0 of `w`",
    }
    assert "backward batched over cotangents" in found


def test_func_takes_what_torch_can_do_for_the_op():
    first = {"torch.func.vjp", "torch.func.grad", "torch.func.jacrev"}
    assert relations("func", Square) == {*first, "torch.func.grad of grad"}
    assert relations("func", lambda x: x * x) == {
        *first,
        "torch.func.jvp",
        "torch.func.jacfwd",
        "torch.func.grad of grad",
        "torch.func.hessian",
    }


class HiddenSlope(Square):
    """Right once; the slope comes from outside of the graph, so torch.func and eager both see no second derivative."""

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * u


def test_a_second_derivative_that_eager_does_not_have_is_not_asked_of_func():
    assert "torch.func.grad of grad" not in relations("func", HiddenSlope)


class Keeps(Old):
    """Keeps on ctx what backward never reads, and a few numbers that it does."""

    @staticmethod
    def forward(ctx, x):
        ctx.forgotten = x.clone()
        ctx.shape = torch.tensor(x.shape)
        ctx.scale = torch.tensor(2.0)
        return Old.forward(ctx, x)

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return (ctx.scale * x * u).reshape(ctx.shape.tolist())


def test_what_backward_does_not_read_and_a_few_numbers_need_no_hook():
    assert said("hooks", Keeps) == ("PASS", "")


class Indices(Old):
    """The order of the elements, an integer tensor, on ctx."""

    @staticmethod
    def forward(ctx, x):
        ctx.order = torch.arange(len(x) - 1, -1, -1)
        return x[ctx.order]

    @staticmethod
    def backward(ctx, u):
        return torch.zeros_like(u).index_add(0, ctx.order, u)


def test_indices_of_more_than_a_few_elements_need_one():
    many = list(CHECKS["transforms.hooks"](spec(Indices), case("hooks", n=20)))
    assert [judge(e, Policy()).code for e in many if e.facts.get("kind") == "unseen"] == ["GV210"]
    assert said("hooks", Indices) == ("PASS", "")


def test_a_checkpoint_restores_the_generator_and_is_called_with_both_variants():
    found = evidence("checkpoint", dropped, stochastic=True)
    assert {e.facts["relation"] for e in found} >= {"checkpoint", "checkpoint, reentrant", "eager after a checkpoint"}
    assert all(e.analytic == e.numeric.value for e in found)


def test_an_op_that_raises_under_a_transform_alone_says_what_it_said():
    def refuses(x):
        if not torch.is_grad_enabled():
            raise ValueError("training only\nand so on")
        return x * x

    (found, *_) = evidence("checkpoint", refuses)
    assert found.facts["said"] == "it raised ValueError: training only"
    assert said("checkpoint", refuses) == ("FAIL", "GV506")


class Box:
    """An object that holds whatever it is given."""

    def __init__(self, held):
        self.held = held


class InABox(Old):
    """Keeps its input where nobody looks."""

    @staticmethod
    def forward(ctx, x):
        ctx.box = Box(x.clone())
        return x * x

    @staticmethod
    def backward(ctx, u):
        return 2 * ctx.box.held * u


class AMaskAlone(Old):
    """Saves truth values alone: no rounding of them changes anything, but backward reads them."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x > 0)
        return x.relu()

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0]


class ANumberAlone(Old):
    @staticmethod
    def forward(ctx, x):
        ctx.top = float(x.abs().max())
        return x * ctx.top

    @staticmethod
    def backward(ctx, u):
        return ctx.top * u


@pytest.mark.parametrize(
    ("op", "said"),
    [(Old, ("PASS", "")), (InABox, ("PASS", "GV210")), (AMaskAlone, ("PASS", "")), (ANumberAlone, ("PASS", ""))],
)
def test_what_backward_reads_where_no_hook_looks_is_a_warning(op, said):
    found = result("hooks", op)
    assert (found.outcome.value, found.code) == said
    assert not found.code or "a closure, a global or an object" in str(found.finding.lines)


class Doubles(Old):
    """A kernel that demands the dtype of its cotangent, as most do."""

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        assert x.dtype == u.dtype
        return 2 * x * u


@pytest.mark.parametrize("op", [Doubles, Old])
def test_saved_tensors_in_float32_are_refused_or_honoured(op):
    relations = [e.facts.get("relation") for e in evidence("hooks", op)]
    assert ("saved tensors handed back in float32" in relations) == (op is Old)
    assert result("hooks", op).outcome.value == "PASS"
