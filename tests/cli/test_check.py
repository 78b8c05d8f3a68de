"""`gradverify check`: what it verifies, what it prints where, and how it ends. The engine is a fake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gradverify.records.verdict import Outcome
from gradverify.reports.json_ import loads
from tests.reports import runs

FAIL = (runs.passed("forward"), runs.VJP_FAIL)
UNSURE = (runs.passed("forward"), runs.UNSURE)
SKIPPED = (runs.NO_CUDA,)
RAISED = (runs.RAISED,)
EXPECTED = (msgspec.structs.replace(runs.VJP_FAIL, outcome=Outcome.SKIP, reason="xfail GV199: #12", xfailed="GV199"),)


@pytest.mark.parametrize(
    ("results", "flags", "code"),
    [
        ((runs.passed("vjp"),), (), 0),
        (FAIL, (), 1),
        (RAISED, (), 1),
        (UNSURE, (), 3),
        (UNSURE, ("--allow-inconclusive",), 0),
        (SKIPPED, (), 3),
        ((), (), 3),
        (EXPECTED, (), 0),
        ((runs.IMPRECISE,), (), 0),
        (FAIL, ("--exit-zero",), 0),
        (UNSURE, ("--exit-zero",), 0),
        ((runs.passed("vjp"),), ("--require", "cuda"), 3),
        ((runs.passed("vjp"),), ("--require", "cpu"), 0),
        ((runs.passed("vjp", device="cuda:0"), runs.passed("vjp")), ("--require", "cuda,cpu"), 0),
        ((*FAIL, runs.UNSURE), ("--require", "cuda"), 1),
    ],
)
def test_the_exit_code_says_what_was_found(results, flags, code, project, engine, gradverify_) -> None:
    engine.results = results
    assert gradverify_("check", "mypkg.ops:Scale", *flags).code == code


def test_an_unusable_target_ends_in_2_and_the_others_still_run(project, engine, gradverify_) -> None:
    answer = gradverify_("check", "mypkg.ops:nope", "scale")
    assert answer.code == 2
    assert "✓ vjp" in answer.out
    assert "ERROR mypkg.ops:nope" in answer.out
    engine.results = FAIL
    assert gradverify_("check", "mypkg.ops:nope", "scale").code == 1


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("mypkg.ops:Scale", ["Scale"]),
        ("mypkg.ops:apply", ["apply"]),
        ("mypkg.ops:layer", ["layer"]),
        ("mypkg.ops:größe", ["größe"]),
        ("specs/scale.py", ["scale", "scale_twice"]),
        ("specs/scale.py::scale_twice", ["scale_twice"]),
        ("specs", ["scale", "scale_twice"]),
        (".", ["scale", "scale_twice"]),
        ("scale", ["scale"]),
        ("ste_quant", ["ste_quant"]),
    ],
)
def test_what_a_target_names(target, names, project, engine, gradverify_) -> None:
    assert gradverify_("check", target).code == 0
    assert engine.calls[0][0] == names


def test_without_targets_every_spec_of_the_project_is_verified(project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text('[tool.gradverify]\nspecs = ["specs/*.py"]\n')
    (project / "src" / "deep").mkdir()
    os.chdir(project / "src" / "deep")
    assert gradverify_("check").code == 0
    assert engine.calls[0][0] == ["scale", "scale_twice"]


def test_specs_may_be_a_package(project, engine, gradverify_) -> None:
    (project / "specs" / "__init__.py").write_text('"""The specs of gradverify\'s users."""\n')
    assert gradverify_("check").code == 0
    assert engine.calls[0][0] == ["scale", "scale_twice"]


def test_a_broken_file_of_a_directory_leaves_the_others(project, engine, gradverify_) -> None:
    (project / "specs" / "broken.py").write_text("import gradverify as gv\n@gv.spec(\n")
    answer = gradverify_("check", "specs")
    assert answer.code == 2
    assert "scale" in engine.calls[0][0]
    assert "specs/broken.py:2: syntax error" in answer.out


