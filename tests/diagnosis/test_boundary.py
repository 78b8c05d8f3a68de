"""For which sizes a failure is seen, in words; and the picture of its entries."""

from __future__ import annotations

import re

import pytest
import torch

from gradverify.diagnosis.boundary import fails_for, rule, strip
from gradverify.diagnosis.frame import frame
from gradverify.engine.verify import verify
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome
from tests.faults.record import Rule, arg
from tests.faults.table import FAULTS

TRIED = [*range(1, 10), 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193]


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda n: n > 64 and n % 64 != 0, "k > 64 and k % 64 != 0"),
        (lambda n: n > 1, "k > 1"),
        (lambda n: n < 4, "k < 4"),
        (lambda n: n == 1, "k = 1"),
        (lambda n: n % 2, "k % 2 != 0"),
        (lambda n: n % 4 == 0, "k % 4 = 0"),
        (lambda n: n & (n - 1), "k no power of 2"),
        (lambda n: n in (2, 5, 9, 33), ""),
        (lambda n: 3 < n < 128, "3 < k < 128"),
    ],
)
def test_the_simplest_rule_is_told(fails, said):
    assert rule("k", {n: bool(fails(n)) for n in TRIED}) == said


def test_a_single_size_that_stands_apart_makes_no_rule():
    assert rule("k", {n: n != 5 for n in range(1, 10)}) == ""


def test_a_strip_shows_runs_of_what_was_tried():
    found = {n: n > 64 and n % 64 != 0 for n in (1, 2, 3, 63, 64, 65, 66, 128)}
    assert strip(found) == "1···3  63··64  65██66  128·"


class Tail(Rule):
    """x @ w, whose gradient of w lacks what lies behind the last whole block of four."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        dw = torch.zeros_like(w)
        dw[: len(w) // 4 * 4] = (x.T @ g)[: len(w) // 4 * 4]
        return g @ w.T, dw


TAIL = Spec(name="tail", op=Tail, args=(arg("x", "b k"), arg("w", "k n")))


def test_a_tail_is_told_by_rule_strip_and_picture():
    result = next(iter(verify(TAIL, Plan(claims=("vjp",)), Policy())))
    assert result.outcome is Outcome.FAIL
    lines = "\n".join(result.finding.lines)
    assert "fails for      k % 4 != 0; any b, n" in lines
    assert re.search(r"^  k  1███3  4·  5███7  8·  9█$", lines, re.MULTILINE)
    assert "where          error / largest entry" in lines
    assert lines.count("|") >= 4


def test_sizes_that_cannot_be_judged_say_nothing():
    case = Case(spec="tail", claim="vjp", dims=(("b", 1), ("k", 1), ("n", 1)))
    assert fails_for(TAIL, case, lambda c: None) == ()


def test_a_size_at_which_the_values_hide_it_is_tried_with_others():
    first, asked = Case(spec="tail", claim="vjp", seed=7, dims=(("b", 1), ("k", 1), ("n", 1))), []

    def hidden(case):
        asked.append(case)
        return (dict(case.dims)["k"], case.seed) != (5, 7)

    assert fails_for(TAIL, first, hidden) == ("fails for      every size that was tried of b, k, n",)
    assert [c.seed for c in asked if dict(c.dims)["k"] == 5] == [7, 8]


BLOCKS_OF = {
    "tail_of_a_block_of_64": "n > 64 and n % 64 != 0; any b",
    "one_block_of_128_rows": "b > 128; any n",
    "padding_counted": "b > 64 and b % 64 != 0; any n",
    "tail_of_row_sum": "n > 8 and n % 8 != 0; any b",
    "scan_drops_carry": "n > 4 and n % 4 != 0; any d",
    "bilinear_transposed": "n > 1; any b",
}


@pytest.mark.parametrize("name", BLOCKS_OF)
def test_the_sizes_that_matter_to_a_fault_are_told(name):
    fault = next(f for f in FAULTS if f.name == name)
    (result,) = verify(fault.wrong, Plan(examples=20, claims=(fault.primary,)), Policy())
    assert f"fails for      {BLOCKS_OF[name]}" in result.finding.lines


def test_the_caret_stands_under_the_element_of_backwards_return():
    shown = frame(TAIL, "w")
    text, caret = shown.lines[-2:]
    start = caret.index("^")
    assert text[start : start + caret.count("^")] == "dw"
    assert caret.endswith("gradient of input 1, `w`")
    assert shown.location.file == __file__
    assert shown.location.col == start - text.index("|") - 1


def test_where_the_element_cannot_be_told_there_is_no_caret():
    class Two(Rule):
        @staticmethod
        def forward(ctx, x, w):
            return x * w

        @staticmethod
        def backward(ctx, g):
            both = (g, g)
            return both  # noqa: RET504 what is tested

    assert frame(TAIL.with_(op=Two), "w") is None
    assert frame(TAIL.with_(op=torch.matmul), "w") is None
