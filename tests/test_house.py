"""The scripts of ci/ set themselves up anywhere, and what ci/check relies on can go red."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path for path in [*ROOT.glob("ci/**/*"), ROOT / ".ci/run"] if path.is_file() and path.suffix == "")

# Tells its version, makes a "venv" that is a copy of itself, and writes down whatever else it is told to run.
INTERPRETER = """#!/bin/bash
case "$1 $2" in
  "-c "*) echo {version} ;;
  "-m venv")
    echo "venv {version}" >>"$CALLS"
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "VIRTUAL_ENV=$3" >"$3/bin/activate" ;;
  "-m pip")
    [ "$3" = install ] || exit 0
    echo "install" >>"$CALLS"
    sleep "${{PIP_TAKES:-0}}"
    [ -z "${{PIP_SAYS:-}}" ] || {{ echo "$PIP_SAYS" >&2; exit 1; }} ;;
  *) echo "{version}: $*" ;;
esac
"""
# What the scripts call beside an interpreter, and what the interpreter above calls.
TOOLS = ("bash", "cat", "dirname", "env", "flock", "grep", "head", "readlink", "rm", "sed", "tail")
TOOLS += ("cp", "mkdir", "sleep")


class House:
    """A copy of the scripts in a folder of its own, on a PATH that holds only the interpreters it was given."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.bin = folder / "bin"
        self.log = folder / "calls"
        self.bin.mkdir()
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        shutil.copytree(ROOT / "ci", self.root / "ci", ignore=shutil.ignore_patterns("bench"))
        shutil.copy(ROOT / "pyproject.toml", self.root)

    def interpreter(self, name: str, version: str) -> None:
        path = self.bin / name
        path.write_text(INTERPRETER.format(version=version))
        path.chmod(0o755)

    def start(self, *command: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        arguments = [command[0] if command else str(self.root / "ci/test"), *command[1:]]
        env = {"PATH": str(self.bin), "CALLS": str(self.log), **env}
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, cwd=cwd or "/", env=env, stdout=pipe, stderr=pipe, text=True)

    def run(self, *command: str, cwd: Path | None = None, **env: str) -> tuple[int, str, str]:
        process = self.start(*command, cwd=cwd, **env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.interpreter("python3", "3.11")
    return house


SET_UP = ["venv 3.11", "install", "install"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_and_parses(script: Path) -> None:
    assert os.access(script, os.X_OK)
    first = script.read_text().splitlines()[0]
    if "bash" in first:
        subprocess.run(["bash", "-n", script], check=True)


def test_the_two_commands_are_there() -> None:
    assert {"verify", "test", "check", "run"} <= {path.name for path in SCRIPTS}


def test_the_first_run_sets_up_and_the_second_reuses(house: House) -> None:
    code, out, err = house.run(str(house.root / "ci/test"), "-k", "a b")
    assert (code, err) == (0, "test: setting up .venv with Python 3.11 (first time: a few minutes)\n")
    assert re.fullmatch(r"3\.11: -m pytest .*-k a b\n", out)
    assert house.calls() == SET_UP
    assert house.run()[2] == ""
    assert house.calls() == SET_UP


def test_a_script_works_through_a_link_from_another_directory(house: House, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(house.root / "ci/verify")
    code, out, _ = house.run(str(link), "--json", cwd=tmp_path)
    assert code == 0
    assert re.fullmatch(r"3\.11: -m gradverify check .*--json\n", out)
    assert (house.root / ".venv/ready").exists()


def test_a_relative_interpreter_is_that_of_the_callers_directory(house: House, tmp_path: Path) -> None:
    house.interpreter("mine", "3.12")
    code, out, _ = house.run(PYTHON="bin/mine", cwd=tmp_path)
    assert (code, out[:5]) == (0, "3.12:")


def test_a_changed_dependency_is_installed_and_a_changed_lint_rule_is_not(house: House) -> None:
    house.run()
    project = house.root / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 120", "line-length = 121"))
    assert house.run()[2] == ""
    project.write_text(project.read_text().replace('"click>=', '"click>8,>='))
    assert house.run()[2] == "test: updating .venv\n"
    assert house.calls() == [*SET_UP, "install", "install"]


def test_another_interpreter_remakes_the_venv_and_none_named_keeps_it(house: House) -> None:
    house.run()
    house.interpreter("python3.12", "3.12")
    code, out, err = house.run(PYTHON="python3.12")
    assert (code, out[:5]) == (0, "3.12:")
    assert err == "test: remaking .venv with Python 3.12, it had 3.11 (a few minutes)\n"
    code, out, err = house.run()
    assert (code, out[:5], err) == (0, "3.12:", "")


def test_a_clone_that_was_moved_is_set_up_again(house: House, tmp_path: Path) -> None:
    house.run()
    house.root = house.root.rename(tmp_path / "moved")
    assert house.run()[0] == 0
    assert house.calls() == SET_UP * 2


def test_a_newer_python3_is_passed_over_for_one_that_fits(house: House) -> None:
    house.interpreter("python3", "3.19")
    house.interpreter("python3.10", "3.10")
    code, out, _ = house.run()
    assert (code, out[:5]) == (0, "3.10:")


@pytest.mark.parametrize(
    ("versions", "named", "sentence"),
    [
        ({}, None, "no Python of 3.10 to 3.14 on PATH; install one, or name it: PYTHON=/path/to/python test"),
        ({"python3": "3.8"}, None, "no Python of 3.10 to 3.14 on PATH (python3 is 3.8); install one, or name it"),
        ({"python3": "3.11"}, "nopy", "PYTHON=nopy is not found; name a CPython of 3.10 to 3.14."),
        ({"old": "2.7"}, "old", "PYTHON=old is Python 2.7; gradverify needs 3.10 to 3.14."),
        ({"new": "3.15"}, "new", "PYTHON=new is Python 3.15; gradverify needs 3.10 to 3.14."),
        ({}, "cat", "PYTHON=cat does not run as a Python"),
    ],
)
def test_no_interpreter_that_fits_is_one_sentence(
    tmp_path: Path, versions: dict[str, str], named: str | None, sentence: str
) -> None:
    house = House(tmp_path)
    for name, version in versions.items():
        house.interpreter(name, version)
    code, out, err = house.run(**({"PYTHON": named} if named else {}))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"test: {sentence}")
    assert not (house.root / ".venv").exists()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("WARNING: Retrying: NewConnectionError('Failed to establish')", "cannot reach the package index; connect"),
        ("ERROR: No matching distribution found for pip>=25.1", "cannot reach the package index; connect"),
        (
            "  ERROR: No matching distribution found for x\nhint: see above",
            "ERROR: No matching distribution found for x",
        ),
    ],
)
def test_what_pip_cannot_do_is_one_sentence_and_the_next_run_tries_again(
    house: House, said: str, sentence: str
) -> None:
    code, out, err = house.run(PIP_SAYS=said)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert sentence in err.splitlines()[1]
    code, out, err = house.run()
    assert (code, out[:5], err) == (0, "3.11:", "test: updating .venv\n")


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock two scripts are not kept apart")
def test_two_scripts_at_the_same_time_set_up_once(house: House) -> None:
    both = [house.start(PIP_TAKES="0.3") for _ in range(2)]
    for process in both:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out[:5]) == (0, "3.11:")
    assert house.calls() == SET_UP