def test_a_target_named_twice_is_verified_once(project, engine, gradverify_) -> None:
    gradverify_("check", "specs/scale.py", "scale", "specs")
    assert engine.calls[0][0] == ["scale", "scale_twice"]


def test_shapes_on_the_command_line_describe_a_bare_op(project, engine, gradverify_) -> None:
    answer = gradverify_("check", "mypkg.ops:bare", "--arg", "x=*b k", "--arg", "w=k")
    assert (answer.code, engine.calls[0][0]) == (0, ["bare"])
    assert "x Float[*b k]   w Float[k]" in answer.out


def test_k_keeps_the_specs_with_the_text_in_name_or_target(project, engine, gradverify_) -> None:
    gradverify_("check", "-k", "TWICE")
    assert engine.calls[0][0] == ["scale_twice"]
    answer = gradverify_("check", "-k", "nowhere")
    assert answer.code == 3
    assert "-k 'nowhere' leaves no spec" in answer.err


def test_a_project_without_specs_is_told_what_to_do(project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text("")
    (project / "specs" / "scale.py").unlink()
    answer = gradverify_("check")
    assert answer.code == 3
    assert "No specs: nothing matches specs/*.py, tests/**/*_spec.py" in answer.err
    assert "gradverify check mypkg.ops:MyFunction" in answer.err


def test_json_is_the_whole_run_and_alone_on_standard_output(project, engine, gradverify_) -> None:
    engine.results = FAIL
    engine.during = lambda: (print("from python"), os.system("echo from below"))  # noqa: T201
    answer = gradverify_("check", "scale", "--json")
    run = loads(answer.out)
    assert [r.outcome for r in run.results] == [Outcome.PASS, Outcome.FAIL]
    assert "from python" in answer.err
    assert "from below" in answer.err
    assert gradverify_("check", "scale", "--format", "json").out == answer.out


@pytest.mark.parametrize(
    ("name", "start", "holds"),
    [
        ("junit", "<?xml", "<failure"),
        ("sarif", "{", '"ruleId": "GV199"'),
        ("github", "::error title=GV199 scale", "scale"),
    ],
)
def test_formats_for_other_programs_are_alone_on_standard_output(name, start, holds, project, engine, gradverify_):
    engine.results = FAIL
    engine.during = lambda: print("from python")  # noqa: T201
    answer = gradverify_("check", "scale", "--format", name)
    assert answer.code == 1
    assert answer.out.startswith(start)
    assert holds in answer.out
    assert "from python" not in answer.out
    gradverify_("check", "scale", "--format", name, "--output-file", "result")
    written = (project / "result").read_text()
    assert written.startswith(start)
    assert holds in written


def test_github_has_no_line_for_what_passes_and_gets_its_summary(project, engine, gradverify_, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "summary.md"))
    answer = gradverify_("check", "scale", "--format", "github")
    assert (answer.code, answer.out) == (0, "")
    assert "scale" in (project / "summary.md").read_text()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "nowhere" / "summary.md"))
    answer = gradverify_("check", "scale", "--format", "github")
    assert answer.code == 0
    assert "GITHUB_STEP_SUMMARY=" in answer.err


def test_output_file_takes_the_text_and_leaves_standard_output_empty(project, engine, gradverify_) -> None:
    text = gradverify_("check", "scale").out
    answer = gradverify_("check", "scale", "--output-file", "result.txt")
    assert answer.out == ""
    assert (project / "result.txt").read_text() == text
    gradverify_("check", "scale", "--json", "--output-file", "result.json")
    loads((project / "result.json").read_text())


def test_a_report_is_written_beside_the_text(project, engine, gradverify_) -> None:
    (project / "out").mkdir()
    (project / "out" / "mine.txt").write_text("mine")
    answer = gradverify_("check", "scale", "--report", "out")
    assert "report: out/report.json" in answer.err
    assert loads((project / "out" / "report.json").read_text()).ops[0].spec == "scale"
    assert (project / "out" / "mine.txt").read_text() == "mine"


