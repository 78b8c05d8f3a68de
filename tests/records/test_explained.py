"""Every code has a page, and the pair on it is run: the wrong line gives the code, the right one does not."""

from __future__ import annotations

import re
import threading
from typing import Annotated

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

import gradverify as gv
from gradverify.cases.signatures import spec_from_op
from gradverify.engine.verify import verify
from gradverify.errors import SpecError
from gradverify.records.claims import CLAIMS
from gradverify.records.codes import TITLES
from gradverify.records.explained import page, pages
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome

PAGES = pages()
RUN = [code for code, p in PAGES.items() if p.pair and p.setting["claim"] in CLAIMS]
METHODS = ("forward", "backward", "jvp", "setup_context", "vmap")


def spec_of(code, kind):
    """What a variant of the pair of a page defines, as a spec."""
    prelude = {
        "torch": torch,
        "Tensor": Tensor,
        "Function": Function,
        "Annotated": Annotated,
        "gv": gv,
        "threading": threading,
    }
    space = dict(prelude)
    source = PAGES[code].variant(kind).replace("LABEL", kind)
    exec(compile(source, f"<{code} {kind}>", "exec", dont_inherit=True), space)
    specs = [v for v in space.values() if isinstance(v, Spec)]
    if specs:
        return specs[-1]
    rules = {n: staticmethod(space[n]) for n in METHODS if n in space}
    op = space.get("op") or type("Op", (Function,), rules)
    space["Op"] = op
    shapes = {n: s for n, s in PAGES[code].setting.items() if n in ("x", "w")}
    if "args" in space:
        return gv.from_data(op, args={n: gv_arg(n, *words) for n, words in space["args"].items()})
    return spec_from_op(op, name=f"{code}_{kind}", target="", shapes=shapes)


def gv_arg(name, shape, *words):
    return gv.Arg(name=name, shape=shape, complex=bool(words))


def result_of(code, kind):
    setting = PAGES[code].setting
    dtypes = (setting["dtype"],) if "dtype" in setting else ()
    plan = Plan(examples=20, claims=(setting["claim"],), dtypes=dtypes, profile="ci")
    return next(iter(verify(spec_of(code, kind), plan, Policy())))


@pytest.mark.parametrize("code", RUN)
def test_the_wrong_line_of_a_page_gives_its_code(code):
    result = result_of(code, "bad")
    wanted = Outcome[PAGES[code].setting.get("bad", "FAIL")]
    assert (result.outcome, result.code) == (wanted, code), describe(result)


@pytest.mark.parametrize("code", RUN)
def test_the_right_line_of_a_page_passes(code):
    result = result_of(code, "good")
    assert (result.outcome, result.code) == (Outcome.PASS, ""), describe(result)


def test_without_shapes_there_is_no_spec():
    with pytest.raises(SpecError, match="GV901"):
        spec_of("GV901", "bad")
    assert spec_of("GV901", "good").args


def test_every_code_has_a_page_and_every_page_a_code():
    assert {c: p.title for c, p in PAGES.items()} == dict(TITLES)
    assert list(PAGES) == sorted(PAGES)


@pytest.mark.parametrize("code", PAGES)
def test_a_page_says_what_a_code_means_how_it_is_found_and_how_to_silence_it(code):
    told = PAGES[code]
    assert len(told.before) == 2
    assert told.before[1].startswith(("Detected ", "Reserved"))
    assert len(told.after) == 1
    assert re.match(r"To silence it|Nothing silences it|To make it a failure", told.after[0])
    assert told.pair.count("\n") <= 11


@pytest.mark.parametrize("code", RUN)
def test_the_two_lines_of_a_pair_differ(code):
    assert page(code).variant("bad") != page(code).variant("good")
