"""A verification: one result per claim, device and dtype, and nothing else changed."""

import msgspec
import pytest
import torch
from msgspec.structs import replace
from torch.autograd import Function

from gradverify.engine import verify as engine
from gradverify.engine.verify import seed_of, verify
from gradverify.errors import SpecError
from gradverify.records.claims import CLAIMS
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Dim, Spec, Times, Tolerance
from gradverify.records.verdict import Outcome


class Double(Function):
    """2 x; a fault is another factor."""

    factor = 2.0

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, u):
        return 2 * u


class Triple(Double):
    @staticmethod
    def backward(ctx, u):
        return 3 * u


def spec(op=Double, **fields):
    return Spec(**{"name": "double", "op": op, "args": (Arg(name="x", shape="n"),), "dims": {"n": Dim(hi=5)}, **fields})


def results(s, **plan):
    return list(verify(s, Plan(**{"examples": 4, **plan}), Policy()))


def one(s, claim="vjp", **plan):
    (result,) = results(s, claims=(claim,), **plan)
    return result


def said(result):
    return result.outcome.value, result.code


def test_every_claim_has_one_result_in_the_order_of_the_claims():
    found = results(spec(reference=lambda x: 2 * x))
    assert [r.claim for r in found] == list(CLAIMS)
    lacking = {
        "jvp",
        "adjoint",
        "complex",
        "precision",
        *(f"transforms.{c}" for c in ("vmap", "func", "pickle", "opcheck", "compile")),
    }
    assert {r.claim for r in found if said(r) == ("SKIP", "") and not r.cases.run} == lacking
    assert {r.claim for r in found if said(r) == ("PASS", "")} == set(CLAIMS) - lacking
    assert set(found[0].seconds) == {"op", "judging", "generation"}


def test_a_wrong_backward_fails_only_where_the_gradient_is_judged():
    failed = {r.claim for r in results(spec(Triple)) if r.outcome is Outcome.FAIL}
    assert failed == {"vjp", "edges", "special"}


@pytest.mark.parametrize(
    ("fields", "claim", "reason"),
    [
        ({}, "forward", "no reference to compare with"),
        ({"linear": False}, "linear", "declared: backward is not linear in the cotangent"),
        ({"inputs": lambda _: {"x": torch.ones(2)}}, "edges", "inputs= gives the shapes"),
        ({"args": (Arg(name="x", shape="n", role="frozen"),)}, "vjp", "no argument carries a gradient"),
    ],
)
def test_what_does_not_apply_is_skipped_with_its_reason(fields, claim, reason):
    result = one(spec(**fields), claim)
    assert (result.outcome, result.reason) == (Outcome.SKIP, reason)
    assert one(spec(reference=lambda x: 2 * x), claim).outcome is Outcome.PASS


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is present")
def test_an_absent_device_is_skipped_and_the_present_one_is_not():
    cuda, cpu = results(spec(), claims=("vjp",), devices=("cuda", "cpu"))
    assert (cuda.device, cuda.outcome, cuda.reason) == ("cuda", Outcome.SKIP, "no such device here")
    assert (cpu.device, cpu.outcome) == ("cpu", Outcome.PASS)


def test_each_dtype_has_results_of_its_own():
    found = results(spec(dtypes=("float64", "float32")), claims=("vjp", "repeat"))
    assert [(r.dtype, r.claim) for r in found] == [
        ("float64", "vjp"),
        ("float64", "repeat"),
        ("float32", "vjp"),
        ("float32", "repeat"),
    ]
    assert all(r.outcome is Outcome.PASS for r in found)


# xfail: strict.


@pytest.mark.parametrize("key", ["vjp", "GV101", "GV199", "GV1xx"])
def test_a_declared_failure_is_skipped_and_remembered(key):
    result = one(spec(Triple, xfail={key: "known"}))
    assert (result.outcome, result.reason, result.xfailed) == (Outcome.SKIP, f"xfail {key}: known", "GV101")


def test_a_failure_of_another_code_is_not_the_declared_one():
    assert said(one(spec(Triple, xfail={"GV2xx": "other"}))) == ("FAIL", "GV101")
    assert said(one(spec(Triple, xfail={"linear": "other"}))) == ("FAIL", "GV101")