def test_the_configured_report_is_written_below_the_project(project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text('[tool.gradverify]\nreport = { dir = "r", formats = ["json"] }\n')
    gradverify_("check", "scale", "-q")
    assert (project / "r" / "report.json").is_file()


def test_the_configured_formats_are_written_beside_it(project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text('[tool.gradverify]\nreport = { dir = "r", formats = ["html", "events"] }\n')
    answer = gradverify_("check", "scale")
    assert sorted(path.name for path in (project / "r").iterdir()) == ["events.ndjson", "index.html", "report.json"]
    assert "index.html" in answer.err
    (_, plan, _), *_ = engine.calls
    assert plan.trail


def test_a_file_that_is_not_ours_is_not_replaced_by_a_report(project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text('[tool.gradverify]\nreport = { dir = "site", formats = ["html"] }\n')
    (project / "site").mkdir()
    (project / "site" / "index.html").write_text("mine")
    answer = gradverify_("check", "scale")
    assert (answer.code, engine.calls) == (2, [])
    assert "its index.html was not written by gradverify; name another" in " ".join(answer.err.split())
    assert (project / "site" / "index.html").read_text() == "mine"


@pytest.mark.parametrize("at", [1, 2])
def test_events_are_written_as_they_happen(at, project, engine, gradverify_) -> None:
    engine.breaks = (at, KeyboardInterrupt())
    (project / "run.ndjson").write_text("of an earlier run\n")
    gradverify_("check", "scale", "--events", "run.ndjson")
    lines = [json.loads(line) for line in (project / "run.ndjson").read_text().splitlines()]
    assert [line["property"] for line in lines][:at] == [f"scale::{c}[cpu-float64]" for c in ("vjp", "linear")[:at]]
    assert lines[-1]["title"] == "not covered"


def test_events_do_not_mix_with_the_report_on_standard_output(project, engine, gradverify_) -> None:
    answer = gradverify_("check", "scale", "--events", "-")
    assert answer.code == 2
    assert "--events -: standard output has the report; name a file" in answer.err
    assert engine.calls == []


@pytest.mark.parametrize("at", [0, 1])
def test_ctrl_c_keeps_and_prints_what_was_verified(at, project, engine, gradverify_) -> None:
    engine.breaks = (at, KeyboardInterrupt())
    answer = gradverify_("check", "scale", "--report", "out")
    run = loads((project / "out" / "report.json").read_text())
    assert answer.code == 130
    assert (run.run.interrupted, len(run.results)) == (True, at)
    assert answer.out.splitlines()[-1].startswith("INTERRUPTED")


def test_ctrl_c_while_a_module_is_imported_ends_in_130_with_a_report(project, engine, gradverify_) -> None:
    (project / "broken.py").write_text("raise KeyboardInterrupt")
    answer = gradverify_("check", "broken:x", "--json", "--report", "out")
    assert answer.code == 130
    assert loads(answer.out).run.interrupted
    assert (project / "out" / "report.json").is_file()


def test_a_bug_of_ours_ends_in_4_with_a_block_to_report_and_what_was_verified(project, engine, gradverify_) -> None:
    engine.breaks = (1, ZeroDivisionError("inside"))
    answer = gradverify_("check", "scale", "--json")
    assert answer.code == 4
    assert len(loads(answer.out).results) == 1
    for part in (
        "gradverify has a bug: ZeroDivisionError: inside",
        "says nothing about your op",
        "versions gradverify",
    ):
        assert part in answer.err
    assert "Traceback" in answer.err


def test_quiet_prints_one_line_a_failure_and_nothing_else(project, engine, gradverify_) -> None:
    assert gradverify_("check", "scale", "-q").out == ""
    engine.results = FAIL
    answer = gradverify_("check", "scale", "-q")
    assert answer.out.startswith("FAIL scale vjp[cpu-float64] GV199 wrong gradient")
    assert (answer.out.count("\n"), answer.err) == (1, "")


def test_many_specs_make_a_table(project, engine, gradverify_) -> None:
    body = "\n".join(f"@gv.spec(lambda x: x)\ndef s{i}(x: Annotated[Tensor, 'n']): return x" for i in range(5))
    head = "from typing import Annotated\nfrom torch import Tensor\nimport gradverify as gv\n"
    (project / "specs" / "many.py").write_text(head + body)
    lines = gradverify_("check", "specs/many.py").out.splitlines()
    assert lines[1].split()[0] == "OP"
    assert [line.split()[0] for line in lines[2:7]] == ["s0", "s1", "s2", "s3", "s4"]


def test_the_stream_and_the_rendered_run_are_one_text(project, engine, gradverify_) -> None:
    engine.by_name = {"scale": FAIL, "scale_twice": UNSURE}
    streamed = gradverify_("check", "specs", "--format", "full").out
    gradverify_("check", "specs", "--format", "full", "--output-file", "t.txt")
    assert (project / "t.txt").read_text() == streamed


@pytest.mark.parametrize(
    ("variables", "colour"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_follow_the_environment(variables, colour, project, engine, gradverify_, monkeypatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in gradverify_("check", "scale").out) is colour
    assert "\x1b[" not in gradverify_("check", "scale", "--no-color").out


def test_a_reader_that_goes_away_ends_the_run_quietly(project, engine, gradverify_, monkeypatch) -> None:
    class Closed:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None: ...
        def isatty(self) -> bool:
            return False

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr(sys, "stdout", Closed())
    answer = gradverify_("check", "scale", "--report", "out")
    assert answer.code == 130
    assert "Traceback" not in answer.err
    assert loads((project / "out" / "report.json").read_text()).run.interrupted


def test_head_sees_no_complaint(project) -> None:
    """With the real pipe, in a process of its own."""
    command = f"{sys.executable} -m gradverify list | true; echo ${{PIPESTATUS[0]}}"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_the_last_results_are_kept_spec_by_spec(project, engine, gradverify_) -> None:
    engine.results = FAIL
    gradverify_("check", "scale")
    engine.results = (runs.passed("vjp"),)
    gradverify_("check", "scale_twice")
    kept = json.loads((project / ".gradverify" / "last.json").read_text())["specs"]
    assert {n: (k["outcome"], k["code"]) for n, k in kept.items()} == {
        "scale": ("FAIL", "GV199"),
        "scale_twice": ("PASS", ""),
    }
    assert (project / ".gradverify" / ".gitignore").read_text() == "*\n"
    listed = gradverify_("list").out.splitlines()
    assert listed[1].endswith("1/2     FAIL now GV199")
    assert listed[2].endswith("1/1     PASS now")


def test_results_that_cannot_be_kept_are_said_in_one_line(project, engine, gradverify_) -> None:
    (project / ".gradverify").write_text("a file")
    answer = gradverify_("check", "scale")
    assert answer.code == 0
    assert answer.err.count("\n") == 1
    assert "the result was not kept for `gradverify list`" in answer.err


def test_damaged_last_results_are_replaced(project, engine, gradverify_) -> None:
    (project / ".gradverify").mkdir()
    (project / ".gradverify" / "last.json").write_text("{")
    assert gradverify_("check", "scale").err == ""
    assert "PASS now" in gradverify_("list").out


def test_an_override_table_governs_the_specs_that_it_matches(project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.gradverify]\nspecs = ["specs/*.py"]\n'
        '[[tool.gradverify.override]]\nmatch = "*_twice"\nexamples = 7\ndigits = 9\nchecks = { edges = false }\n'
    )
    answer = gradverify_("check")
    (first, plan, policy), (second, other, stricter) = engine.calls
    assert (first, plan.examples, plan.skip, policy.digits) == (["scale"], 20, (), None)
    assert (second, other.examples, other.skip, stricter.digits) == (["scale_twice"], 7, ("edges",), 9.0)
    assert answer.out.splitlines()[-1] == "PASS  4 checks, 80 cases, 2.9 s"
    engine.calls.clear()
    gradverify_("check", "--examples", "3", "--checks", "vjp,edges")
    assert [c[1].examples for c in engine.calls] == [3, 3]
    assert [c[1].skip for c in engine.calls] == [(), ()]
