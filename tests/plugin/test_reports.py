"""What a run leaves behind: JUnit of pytest, our report, and the same under xdist, coverage and hypothesis' plugin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.plugin.conftest import HEAD, ROOT, Answers, Project, spec
from tests.reports.runs import VJP_FAIL

OPTIONS = ("--gv-checks", "vjp,linear", "--gv-examples", "2")
SCHEMA = json.loads((ROOT / "specs" / "report.schema.json").read_text())
OBSERVATION = jsonschema.Draft202012Validator(
    json.loads((ROOT / "tests" / "schemas" / "observations.json").read_text())
)


def report(folder: Path) -> dict:
    text = (folder / "report.json").read_text()
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    return json.loads(text)


def settled(found: dict) -> dict:
    """Without what differs from run to run."""
    found["run"] = {k: v for k, v in found["run"].items() if k not in ("started", "duration_s", "argv")}
    for op in found["ops"]:
        for check in op["checks"]:
            check["seconds"] = {}
            check["trail"] = [{**judged, "seconds": 0.0} for judged in check["trail"]]
            for verdict in filter(None, [check["worst"]]):
                verdict["evidence"]["facts"].pop("seconds", None)
    return found


@pytest.fixture
def suite(project: Project) -> Project:
    project.write("test_a.py", HEAD + spec("scale") + spec("wrong", "Wrong"))
    project.write("test_b.py", HEAD + spec("third") + "def test_plain(): ...\n")
    return project


def test_the_report_of_several_processes_is_that_of_one(suite: Project) -> None:
    suite.run(*OPTIONS, "--gv-report", "one").assert_outcomes(passed=6, failed=1)
    for mode in ("load", "loadgroup"):
        done = suite.start(*OPTIONS, "--gv-report", mode, "-n2", "--dist", mode, plugins=("xdist",))
        done.assert_outcomes(passed=6, failed=1)
        assert settled(report(suite.path / mode)) == settled(report(suite.path / "one"))
        done.stdout.fnmatch_lines(["*= gradverify =*", "wrong * ✗ vjp GV101  ✓ 1", f"report: {mode}/report.json"])
        done.stdout.fnmatch_lines(["*_ wrong::vjp[[]cpu-float64] _*", "*✗ vjp *GV101 wrong scale*"])


def test_the_items_of_a_spec_on_a_device_are_a_group_of_xdist(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("scale") + spec("own", above="@pytest.mark.xdist_group('gpu')"))
    show = "print('group', i.nodeid.split('::')[1], *[m.args[0] for m in i.iter_markers('xdist_group')])"
    project.write("conftest.py", f"def pytest_collection_modifyitems(items):\n    for i in items: {show}\n")
    done = project.run(*OPTIONS, "--collect-only", "-s", plugins=("xdist",))
    groups = {line for line in done.outlines if line.startswith("group")}
    assert groups == {"group scale test_ops.py::scale[cpu]", "group own gpu"}


def test_junit_has_the_outcome_the_code_and_the_block(suite: Project) -> None:
    suite.run(*OPTIONS, "--junitxml", "junit.xml")
    cases = {
        c.get("name"): c
        for c in ElementTree.parse(suite.path / "junit.xml").iter("testcase")
        if "wrong" in c.get("classname")
    }
    found = {p.get("name"): p.get("value") for p in cases["vjp[cpu-float64]"].iter("property")}
    assert (found["gradverify.outcome"], found["gradverify.code"], found["gradverify.seed"]) == ("FAIL", "GV101", "0")
    failure = cases["vjp[cpu-float64]"].find("failure")
    assert failure.get("message") == "GV101 wrong scale: backward returns 2 x the true gradient of `w`"
    assert failure.text.startswith("✗ vjp ")
    passing = {p.get("name"): p.get("value") for p in cases["linear[cpu-float64]"].iter("property")}
    assert (passing["gradverify.outcome"], int(passing["gradverify.cases"]) > 0) == ("PASS", True)


def test_a_report_is_written_where_the_configuration_says(project: Project, answers: Answers) -> None:
    answers.of["vjp"] = VJP_FAIL
    project.write("pyproject.toml", '[tool.gradverify]\nreport = { dir = "out/gv" }\n')
    project.write("tests/test_ops.py", HEAD + spec("scale"))
    project.run("--gv-checks", "vjp", "tests")
    found = report(project.path / "out" / "gv")
    assert found["run"]["argv"][-1] == "tests"
    assert found["totals"]["FAIL"] == 1
    assert found["run"]["interrupted"] is False


def test_a_run_that_is_interrupted_says_so_and_keeps_what_was_verified(project: Project) -> None:
    project.write(
        "test_ops.py", HEAD + spec("scale") + "def test_stop():\n    raise KeyboardInterrupt\n" + spec("never")
    )
    project.start(*OPTIONS, "--gv-report", "out")
    found = report(project.path / "out")
    assert found["run"]["interrupted"] is True
    assert [op["spec"] for op in found["ops"]] == ["scale"]


@pytest.mark.parametrize("stop", ["--stepwise", "-x"])
def test_a_run_that_stops_at_a_failure_as_it_was_told_is_not_interrupted(suite: Project, stop: str) -> None:
    suite.run(*OPTIONS, "--gv-report", "out", stop, "test_a.py", plugins=("cacheprovider", "stepwise"))
    found = report(suite.path / "out")
    assert found["run"]["interrupted"] is False
    assert [len(op["checks"]) for op in found["ops"]] == [2, 1]


def test_two_runs_are_the_same_but_for_their_times(suite: Project) -> None:
    for name in ("first", "second"):
        suite.run(*OPTIONS, "--gv-report", name)
    assert settled(report(suite.path / "first")) == settled(report(suite.path / "second"))


def test_without_times_all_formats_of_two_runs_are_the_same_bytes(suite: Project) -> None:
    from gradverify.cli.main import run as command_line

    formats = ("html", "json", "junit", "sarif", "md", "events")
    for name in ("one", "two"):
        suite.run("--gv-checks", "vjp,memory", "--gv-examples", "2", "--gv-report", name, "test_a.py")
        assert "backward in forwards" in (suite.path / name / "report.json").read_text()
        files = [word for f in formats for word in (f"--{f}", f"{name}.{f}")]
        assert command_line(["report", name, "--no-times", *files]) == 0
    for each in formats:
        assert (suite.path / f"one.{each}").read_bytes() == (suite.path / f"two.{each}").read_bytes(), each


def observed(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        OBSERVATION.validate(line)
    return lines


def test_every_case_is_an_event_however_many_processes_judge(suite: Project) -> None:
    suite.run(*OPTIONS, "--gv-report", "out", "--gv-events", "one.ndjson")
    suite.start(*OPTIONS, "--gv-events", "two.ndjson", "-n2", plugins=("xdist",))
    one, two = (observed(suite.path / name) for name in ("one.ndjson", "two.ndjson"))
    cases = [line for line in one if line["type"] == "test_case"]
    found = report(suite.path / "out")
    for op in found["ops"]:
        for check in op["checks"]:
            mine = [c for c in cases if c["property"] == f"{op['spec']}::{check['claim']}[cpu-float64]"]
            assert len(mine) == len(check["trail"]) >= check["cases"]["run"]
            assert (check["outcome"] == "FAIL") is any(c["status"] == "failed" for c in mine)
    assert [c["representation"] for c in cases] == [c["representation"] for c in two if c["type"] == "test_case"]


def test_no_case_is_kept_unless_it_is_asked_for(suite: Project) -> None:
    suite.run(*OPTIONS, "--gv-report", "out")
    assert {len(c["trail"]) for op in report(suite.path / "out")["ops"] for c in op["checks"]} == {0}


def test_the_configuration_names_further_formats(project: Project, answers: Answers) -> None:
    answers.of["vjp"] = VJP_FAIL
    table = 'report = { dir = "out", formats = ["html", "junit", "sarif", "md", "events"] }'
    project.write("pyproject.toml", f"[tool.gradverify]\n{table}\n")
    project.write("test_ops.py", HEAD + spec("scale"))
    done = project.run("--gv-checks", "vjp")
    files = ["report.json", "index.html", "junit.xml", "gradverify.sarif", "summary.md", "events.ndjson"]
    done.stdout.fnmatch_lines([f"report: {', '.join(f'out/{name}' for name in files)}"])
    assert all("GV199" in (project.path / "out" / name).read_text() for name in files)
    assert answers.plans[0].trail


def test_what_the_suite_reports_is_what_the_command_line_reports(suite: Project) -> None:
    from gradverify.cli.main import run as command_line

    suite.run(*OPTIONS, "--gv-report", "pytest", "test_a.py")
    command_line(["check", "test_a.py", "--checks", "vjp,linear", "--examples", "2", "--report", "line", "-q"])
    ours, theirs = (settled(report(suite.path / name)) for name in ("pytest", "line"))
    assert ours["ops"] == theirs["ops"]
    assert ours["totals"] == theirs["totals"]


def test_a_failing_case_is_kept_and_can_be_replayed(suite: Project, capfd: pytest.CaptureFixture[str]) -> None:
    from gradverify.cli.main import run as command_line

    suite.run(*OPTIONS, "--gv-report", "out", "test_a.py::wrong::vjp")
    (check,) = report(suite.path / "out")["ops"][0]["checks"]
    capfd.readouterr()
    assert command_line(["replay", check["finding"]["replay_id"]]) == 1
    assert "FAILED" in capfd.readouterr().out


def test_under_coverage_backward_is_seen_as_run(suite: Project) -> None:
    before = ("-m", "coverage", "run", "--include=*/ops.py")
    suite.start(*OPTIONS, before=before).assert_outcomes(passed=6, failed=1)
    text = suite.pytester.run(sys.executable, "-m", "coverage", "json", "-q", "-o", "-").stdout.str()
    missing = json.loads(text)["files"]["ops.py"]["missing_lines"]
    assert missing == []


def test_beside_the_plugin_of_hypothesis_and_its_profiles_the_cases_are_the_same(suite: Project) -> None:
    suite.write("test_c.py", "from hypothesis import given, strategies as st\n@given(st.none())\ndef test_h(n): ...\n")
    odd = "hypothesis.settings.register_profile('odd', max_examples=1, phases=[], verbosity=hypothesis.Verbosity.debug)"
    suite.write("conftest.py", f"import hypothesis\n{odd}\n")
    suite.run(*OPTIONS, "--gv-report", "plain")
    plugin = ("hypothesis.extra.pytestplugin",)
    options = ("--hypothesis-show-statistics", "--hypothesis-profile=odd", "--hypothesis-seed=3")
    done = suite.start(*OPTIONS, "--gv-report", "beside", *options, plugins=plugin)
    # Without phases, Hypothesis skips its own tests; ours are none of them.
    done.assert_outcomes(passed=6, failed=1, skipped=1)
    assert settled(report(suite.path / "beside")) == settled(report(suite.path / "plain"))
