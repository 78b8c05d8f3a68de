"""The Python interface: check and verify. The engine's answers are literal here."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

import gradverify
from gradverify import api
from gradverify.autodiff.calling import op_of
from gradverify.errors import GradcheckError, SpecError, UsageError
from gradverify.records.policy import Plan
from gradverify.records.spec import Spec
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
    said = SimpleNamespace(specs=[], plan=None, policy=None, verified=[], results=())

    def session_run(specs, plan, policy):
        said.specs, said.plan, said.policy = list(specs), plan, policy
        return engine.run(specs, plan, policy)

    def verify(spec, plan, policy):
        said.verified.append((spec, plan, policy))
        yield from said.results

    monkeypatch.setattr(api.session, "run", session_run)
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


def test_a_slip_in_the_name_of_an_argument_is_told_in_the_words_of_python(said) -> None:
    with pytest.raises(SpecError, match=r"bare: check\(\) does not know 'xx'; did you mean 'x'\?"):
        gradverify.check(bare, xx="*b", w="k")
    with pytest.raises(SpecError, match=r'name them:      check\(op, x="\*b k"\)'):
        gradverify.check(bare)


def test_a_slip_in_the_name_of_an_option_is_told_too(said) -> None:
    with pytest.raises(SpecError, match=r"bare: check\(\) does not know 'clams'; did you mean 'claims'\?"):
        gradverify.check(bare, x="n", w="n", clams="vjp")


def test_dtypes_devices_and_seconds_are_taken_as_python_has_them(said) -> None:
    gradverify.check(bare, x="n", w="n", dtype=torch.float32, device=torch.device("cpu"), max_time=5)
    assert (said.plan.dtypes, said.plan.devices, said.plan.max_seconds) == (("float32",), ("cpu",), 5.0)


def test_auto_is_every_device_that_is_present(said) -> None:
    gradverify.check(bare, x="n", w="n", device="auto")
    assert said.plan.devices == ()
    gradverify.check(bare, x="n", w="n", dtype=[torch.float32, "float64"])
    assert said.plan.dtypes == ("float32", "float64")


def test_tensors_by_name_are_tensors_by_position(said) -> None:
    gradverify.check(bare, w=real(3), x=real(2, 3), reduction="sum")
    (spec,) = said.specs
    assert [(a.name, a.shape) for a in spec.args] == [("x", "2 3"), ("w", "3")]


def test_tensors_beside_shapes_are_refused(said) -> None:
    with pytest.raises(
        UsageError, match=r"bare: w is a tensor and x a shape; give tensors for all arguments, or shapes"
    ):
        gradverify.check(bare, x="n", w=real(3))


def test_an_op_without_arguments_is_refused() -> None:
    def constant():
        return torch.ones(2)

    with pytest.raises(SpecError, match="takes no argument, so there is nothing to differentiate"):
        gradverify.check(constant)


def test_where_a_name_sounds_like_integers_their_markers_are_named() -> None:
    def gathered(x, target):
        return x[target]

    with pytest.raises(
        SpecError, match=r"Where target holds integers or a mask, annotate it: target: Annotated"
    ) as caught:
        gradverify.check(gathered, x="n")
    assert 'gv.index("k")' in str(caught.value)
    with pytest.raises(SpecError, match="cannot tell the shapes of w") as caught:
        gradverify.check(bare, x="n")
    assert "integers" not in str(caught.value)


def test_nothing_of_hypothesis_reaches_stderr_for_a_large_failing_input() -> None:
    class Tripled(Double):
        @staticmethod
        def backward(ctx, g):
            return g * 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = gradverify.check(Tripled, real(60, 60), examples=1, claims="vjp")
    assert run.totals["FAIL"] == 1