def test_an_unknown_argument_of_check_is_one_sentence(house: House) -> None:
    code, _, err = house.run(str(house.root / "ci/check"), "--fxi")
    assert code == 2
    assert err.splitlines()[-1] == "check: unknown argument: --fxi; the only one is --fix."


def files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# A folder in which people and build machines keep their work; system folders such as /usr are everybody's.
PRIVATE_PATH = re.compile(r"(?<![\w.~:/-])/(?:home|root|Users|work|workspace|mnt|opt|tmp)/\w")


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if PRIVATE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["home/me", "work/main", "tmp/x"])
def test_a_private_path_would_be_found(folder: str) -> None:
    assert PRIVATE_PATH.search(f"see /{folder}")
    assert not PRIVATE_PATH.search(f"see tests/{folder}")


def layers(tree: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([tool, "--no-cache", "--no-logo"], cwd=tree, capture_output=True, text=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "gradverify", tmp_path / "gradverify", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layers_hold(tree: Path) -> None:
    done = layers(tree)
    assert done.returncode == 0, done.stdout


def test_an_upward_import_breaks_the_layers(tree: Path) -> None:
    with (tree / "gradverify/records/policy.py").open("a") as module:
        module.write("\nimport gradverify.engine\n")
    done = layers(tree)
    assert done.returncode == 1
    assert "gradverify.records.policy -> gradverify.engine" in done.stdout


def test_a_module_without_a_layer_breaks_the_layers(tree: Path) -> None:
    (tree / "gradverify/drawer.py").write_text('"""Nowhere."""\n')
    done = layers(tree)
    assert done.returncode == 1
    assert "drawer" in done.stdout


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("try:\n    f()\nexcept* ValueError:\n    g()\n", "invalid-syntax"),
        ("def first[T](x: list[T]) -> T:\n    return x[0]\n", "invalid-syntax"),
        ("import random\n", "TID251"),
        ("from . import errors\n", "TID252"),
    ],
)
def test_lint_refuses_what_python_3_10_or_the_house_does_not_take(source: str, rule: str) -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--output-format",
        "concise",
        "--stdin-filename",
        "gradverify/x.py",
        "-",
    ]
    done = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True)
    assert done.returncode == 1
    assert rule in done.stdout
