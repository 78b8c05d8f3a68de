"""What becomes of each outcome, and what a failure says."""

from __future__ import annotations

import re

import pytest

from gradverify.cli.main import run as command_line
from gradverify.records.verdict import Outcome
from tests.plugin.conftest import HEAD, Answers, Project, spec
from tests.reports.runs import IMPRECISE, RAISED, UNSURE, VJP_FAIL, passed

ONE = ("--gv-checks", "vjp")
SCALE = "GV101 wrong scale: backward returns 2 x the true gradient of `w`"


def test_a_failure_prints_the_block_of_the_command_line_and_nothing_else(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.write("test_ops.py", HEAD + spec("wrong", "Wrong"))
    done = project.run(*ONE, "--gv-examples", "2")
    done.assert_outcomes(failed=1)
    shown = done.stdout.str().partition("wrong::vjp[cpu-float64] ___")[2].partition("\n")[2].partition("\n====")[0]
    capfd.readouterr()
    assert command_line(["check", "test_ops.py::wrong", "--checks", "vjp", "--examples", "2"]) == 1
    printed = capfd.readouterr().out
    assert shown
    assert f"\n{shown}\n" in printed
    assert shown.startswith(f"  ✗ vjp              {SCALE}\n    --> ops.py:19:")
    done.stdout.fnmatch_lines([f"FAILED test_ops.py::wrong::vjp[[]cpu-float64] - {SCALE[:20]}*"])


def test_only_a_long_traceback_says_where_it_was_raised(project: Project, answers: Answers) -> None:
    answers.of["vjp"] = VJP_FAIL
    project.write("test_ops.py", HEAD + spec("scale"))
    assert "conclude(" in project.run(*ONE, "--tb=long").stdout.str()
    for style in ("auto", "short", "native"):
        assert "conclude(" not in project.run(*ONE, f"--tb={style}").stdout.str()
    project.run(*ONE, "--tb=line").stdout.fnmatch_lines(["*test_ops.py:*: GV199 wrong gradient: backward() returns*"])


@pytest.mark.parametrize(
    ("answer", "options", "outcomes"),
    [
        (passed("vjp"), (), {"passed": 1}),
        (IMPRECISE, (), {"passed": 1}),
        (VJP_FAIL, (), {"failed": 1}),
        (RAISED, (), {"failed": 1}),
        (passed("vjp", outcome=Outcome.SKIP, reason="the op has no jvp"), (), {"skipped": 1}),
        (
            passed("vjp", outcome=Outcome.SKIP, code="GV199", xfailed="GV199", reason="xfail GV199: #12"),
            (),
            {"xfailed": 1},
        ),
        (UNSURE, (), {"failed": 1}),
        (UNSURE, ("--gv-allow-inconclusive",), {"skipped": 1, "warnings": 1}),
        (UNSURE, ("--gv-allow-inconclusive", "-W", "error"), {"skipped": 1}),
    ],
    ids=["pass", "imprecise", "fail", "raises", "skip", "xfail", "inconclusive", "allowed", "allowed-W-error"],
)
def test_an_outcome_in_the_words_of_pytest(
    project: Project, answers: Answers, answer: object, options: tuple[str, ...], outcomes: dict[str, int]
) -> None:
    answers.of["vjp"] = answer
    project.write("test_ops.py", HEAD + spec("scale"))
    project.run(*ONE, *options).assert_outcomes(**outcomes)


def test_what_could_not_be_judged_is_told_though_it_is_allowed(project: Project, answers: Answers) -> None:
    answers.of["vjp"] = UNSURE
    project.write("test_ops.py", HEAD + spec("scale", above="@pytest.mark.gradverify(allow_inconclusive=True)"))
    done = project.run(*ONE, "-rs")
    done.stdout.fnmatch_lines(["*InconclusiveWarning: vjp: GV301 forward jumps*"])
    done.stdout.fnmatch_lines(["SKIPPED*test_ops.py:*: INCONCLUSIVE GV301 forward jumps*"])
    done.stdout.fnmatch_lines(["INCONCLUSIVE scale vjp*"])


def test_an_expected_failure_by_code_that_no_claim_shows_any_more_fails(project: Project) -> None:
    project.write(
        "test_ops.py",
        HEAD + spec("wrong", "Wrong", 'xfail={"GV199": "#12"}') + spec("right", options='xfail={"GV2xx": "#13"}'),
    )
    options = ("--gv-checks", "vjp,linear", "--gv-examples", "2")
    done = project.run(*options)
    done.assert_outcomes(passed=1 + 1 + 2, xfailed=1, failed=1)
    done.stdout.fnmatch_lines(["FAILED test_ops.py::right::xfail[[]GV2xx] - xfail 'GV2xx' (#13) passes: remove it"])
    alone = project.run(*options, "-k", "xfail")
    alone.assert_outcomes(passed=1, failed=1)


def test_an_expected_failure_is_not_called_stale_where_nothing_was_tried_that_could_show_it(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("right", options='xfail={"GV203": "#15", "GV1xx": "#16"}'))
    done = project.run("--gv-checks", "linear", "--gv-examples", "2", "-rs")
    done.assert_outcomes(passed=1, skipped=2)
    done.stdout.fnmatch_lines(["*xfail 'GV203': nothing was judged that could show it"])
    project.run("--gv-checks", "layout,vjp", "--gv-examples", "2").assert_outcomes(passed=2, failed=2)


def test_an_expected_failure_by_claim_that_passes_fails(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("right", options='xfail={"vjp": "#14"}'))
    done = project.run("--gv-checks", "vjp", "--gv-examples", "2")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*xfail 'vjp' (#14) passes: remove it*"])


def test_warnings_that_the_op_gives_change_no_verdict(project: Project) -> None:
    """An op that warns is no op that raises, whatever the filters of the project make of its tests."""
    loud = "class Loud(Scale):\n    @staticmethod\n    def forward(ctx, x, w):\n"
    loud += "        warnings.warn('deprecated')\n        return Scale.forward(ctx, x, w)\n"
    project.write("test_ops.py", HEAD + "import warnings\n" + loud + spec("loud", "Loud"))
    project.run(*ONE, "--gv-examples", "2", "-W", "error").assert_outcomes(passed=1)


def test_the_section_has_a_row_an_op_what_is_wrong_and_what_was_not_covered(project: Project, answers: Answers) -> None:
    answers.of |= {"vjp": VJP_FAIL, "jvp": passed("jvp", outcome=Outcome.SKIP, reason="the op has no jvp")}
    project.write("test_ops.py", HEAD + spec("scale") + "def test_plain(): ...\n")
    done = project.run("--gv-checks", "vjp,linear,jvp")
    section = done.stdout.str().partition("= gradverify =")[2]
    assert re.search(r"^scale +✗ vjp GV199  ✓ 1  - 1$", section, re.MULTILINE)
    assert re.search(
        r"^FAIL scale vjp\[cpu-float64\] GV199 wrong gradient: backward\(\) returns", section, re.MULTILINE
    )
    assert "  - jvp: the op has no jvp" in section
    assert re.search(r"^FAIL  1 of 2 checks, 40 cases, ", section, re.MULTILINE)
    assert (
        "gradverify"
        not in project.run("--gv-checks", "vjp", "-qq").stdout.str().partition("FAILED")[0].partition("GV199")[0]
    )


def test_without_a_spec_there_is_no_section(project: Project) -> None:
    project.write("test_ops.py", "def test_plain(): ...\n")
    done = project.run()
    done.assert_outcomes(passed=1)
    assert "gradverify" not in done.stdout.str()


def test_the_times_of_items_are_those_of_pytest(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("scale"))
    done = project.run(*ONE, "--gv-examples", "2", "--durations=1", "-vv")
    done.stdout.fnmatch_lines(["*s call * test_ops.py::scale::vjp[[]cpu-float64]"])
