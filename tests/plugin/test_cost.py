"""Installed and unused, the plugin costs a pytest run next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.conftest import HEAD, Project, spec

HEAVY = ("torch", "numpy", "hypothesis", "rich", "msgspec", "click", "jinja2", "matplotlib")
SHOW = f"import sys\ndef pytest_unconfigure():\n    print('loaded', *[m for m in {HEAVY} if m in sys.modules])\n"


def loaded(project: Project, *arguments: str) -> set[str]:
    done = project.start(*arguments, "-q")
    return set(next(line for line in done.outlines if line.startswith("loaded")).split()[1:])


@pytest.mark.parametrize("arguments", [(), ("--collect-only",), ("--help",)], ids=" ".join)
def test_a_run_without_specs_loads_nothing_heavy(project: Project, arguments: tuple[str, ...]) -> None:
    project.write("conftest.py", SHOW)
    project.write("pyproject.toml", "[tool.other]\nname = 'gradverify'\n")
    project.write("test_plain.py", "class Thing: ...\nthing = Thing()\ndef test_plain(): ...\n")
    assert loaded(project, *arguments) == set()


def test_the_check_sees_what_a_run_loads(project: Project) -> None:
    project.write("conftest.py", SHOW)
    project.write("test_plain.py", "import msgspec\ndef test_plain(): ...\n")
    assert loaded(project) == {"msgspec"}
    project.write("test_plain.py", HEAD + spec("scale"))
    assert {"torch", "hypothesis", "msgspec"} <= loaded(project, "--collect-only")


def test_importing_the_plugin_loads_no_module_of_ours_but_itself(project: Project) -> None:
    show = "import gradverify.pytest_plugin.hooks, sys; print(sorted(m for m in sys.modules if m[:10] == 'gradverify'))"
    done = project.pytester.run("python", "-c", show)
    assert done.outlines == ["['gradverify', 'gradverify.pytest_plugin', 'gradverify.pytest_plugin.hooks']"]


def test_the_configuration_is_looked_up_once_a_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite may have thousands of files: none of them may cost a look into pyproject.toml."""
    project.write("pyproject.toml", "[tool.other]\n")
    for k in range(5):
        project.write(f"test_{k}.py", "def test_plain(): ...\n")
    read: list[Path] = []
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: read.append(path) or original(path, *a, **k))
    project.run().assert_outcomes(passed=5)
    once_by_pytest_and_once_by_us = 2
    assert [p.name for p in read].count("pyproject.toml") == once_by_pytest_and_once_by_us
