"""gradcheck and gradgradcheck: torch's signatures. The engine's answers are literal in the first half, real below."""

from __future__ import annotations

import inspect
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import Function

import gradverify
from gradverify import drop_in
from gradverify.cases.concrete import spec_at
from gradverify.errors import GradcheckError, UsageError
from gradverify.records.verdict import Outcome
from tests.reports import runs


def bare(x, w):
    return x * w * 2


class Double(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def real(*shape: int, grad: bool = True, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.arange(1.0, math.prod(shape) + 1, dtype=dtype).reshape(shape).requires_grad_(grad)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What reaches the engine, which answers PASS until told otherwise."""
    said = SimpleNamespace(examined=[], verified=[], outcome=Outcome.PASS, results=())

    def examine(fn, inputs, *, policy, seed=0):
        said.examined.append((fn, inputs, policy))
        worst = runs.verdict(said.outcome, "GV199")
        reason = "wrong gradient: `x`"
        return SimpleNamespace(outcome=said.outcome, code="GV199", verdicts=(worst,), reason=reason)

    def verify(spec, plan, policy):
        said.verified.append((spec, plan, policy))
        yield from said.results

    monkeypatch.setattr(drop_in, "examine", examine)
    monkeypatch.setattr(drop_in, "_verify", verify)
    return said


@pytest.mark.parametrize("name", ["gradcheck", "gradgradcheck"])
def test_the_signature_is_that_of_torch(name) -> None:
    ours, theirs = (inspect.signature(getattr(m, name)).parameters for m in (gradverify, torch.autograd))
    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    loose = {"atol", "rtol"}
    assert {n: p.default for n, p in ours.items() if n not in loose} == {
        n: p.default for n, p in theirs.items() if n not in loose
    }


def test_gradcheck_passes_and_asks_for_repeat_and_partial(said) -> None:
    assert gradverify.gradcheck(bare, (real(2), real(2))) is True
    assert said.verified[0][1].claims == ("repeat", "partial")
    gradverify.gradcheck(bare, (real(2), real(2)), nondet_tol=1e-9)
    assert said.verified[1][1].claims == ("partial",)
    gradverify.gradcheck(Double.apply, real(2), nondet_tol=1e-9, check_undefined_grad=False)
    assert len(said.verified) == 2


def test_gradcheck_differentiates_what_requires_grad_only(said) -> None:
    gradverify.gradcheck(bare, [real(2, grad=False), real(2)])
    fn, inputs, _ = said.examined[0]
    assert [t.requires_grad for t in inputs] == [False, True]
    assert spec_at(fn, inputs, {}, name="bare").differentiable() == ("w",)


def test_gradcheck_without_any_gradient_is_a_value_error_as_in_torch(said) -> None:
    with pytest.raises(ValueError, match="no input requires grad"):
        gradverify.gradcheck(bare, (real(2, grad=False), real(2, grad=False)))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"check_backward_ad": False}, "leaves nothing to check"),
        ({"check_batched_forward_grad": True}, "needs check_forward_ad=True"),
    ],
)
def test_options_that_contradict_each_other_are_a_value_error(said, options, why) -> None:
    with pytest.raises(ValueError, match=why):
        gradverify.gradcheck(bare, (real(2), real(2)), **options)


@pytest.mark.parametrize(
    ("options", "claims"),
    [
        ({}, ("repeat", "partial")),
        ({"check_forward_ad": True}, ("repeat", "partial", "jvp", "adjoint")),
        ({"check_grad_dtypes": True}, ("repeat", "partial", "convention")),
        ({"check_batched_grad": True}, ("repeat", "partial", "transforms.vmap")),
        (
            {"check_forward_ad": True, "check_batched_forward_grad": True, "check_undefined_grad": False},
            ("repeat", "jvp", "adjoint", "transforms.vmap"),
        ),
        ({"check_forward_ad": True, "check_backward_ad": False, "check_grad_dtypes": True}, ("jvp",)),
    ],
)
def test_an_option_selects_a_claim(said, options, claims) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gradverify.gradcheck(bare, (real(2), real(2)), **options)
    assert said.verified[0][1].claims == claims
    assert bool(said.examined) is options.get("check_backward_ad", True)


def test_forward_mode_that_is_asked_for_and_missing_fails_as_in_torch(said) -> None:
    said.results = (runs.passed("jvp", outcome=Outcome.SKIP, reason="the op has no jvp"),)
    with pytest.raises(GradcheckError, match=r"SKIP jvp\[cpu-float64\] the op has no jvp"):
        gradverify.gradcheck(bare, (real(2), real(2)), check_forward_ad=True)


def test_a_batch_that_torch_cannot_make_is_a_warning(said) -> None:
    said.results = (runs.passed("transforms.vmap", outcome=Outcome.SKIP, reason="no rule"),)
    with pytest.warns(UserWarning, match=r"gradcheck: transforms\.vmap not checked: no rule\."):
        assert gradverify.gradcheck(bare, (real(2), real(2)), check_batched_grad=True)


def test_gradcheck_raises_or_returns_false(said) -> None:
    said.outcome = Outcome.FAIL
    with pytest.raises(GradcheckError, match=r"FAIL GV199 wrong gradient: `x`") as caught:
        gradverify.gradcheck(bare, (real(2), real(2)))
    assert isinstance(caught.value, RuntimeError)
    assert gradverify.gradcheck(bare, (real(2), real(2)), raise_exception=False) is False


def test_gradcheck_that_cannot_judge_raises_with_its_cause(said) -> None:
    said.outcome = Outcome.INCONCLUSIVE
    with pytest.raises(GradcheckError, match="INCONCLUSIVE GV199"):
        gradverify.gradcheck(bare, (real(2), real(2)))


def test_gradcheck_fails_when_a_selected_claim_fails(said) -> None:
    said.results = (runs.passed("repeat", outcome=Outcome.FAIL, code="GV204", reason="two calls differ"),)
    with pytest.raises(GradcheckError, match=r"FAIL repeat\[cpu-float64\] GV204 two calls differ"):
        gradverify.gradcheck(bare, (real(2), real(2)))


def test_gradcheck_says_all_that_it_ignores_in_one_warning(said) -> None:
    with pytest.warns(UserWarning, match="gradverify.gradcheck: ") as caught:
        gradverify.gradcheck(
            *(bare, (real(2), real(2))),
            eps=1e-3,
            fast_mode=True,
            atol=1e-4,
        )
    (message,) = (str(w.message) for w in caught)
    assert "eps and fast_mode ignored" in message
    assert "verdict loosened by atol=0.0001 as given" in message
    assert said.examined[0][2].loosened_absolute == 1e-4
    assert said.examined[0][2].loosened == 0.0


def test_gradcheck_with_torch_defaults_is_silent(said) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradverify.gradcheck(bare, (real(2), real(2)), eps=1e-6)


def test_gradcheck_promotes_to_float64_and_says_so(said) -> None:
    with pytest.warns(UserWarning, match="inputs are float32, judged in float64"):
        gradverify.gradcheck(bare, (real(2, dtype=torch.float32), real(2, grad=False, dtype=torch.float32)))
    assert said.examined[0][1][0].dtype is torch.float64


def test_gradcheck_of_an_op_that_raises_on_any_dtype_does_not_blame_float64() -> None:
    def broken(x):
        raise RuntimeError("out of luck")

    with pytest.raises(GradcheckError, match="raised RuntimeError: out of luck"):
        gradverify.gradcheck(broken, real(2, dtype=torch.float32))


def test_gradcheck_of_an_op_that_refuses_float64_is_judged_as_given(said) -> None:
    def single(x):
        if x.dtype is torch.float64:
            raise TypeError("float32 only")
        return x * 2

    with pytest.warns(
        UserWarning, match=r"judged in float32, at lower resolution: the op refuses float64 \(float32 only\)"
    ):
        gradverify.gradcheck(single, real(2, dtype=torch.float32))
    assert said.examined[0][1][0].dtype is torch.float32


def test_gradgradcheck_asks_for_double_backward_and_repeat(said) -> None:
    assert gradverify.gradgradcheck(bare, (real(2), real(2)))
    gradverify.gradgradcheck(bare, (real(2), real(2)), nondet_tol=1.0)
    assert [plan.claims for _, plan, _ in said.verified] == [("repeat", "double_backward"), ("double_backward",)]
    assert said.examined == []


def test_gradgradcheck_says_what_it_ignores(said) -> None:
    with pytest.warns(UserWarning, match="gradverify.gradgradcheck: ") as caught:
        gradverify.gradgradcheck(bare, (real(2), real(2)), (real(2),), rtol=1e-3, check_batched_grad=True)
    assert [str(w.message) for w in caught] == [
        "gradverify.gradgradcheck: verdict loosened by rtol=0.001 as given; grad_outputs ignored: cotangents are drawn;"
        " check_batched_grad not asked of second derivatives: gradcheck takes it."
    ]


def test_gradgradcheck_with_nothing_to_check_is_a_value_error(said) -> None:
    with pytest.raises(ValueError, match="leave nothing to check"):
        gradverify.gradgradcheck(bare, (real(2), real(2)), check_rev_over_rev=False)
    with pytest.raises(ValueError, match="gradgradcheck: no input requires grad"):
        gradverify.gradgradcheck(bare, (real(2, grad=False), real(2, grad=False)))


# With the judge itself.


class Cube(Function):
    """x^3 with everything right; the subclasses break one thing each."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 3 * u * x**2

    @staticmethod
    def jvp(ctx, v):
        (x,) = ctx.saved_tensors
        return 3 * v * x**2


class WrongForward(Cube):
    @staticmethod
    def jvp(ctx, v):
        (x,) = ctx.saved_tensors
        return 3.001 * v * x**2


class WrongBackward(Cube):
    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 3.001 * u * x**2


class Detached(Cube):
    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return 3 * u * x.detach() ** 2


FORWARD = {"check_forward_ad": True}
ALONE = {"check_forward_ad": True, "check_backward_ad": False}


@pytest.mark.parametrize(
    ("op", "options", "found"),
    [
        (Cube, {**FORWARD, "check_batched_grad": True, "check_batched_forward_grad": True}, ""),
        (Cube, ALONE, ""),
        (WrongForward, {}, ""),
        (WrongForward, FORWARD, "GV401"),
        (WrongForward, ALONE, "GV401"),
        (WrongBackward, FORWARD, "GV199"),
        (WrongBackward, ALONE, ""),
        (Double, {}, ""),
        (Double, FORWARD, "SKIP jvp"),
    ],
)
def test_gradcheck_judges_what_it_is_asked(op, options, found) -> None:
    assert gradverify.gradcheck(op.apply, real(3), raise_exception=False, **options) is not bool(found)
    if found:
        with pytest.raises(GradcheckError, match=found):
            gradverify.gradcheck(op.apply, real(3), **options)


def test_the_function_itself_stands_for_its_apply_and_gives_its_names() -> None:
    assert gradverify.gradcheck(Cube, real(3))
    with pytest.raises(GradcheckError, match="GV199 wrong gradient of `x`"):
        gradverify.gradcheck(WrongBackward.apply, real(3))


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(UsageError, match="3: is not callable, it is an int"):
        gradverify.gradcheck(3, real(3))


def test_an_op_that_leaves_python_is_an_error() -> None:
    class Leaves(Cube):
        @staticmethod
        def backward(ctx, u):
            raise SystemExit(3)

    with pytest.raises(GradcheckError, match=r"GV902 .*Leaves: the backward calls sys\.exit\(3\)"):
        gradverify.gradcheck(Leaves.apply, real(3))


def test_what_has_no_element_passes_and_says_so() -> None:
    with pytest.warns(UserWarning, match="no input, or no output, has an element: there is no gradient to check"):
        assert gradverify.gradcheck(Cube.apply, real(0))
    with pytest.raises(GradcheckError, match="GV199"):
        gradverify.gradcheck(WrongBackward.apply, real(3))


def test_an_op_that_refuses_the_float64_it_is_given_says_what_to_give() -> None:
    class Single(Cube):
        @staticmethod
        def forward(x):
            if x.dtype is not torch.float32:
                raise TypeError("float32 only")
            return x**3

    said = r"GV904 the op refuses float64: .*float32 only\n  try: give it float32 inputs"
    with pytest.raises(GradcheckError, match=said):
        gradverify.gradcheck(Single.apply, real(3))


def test_gradgradcheck_finds_a_history_that_was_cut() -> None:
    assert gradverify.gradgradcheck(Cube.apply, real(3))
    assert torch.autograd.gradcheck(Detached.apply, real(3))
    with pytest.raises(GradcheckError, match="GV505"):
        gradverify.gradgradcheck(Detached.apply, real(3))


def test_gradgradcheck_of_a_backward_that_refuses_fails() -> None:
    class Once(Cube):
        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, u):
            return Cube.backward(ctx, u)

    with pytest.raises(GradcheckError, match=r"SKIP double_backward.*refused: backward is marked @once_differentiable"):
        gradverify.gradgradcheck(Once.apply, real(3))
