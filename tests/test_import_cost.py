"""Importing gradverify costs next to nothing: no torch, no Hypothesis, nothing that a pytest run would pay for."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

import pytest

HEAVY = {"torch", "numpy", "hypothesis", "pytest", "click", "rich", "msgspec", "jinja2", "triton"}


def heavy_modules_after(statement: str) -> set[str]:
    """What of HEAVY a fresh interpreter has loaded after the statement."""
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stdout.rpartition("loaded ")[2].split())


def command(*arguments: str) -> str:
    return f"from gradverify.cli.main import main; sys.argv = {['gradverify', *arguments]}; main()"


def test_importing_gradverify_loads_nothing_heavy() -> None:
    assert heavy_modules_after("import gradverify") == set()


def test_the_check_sees_a_heavy_module() -> None:
    assert heavy_modules_after("import gradverify, hypothesis") == {"hypothesis"}


def test_a_public_name_loads_only_its_own_module() -> None:
    assert heavy_modules_after("import gradverify; gradverify.Plan") == {"msgspec"}
    assert "torch" not in heavy_modules_after("from gradverify import Outcome, Plan, Policy, Run, SpecError")


@pytest.mark.parametrize(
    "module", ["records.case", "records.spec", "records.run", "judge", "reports.console", "reports.sarif", "config"]
)
def test_records_judge_and_reports_do_not_load_torch(module: str) -> None:
    """The layers let them name torch's types in annotations, which load nothing."""
    assert "torch" not in heavy_modules_after(f"import gradverify.{module}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("check", "--help"),
        ("report", "--help"),
        ("report", "gone.json"),
        ("list",),
        ("explain", "GV104"),
        ("chekc",),
        ("check", "--no-such-option"),
    ],
    ids=" ".join,
)
def test_help_version_list_and_errors_of_usage_do_not_load_torch(arguments: tuple[str, ...]) -> None:
    loaded = heavy_modules_after(command(*arguments))
    assert "click" in loaded
    assert "torch" not in loaded


def test_importing_gradverify_takes_no_time() -> None:
    """A few ms here; the limit only has to be far below the second that torch takes."""
    program = "import sys; before = set(sys.modules); import gradverify; print(len(set(sys.modules) - before))"
    seconds, added = [], 0
    for _ in range(3):
        start = perf_counter()
        added = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        seconds.append(perf_counter() - start)
    assert added < 100
    assert min(seconds) < 0.5