def test_a_declared_failure_that_passes_fails():
    result = one(spec(xfail={"vjp": "known"}))
    assert result.outcome is Outcome.FAIL
    assert result.reason == "xfail 'vjp' (known) passes: remove it"
    assert one(spec(xfail={"GV199": "known"})).outcome is Outcome.PASS


# Ops that raise.


def test_an_op_that_raises_is_an_error_with_what_it_said():
    def op(x):
        raise RuntimeError("out of luck")

    result = one(spec(op))
    assert said(result) == ("ERROR", "GV902")
    assert result.reason == "double: the forward raised RuntimeError: out of luck"


def test_an_op_that_leaves_python_is_an_error_and_ends_nothing():
    def op(x):
        raise SystemExit(3)

    result = one(spec(op))
    assert said(result) == ("ERROR", "GV902")
    assert result.reason == "double: the forward calls sys.exit(3)"


@pytest.mark.parametrize("claim", ["jvp", "adjoint", "transforms.vmap"])
def test_a_claim_that_is_skipped_in_float32_does_not_call_a_refusal_of_float64_a_fault(claim):
    assert said(one(spec(float32_alone("forward")), claim)) == ("INCONCLUSIVE", "GV904")


def float32_alone(stage):
    def refuse(t):
        if t.dtype is not torch.float32:
            raise RuntimeError("float32 only")

    class Float32Alone(Double):
        @staticmethod
        def forward(ctx, x):
            stage == "forward" and refuse(x)
            return 2 * x

        @staticmethod
        def backward(ctx, u):
            stage == "backward" and refuse(u)
            return 2 * u

    return Float32Alone


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_an_op_that_refuses_float64_and_runs_in_float32_is_not_judged_and_not_called_wrong(stage):
    op = float32_alone(stage)
    result = one(spec(op))
    assert said(result) == ("INCONCLUSIVE", "GV904")
    assert result.worst.outcome is Outcome.INCONCLUSIVE
    assert result.reason == f"the op refuses float64: double: the {stage} raised RuntimeError: float32 only"
    assert 'dtypes=["float32"]' in result.finding.remedy
    assert one(spec(op, dtypes=("float32",))).outcome is Outcome.PASS


def test_an_op_that_raises_in_float32_too_is_an_error():
    def op(x):
        raise RuntimeError("no kernel")

    assert said(one(spec(op))) == ("ERROR", "GV902")


def test_what_is_no_tensor_is_an_error():
    assert said(one(spec(lambda x: 3.0))) == ("ERROR", "GV903")


def test_a_gradient_of_the_wrong_shape_is_an_error_with_its_code():
    class Short(Double):
        @staticmethod
        def backward(ctx, u):
            return u.new_zeros(u.numel() + 1)

    assert said(one(spec(Short))) == ("ERROR", "GV109")


# Cases.


def test_where_that_refuses_everything_is_inconclusive_and_says_so():
    result = one(spec(where=lambda n: False))
    assert (said(result), result.reason) == (("INCONCLUSIVE", "GV303"), "where= refused every case")
    assert result.cases.invalid
    assert one(spec(where=lambda n: n > 0)).outcome is Outcome.PASS


def test_a_claim_that_finds_nothing_to_judge_says_so(monkeypatch):
    monkeypatch.setattr(engine, "CHECKS", {"vjp": lambda spec, case: iter(())})
    assert one(spec()).reason == "no case held anything to judge"


def test_where_that_asks_for_an_unknown_name_is_refused():
    with pytest.raises(SpecError, match="where does not know 'k'"):
        one(spec(where=lambda k: True))


def test_no_time_is_inconclusive_and_says_so():
    result = one(spec(), max_seconds=-1.0)
    assert (said(result), result.reason) == (("INCONCLUSIVE", "GV303"), "time was up before the first case")


def test_a_failure_is_shrunk_to_the_smallest_case_and_told():
    class Third(Double):
        @staticmethod
        def backward(ctx, u):
            u = 2 * u
            if u.numel() >= 3:
                u[2] = 0
            return u

    result = one(spec(Third, dims={"n": Dim(hi=9)}), examples=20)
    assert said(result) == ("FAIL", "GV104")
    assert dict(result.worst.evidence.case.dims)["n"] == 3
    assert result.finding.lines[0].startswith("smallest case  n=3")
    assert result.worst.evidence.worst.index == (2,)


