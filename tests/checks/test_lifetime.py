"""What lifetime, memory and convention see in ops that differ by one line, and what they leave alone."""

from __future__ import annotations

import gc

import pytest
import torch
from torch.autograd import Function

from gradverify.autodiff.modes import deterministic
from gradverify.checks import CHECKS
from gradverify.errors import NotApplicableError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Policy
from gradverify.records.spec import Arg, Dim, Domain, Spec

MASK = Arg(name="keep", shape="n", role="mask", dtype="bool", domain=Domain(kind="boolean"))


class Doubled(Function):
    """2 x where `keep`, right in every respect."""

    @staticmethod
    def forward(ctx, x, keep):
        ctx.save_for_backward(keep)
        return torch.where(keep, 2 * x, 0 * x)

    @staticmethod
    def backward(ctx, g):
        (keep,) = ctx.saved_tensors
        return torch.where(keep, 2 * g, 0 * g), None


class MaskOnContext(Doubled):
    @staticmethod
    def forward(ctx, x, keep):
        ctx.keep = keep
        return torch.where(keep, 2 * x, 0 * x)

    @staticmethod
    def backward(ctx, g):
        return torch.where(ctx.keep, 2 * g, 0 * g), None


class MaskGetsGradient(Doubled):
    @staticmethod
    def backward(ctx, g):
        return Doubled.backward(ctx, g)[0], torch.zeros_like(g)


class Wide(Doubled):
    @staticmethod
    def backward(ctx, g):
        return Doubled.backward(ctx, g)[0].double(), None


class PutsBack(Doubled):
    """Scales its input in place, and back."""

    @staticmethod
    def forward(ctx, x, keep):
        ctx.save_for_backward(keep)
        out = torch.where(keep, x.mul_(2), 0 * x)
        x.mul_(0.5)
        return out


def spec(op=Doubled, **fields):
    return Spec(name="doubled", op=op, args=(Arg(name="x", shape="n"), MASK), **fields)


def case(claim, **changes):
    return Case(spec="doubled", claim=claim, **{"dims": (("n", 6),), "differentiate": ("x",), "seed": 3, **changes})


def found(s, claim, **changes):
    return list(CHECKS[claim](s, case(claim, **changes)))


def said(s, claim, **changes):
    verdict = of_case([judge(e, Policy()) for e in found(s, claim, **changes)])
    return verdict.outcome.value, verdict.code


def told(s, claim, **changes):
    return of_case([judge(e, Policy()) for e in found(s, claim, **changes)]).evidence


@pytest.mark.parametrize("claim", ["lifetime", "memory", "convention"])
def test_a_right_op_passes(claim):
    assert said(spec(), claim) == ("PASS", "")


def test_a_mask_on_the_context_is_a_warning_since_changing_it_goes_unseen():
    assert said(spec(MaskOnContext), "lifetime") == ("PASS", "GV212")
    assert "`keep`" in told(spec(MaskOnContext), "lifetime").facts["phase"]


def test_a_mask_on_the_context_is_no_leak_but_is_told():
    assert said(spec(MaskOnContext), "memory") == ("PASS", "")
    assert told(spec(MaskOnContext), "memory").facts["attributes"] == "ctx.keep: 6 bytes"


def test_a_gradient_for_a_mask_is_a_warning():
    e = told(spec(MaskGetsGradient), "convention")
    assert said(spec(MaskGetsGradient), "convention") == ("PASS", "GV109")
    assert (e.quantity, e.facts["wanted"]) == ("the gradient of `keep`", "None")


def test_a_gradient_wider_than_its_input_is_a_warning_and_shows_in_float32():
    e = told(spec(Wide), "convention")
    assert said(spec(Wide), "convention") == ("PASS", "GV109")
    assert (e.facts["found"], e.facts["wanted"], e.facts["phase"]) == ("float64 [6]", "float32 [6]", "in float32")
    assert said(spec(Wide, dtypes=("float64",)), "convention") == ("PASS", "")


def test_a_plain_function_has_no_convention_of_its_own():
    with pytest.raises(NotApplicableError, match="torch's own"):
        found(spec(lambda x, keep: torch.where(keep, 2 * x, 0 * x)), "convention")


def test_an_input_that_is_written_to_and_put_back_has_changed():
    assert said(spec(PutsBack), "purity") == ("FAIL", "GV202")
    assert told(spec(PutsBack), "purity").facts["said"].startswith("written to in place, and put back")


def attention(q, k, v):
    return torch.softmax(q @ k.mT, -1) @ v


ATTENTION = Spec(
    name="attention",
    op=attention,
    args=tuple(Arg(name=n, shape="b s d") for n in "qkv"),
)
SIZES = {"dims": (("b", 2), ("d", 3), ("s", 5)), "differentiate": ("q", "k", "v")}


def test_bytes_saved_for_backward_are_told_as_a_function_of_the_sizes():
    assert told(ATTENTION, "memory", **SIZES).facts["saves"] == "8 b s^2 bytes"


def test_bytes_of_several_powers_are_told_one_by_one():
    class Both(Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x.outer(y), x + 1, x + 2)
            return x.outer(y)

        @staticmethod
        def backward(ctx, g):
            return g.sum(1), g.sum(0)

    s = Spec(name="both", op=Both, args=(Arg(name="x", shape="n"), Arg(name="y", shape="m")))
    facts = told(s, "memory", dims=(("m", 3), ("n", 2)), differentiate=("x", "y")).facts
    assert facts["saves"] == "8 n m + 16 n bytes"


