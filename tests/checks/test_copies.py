"""Copies of modules, and torch.library's own checks: what is tried, and what is said."""

import pytest
import torch
from torch import nn

from gradverify.checks import CHECKS
from gradverify.engine.verify import verify
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Spec
from tests.faults.copies import FAULTS
from tests.faults.registered import FAULTS as REGISTERED
from tests.faults.registered import SQUARES

CLOSURE = next(f for f in FAULTS if f.name == "closure_over_the_original")


def evidence(claim, op, **fields):
    spec = Spec(name="op", op=op, args=(Arg(name="x", shape="b n"),), **fields)
    case = Case(spec="op", claim=claim, dims=(("b", 2), ("n", 3)), differentiate=("x",), seed=5)
    return list(CHECKS[claim](spec, case))


def pickled(op, **fields):
    return evidence("transforms.pickle", op, **fields)


class Doubled(nn.Linear):
    def extra(self, x):
        return 2 * self(x)


def linear(cls=nn.Linear):
    return cls(3, 4).double()


def test_a_module_and_a_method_of_one_are_copied_in_three_ways():
    for op in (linear(), linear(Doubled).extra):
        found = pickled(op)
        ways = {e.facts["relation"] for e in found if "relation" in e.facts}
        assert ways == {"copy.deepcopy", "pickle", "torch.save and torch.load"}
        assert {e.quantity for e in found} >= {"the gradient of `x`", "the gradient of `weight`", "`bias`"}
        assert of_case([judge(e, Policy()) for e in found]).code == ""


def test_a_class_that_has_no_name_outside_of_a_function_is_copied_and_not_pickled():
    class Local(nn.Linear):
        pass

    assert {e.facts["relation"] for e in pickled(linear(Local)) if "relation" in e.facts} == {"copy.deepcopy"}


def test_a_closure_in_a_copy_goes_on_with_the_original():
    found = pickled(CLOSURE.wrong.op.double())
    (wrong,) = (e for e in found if e.quantity == "the gradient of `scale`")
    assert wrong.analytic == 0 != wrong.numeric.value
    assert judge(wrong, Policy()).code == "GV510"
    assert any(str(e.facts.get("said")).startswith("it raised AttributeError: Can't pickle local") for e in found)


@pytest.mark.parametrize(
    ("claim", "op", "fields", "reason"),
    [
        ("pickle", torch.sin, {}, "the op is no module"),
        ("pickle", nn.Dropout(), {"stochastic": True}, "the op draws random numbers"),
        ("pickle", nn.Tanh(), {"supports": {"pickle": False}}, "the spec says that pickle is not supported"),
        ("opcheck", torch.sin, {}, "the op is not registered with torch.library"),
        ("opcheck", SQUARES, {"supports": {"opcheck": False}}, "the spec says that opcheck is not supported"),
    ],
)
def test_where_there_is_nothing_to_copy_or_registered_it_is_skipped(claim, op, fields, reason):
    spec = Spec(name="op", op=op, args=(Arg(name="x", shape="b n"),), **fields)
    (found,) = verify(spec, Plan(examples=2, claims=(f"transforms.{claim}",)), Policy())
    assert (found.outcome.value, found.reason) == ("SKIP", reason)


def test_opcheck_speaks_for_itself_and_does_not_trace_what_draws_random_numbers():
    wrong = next(f for f in REGISTERED if f.name == "fake_of_another_shape").wrong.op
    said = {e.quantity: e.facts.get("said") for e in evidence("transforms.opcheck", wrong)}
    assert list(said) == [
        "opcheck's test_schema",
        "opcheck's test_autograd_registration",
        "opcheck's test_faketensor",
        "opcheck's test_aot_dispatch_dynamic",
    ]
    assert said["opcheck's test_faketensor"].startswith(
        "MetadataMismatchError: When comparing the output of gradverify"
    )
    assert len(said["opcheck's test_faketensor"]) <= 240
    assert len(evidence("transforms.opcheck", SQUARES, stochastic=True)) == 3
