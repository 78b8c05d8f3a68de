"""What the README tells a newcomer to write and to type works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
QUICK_START = README.partition("## Quick start")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    """The fenced blocks of the quick start in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", QUICK_START, re.DOTALL | re.MULTILINE)


COMMANDS = [line[2:].partition("  #")[0].strip() for block in blocks("console") for line in block.splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that holds what the quick start writes; the first line of each block names its file."""
    for block in blocks("python"):
        path = tmp_path / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
    (tmp_path / "pyproject.toml").write_text("".join(blocks("toml")))
    (tmp_path / "pytest.ini").write_text("".join(blocks("ini")))
    return tmp_path


def test_the_quick_start_names_every_command() -> None:
    assert {"check", "list", "show", "specs"} <= {command.split()[1] for command in COMMANDS}


def run(command: str, project: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    return subprocess.run(["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_quick_start_succeeds(command: str, project: Path) -> None:
    if command.startswith("gradverify report out"):  # it reads what the first command of its block writes
        assert "gradverify check --report out" in COMMANDS
        made = run("gradverify check specs/scale.py --checks linear --examples 2 --report out", project)
        assert made.returncode == 0, made.stdout + made.stderr
    done = run(command, project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_no_other_command() -> None:
    told = subprocess.run([sys.executable, "-m", "gradverify", "--help"], capture_output=True, text=True, check=True)
    named = set(re.findall(r"^\$ gradverify ([a-z]+)|`gradverify ([a-z]+)", README, re.MULTILINE))
    assert named
    assert {name for pair in named for name in pair if name not in told.stdout} == set()


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


SCREEN = README.partition("<!-- screen:failing -->")[2].partition("<!-- /screen -->")[0]


def settled(text: str) -> list[str]:
    """The report's lines without what differs from machine to machine: versions, devices, seconds."""
    lines = [line for line in text.splitlines() if not line.startswith(("gradverify ", "  - cuda"))]
    return [re.sub(r", [0-9.]+ s$", "", line) for line in lines]


def test_the_first_screen_is_what_the_command_prints(tmp_path: Path) -> None:
    code, shown = (re.search(rf"```{language}\n(.*?)```", SCREEN, re.DOTALL)[1] for language in ("python", "console"))
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "norm.py").write_text(code)
    command, _, report = shown.partition("\n")
    arguments = command.split()[2:]
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    done = subprocess.run(
        [sys.executable, "-m", "gradverify", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert settled(done.stdout) == settled(report), done.stderr
    assert done.returncode == 1
