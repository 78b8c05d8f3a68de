import ast
from pathlib import Path

import pytest

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


def test_every_public_name_can_be_loaded() -> None:
    assert all(getattr(gradverify, name) is not None for name in gradverify.__all__)
