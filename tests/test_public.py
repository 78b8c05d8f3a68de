import ast
from pathlib import Path

import pytest
import torch

import gradverify


def test_type_checkers_find_every_public_name_where_it_is_loaded_from() -> None:
    stub = ast.parse(Path(gradverify.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [n for n in stub.body if isinstance(n, ast.ImportFrom)]
    assert {
        a.asname: (n.module or "").removeprefix("gradverify.") for n in imports for a in n.names
    } == gradverify._HOME


def test_a_word_that_comes_later_says_so() -> None:
    with pytest.raises(
        AttributeError, match=r"gradverify\.expectation: contracts of unbiased estimators are not judged"
    ):
        _ = gradverify.expectation


def dropped(x: torch.Tensor) -> torch.Tensor:
    return x * (torch.rand_like(x) < 0.5)


@pytest.mark.parametrize(("stochastic", "right"), [(False, False), (gradverify.replay_rng(), True)])
def test_an_op_that_draws_is_judged_with_the_same_numbers_in_every_call(*, stochastic: bool, right: bool) -> None:
    spec = gradverify.Spec(
        name="dropped", op=dropped, args=(gradverify.Arg(name="x", shape="4"),), stochastic=stochastic
    )
    run = gradverify.check(spec, claims=("vjp",), examples=5)
    assert (run.ops[0].checks[0].outcome is gradverify.Outcome.PASS) is right


def test_every_public_name_can_be_loaded() -> None:
    assert all(getattr(gradverify, name) is not None for name in gradverify.__all__)
