"""Each format of a run: it fits its published schema, says what is wrong, and takes no name for markup."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from junitparser import JUnitXml
from msgspec.structs import replace

from gradverify.records.finding import Location
from gradverify.records.run import OpRun, Run, from_json, to_json
from gradverify.records.verdict import Judged, Outcome
from gradverify.reports.events import events
from gradverify.reports.findings import Entry, baselined, expected, findings, timeless
from gradverify.reports.github import workflow_commands
from gradverify.reports.junit import junit
from gradverify.reports.markdown import MOST_BYTES, markdown
from gradverify.reports.sarif import fingerprints, sarif
from tests.reports import runs
from tests.reports.xsd import Schema

SCHEMAS = Path(__file__).parents[1] / "schemas"
JUNIT = Schema(SCHEMAS / "junit-10.xsd")
SARIF = jsonschema.Draft7Validator(json.loads((SCHEMAS / "sarif-2.1.0.json").read_text()))
OBSERVATION = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "observations.json").read_text()))

EVIL = "<script>alert(1)</script>|`%0A::error::\x1b[31m\x00]]>&\"'\n## x"


def hostile() -> Run:
    """Names, paths and messages that each format has another use for."""
    finding = replace(
        runs.WRONG_SCALE, summary=EVIL, lines=(EVIL, "``````"), location=Location(file=f"/a b/{EVIL}", line=3)
    )
    bad = replace(runs.VJP_FAIL, finding=finding)
    unsure = replace(runs.UNSURE, reason=EVIL, finding=replace(runs.JUMP, summary=EVIL))
    raised = replace(runs.RAISED, reason=EVIL)
    return runs.run(
        runs.op(bad, unsure, raised, spec=EVIL, target=EVIL),
        OpRun(target=EVIL, spec="", error=EVIL),
    )


def many(count: int) -> Run:
    return runs.run(*(runs.op(runs.VJP_FAIL, runs.passed("linear"), spec=f"op_{k}") for k in range(count)))


RUNS = {
    "passing": runs.PASSING,
    "failing": runs.FAILING,
    "unjudged": runs.UNJUDGED,
    "mixed": runs.MIXED,
    "empty": Run(),
    "hostile": hostile(),
    "interrupted": runs.run(runs.op(runs.passed("vjp")), interrupted=True),
    "many": many(200),
}
FORMATS: dict[str, Callable[[Run], str]] = {
    "junit": junit,
    "sarif": sarif,
    "markdown": markdown,
    "github": workflow_commands,
    "events": events,
}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    return RUNS[request.param]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_a_pure_function_of_the_json(name: str, run: Run) -> None:
    again = from_json(to_json(run))
    assert FORMATS[name](again) == FORMATS[name](run) == FORMATS[name](again)


def test_junit_fits_the_schema_of_jenkins_and_is_read_back(run: Run) -> None:
    text = junit(run)
    assert JUNIT.errors(text) == []
    read = JUnitXml.fromstring(text.encode())
    assert len(list(read)) == len(run.ops)
    assert read.tests == len(run.results) + sum(bool(op.error) for op in run.ops)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("<testsuites ", "<suites ").replace("</testsuites>", "</suites>"), "<suites> is no root"),
        (lambda t: t.replace('classname="', 'class="'), "attribute 'class' is unknown"),
        (lambda t: re.sub(r' failures="1"', "", t), "attribute 'failures' is missing"),
        (lambda t: re.sub(r'time="[0-9.]+"', 'time="soon"', t), "time='soon' does not match"),
        (lambda t: t.replace("<failure ", "<problem ").replace("</failure>", "</problem>"), "may not stand here"),
    ],
)
def test_the_check_of_the_schema_sees_what_does_not_fit(change: Callable[[str], str], said: str) -> None:
    assert any(said in error for error in JUNIT.errors(change(junit(runs.FAILING))))


def test_junit_has_a_suite_an_op_and_a_case_a_claim_with_the_block() -> None:
    root = ElementTree.fromstring(junit(runs.MIXED).encode())
    cases = {(c.get("classname"), c.get("name")): c for c in root.iter("testcase")}
    failure = cases["mypkg.ops:FusedLinear", "vjp[cpu-float64]"].find("failure")
    assert failure.get("type") == "GV199"
    assert failure.get("message").startswith("GV199 wrong gradient: backward() returns")
    assert "smallest case  x (1,1)" in failure.text
    assert cases["raises", "forward[cpu-float64]"].find("error").get("type") == "GV902"
    assert cases["mypkg.ops:FusedLinear", "linear[cpu-float64]"].find("skipped").get("type") == "GV201"
    assert "GV602" in cases["float32_inside", "vjp[cpu-float64]"].find("system-out").text
    assert cases["mypkg.nope:Gone", "usable"].find("error").get("message").startswith("cannot import mypkg.nope")
    assert (root.get("failures"), root.get("errors")) == ("2", "2")


@pytest.mark.parametrize(("strict", "tag"), [(True, "failure"), (False, "skipped")])
def test_what_could_not_be_judged_fails_junit_under_strict_alone(*, strict: bool, tag: str) -> None:
    root = ElementTree.fromstring(junit(runs.UNJUDGED, strict=strict).encode())
    (said,) = root.iter(tag)
    assert said.get("message").startswith("GV301 forward jumps")


def test_sarif_fits_the_schema_of_oasis(run: Run) -> None:
    document = json.loads(sarif(run))
    SARIF.validate(document)
    (made,) = document["runs"]
    assert len(made["results"]) == len(findings(run)) + len(expected(run))
    for result in made["results"]:
        assert made["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_the_schema_refuses_what_is_no_sarif() -> None:
    document = json.loads(sarif(runs.FAILING))
    document["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        SARIF.validate(document)


def test_sarif_names_the_place_the_level_and_the_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    inside = replace(
        runs.WRONG_SCALE, location=Location(file=str(tmp_path / "my src" / "ops.py"), line=52, col=26, end_col=40)
    )
    (made,) = json.loads(sarif(runs.run(runs.op(replace(runs.VJP_FAIL, finding=inside)), runs.op(runs.UNSURE))))["runs"]
    wrong, unsure = made["results"]
    place = wrong["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "my%20src/ops.py", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 52, "startColumn": 26, "endColumn": 40}
    assert (wrong["level"], unsure["level"]) == ("error", "note")
    rule = made["tool"]["driver"]["rules"][wrong["ruleIndex"]]
    assert (rule["id"], rule["shortDescription"]["text"]) == ("GV199", "wrong gradient")
    assert rule["help"]["text"]


def test_a_fingerprint_follows_the_fault_and_not_its_numbers() -> None:
    def mark(**changes: object) -> str:
        return Entry(
            op=runs.op(spec=str(changes.pop("spec", "s"))), result=replace(runs.VJP_FAIL, **changes)
        ).fingerprint

    moved = replace(runs.WRONG_SCALE, summary="other numbers", location=Location(file="ops.py", line=99))
    assert mark() == mark(finding=moved) == mark(dtype="float32") == mark(digits=3.0)
    other = [mark(claim="jvp"), mark(code="GV101"), mark(spec="t"), mark(worst=None)]
    assert len({mark(), *other}) == 1 + len(other)


def test_a_baseline_lets_what_is_known_pass_and_nothing_else() -> None:
    known = fingerprints(json.loads(sarif(runs.FAILING)))
    assert [e.known for e in expected(baselined(runs.FAILING, known))] == [True]
    assert findings(baselined(runs.FAILING, known)) == []
    assert len(findings(baselined(runs.FAILING, set()))) == 1
    grown = replace(runs.FAILING, ops=(*runs.FAILING.ops, *runs.UNJUDGED.ops))
    assert [e.result.code for e in findings(baselined(grown, known))] == ["GV301"]
    (made,) = json.loads(sarif(baselined(grown, known), compared=True))["runs"]
    assert [(r["baselineState"], "suppressions" in r) for r in made["results"]] == [("new", False), ("unchanged", True)]
    assert fingerprints({"runs": [made]}) >= known


@pytest.mark.parametrize("document", [[], {}, {"runs": 3}, {"runs": [{"results": [4]}]}, None])
def test_what_is_no_sarif_is_no_baseline(document: object) -> None:
    with pytest.raises(ValueError, match="not SARIF"):
        fingerprints(document)


def read(run: Run) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in events(run).splitlines()]
    for line in lines:
        OBSERVATION.validate(line)
    return lines


def test_events_fit_the_schema_of_hypothesis(run: Run) -> None:
    assert len(read(run)) == len(run.results) + len(run.ops)


TRAIL = (
    Judged(case=replace(runs.CASE, layouts=(("x", "sliced"),)), how="swept", outcome=Outcome.PASS, seconds=0.25),
    Judged(case=replace(runs.CASE, seed=8, kwargs=(("eps", math.inf),)), how="drawn"),
    Judged(case=replace(runs.CASE, seed=9), how="drawn", outcome=Outcome.INCONCLUSIVE, code="GV302", moot=True),
    Judged(case=replace(runs.CASE, seed=10), how="drawn", outcome=Outcome.FAIL, code="GV199"),
)


def test_a_case_that_was_kept_is_an_event_with_its_recipe_and_what_became_of_it() -> None:
    lines = read(runs.run(runs.op(replace(runs.VJP_FAIL, trail=TRAIL), spec="s")))[:-1]
    assert [line["status"] for line in lines] == ["passed", "gave_up", "gave_up", "failed"]
    assert [line["how_generated"] for line in lines] == ["swept", "drawn", "drawn", "drawn"]
    assert {line["property"] for line in lines} == {"s::vjp[cpu-float64]"}
    assert len({line["representation"] for line in lines}) == 4
    assert lines[0]["features"] | {"size k": 1, "layout x": "sliced", "outcome": "PASS"} == lines[0]["features"]
    assert lines[0]["arguments"]["dims"] == {"b": [1], "k": 1, "n": 1}
    assert lines[0]["timing"] == {"execute:test": 0.25}
    assert lines[1]["status_reason"].startswith("refused by where=")
    assert lines[1]["arguments"]["kwargs"] == {"eps": "inf"}
    assert lines[2]["status_reason"] == "nothing can be judged here: GV302 kink"
    assert lines[3]["status_reason"] == "GV199 wrong gradient"


def test_what_has_no_case_and_what_is_unusable_are_told_in_words() -> None:
    lines = [line for line in read(runs.run(runs.op(runs.NO_CUDA), runs.MIXED.ops[-1])) if line["type"] != "test_case"]
    assert [(line["type"], line["title"]) for line in lines] == [
        ("info", "no case"),
        ("info", "not covered"),
        ("alert", "unusable"),
    ]
    assert (lines[0]["content"], lines[0]["property"]) == ("no device", "mypkg.ops:FusedLinear::vjp[cuda-float64]")
    assert lines[2]["content"].startswith("cannot import mypkg.nope")


def test_markdown_has_a_row_an_op_and_the_findings() -> None:
    text = markdown(runs.MIXED)
    assert text.startswith("### gradverify: 1 FAIL, 1 ERROR, 1 INCONCLUSIVE, 1 unusable, ")
    assert "| op | forward | vjp | linear | layout |\n|---|---|---|---|---|\n" in text
    assert "| <code>ste&#95;quant</code> | ✅ | ✅ | ✅ | ✅ |" in text
    assert "| <code>mypkg.ops:FusedLinear</code> | ✅ | ❌ GV199 | ⚠️ GV201 |  |" in text
    assert "| <code>float32&#95;inside</code> | ✅ | ⚠️ GV602 |" in text
    assert "```text\n✗ vjp " in text
    assert "smallest case  x (1,1)" in text
    assert "mypkg.nope:Gone" in text


@pytest.mark.parametrize("most", [2000, 20_000, MOST_BYTES])
def test_markdown_stays_below_the_limit_and_counts_what_is_left_out(most: int) -> None:
    text = markdown(many(3000), most=most)
    assert len(text.encode()) <= most
    assert re.search(r"and [\d,]+ more findings, in the JSON", text)
    assert text.count("<details>") == text.count("</details>")


def test_annotations_are_ten_and_say_how_many_more_there_are() -> None:
    lines = workflow_commands(many(12)).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "::notice title=gradverify::2 more findings are in the log and in the report"
    assert workflow_commands(many(10)).count("::error ") == 10
    assert "notice" not in workflow_commands(many(10))


def test_an_annotation_stands_at_its_line() -> None:
    (line,) = workflow_commands(runs.FAILING).splitlines()
    head, _, message = line.removeprefix("::").partition("::")
    assert head == "error title=GV199 mypkg.ops%3AFusedLinear vjp[cpu-float64],file=src/mypkg/ops.py,line=52,col=26"
    assert message.startswith("GV199 wrong gradient: backward() returns 2.166630941 for dL/dw[0,0]")
    assert "%0A" in message
    assert workflow_commands(runs.UNJUDGED).startswith("::warning ")


def test_no_name_or_message_is_taken_for_markup() -> None:
    text = markdown(hostile())
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside
    assert "\n## x" not in outside
    assert [line for line in outside.splitlines() if line.startswith("|") and line.count("|") != 4] == []
    commands = workflow_commands(hostile()).splitlines()
    assert len(commands) == 4
    assert all(re.match(r"::(error|warning) title=", line) for line in commands)
    assert JUNIT.errors(junit(hostile())) == []
    found = [s.get("name") for s in ElementTree.fromstring(junit(hostile()).encode()).iter("testsuite")]
    assert found[0].startswith("<script>alert(1)</script>|`%0A::error::?[31m?]]>")


def test_without_times_two_runs_of_the_same_are_the_same() -> None:
    one = runs.MIXED
    slow = tuple(replace(op, checks=tuple(replace(r, seconds={"op": 9.0}) for r in op.checks)) for op in one.ops)
    two = replace(one, ops=slow, run=replace(one.run, started="2026-01-01T00:00:00+00:00", duration_s=9.0, argv=("x",)))
    for name, make in FORMATS.items():
        assert make(timeless(one)) == make(timeless(two)), name
    assert to_json(timeless(one)) == to_json(timeless(two))
    assert junit(one) != junit(two)


def test_a_pass_that_is_imprecise_is_no_finding() -> None:
    run = runs.run(runs.op(runs.IMPRECISE), runs.op(runs.passed("vjp", outcome=Outcome.SKIP, resolution=math.nan)))
    assert findings(run) == expected(run) == []
