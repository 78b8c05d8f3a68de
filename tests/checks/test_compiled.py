"""What torch.compile is held to, what is a note, and what says nothing of the op."""

import logging

import pytest
import torch

from gradverify.autodiff.transforms import compiled
from gradverify.checks import CHECKS
from gradverify.engine.verify import verify
from gradverify.errors import NotApplicableError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Dim, Spec

NAME = "transforms.compile"


def spec(op, **fields):
    return Spec(name="op", op=op, args=(Arg(name="x", shape="n"),), dims={"n": Dim(lo=1)}, **fields)


def evidence(op, **fields):
    case = Case(spec="op", claim=NAME, dims=(("n", 3),), differentiate=("x",), seed=5)
    return list(CHECKS[NAME](spec(op, **fields), case))


def result(op, claims=(NAME,), profile="dev", **fields):
    (found,) = verify(spec(op, **fields), Plan(examples=1, claims=claims, profile=profile), Policy())
    return found


def broken(x):
    y = torch.sin(x)
    torch._dynamo.graph_break()
    return y * torch.cos(x)


def test_both_kinds_of_sizes_are_compiled_and_a_graph_break_is_a_note():
    found = evidence(broken)
    relations = {str(e.facts["relation"]) for e in found}
    assert relations == {"compiled", "compiled for any sizes", "eager after torch.compile"}
    assert all(e.facts["graph breaks"] >= 1 for e in found if str(e.facts["relation"]).startswith("compiled"))
    verdict = of_case([judge(e, Policy()) for e in found])
    assert (verdict.outcome.value, verdict.code) == ("PASS", "")


def test_what_the_compiler_does_not_take_is_skipped_in_its_own_words(monkeypatch):
    monkeypatch.setenv(compiled.BACKEND, "broken_by_the_test")
    with pytest.raises(
        NotApplicableError, match=r"torch\.compile gives up: InvalidBackend: Invalid backend: 'broken_by"
    ):
        evidence(torch.sin)
    assert logging.root.manager.disable < logging.WARNING


def test_a_compiler_that_fails_of_itself_says_nothing_of_the_op(monkeypatch):
    def called(*_, **__):
        scope = {"__name__": "torch._dynamo.somewhere"}
        exec("def fails():\n    raise AssertionError('not this Function')", scope)
        scope["fails"]()

    monkeypatch.setattr(compiled, "called", called)
    with pytest.raises(NotApplicableError, match=r"torch\.compile gives up: AssertionError: not this Function"):
        evidence(torch.sin)


@torch.compiler.disable
def kept_away(x):
    return torch.sin(x)


def test_nothing_is_said_where_nothing_was_compiled():
    with pytest.raises(NotApplicableError, match=r"torch\.compile compiles nothing of it"):
        evidence(lambda x: kept_away(x))


def test_an_exception_that_is_not_the_compilers_is_a_finding(monkeypatch):
    def called(*_, **__):
        raise ValueError("not here\nand so on")

    monkeypatch.setattr(compiled, "called", called)
    (first, *_) = evidence(torch.sin)
    assert first.facts["said"] == "it raised ValueError: not here"
    assert judge(first, Policy()).code == "GV503"


def test_it_is_off_in_dev_unless_it_is_asked_for_by_name():
    def only(**plan):
        found = {r.claim: r for r in verify(spec(torch.sin), Plan(examples=1, **plan), Policy())}
        return found[NAME]

    skip = tuple(c for c in CHECKS if c != NAME)
    assert only(skip=skip).reason == "off in profile dev, unless it is asked for by name"
    assert only(claims=(NAME,)).outcome.value == "PASS"
    assert only(skip=skip, profile="ci").cases.run <= 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"supports": {"compile": False}}, "the spec says that compile is not supported"),
        ({"stochastic": True}, "the op draws random numbers, and a compiled one may draw others"),
    ],
)
def test_where_it_says_nothing_it_is_skipped_with_the_reason(fields, reason):
    assert (result(torch.sin, **fields).outcome.value, result(torch.sin, **fields).reason) == ("SKIP", reason)
