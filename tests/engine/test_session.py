"""A session gathers every spec into one run, whatever happens on the way."""

import pytest
import torch

from gradverify.engine.session import Unusable, run
from gradverify.records.claims import NOT_YET
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import from_json, to_json
from gradverify.records.spec import Arg, Dim, Spec
from gradverify.records.verdict import Outcome


def spec(name="f", op=torch.sin, **fields):
    return Spec(name=name, op=op, args=(Arg(name="x", shape="n"),), dims={"n": Dim(hi=3)}, **fields)


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, u):
        return 3 * u


def session(*specs, claims=("vjp",), **options):
    plan = {k: options.pop(k) for k in ("max_failures", "skip", "devices") if k in options}
    return run(specs, Plan(claims=claims, examples=2, **plan), Policy(), **options)


def names(done):
    return [op.spec for op in done.ops]


def test_every_spec_is_in_the_run_in_order_with_totals():
    done = session(spec("a"), spec("b", Wrong), spec("c"))
    assert names(done) == ["a", "b", "c"]
    assert [r.outcome for r in done.results] == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]
    assert (done.totals["PASS"], done.totals["FAIL"], done.totals["unusable"]) == (2, 1, 0)
    assert done.totals["cases"] == sum(r.cases.run for r in done.results)
    assert not done.run.interrupted


def test_an_unusable_target_is_kept_and_the_others_still_run():
    done = session(Unusable(target="no.such:Op", error="no module no"), spec("a"))
    assert done.ops[0].error == "no module no"
    assert done.totals["unusable"] == 1
    assert done.ops[1].checks[0].outcome is Outcome.PASS


def test_a_spec_that_contradicts_itself_is_unusable_and_keeps_what_was_known():
    done = session(spec("a", where=lambda k: True), spec("b"))
    assert "where does not know 'k'" in done.ops[0].error
    assert done.ops[1].checks
    assert not done.ops[1].error


@pytest.mark.parametrize("fields", [{"where": lambda n: 1 // 0}, {"inputs": lambda draw: 1 // 0}])
def test_a_spec_whose_own_code_raises_is_unusable_and_the_others_still_run(fields):
    done = session(spec("a", **fields), spec("b"))
    assert "raised ZeroDivisionError" in done.ops[0].error
    assert [r.outcome for r in done.ops[1].checks] == [Outcome.PASS]


def test_enough_failures_end_the_session_and_too_few_do_not():
    assert names(session(spec("a", Wrong), spec("b", Wrong), spec("c"), max_failures=2)) == ["a", "b"]
    assert names(session(spec("a", Wrong), spec("b"), spec("c"), max_failures=2)) == ["a", "b", "c"]


def test_the_failure_that_is_one_too_many_ends_its_own_spec_too():
    done = session(spec("a", Wrong), claims=("vjp", "edges"), max_failures=1)
    assert [r.claim for r in done.results] == ["vjp"]


def test_an_interruption_gives_what_is_known_until_then():
    def interrupt(spec, result):
        if spec.name == "b":
            raise KeyboardInterrupt

    done = session(spec("a"), spec("b"), spec("c"), on_result=interrupt)
    assert done.run.interrupted
    assert names(done) == ["a", "b"]
    assert [len(op.checks) for op in done.ops] == [1, 1]


def test_an_interruption_inside_the_op_gives_what_is_known_until_then():
    def op(x):
        raise KeyboardInterrupt

    done = session(spec("a"), spec("b", op), spec("c"))
    assert done.run.interrupted
    assert names(done) == ["a", "b"]
    assert done.ops[1].checks == ()


def test_who_listens_hears_every_start_and_every_result():
    heard = []
    session(
        spec("a"),
        spec("b"),
        on_start=lambda s: heard.append(s.name),
        on_result=lambda s, r: heard.append((s.name, r.claim)),
    )
    assert heard == ["a", ("a", "vjp"), "b", ("b", "vjp")]


def test_buffers_of_other_allocators_are_listed_as_not_covered_wherever_lifetime_is_asked_for():
    def listed(**fields):
        return "buffers of other allocators" in {g.what for g in session(spec("a"), **fields).ops[0].not_covered}

    assert listed(claims=("vjp", "lifetime"))
    assert not listed(claims=("vjp", "lifetime"), skip=("lifetime",))
    assert not listed(claims=("vjp",))


def test_what_is_not_covered_is_listed():
    gaps = session(spec("a"), skip=("linear",)).ops[0].not_covered
    assert {g.what for g in gaps} >= {*NOT_YET, "linear"}
    assert next(g.why for g in gaps if g.what == "linear") == "skipped on request"
    assert "linear" not in {g.what for g in session(spec("a")).ops[0].not_covered}


def test_an_absent_device_is_a_skip_of_the_run():
    if torch.cuda.is_available():
        pytest.skip("the device is present")
    done = session(spec("a"), devices=("cuda",))
    assert [r.outcome for r in done.results] == [Outcome.SKIP]


def test_a_run_survives_its_own_json():
    done = session(spec("a"), spec("b", Wrong))
    again = from_json(to_json(done))
    assert names(again) == names(done)
    assert [r.outcome for r in again.results] == [r.outcome for r in done.results]
    assert to_json(again) == to_json(done)


def test_an_error_of_ours_is_not_swallowed():
    def broken(spec, result):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session(spec("a"), on_result=broken)


def test_an_op_that_is_named_lazily_is_reported_where_it_stands():
    lazy = spec(op="gradverify.records.claims:family_of")
    assert lazy.source is None
    (op,) = run([lazy], Plan(claims=("linear",), examples=1), Policy()).ops
    assert op.source is not None
    assert op.source.file.endswith("records/claims.py")
