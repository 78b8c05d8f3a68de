"""Every op of the catalogue has a spec, and the spec says the same as the op's signature."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

import gradverify.catalogue
from gradverify.records.spec import Spec

CATALOGUE = Path(gradverify.catalogue.__file__).parent
SPECS = Path(__file__).parents[2] / "specs"
OPS = sorted(f.stem for f in CATALOGUE.glob("[!_]*.py"))


# What changes how a result is computed, and not what it is.
NOT_DRAWN = {"matmul": {"tiles"}, "attention": {"backend", "tiles"}}
DIFFERENTIABLE = {
    "lsq_quant": ("x", "step"),
    "reweighted_cross_entropy": ("logits",),
    "matmul": ("x", "w", "b"),
    "attention": ("q", "k", "v"),
    "attention_bias": ("q", "k", "v", "mask"),
    "attention_additive_mask": ("q", "k", "v", "mask"),
    "attention_atomic": ("q", "k", "v", "mask"),
}
EXACT = {"matmul", "attention"}  # the others are surrogates


def specs_of(op: str) -> list[Spec]:
    made = importlib.util.spec_from_file_location(f"specs_{op}", SPECS / f"{op}.py")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return [v for v in vars(module).values() if isinstance(v, Spec)]


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_spec_of_its_name(op: str) -> None:
    assert op in [s.name for s in specs_of(op)]


@pytest.mark.parametrize("op", OPS)
def test_every_parameter_of_the_op_is_drawn_by_one_of_its_specs(op: str) -> None:
    specs = specs_of(op)
    parameters = set(inspect.signature(specs[0].op).parameters)
    assert parameters - NOT_DRAWN.get(op, set()) == {name for s in specs for name in s.order}


@pytest.mark.parametrize("op", OPS)
def test_only_what_carries_a_gradient_is_differentiable(op: str) -> None:
    for spec in specs_of(op):
        assert spec.differentiable() == DIFFERENTIABLE.get(spec.name, DIFFERENTIABLE.get(op, ("x",)))
        assert spec.contract.kind == ("exact" if op in EXACT else "backward_of")
