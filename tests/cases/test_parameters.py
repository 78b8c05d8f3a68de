"""The parameters of a module are arguments named by their path, its modes a keyword; what makes a module makes one."""

from typing import Annotated

import pytest
import torch
from torch import Tensor, nn

import gradverify
from gradverify.cases.concrete import spec_at
from gradverify.cases.materialise import materialise
from gradverify.cases.parameters import made
from gradverify.cases.signatures import from_data, resolved
from gradverify.cases.strategies import offered_layouts
from gradverify.errors import SpecError
from gradverify.records.case import Case
from gradverify.records.spec import Spec

DROP = 0.3


class Pair(nn.Module):
    def __init__(self, n: int = 3):
        super().__init__()
        self.inner = nn.Linear(n, 2)
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: Annotated[Tensor, "b 3"]) -> Tensor:
        return self.inner(x) * self.scale * self.frozen


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight * self.weight


def of(module, **shapes) -> Spec:
    return from_data(module, shapes)


def drawn(spec: Spec, seed: int = 1, **values: str):
    case = Case(spec=spec.name, claim="vjp", seed=seed, dims=(("b", 2),), values=tuple(values.items()))
    return materialise(spec, case).primals


def test_parameters_that_require_grad_follow_the_inputs_by_their_paths():
    spec = of(Pair(), x="b 3")
    shapes = [(a.name, a.shape, str(a.domain)) for a in spec.args]
    assert shapes == [
        ("x", "b 3", ""),
        ("scale", "", "parameter"),
        ("inner.weight", "2 3", "parameter"),
        ("inner.bias", "2", "parameter"),
    ]
    assert spec.differentiable() == ("x", "scale", "inner.weight", "inner.bias")
    assert spec.order == ("x", "parameters", "training")
    assert spec.kwargs["training"] == (True, False)
    assert of(Pair().eval(), x="b 3").kwargs["training"] == (False, True)


def test_a_parameter_that_is_called_like_an_input_is_told_apart():
    spec = of(Weighted(), x="b 3", weight="3")
    assert [a.name for a in spec.args] == ["x", "weight", "self.weight"]
    assert drawn(spec)["self.weight"].shape == (3,)


def test_parameters_are_drawn_near_their_own_values_in_the_layout_that_they_have():
    module = Pair()
    with torch.no_grad():
        module.inner.bias.zero_()
        module.inner.weight.copy_(torch.tensor([[1.0, -2.0, 0.0], [4.0, 8.0, -1.0]]))
    spec = of(module, x="b 3")
    weight = drawn(spec)["inner.weight"]
    ratio = (weight / module.inner.weight.detach())[module.inner.weight != 0]
    assert ((ratio >= 0.5) & (ratio <= 1.5)).all()
    assert len(set(ratio.tolist())) == ratio.numel()
    assert (drawn(spec)["inner.bias"] != 0).all()
    assert weight[0, 2] != 0
    assert torch.equal(weight, drawn(spec)["inner.weight"])
    assert not torch.equal(weight, drawn(spec, seed=2)["inner.weight"])
    assert offered_layouts(spec, spec.arg("inner.weight"), (2, 3)) == ("contiguous",)


def test_at_given_inputs_the_parameters_have_their_own_values():
    layer = nn.Linear(3, 2)
    spec = spec_at(layer, [torch.randn(4, 3)], {}, name="linear")
    assert [a.name for a in spec.args] == ["input", "weight", "bias"]
    assert torch.equal(drawn(spec, weight="own")["weight"], layer.weight.detach().double())
    run = gradverify.check(layer, torch.randn(4, 3), examples=2, claims=("vjp",))
    assert dict(run.results[0].worst.evidence.case.values)["weight"] == "own" if run.results[0].worst else True
    assert [r.outcome.value for r in run.results] == ["PASS"]
    assert [a.name for a in spec_at(layer, [torch.randn(4, 3)], {}, name="l", parameters=False).args] == ["input"]


def test_a_module_of_integers_alone_is_judged_by_its_parameters():
    spec = spec_at(nn.Embedding(5, 2), [torch.tensor([0, 4, 4])], {}, name="embedding")
    assert spec.differentiable() == ("weight",)


def test_parameters_are_held_where_the_reference_cannot_follow_them():
    layer = nn.Linear(3, 2)

    @gradverify.spec(layer)
    def held(input: Annotated[Tensor, "b 3"]) -> Tensor:  # noqa: A002 (torch's name)
        return input @ layer.weight.to(input).T + layer.bias.to(input)

    @gradverify.spec(layer)
    def free(input: Annotated[Tensor, "b 3"], parameters: dict[str, Tensor]) -> Tensor:  # noqa: A002
        return input @ parameters["weight"].T + parameters["bias"]

    assert [a.name for a in held.args] == ["input"]
    assert [a.name for a in free.args] == ["input", "weight", "bias"]
    assert [a.name for a in from_data(layer, {"input": "b 3"}, reference=nn.Linear(3, 2)).args][1:] == [
        "weight",
        "bias",
    ]
    assert [a.name for a in from_data(layer, {"input": "b 3"}, reference=nn.Linear(3, 2, bias=False)).args] == ["input"]
    results = {r.claim: r for r in gradverify.check(free, examples=3, claims=("forward", "vjp")).results}
    assert {r.outcome.value for r in results.values()} == {"PASS"}


def test_a_module_with_a_dropout_draws_from_a_seeded_generator():
    assert of(nn.Sequential(nn.Linear(3, 2), nn.Dropout(DROP)), input="b 3").stochastic
    assert not of(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0)), input="b 3").stochastic


def test_a_lazy_module_must_have_been_called():
    with pytest.raises(SpecError, match=r"the parameter 'weight' has no shape yet; call the lazy module once before\."):
        of(nn.LazyLinear(2), input="b 3")


def block(width: int = 3) -> nn.Module:
    return nn.Linear(width, 2)


def loose():
    return nn.Linear(3, 2)


def sized(width: int) -> nn.Module:
    return nn.Linear(width, 2)


def test_what_makes_a_module_without_arguments_stands_for_it_and_makes_the_same_each_time():
    state = torch.random.get_rng_state()
    one, other = made(block), made(block)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(made(Pair), Pair)
    assert made(loose) is loose  # nothing says that it makes a module: it is not called
    assert made(sized) is sized
    assert made(torch.sin) is torch.sin
    assert resolved(from_data(block, {"input": "b 3"})).differentiable() == ("input", "weight", "bias")
    assert resolved(from_data(f"{__name__}:block", {"input": "b 3"})).differentiable() == ("input", "weight", "bias")
