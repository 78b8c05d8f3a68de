"""`gradverify explain`: pages of codes."""

from __future__ import annotations

import json

import pytest

from gradverify.records.codes import TITLES

GV102 = """\
GV102 wrong sign

What backward returns is minus the true gradient.

Detected by `vjp`: returned plus true gradient is zero within the error of the
measurement.

    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.cos()
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.sin()  # bad
        return -g * x.sin()  # good

To silence it for a gradient reversal, declare it: `backward_of=lambda x: -op(x)`.
"""


@pytest.mark.parametrize("word", ["GV102", "gv102", "102"])
def test_a_page_says_what_a_code_means(word, gradverify_):
    answer = gradverify_("explain", word)
    assert (answer.code, answer.err, answer.out) == (0, "", GV102)


@pytest.mark.parametrize("code", TITLES)
def test_every_page_fits_the_width(code, gradverify_):
    answer = gradverify_("explain", code)
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 100


def test_without_a_code_all_are_listed(gradverify_):
    answer = gradverify_("explain")
    assert answer.out == "".join(f"{code}  {title}\n" for code, title in TITLES.items())


def test_a_family_is_listed(gradverify_):
    answer = gradverify_("explain", "GV3xx")
    assert answer.out == "GV301  forward jumps\nGV302  kink\nGV303  finite differences are not reliable here\n"


def test_an_unknown_code_is_told_the_nearest(gradverify_):
    answer = gradverify_("explain", "GV11")
    assert (answer.code, answer.out) == (2, "")
    assert "'GV11' is no code (did you mean 'GV" in answer.err


def test_a_page_as_json(gradverify_):
    (page,) = json.loads(gradverify_("explain", "GV102", "--json").out)
    assert page["code"] == "GV102"
    assert page["pair"].count("# bad") == 1


def test_wrong_lines_are_red_where_colours_are_shown(gradverify_, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31m        return g * x.sin()  # bad\x1b[0m" in gradverify_("explain", "GV102").out
