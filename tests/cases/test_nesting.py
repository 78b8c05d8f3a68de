"""Nested annotations, data and --arg declare tensors one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypedDict

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

import gradverify as gv
from gradverify.autodiff.calling import op_of
from gradverify.cases.materialise import materialise
from gradverify.cases.signatures import spec_from_op
from gradverify.cases.strategies import case_of, plan_of
from gradverify.errors import SpecError
from gradverify.records.spec import Arg

Row, Matrix = Annotated[Tensor, "n"], Annotated[Tensor, "b n"]


class Weights(TypedDict):
    w: Row
    b: Annotated[Tensor, "n", gv.positive]


class State(NamedTuple):
    h: Row
    c: Row


@dataclass(frozen=True)
class Inputs:
    x: Matrix
    w: Row

    def __post_init__(self) -> None:
        assert isinstance(self.x, Tensor)


def shapes(op, **given):
    spec = spec_from_op(op, name="f", target="f", shapes=given)
    return {a.name: a.shape for a in spec.args}


def test_lists_have_two_and_tuples_what_they_say() -> None:
    def op(xs: list[Row], pair: tuple[Matrix, Row], rest: tuple[Row, ...], scale: float = 2.0):
        assert (type(xs), type(pair), type(rest)) == (list, tuple, tuple)
        return sum(xs) + pair[0] * pair[1] + rest[0] * rest[1] * scale

    spec = spec_from_op(op, name="f", target="f", shapes={})
    assert [a.name for a in spec.args] == ["xs[0]", "xs[1]", "pair[0]", "pair[1]", "rest[0]", "rest[1]"]
    assert spec.order == ("xs", "pair", "rest", "scale")
    plan = plan_of(spec, "vjp", "float64", "cpu")
    case = case_of(plan, dims={"n": 3, "b": 2}, kwargs={"scale": 2.0}, differentiate=spec.differentiable())
    point = materialise(spec, case)
    (y,) = op_of(spec)(point.primals, point.kwargs)
    assert y.shape == (2, 3)


def test_typed_dicts_named_tuples_and_dataclasses_are_read_by_field() -> None:
    assert shapes(lambda p: 0, **{"p['w']": "n"}) == {"p['w']": "n"}

    def op(p: Weights, s: State, i: Inputs):
        assert isinstance(s, State)
        assert isinstance(i, Inputs)
        return p["w"] + s.h + i.x

    spec = spec_from_op(op, name="f", target="f", shapes={})
    assert [a.name for a in spec.args] == ["p['w']", "p['b']", "s.h", "s.c", "i.x", "i.w"]
    assert spec.arg("p['b']").domain.kind == "positive"
    primals = {a.name: torch.ones(2, 3) for a in spec.args}
    assert op_of(spec)(primals, {})[0].tolist() == [[3.0] * 3] * 2


def test_plain_data_nests_as_the_op_is_given_it() -> None:
    spec = gv.from_data(lambda xs, p: xs[0], {"xs": ("b n", Arg(name="", shape="n")), "p": {"w": "n b"}})
    assert {a.name: a.shape for a in spec.args} == {"xs[0]": "b n", "xs[1]": "n", "p['w']": "n b"}
    assert isinstance(spec.nested["xs"], tuple)


def test_an_inputs_hook_gives_nested_values() -> None:
    @gv.spec(lambda xs: xs[0] * xs[1], inputs=lambda draw: {"xs": [torch.ones(2), torch.ones(2)]})
    def product(xs: list[Tensor]) -> Tensor: ...

    assert not any(r.outcome.value == "FAIL" for r in gv.verify(product, plan=gv.Plan(claims=("vjp",), examples=2)))


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (
            Mapping[str, Row],
            "GV901 cannot tell the keys of p; annotate it as a TypedDict, "
            "or spell its tensors: --arg \"p['key']=*b k\".",
        ),
        (list[Tensor], 'GV901 cannot tell the shape of p[0]; annotate it: Annotated[Tensor, "*b k"].'),
    ],
)
def test_what_an_annotation_leaves_open_is_said(annotation, said) -> None:
    def op(p): ...

    op.__annotations__["p"] = annotation
    with pytest.raises(SpecError) as caught:
        spec_from_op(op, name="f", target="f", shapes={})
    assert str(caught.value) == said


class Sum(Function):
    @staticmethod
    def forward(ctx, xs: list[Row]):
        return sum(xs)

    @staticmethod
    def backward(ctx, u):
        return u


def test_a_function_takes_no_tensors_in_a_list() -> None:
    with pytest.raises(SpecError) as caught:
        spec_from_op(Sum, name="Sum", target="Sum", shapes={})
    assert str(caught.value) == (
        "Sum: 'xs[0]' is a tensor in a container, which autograd.Function does not track: its gradient would be lost; "
        "give every tensor as an argument of its own, or name the function that calls it."
    )
