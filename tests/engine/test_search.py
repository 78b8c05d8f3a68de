import math
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest
import torch

from gradverify.cases.strategies import cases
from gradverify.cases.sweep import sweep
from gradverify.engine import search as engine
from gradverify.engine.search import SHRINKS, search
from gradverify.engine.verify import verify
from gradverify.errors import NotApplicableError
from gradverify.records.case import Case
from gradverify.records.evidence import Estimate, Evidence
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Spec
from gradverify.records.verdict import Outcome, Verdict

SPEC = Spec(name="f", op=torch.sin, args=(Arg(name="x", shape="b n"), Arg(name="y", shape="n")))
SWEPT = sweep(SPEC, "forward")


def verdict(case, outcome=Outcome.PASS, code="", *, moot=False):
    evidence = Evidence(
        claim="forward",
        case=case,
        quantity="q",
        analytic=0.0,
        numeric=Estimate(value=0.0, error=0.0),
        scale=1.0,
        resolution=math.nan,
    )
    return Verdict(outcome=outcome, code=code, evidence=evidence, moot=moot)


def passing(case):
    return verdict(case)


def failing_if(wrong, code="GV111"):
    return lambda case: verdict(case, Outcome.FAIL, code) if wrong(case) else verdict(case)


def found(judge, **options):
    options = {"pinned": (), "swept": (), "examples": 20, "seed": 0, "deadline": None} | options
    return search(lambda pins: cases(SPEC, "forward", pins=pins), judge, **options)


def tried(result):
    return [v.evidence.case for v in result.verdicts]


def zeros(case):
    return dict(case.values).get("x") == "zeros"


def test_pinned_cases_come_first_then_the_sweep_then_the_drawn():
    pinned = (Case(spec="f", claim="forward", dims=(("b", 1), ("n", 9))),)
    cases_ = tried(found(passing, pinned=pinned, swept=SWEPT))
    assert cases_[0] == pinned[0]
    assert cases_[1 : 1 + len(SWEPT)] == [c for c, _ in SWEPT]
    assert len(cases_) == 20 + len(SWEPT)


def test_the_sweep_does_not_change_what_is_drawn():
    assert tried(found(passing, swept=SWEPT))[len(SWEPT) :] == tried(found(passing))


def test_a_swept_failure_shrinks_among_the_cases_that_share_its_pins():
    result = found(failing_if(lambda c: zeros(c) and dict(c.dims)["n"] > 1), swept=SWEPT, examples=0)
    smallest = result.failing.evidence.case
    assert zeros(smallest)
    assert dict(smallest.dims) == {"b": 1, "n": 2}
    assert result.stopped_because == "failure"


def test_a_swept_failure_that_nothing_else_shows_is_its_own_smallest():
    only = next(c for c, _ in SWEPT if zeros(c))
    assert found(failing_if(lambda c: c == only), swept=SWEPT).failing.evidence.case == only


def test_a_failure_of_another_code_is_another_failure():
    def judge(case):
        return (
            verdict(case, Outcome.FAIL, "GV111" if dict(case.dims)["n"] > 2 else "GV112")
            if zeros(case)
            else passing(case)
        )

    result = found(judge, swept=SWEPT)
    assert (result.failing.code, dict(result.failing.evidence.case.dims)["n"]) == ("GV111", 3)


def test_shrinking_keeps_to_its_budget():
    asked = []

    def judge(case):
        asked.append(case)
        return failing_if(lambda c: zeros(c) and c.seed % 2 == 0)(case)

    case, pins = next((c, p) for c, p in SWEPT if zeros(c))
    result = found(judge, swept=[(msgspec.structs.replace(case, seed=2), pins)], examples=0)
    assert result.failing is not None
    assert len(asked) <= 1 + SHRINKS


def test_moot_cases_of_the_sweep_count_as_redrawn_and_refused_ones_as_invalid():
    def judge(case):
        if case.values[:1] == (("x", "ties"),):
            return None
        return verdict(case, Outcome.INCONCLUSIVE, "GV302", moot=zeros(case))

    result = found(judge, swept=SWEPT, examples=0)
    assert (result.redrawn, result.invalid) == (sum(zeros(c) for c, _ in SWEPT), 1)
    assert len(result.verdicts) == len(SWEPT) - 1


def test_moot_drawn_cases_are_replaced():
    result = found(lambda c: verdict(c, moot=dict(c.dims)["n"] == 1))
    assert len(result.verdicts) - result.redrawn == 20


