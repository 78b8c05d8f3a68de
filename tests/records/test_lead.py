"""Of several claims that fail, the one that explains the others stands first."""

import msgspec
import pytest

from gradverify.records.case import Case
from gradverify.records.evidence import Estimate, Evidence
from gradverify.records.lead import led
from gradverify.records.verdict import Outcome, Result, Verdict


def failing(claim, code="", *, values=(), gap=1.0, dtype="float64", **facts):
    e = Evidence(
        case=Case(spec="f", claim=claim, values=values),
        claim=claim,
        quantity="the gradient of `x`",
        analytic=1.0 + gap,
        numeric=Estimate(value=1.0, error=0.0),
        scale=1.0,
        resolution=0.0,
        facts=facts,
    )
    worst = Verdict(outcome=Outcome.FAIL, code=code, evidence=e)
    return Result(claim=claim, device="cpu", dtype=dtype, outcome=Outcome.FAIL, code=code, worst=worst)


def order(*results):
    return [r.claim for r in led(results)]


def test_what_passes_stands_behind_and_the_rest_in_the_order_of_the_claims():
    passing = msgspec.structs.replace(failing("forward"), outcome=Outcome.PASS)
    assert order(passing, failing("edges"), failing("vjp")) == ["vjp", "edges", "forward"]


@pytest.mark.parametrize(
    ("claim", "code"),
    [("lifetime", "GV211"), ("purity", "GV202"), ("repeat", "GV209"), ("lifetime", "GV209"), ("linear", "GV201")],
)
def test_state_and_changed_inputs_explain_wrong_gradients(claim, code):
    assert order(failing("vjp"), failing(claim, code), failing("special"))[0] == claim


def test_memory_that_is_never_written_explains_calls_that_differ():
    assert order(failing("repeat"), failing("lifetime", "GV211")) == ["lifetime", "repeat"]


def test_a_gradient_that_rounds_is_wrong_rather_than_not_linear():
    assert order(failing("linear", gap=2.0**-8), failing("vjp", gap=2.0**-8)) == ["vjp", "linear"]


@pytest.mark.parametrize(("word", "first"), [("saturated", "special"), ("decimals", "vjp")])
def test_special_values_lead_where_vjp_needs_them_too(word, first):
    assert order(failing("vjp", values=(("x", word),)), failing("special"))[0] == first


def test_special_leads_edges_where_ordinary_values_are_right():
    assert order(failing("edges"), failing("special")) == ["special", "edges"]


@pytest.mark.parametrize(("code", "first"), [("GV212", "memory"), ("GV214", "lifetime")])
def test_a_tensor_on_the_context_explains_what_a_change_of_it_does(code, first):
    assert order(failing("lifetime", code), failing("memory", "GV207"))[0] == first


@pytest.mark.parametrize(
    ("gap", "dtype", "first"),
    [(2.0**-11, "float32", "precision"), (0.5, "float32", "forward"), (2.0**-11, "float64", "forward")],
)
def test_lost_digits_are_a_matter_of_precision_and_wrong_values_are_not(gap, dtype, first):
    wrong = [failing(claim, gap=gap, dtype=dtype) for claim in ("vjp", "forward", "linear")]
    assert order(*wrong, failing("precision", dtype="float32"))[0] == first


@pytest.mark.parametrize(("dtype", "first"), [("float32", "precision"), ("float64", "edges")])
def test_digits_that_are_lost_whole_are_so_where_float64_has_them(dtype, first):
    lost = failing("precision", dtype="float32", **{"digits lost": True})
    assert order(failing("edges", gap=0.9, dtype=dtype), lost)[0] == first


def test_state_explains_lost_digits():
    few = {"gap": 2.0**-11, "dtype": "float32"}
    assert order(failing("vjp", **few), failing("precision", **few), failing("repeat", **few))[0] == "repeat"


def test_what_passes_stands_behind_lost_digits_too():
    passing = msgspec.structs.replace(failing("layout"), outcome=Outcome.PASS)
    few = {"gap": 2.0**-11, "dtype": "float32"}
    assert order(passing, failing("vjp", **few), failing("precision", **few)) == ["precision", "vjp", "layout"]
