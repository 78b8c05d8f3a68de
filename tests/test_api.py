"""The Python interface: check, verify, gradcheck. The engine's answers are literal here."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

import gradverify
from gradverify import api
from gradverify.autodiff.calling import op_of
from gradverify.cases.concrete import spec_at
from gradverify.errors import GradcheckError, SpecError, UsageError
from gradverify.records.policy import Plan
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome
from tests.cli.fake import Engine
from tests.reports import runs


def bare(x, w, reduction="mean", seed=0):
    return x * w * 2


class Double(torch.autograd.Function):
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
    engine = Engine()
    said = SimpleNamespace(specs=[], plan=None, policy=None, examined=[], verified=[], outcome=Outcome.PASS, results=())

    def session_run(specs, plan, policy):
        said.specs, said.plan, said.policy = list(specs), plan, policy
        return engine.run(specs, plan, policy)

    def examine(fn, inputs, *, policy, seed=0):
        said.examined.append((fn, inputs, policy))
        worst = runs.verdict(said.outcome, "GV199")
        reason = "wrong gradient: `x`"
        return SimpleNamespace(outcome=said.outcome, code="GV199", verdicts=(worst,), reason=reason)

    def verify(spec, plan, policy):
        said.verified.append((spec, plan, policy))
        yield from said.results

    monkeypatch.setattr(api.session, "run", session_run)
    monkeypatch.setattr(api, "examine", examine)
    monkeypatch.setattr(api, "_verify", verify)
    monkeypatch.delenv("CI", raising=False)
    return said


def test_shapes_by_keyword_make_a_spec(said) -> None:
    run = gradverify.check(bare, x="*b k", w="k", reduction="sum")
    (spec,) = said.specs
    assert [(a.name, a.shape) for a in spec.args] == [("x", "*b k"), ("w", "k")]
    assert spec.kwargs["reduction"] == ("sum",)
    assert run.ops[0].spec == "bare"
    assert (said.plan.profile, said.plan.examples, said.plan.seed) == ("dev", 20, 0)


def called(spec, *tensors):
    (out,) = op_of(spec)({a.name: t for a, t in zip(spec.args, tensors, strict=True)}, {})
    return out


def test_tensors_are_judged_as_they_are(said) -> None:
    x, w = real(2, 3), real(3)
    gradverify.check(bare, x, w)
    (spec,) = said.specs
    assert [(a.name, a.shape, a.role) for a in spec.args] == [
        ("x", "2 3", "differentiable"),
        ("w", "3", "differentiable"),
    ]
    drawn = spec.inputs(None)
    assert torch.equal(drawn["x"], x)
    assert drawn["x"] is not x
    assert not drawn["x"].requires_grad


def test_without_requires_grad_every_floating_tensor_is_differentiated_else_only_the_marked_ones(said) -> None:
    gradverify.check(bare, real(2, grad=False), real(2, grad=False))
    assert said.specs[0].differentiable() == ("x", "w")
    gradverify.check(bare, real(2, grad=False), real(2))
    (spec,) = said.specs
    assert spec.differentiable() == ("w",)
    assert torch.equal(called(spec, real(2)), real(2) * real(2) * 2)


def test_what_is_no_tensor_stays_fixed(said) -> None:
    gradverify.check(torch.cumsum, real(2, 2), 1)
    (spec,) = said.specs
    assert torch.equal(called(spec, real(2, 2)), torch.cumsum(real(2, 2), 1))


def test_tensors_in_lists_and_dicts_are_arguments_of_their_own(said) -> None:
    def op(xs, params, power):
        return (xs[0] * params["w"] + xs[1]) ** power

    gradverify.check(op, [real(2), real(2)], {"w": real(2)}, 2)
    (spec,) = said.specs
    assert spec.differentiable() == ("xs[0]", "xs[1]", "params['w']")
    assert torch.equal(called(spec, *[real(2)] * 3), (real(2) * real(2) + real(2)) ** 2)


def test_a_function_is_not_given_tensors_in_a_container() -> None:
    with pytest.raises(gradverify.UsageError) as caught:
        gradverify.check(Double, [real(2)])
    assert str(caught.value) == (
        "Double: x[0] is a tensor in a container, which autograd.Function does not track: its gradient "
        "would be lost; give every tensor as an argument of its own."
    )


def test_plan_options_are_checked_names(said) -> None:
    gradverify.check(
        bare, x="n", w="n", examples=3, seed=9, claims="vjp", skip=["edges"], device="cpu", dtype="float32"
    )
    plan = said.plan
    assert (plan.examples, plan.seed, plan.claims, plan.skip) == (3, 9, ("vjp",), ("edges",))
    assert (plan.devices, plan.dtypes) == (("cpu",), ("float32",))
    for wrong in ({"claims": "vpj"}, {"dtype": "bf16"}, {"device": "cudda"}, {"profile": "devv"}):
        with pytest.raises(UsageError, match="did you mean"):
            gradverify.check(bare, x="n", w="n", **wrong)


@pytest.mark.parametrize(
    ("option", "value"), [("seed", "n"), ("examples", "*b"), ("examples", True), ("claims", "*b k")]
)
def test_an_argument_called_like_an_option_is_shown_the_way(option, value, said) -> None:
    with pytest.raises(UsageError, match=f'goes in arguments={{"{option}"'):
        gradverify.check(bare, x="n", w="n", **{option: value})


def test_arguments_holds_what_would_clash(said) -> None:
    gradverify.check(bare, x="n", w="n", arguments={"seed": 4}, seed=1)
    assert (said.specs[0].kwargs["seed"], said.plan.seed) == ((4,), 1)


def test_a_spec_is_checked_as_it_is_and_takes_nothing_else(said) -> None:
    spec = gradverify.spec(Double)(lambda x: 2 * x) if False else Spec(name="s", op=Double, args=())
    gradverify.check(spec)
    assert said.specs == [spec]
    with pytest.raises(UsageError, match="s: a spec has its own inputs; leave out x="):
        gradverify.check(spec, x="n")
    with pytest.raises(UsageError, match="leave out the tensors"):
        gradverify.check(spec, real(1))


def test_a_target_is_what_the_command_line_takes(said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    gradverify.check("torch.nn.functional:silu", input="n")
    assert said.specs[0].name == "silu"
    with pytest.raises(UsageError, match="did you mean 'silu'"):
        gradverify.check("torch.nn.functional:siluu", input="n")


def test_unusable_ops_raise() -> None:
    with pytest.raises(SpecError, match="GV901 cannot tell the shapes of x, w"):
        gradverify.check(bare)
    with pytest.raises(UsageError, match="is not callable, it is an int"):
        gradverify.check(3, x="n")
    with pytest.raises(UsageError, match="no floating-point tensor among the inputs"):
        gradverify.check(torch.neg, torch.ones(2, dtype=torch.int64))


def test_check_prints_nothing(said, capfd) -> None:
    gradverify.check(bare, x="n", w="n")
    assert capfd.readouterr() == ("", "")


def test_raise_for_failures_holds_the_finding(said, monkeypatch) -> None:
    run = runs.FAILING
    with pytest.raises(GradcheckError, match=r"FAIL vjp\[cpu-float64\] GV199 wrong gradient"):
        run.raise_for_failures()
    runs.PASSING.raise_for_failures()


def test_verify_yields_results_with_default_plan_and_policy(said) -> None:
    said.results = (runs.passed("vjp"),)
    spec = Spec(name="s", op=Double, args=())
    assert list(gradverify.verify(spec)) == [runs.passed("vjp")]
    assert said.verified[0][1] == Plan()


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
    with pytest.raises(ValueError, match="leaves nothing to check"):
        gradverify.gradcheck(bare, (real(2), real(2)), check_backward_ad=False)


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
            check_forward_ad=True,
            check_batched_grad=True,
        )
    (message,) = (str(w.message) for w in caught)
    assert "eps and fast_mode ignored" in message
    assert "verdict loosened by atol=0.0001 as given" in message
    assert "not checked: check_batched_grad, check_forward_ad (no such claim yet)" in message
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


def test_a_slip_in_the_name_of_an_argument_is_told_in_the_words_of_python(said) -> None:
    with pytest.raises(SpecError, match=r"bare: check\(\) does not know 'xx'; did you mean 'x'\?"):
        gradverify.check(bare, xx="*b", w="k")
    with pytest.raises(SpecError, match=r'name them:      check\(op, x="\*b k"\)'):
        gradverify.check(bare)


def test_nothing_of_hypothesis_reaches_stderr_for_a_large_failing_input() -> None:
    class Tripled(Double):
        @staticmethod
        def backward(ctx, g):
            return g * 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = gradverify.check(Tripled, real(60, 60), examples=1, claims="vjp")
    assert run.totals["FAIL"] == 1
