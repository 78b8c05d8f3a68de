"""What is ready to be copied into a user's CI: it parses, and its commands do what they are there for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

TEMPLATES = Path(__file__).resolve().parents[1] / "ci" / "templates"

OPS = """
import torch

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return {factor} * ctx.saved_tensors[0] * g
"""
SPEC = """
from typing import Annotated
from torch import Tensor
import gradverify as gv
from ops import Square

@gv.spec(Square)
def square(x: Annotated[Tensor, "n"]) -> Tensor: ...
"""


def parsed(text: str) -> Any:
    """As much of YAML as the templates use: mappings, lists, plain and quoted words, `[a, b]`, `|` and `>-`."""
    lines = [(len(x) - len(x.lstrip()), x.strip()) for x in text.splitlines() if x.strip() and x.strip()[0] != "#"]
    value, rest = _block(lines, 0)
    assert rest == [], f"cannot be parsed from {rest[0]} on"
    return value


Lines = list[tuple[int, str]]


def _block(lines: Lines, least: int) -> tuple[Any, Lines]:
    """The value that is indented by at least so much."""
    if not lines or lines[0][0] < least:
        return None, lines
    indent, first = lines[0]
    made: Any = [] if first.startswith("- ") else {}
    while lines and lines[0][0] == indent and lines[0][1].startswith("- ") is isinstance(made, list):
        word = lines[0][1]
        if isinstance(made, list):
            inner = word[2:]
            nested = re.match(r"[\w-]+:( |$)", inner)
            head = [(indent + 2, inner), *lines[1:]]
            value, lines = _block(head, indent + 2) if nested else (_word(inner), lines[1:])
            made.append(value)
        else:
            key, colon, inner = word.partition(":")
            assert colon, f"no key in {word!r}"
            assert inner == "" or inner.startswith(" "), f"no space after the colon of {word!r}"
            assert key not in made, f"{key!r} twice"
            made[key], lines = _value(inner.strip(), lines[1:], indent)
    return made, lines


def _value(inner: str, lines: Lines, indent: int) -> tuple[Any, Lines]:
    if inner in ("|", ">-"):
        text = []
        while lines and lines[0][0] > indent:
            text.append(lines.pop(0)[1])
        return ("\n" if inner == "|" else " ").join(text), lines
    return (_word(inner), lines) if inner else _block(lines, indent + 1)


def _word(text: str) -> Any:
    if text.startswith("["):
        return [_word(part.strip()) for part in text.removeprefix("[").removesuffix("]").split(",")]
    if text.startswith('"'):
        return json.loads(text)
    assert not re.search(r": | #|^[&*!%@`{]", text), f"{text!r} would have to be quoted"
    return {"true": True, "false": False}.get(text, int(text) if text.isdecimal() else text)


def template(name: str) -> Any:
    return parsed((TEMPLATES / name).read_text(encoding="utf-8"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "square.py").write_text(SPEC)
    (tmp_path / "ops.py").write_text(OPS.format(factor=3))
    return tmp_path


def run(command: str, project: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command of a template, with few cases, as the shell of a runner would run it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    few = {"GRADVERIFY_CHECKS": "vjp,linear", "GRADVERIFY_EXAMPLES": "3"}
    environment = {**os.environ, "PATH": path, "CI": "true", **few, **more}
    return subprocess.run(["bash", "-ec", command], cwd=project, env=environment, capture_output=True, text=True)


def steps() -> dict[str, str]:
    return {
        step["name"]: step["run"] for step in template("github.yml")["jobs"]["gradverify"]["steps"] if "run" in step
    }


def test_every_template_is_tested_here() -> None:
    assert {path.name for path in TEMPLATES.iterdir()} == {"github.yml", "gitlab.yml", "pre-commit.yaml"}


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a:1", "a:\n - b\n  c", "word", "a: b: c"])
def test_the_reader_refuses_what_is_no_yaml(text: str) -> None:
    with pytest.raises(AssertionError):
        parsed(text)


def test_github_verifies_and_reports_though_it_fails(project: Path) -> None:
    workflow = template("github.yml")
    assert workflow["permissions"] == {"contents": "read", "security-events": "write"}
    assert list(steps()) == ["Install", "Verify", "Report"]
    always = [step for step in workflow["jobs"]["gradverify"]["steps"] if str(step.get("if")).startswith("always()")]
    assert len(always) == 3
    assert run(steps()["Verify"], project).returncode == 1
    done = run(steps()["Report"], project, GITHUB_STEP_SUMMARY=str(project / "summary.md"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("::error title=GV101 square vjp[cpu-float64],file=ops.py,line=12,")
    assert (project / "summary.md").read_text().startswith("### gradverify: 1 FAIL")
    scanned = next(s["with"]["sarif_file"] for s in always if "sarif" in str(s.get("uses")))
    (made,) = json.loads((project / scanned).read_text())["runs"]
    assert [r["ruleId"] for r in made["results"]] == ["GV101"]
    assert all(r["locations"] for r in made["results"])
    assert (project / "gradverify-report" / "gradverify.html").stat().st_size > 10_000


def test_github_takes_the_report_of_pytest_as_its_comment_says(project: Path) -> None:
    command = re.search(r"With `(pytest .*?)` in place", (TEMPLATES / "github.yml").read_text())[1]
    (project / "pyproject.toml").write_text('[tool.gradverify]\nspecs = ["specs/*.py"]\n')
    options = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p gradverify.pytest_plugin.hooks"}
    done = run(command, project, **options)
    assert done.returncode == 1, done.stdout + done.stderr
    done = run(steps()["Report"], project)
    assert done.stdout.startswith("::error title=GV101 square vjp[cpu-float64],file=ops.py,line=12,")


def test_gitlab_verifies_and_keeps_what_it_names(project: Path) -> None:
    job = template("gitlab.yml")["gradverify"]
    assert [run(command, project).returncode for command in job["script"]] == [1]
    assert [run(command, project).returncode for command in job["after_script"]] == [0]
    junit = ElementTree.parse(project / job["artifacts"]["reports"]["junit"]).getroot()
    assert (junit.get("tests"), junit.get("failures")) == ("2", "1")
    assert all((project / path).exists() for path in job["artifacts"]["paths"])


@pytest.mark.parametrize(("factor", "code"), [(3, 1), (2, 0)])
def test_the_hook_stops_a_push_of_a_wrong_op_alone(project: Path, factor: int, code: int) -> None:
    (project / "ops.py").write_text(OPS.format(factor=factor))
    (hook,) = template("pre-commit.yaml")["repos"][0]["hooks"]
    assert (hook["pass_filenames"], hook["language"]) == (False, "system")
    done = run(hook["entry"], project)
    assert (done.returncode, "GV101" in done.stdout) == (code, code == 1), done.stdout + done.stderr


@pytest.mark.parametrize("command", [*template("gitlab.yml")["gradverify"]["before_script"], steps()["Install"]])
def test_what_installs_is_a_command_of_a_shell(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    assert "gradverify" in command or "torch" in command