def test_time_ends_the_sweep_too():
    result = found(passing, swept=SWEPT, deadline=time.monotonic() - 1)
    assert (result.verdicts, result.stopped_because) == ([], "max-time")


def test_late_shrinking_keeps_the_swept_case(monkeypatch):
    def judge(case):
        if zeros(case):
            monkeypatch.setattr(engine.time, "monotonic", lambda: math.inf)
        return failing_if(zeros)(case)

    result = found(judge, swept=SWEPT, deadline=time.monotonic() + 60)
    assert (result.failing.evidence.case, result.shrinks <= SHRINKS + 1) == (
        next(c for c, _ in SWEPT if zeros(c)),
        True,
    )


class Recorder:
    def __init__(self, monkeypatch):
        self.counts = []
        real = engine.search

        def watched(*args, swept, **options):
            self.counts.append(len(swept))
            return real(*args, swept=swept, **options)

        monkeypatch.setattr("gradverify.engine.verify.search", watched)


@pytest.mark.parametrize(("examples", "share"), [(100, 1.0), (20, 1.0), (10, 0.5), (1, 0.05)])
def test_a_quick_check_runs_its_share_of_the_sweep(monkeypatch, examples, share):
    recorder = Recorder(monkeypatch)
    spec = Spec(name="f", op=torch.sin, args=(Arg(name="x", shape="n"),))
    (result,) = verify(spec, Plan(examples=examples, claims=("vjp",)), Policy())
    assert recorder.counts == [max(math.ceil(len(sweep(spec, "vjp")) * share), 1)]
    assert result.cases.run - result.cases.redrawn <= examples + recorder.counts[0]


MODULE = """
import torch
import gradverify as gv
from gradverify.records.spec import Arg, Spec

UNRELATED = {constant}
LIMIT = {number}

def op(x, w):
    return torch.tanh(x) * w

SPEC = Spec(name="ours", op=op, args=(Arg(name="x", shape="b n"), Arg(name="w", shape="n")))
"""
RUN = """
import sys
sys.path.insert(0, {folder!r})
import ours
from gradverify.engine import verify as engine
from gradverify.records.policy import Plan, Policy

def told(check):
    def run(spec, case):
        print(case.id)
        return check(spec, case)
    return run

engine.CHECKS = {{name: told(check) for name, check in engine.CHECKS.items()}}
list(engine.verify(ours.SPEC, Plan(examples=8, claims=("vjp", "layout", "edges")), Policy()))
"""


def ids(folder: Path, **constants: object) -> list[str]:
    (folder / "ours.py").write_text(textwrap.dedent(MODULE).format(**constants))
    script = folder / "run.py"
    script.write_text(RUN.format(folder=str(folder)))
    command = [sys.executable, "-B", "-W", "ignore", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return done.stdout.split()


def test_an_unrelated_edit_of_the_users_module_changes_no_case(tmp_path):
    before = ids(tmp_path, constant="'a word'", number=1234567)
    after = ids(tmp_path, constant="[0.125, 77777, b'bytes']", number=-98765.4321)
    assert len(before) > 24
    assert before == after


def test_a_claim_that_does_not_apply_ends_the_search_at_its_first_case():
    tried = []

    def judge(case):
        tried.append(case)
        raise NotApplicableError("the op has no jvp")

    found = search(lambda _: cases(SPEC, "vjp"), judge, swept=SWEPT, examples=20, seed=0, deadline=None)
    assert (len(tried), found.not_applicable, found.verdicts) == (1, "the op has no jvp", [])


def test_a_case_to_which_the_claim_does_not_apply_is_left_out_once_others_were_judged():
    def judge(case):
        if len(seen) == 3:
            raise NotApplicableError("not here")
        seen.append(case)
        return passing(case)

    seen = []
    found = search(lambda _: cases(SPEC, "vjp"), judge, swept=SWEPT[:5], examples=2, seed=0, deadline=None)
    assert (found.not_applicable, len(found.verdicts)) == ("", 3)
    assert found.invalid > 0


def test_two_cases_that_share_their_six_digits_are_judged_apart():
    seen = {}
    for seed in range(50_000):
        case = Case(spec="f", claim="forward", dims=(("b", 1), ("n", 1)), seed=seed)
        if case.id in seen:
            break
        seen[case.id] = case
    pair = (seen[case.id], case)
    result = found(failing_if(lambda c: c.seed == case.seed), pinned=pair)
    assert [v.outcome for v in result.verdicts] == [Outcome.PASS, Outcome.FAIL]
