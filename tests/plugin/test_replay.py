"""Failures that were kept, tried again by pytest; and devices without which a run is not to pass."""

from __future__ import annotations

import json

import pytest

from tests.plugin.conftest import HEAD, OPS, Answers, Project, spec

OPTIONS = ("--gv-checks", "vjp,linear", "--gv-examples", "2")
MENDED = OPS.replace("2 * (g * x)", "(g * x)")


@pytest.fixture
def kept(project: Project) -> tuple[Project, str]:
    """A project whose one failure is kept, and the id of that."""
    project.write("test_ops.py", HEAD + spec("scale") + spec("wrong", "Wrong") + "def test_plain(): ...\n")
    project.run(*OPTIONS, "--gv-report", "out")
    (found,) = (project.path / ".gradverify" / "failures").iterdir()
    return project, found.stem


def test_a_failure_is_tried_again_alone_and_on_the_case_that_was_kept(kept: tuple[Project, str]) -> None:
    project, name = kept
    done = project.run("--gv-replay", name[:4], "--gv-report", "again")
    assert {k: v for k, v in done.parseoutcomes().items() if k != "deselected"} == {"failed": 1}
    done.stdout.fnmatch_lines(["*_ wrong::vjp[[]cpu-float64] _*", "*✗ vjp *GV1?? wrong *", f"*replay {name}*"])
    (op,) = json.loads((project.path / "again" / "report.json").read_text())["ops"]
    assert [(c["claim"], c["cases"]["run"]) for c in op["checks"]] == [("vjp", 1)]


def test_a_failure_that_is_mended_passes_and_is_kept_for_the_command_line(kept: tuple[Project, str]) -> None:
    project, name = kept
    text = (project.path / "test_ops.py").read_text().replace("from ops import", "from mended import")
    project.write("mended.py", MENDED)
    project.write("test_ops.py", text)
    assert project.run("--gv-replay", name).parseoutcomes()["passed"] == 1
    assert (project.path / ".gradverify" / "failures" / f"{name}.json").exists()


def test_what_is_tried_again_leaves_the_report_of_the_whole_run_and_needs_no_device(kept: tuple[Project, str]) -> None:
    project, name = kept
    project.write("pyproject.toml", '[tool.gradverify]\nreport = { dir = "out" }\nrequire = ["mps"]\n')
    before = (project.path / "out" / "report.json").read_bytes()
    done = project.run("--gv-replay", name)
    assert (project.path / "out" / "report.json").read_bytes() == before
    assert "required device" not in done.stdout.str()


def test_processes_of_xdist_replay_too(kept: tuple[Project, str]) -> None:
    project, name = kept
    done = project.start("--gv-replay", name, "-n2", plugins=("xdist",))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*✗ vjp *GV1?? wrong *"])


def test_an_unknown_failure_and_one_of_another_file_end_the_run(kept: tuple[Project, str]) -> None:
    project, name = kept
    done = project.run("--gv-replay", "zzzzzz")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*zzzzzz: no failure of this id is kept*those in*are: {name}.*"])
    project.write("test_other.py", HEAD + spec("wrong", "Wrong"))
    done = project.run("--gv-replay", name, "test_other.py")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*{name} is vjp[[]cpu-float64] of test_ops.py::wrong, and this run has no such item*"])


def test_a_failure_of_the_command_line_is_replayed_by_the_item_of_its_spec(project: Project) -> None:
    from gradverify.cli.main import run as command_line

    project.write("test_ops.py", HEAD + spec("wrong", "Wrong"))
    command_line(["check", "test_ops.py", "--checks", "vjp", "--examples", "2", "-q"])
    (found,) = (project.path / ".gradverify" / "failures").iterdir()
    project.run("--gv-replay", str(found), "test_ops.py").stdout.fnmatch_lines(["*✗ vjp *GV1?? wrong *"])


@pytest.mark.parametrize("how", ["option", "table", "environment"])
def test_a_required_device_on_which_nothing_ran_fails_the_run(
    project: Project, answers: Answers, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    project.write("test_ops.py", HEAD + spec("scale"))
    project.write("test_plain.py", "def test_plain(): ...\n")
    if how == "table":
        project.write("pyproject.toml", '[tool.gradverify]\nrequire = ["mps"]\n')
    if how == "environment":
        monkeypatch.setenv("GRADVERIFY_REQUIRE", "mps")
    option = ("--gv-require", "mps") if how == "option" else ()
    done = project.run("--gv-checks", "vjp", *option)
    done.assert_outcomes(passed=2)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["required device absent: nothing ran on mps"])
    assert project.run("--gv-checks", "vjp", *option, "test_plain.py").ret == pytest.ExitCode.OK


def test_a_required_device_that_is_present_fails_nothing(project: Project, answers: Answers) -> None:
    project.write("test_ops.py", HEAD + spec("scale"))
    done = project.run("--gv-checks", "vjp", "--gv-require", "cpu")
    assert done.ret == pytest.ExitCode.OK
    assert "required device" not in done.stdout.str()
