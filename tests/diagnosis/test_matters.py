"""What a failure hangs on is told by cases that differ from the smallest one in one thing."""

from __future__ import annotations

import pytest

from gradverify.diagnosis.matters import matters
from gradverify.engine.verify import verify
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Spec
from tests.faults.table import FAULTS

SPEC = Spec(
    name="f", op=abs, args=(Arg(name="x", shape="b n"), Arg(name="w", shape="n")), kwargs={"mode": ("sum", "mean")}
)
PLAIN = Case(spec="f", claim="vjp", dims=(("b", 2), ("n", 3)), kwargs=(("mode", "mean"),), differentiate=("x", "w"))


def told(fails, **fields):
    case = Case(**{f: getattr(PLAIN, f) for f in PLAIN.__struct_fields__} | fields)
    return matters(SPEC, case, fails)


@pytest.mark.parametrize(
    ("fails", "fields", "said"),
    [
        (lambda _: True, {}, "none of mode, values, layouts"),
        (lambda c: dict(c.kwargs)["mode"] == "mean", {}, "mode; not values, layouts"),
        (lambda c: c.values != (), {"values": (("x", "zeros"),)}, "values with zeros; not mode, layouts"),
        (lambda c: c.layouts != (), {"layouts": (("x", "sliced"),)}, "layout of x; not mode, values"),
        (lambda c: not c.layouts, {}, "layouts; not mode, values"),
        (
            lambda c: "w" not in c.differentiate,
            {"differentiate": ("x",)},
            "which inputs require grad; not mode, values, layouts",
        ),
        (lambda c: None if c.layouts else True, {}, "none of mode, values"),
    ],
)
def test_what_makes_it_go_away_matters(fails, fields, said):
    assert told(fails, **fields) == (f"matters        {said}",)


def test_a_letter_for_any_number_of_axes_is_varied_too():
    spec = Spec(name="f", op=abs, args=(Arg(name="x", shape="*b n"),))
    case = Case(spec="f", claim="vjp", dims=(("b", (2,)), ("n", 1)), differentiate=("x",))
    assert matters(spec, case, lambda c: dict(c.dims)["b"] != (1,)) == ("matters        b; not values, layouts",)
    assert matters(spec, case, lambda _: True) == ("matters        none of b, values, layouts",)


def test_nothing_is_said_where_nothing_can_be_judged():
    assert told(lambda _: None) == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("strided_input_gets_none", "layout of x; not values"),
        ("max_pays_every_tie", "values with zeros; not layouts"),
        ("softmax_diagonal", "none of b, values, layouts"),
    ],
)
def test_of_real_faults(name, said):
    fault = next(f for f in FAULTS if f.name == name)
    (result,) = verify(fault.wrong, Plan(examples=20, claims=(fault.primary,)), Policy())
    assert f"matters        {said}" in result.finding.lines