def test_a_failure_that_does_not_come_back_is_no_failure():
    class Once(Double):
        left = 1

        @staticmethod
        def forward(ctx, x):
            if Once.left and x.numel():
                Once.left -= 1
                raise RuntimeError("this time only")
            return 2 * x

    result = one(spec(Once))
    assert result.outcome is not Outcome.ERROR
    assert result.outcome is not Outcome.FAIL


# Determinism.


def cases_of(result_specs, **plan):
    drawn = []

    def op(x):
        drawn.append(x.detach().clone())
        return 2 * x

    for _ in verify(result_specs.with_(op=op), Plan(**{"examples": 3, **plan}), Policy()):
        pass
    return drawn


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_same_seed_tries_the_same_tensors_and_another_seed_others():
    first = cases_of(spec(), claims=("vjp",), seed=1)
    assert same(first, cases_of(spec(), claims=("vjp",), seed=1))
    assert not same(first, cases_of(spec(), claims=("vjp",), seed=2))


def test_no_claims_cases_depend_on_another_claim():
    both = cases_of(spec(), claims=("vjp", "linear"))
    alone = cases_of(spec(), claims=("linear",))
    assert len(both) > len(alone)
    assert same(both[-len(alone) :], alone)


def test_every_claim_spec_device_and_dtype_has_a_seed_of_its_own():
    names = [(0, "f", c, d, t) for c in CLAIMS for d in ("cpu", "cuda") for t in ("float64", "float32")]
    assert len({seed_of(*n) for n in names}) == len(names)
    assert seed_of(0, "f") == seed_of(0, "f")


def test_the_users_generator_is_untouched_by_a_whole_verification():
    state = torch.random.get_rng_state()
    results(spec(reference=lambda x: 2 * x))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_users_generator_is_untouched_by_a_stochastic_op_too():
    def op(x):
        return x * torch.rand(())

    state = torch.random.get_rng_state()
    results(spec(op, stochastic=True), claims=("vjp", "purity", "repeat"))
    assert torch.equal(torch.random.get_rng_state(), state)


# The spec's own policy.


def test_a_tolerance_of_the_spec_loosens_its_dtype_only():
    class Near(Double):
        @staticmethod
        def backward(ctx, u):
            return 2.001 * u

    assert one(spec(Near)).outcome is Outcome.FAIL
    assert one(spec(Near, tol={"float64": Tolerance(rtol=0.01, atol=1e-6)})).outcome is Outcome.PASS
    assert one(spec(Near, tol={"float32": Tolerance(rtol=0.01)})).outcome is Outcome.FAIL
    assert one(spec(Near, tol={"float64": Times(factor=1.5)})).outcome is Outcome.FAIL


def test_digits_of_the_spec_turn_imprecise_into_wrong():
    class Narrow(Double):
        @staticmethod
        def backward(ctx, u):
            return 2 * (1 + 1e-8) * u

    assert said(one(spec(Narrow))) == ("PASS", "GV602")
    assert said(one(spec(Narrow, digits=7.0))) == ("PASS", "GV602")
    assert one(spec(Narrow, digits=9.0)).outcome is Outcome.FAIL


def test_a_trail_has_every_case_how_it_came_about_and_what_became_of_it():
    right, wrong = one(spec(), trail=True), one(spec(op=Triple), trail=True)
    judged = [j for j in right.trail if j.outcome is not None]
    assert len(judged) == right.cases.run
    assert {j.how for j in right.trail} == {"swept", "drawn"}
    assert {j.outcome for j in judged} == {Outcome.PASS}
    assert all(j.seconds > 0 and j.case.claim == "vjp" for j in right.trail)
    first = [j.outcome for j in wrong.trail].index(Outcome.FAIL)
    assert {j.how for j in wrong.trail[first + 1 :]} == {"around the failure"}
    assert one(spec()).trail == ()


def test_a_trail_changes_no_case():
    def settled(result):
        return msgspec.json.encode(replace(result, seconds={}, trail=()))

    for op in (Double, Triple):
        assert settled(one(spec(op=op), trail=True)) == settled(one(spec(op=op)))