def test_an_op_that_keeps_only_its_inputs_saves_nothing():
    assert told(spec(), "memory").facts["saves"] == "nothing beside its inputs"


def test_sizes_that_are_documented_are_the_only_ones_that_are_tried():
    sizes = set()

    def noted(x):
        sizes.add(len(x))
        return torch.sin(x)

    s = Spec(name="noted", op=noted, args=(Arg(name="x", shape="n"),), dims={"n": Dim(choices=(2, 6, 10))})
    for claim in ("lifetime", "memory"):
        found(s, claim)
    assert sizes == {2, 6, 10}


def test_a_cycle_is_told_apart_from_a_leak():
    class Cycle(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.itself = [ctx]
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    s = Spec(name="cycle", op=Cycle, args=(Arg(name="x", shape="n"),))
    e = told(s, "memory")
    assert said(s, "memory") == ("FAIL", "GV207")
    # Which of them is looked at first is torch's order.
    assert (e.facts["kind"], e.quantity in ("the input `x`", "the graph's node of Cycle")) == ("cycle", True)


def test_the_garbage_collector_is_as_it_was():
    assert gc.isenabled()
    found(spec(MaskOnContext), "memory")
    assert gc.isenabled()


def raising_in_filled_memory():
    with deterministic(fill=True):
        assert torch.empty(3).isnan().all()
        raise ValueError("on purpose")


@pytest.mark.parametrize("mode", [0, 1])
def test_fresh_memory_is_filled_and_the_settings_are_put_back_also_after_an_error(mode):
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(mode)
    try:
        with pytest.raises(ValueError, match="on purpose"):
            raising_in_filled_memory()
        assert torch.get_deterministic_debug_mode() == mode
    finally:
        torch.set_deterministic_debug_mode(before)


def test_how_many_elements_are_never_written_and_where():
    class Unwritten(Doubled):
        @staticmethod
        def backward(ctx, g):
            out = torch.empty_like(g)
            out[:4] = Doubled.backward(ctx, g)[0][:4]
            return out, None

    said_ = [e.facts["said"] for e in found(spec(Unwritten), "lifetime") if "said" in e.facts]
    assert "2 of 6 elements are never written, [4] the first" in said_


class CountsUnwritten(Doubled):
    """Divides by counts that are added up in memory nobody cleared: no NaN shows, since integers have none."""

    @staticmethod
    def backward(ctx, g):
        counts = torch.empty(len(g), dtype=torch.int64)
        counts += 1
        return Doubled.backward(ctx, g)[0] / counts.clamp(1, 1000), None


class Draws(Doubled):
    """Writes every element, and draws a part of it anew at each call."""

    @staticmethod
    def backward(ctx, g):
        out = torch.empty_like(g)
        out.copy_(Doubled.backward(ctx, g)[0] * (1 + torch.rand_like(g)))
        return out, None


class OtherPath(Doubled):
    """Writes every element, and leaves some out where torch is asked for deterministic algorithms."""

    @staticmethod
    def backward(ctx, g):
        off = torch.is_deterministic_algorithms_warn_only_enabled()
        return Doubled.backward(ctx, g)[0] * (0 if off else 1), None


class RaisesOnGarbage(Doubled):
    @staticmethod
    def backward(ctx, g):
        if torch.empty_like(g).isnan().any():
            raise ValueError("what is this")
        return Doubled.backward(ctx, g)


@pytest.mark.parametrize(
    ("op", "code", "words"),
    [
        (CountsUnwritten, "GV211", "fresh memory held NaN"),
        (Draws, "GV204", "two equal calls"),
        (OtherPath, "GV213", "torch's deterministic algorithms"),
        (RaisesOnGarbage, "GV211", "with NaN in fresh memory"),
    ],
)
def test_only_what_follows_the_fill_was_never_written(op, code, words):
    e = told(spec(op), "lifetime")
    assert said(spec(op), "lifetime") == ("FAIL", code)
    assert words in str(e.facts.get("said", e.facts.get("phase")))


class WritesToCotangent(Doubled):
    """Spoils what it was handed, which is purity's business and no state of the op's."""

    @staticmethod
    def backward(ctx, g):
        return Doubled.backward(ctx, g.mul_(2))[0] / 2, None


def test_a_backward_that_writes_to_its_cotangent_is_said_to_do_that():
    kinds = {
        e.facts["kind"]
        for e in found(spec(WritesToCotangent), "lifetime")
        if judge(e, Policy()).outcome.value == "FAIL"
    }
    assert "cotangent" in kinds
    assert not kinds & {"never written", "mode", "not repeatable"}


def dropped(x, keep):
    return torch.where(keep, 2 * x, 0 * x) * (torch.rand_like(x) < 0.5)


def dropped_and_noted(x, keep):
    """Draws once more where gradients are recorded."""
    y = dropped(x, keep)
    if torch.is_grad_enabled():
        torch.rand_like(x)
    return y


@pytest.mark.parametrize(("op", "verdict"), [(dropped, ("PASS", "")), (dropped_and_noted, ("FAIL", "GV213"))])
def test_as_much_is_drawn_with_gradients_as_without(op, verdict):
    assert said(spec(op, stochastic=True), "lifetime") == verdict
