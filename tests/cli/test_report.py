"""`gradverify report`: what it reads, writes and exits with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from gradverify.records.run import Run
from gradverify.reports import json_
from tests.cli.conftest import Answer
from tests.reports import runs

Call = Callable[..., Answer]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name, run in {"passing": runs.PASSING, "failing": runs.FAILING, "unjudged": runs.UNJUDGED}.items():
        (tmp_path / f"{name}.json").write_text(json_.dumps(run), encoding="utf-8")
    return tmp_path


def test_without_a_format_it_prints_what_check_prints(gradverify_: Call) -> None:
    answer = gradverify_("report", "failing.json")
    assert (answer.code, answer.err) == (0, "")
    assert "✗ vjp" in answer.out
    assert answer.out.endswith("FAIL  1 of 3 checks, 60 cases, 1.4 s\n")


def test_all_formats_are_written_at_once_and_runs_are_merged(gradverify_: Call, folder: Path) -> None:
    names = {option: folder / f"out.{option}" for option in ("html", "json", "junit", "sarif", "md", "events")}
    options = [word for option, path in names.items() for word in (f"--{option}", str(path))]
    answer = gradverify_("report", "failing.json", "unjudged.json", *options)
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    made = json_.loads(names["json"].read_text())
    assert len(made.ops) == 2
    assert all(path.stat().st_size for path in names.values())


@pytest.mark.parametrize("option", ["--html", "--json", "--junit", "--sarif", "--md", "--events"])
def test_a_dash_is_standard_output(gradverify_: Call, option: str) -> None:
    answer = gradverify_("report", "failing.json", option, "-")
    assert answer.code == 0
    assert "GV199" in answer.out


def test_a_directory_stands_for_the_report_in_it(gradverify_: Call, folder: Path) -> None:
    (folder / "shard").mkdir()
    (folder / "failing.json").rename(folder / "shard" / "report.json")
    assert "GV199" in gradverify_("report", "shard", "passing.json", "--md", "-").out


@pytest.mark.parametrize(
    ("names", "options", "code"),
    [
        (["failing.json"], [], 0),
        (["failing.json"], ["--exit-code"], 1),
        (["passing.json"], ["--exit-code"], 0),
        (["unjudged.json"], ["--exit-code"], 3),
        (["unjudged.json"], ["--exit-code", "--allow-inconclusive"], 0),
        (["passing.json", "failing.json"], ["--exit-code"], 1),
    ],
)
def test_it_exits_as_the_run_did_where_that_is_asked_for(
    gradverify_: Call, names: list[str], options: list[str], code: int
) -> None:
    assert gradverify_("report", *names, *options).code == code


@pytest.mark.parametrize("kind", ["sarif", "json"])
def test_under_a_baseline_only_what_is_new_fails(gradverify_: Call, kind: str) -> None:
    gradverify_("report", "failing.json", f"--{kind}", "known")
    answer = gradverify_("report", "failing.json", "--baseline", "known", "--junit", "-")
    assert answer.code == 0
    assert answer.err.startswith(
        "baseline: 0 new findings, 1 known\n  known  mypkg.ops:FusedLinear vjp[cpu-float64] GV199"
    )
    assert "<failure" not in answer.out
    grown = gradverify_("report", "failing.json", "unjudged.json", "--baseline", "known")
    assert grown.code == 3
    assert "  new    softplus vjp[cpu-float64] GV301" in grown.err
    assert (
        gradverify_("report", "passing.json", "--baseline", "known").err
        == "baseline: 0 new findings, 0 known, 1 of it gone: write it anew\n"
    )
    gradverify_("report", "passing.json", f"--{kind}", "empty")
    assert gradverify_("report", "failing.json", "--baseline", "empty").code == 1


def test_github_gets_annotations_and_its_summary(
    gradverify_: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    (folder / "summary.md").write_text("before\n")
    answer = gradverify_("report", "failing.json", "--github")
    assert answer.out.startswith("::error title=GV199 ")
    assert (folder / "summary.md").read_text().startswith("before\n### gradverify: 1 FAIL")


@pytest.mark.parametrize("named", [True, False])
def test_the_report_of_the_project_is_shown_in_a_browser(
    gradverify_: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    (folder / "pyproject.toml").write_text('[tool.gradverify]\nreport = { dir = "out" }\n')
    (folder / "out").mkdir()
    (folder / "failing.json").rename(folder / "out" / "report.json")
    option = ("--html", "mine.html") if named else ()
    assert gradverify_("report", "--open", *option).code == 0
    (file,) = (Path(unquote(urlsplit(uri).path)) for uri in shown)
    assert (file == folder / "mine.html") is named
    assert "GV199" in file.read_text()


def test_without_times_reports_of_one_seed_are_equal(gradverify_: Call) -> None:
    answer = gradverify_("report", "failing.json", "--no-times", "--json", "-")
    assert json.loads(answer.out)["run"]["duration_s"] == 0.0
    assert all(check["seconds"] == {} for op in json.loads(answer.out)["ops"] for check in op["checks"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.json"], "gone.json: no such file or directory; `gradverify check --report DIR` writes DIR/report.json"),
        (["."], "report.json: no such file or directory"),
        (["bad.json"], "bad.json: not a report of gradverify"),
        (["failing.json", "--json", "-", "--md", "-"], "--json - and --md - would be mixed on standard output"),
        (["failing.json", "--github", "--md", "-"], "--md - and --github would be mixed"),
        (["failing.json", "--junit", "no/where.xml"], "--junit no/where.xml: its directory does not exist"),
        (["failing.json", "--html", "-", "--open"], "--html - and --open contradict each other"),
        (["--md", "-"], "name a report, for example one that `gradverify check --report out` wrote"),
        (["failing.json", "--sarif", "."], "--sarif .: is a directory"),
        (["failing.json", "--baseline", "gone"], "--baseline gone: "),
        (["failing.json", "--baseline", "bad.json"], "--baseline bad.json: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_read_or_written_is_told_before_anything_is(
    gradverify_: Call, folder: Path, arguments: list[str], said: str
) -> None:
    (folder / "bad.json").write_text('{"ops": 3}')
    answer = gradverify_("report", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in " ".join(answer.err.split())


def test_an_empty_run_is_a_run(gradverify_: Call, folder: Path) -> None:
    (folder / "empty.json").write_text(json_.dumps(Run()))
    assert gradverify_("report", "empty.json", "--exit-code").code == 3
