"""The wheel holds the specs and works where it is installed: beside torch, far from a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest

from gradverify import __version__

ROOT = Path(__file__).resolve().parents[1]

OPS = """
from typing import Annotated

import torch
from torch import Tensor


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Annotated[Tensor, "*b"]) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return {factor} * x * g
"""


def pip(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a venv that has the wheel, and what the wheel depends on by a link to where we have it."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, symlinks=os.name == "posix")
    scripts = home / "bin"
    pip("--python", scripts / "python", "install", "--quiet", "--no-deps", "--no-index", wheel)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "right.py").write_text(OPS.format(factor=2))
    (tmp_path / "wrong.py").write_text(OPS.format(factor=3))
    return tmp_path


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CI"))}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_the_package_its_specs_and_its_licence(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    specs = {path.name for path in (ROOT / "specs").iterdir() if path.suffix in {".py", ".md", ".json"}}
    assert specs
    assert {f"gradverify/specs/{name}" for name in specs} <= names
    assert {"gradverify/py.typed", "gradverify/__main__.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    folders = {name.split("/")[0] for name in ZipFile(wheel).namelist()}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"gradverify"}
    assert not [name for name in ZipFile(wheel).namelist() if name.endswith(".pyc")]


def test_the_metadata_name_what_is_needed(wheel: Path) -> None:
    archive = ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    metadata = message_from_string(archive.read(name).decode())
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    assert any(needed.startswith("torch>=") for needed in metadata.get_all("Requires-Dist", []))


def test_what_runs_is_the_installed_one(installed: Path, project: Path) -> None:
    done = run(installed / "python", "-c", "import gradverify; print(gradverify.__file__)", cwd=project)
    assert Path(done.stdout).is_relative_to(installed.parent), done.stderr


def test_the_version_is_that_of_the_project(installed: Path, project: Path) -> None:
    done = run(installed / "gradverify", "--version", cwd=project)
    assert (done.returncode, done.stdout) == (0, f"gradverify {__version__}\n"), done.stderr


def test_list_names_the_specs_that_came_with_it(installed: Path, project: Path) -> None:
    done = run(installed / "gradverify", "list", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "ste_quant" in done.stdout


@pytest.mark.parametrize(("op", "code", "word"), [("right:Square", 0, "PASS"), ("wrong:Square", 1, "FAIL")])
def test_an_op_of_the_users_is_judged(installed: Path, project: Path, op: str, code: int, word: str) -> None:
    done = run(installed / "gradverify", "check", op, "--examples", "5", cwd=project)
    assert (done.returncode, word in done.stdout) == (code, True), done.stdout + done.stderr


def test_a_spec_that_came_with_it_is_verified(installed: Path, project: Path) -> None:
    done = run(installed / "gradverify", "check", "ste_quant", "--examples", "2", "--checks", "vjp", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("op", "code"), [("right:Square", 0), ("wrong:Square", 1)])
def test_pytest_verifies_a_spec_without_a_word(installed: Path, project: Path, op: str, code: int) -> None:
    (project / "test_ops.py").write_text(f'import gradverify as gv\nsquare = gv.from_data("{op}", {{"x": "*b"}})\n')
    done = run(installed / "python", "-m", "pytest", "-q", "--gv-checks", "vjp", "--gv-examples", "2", cwd=project)
    assert (done.returncode, "\nSquare " in done.stdout) == (code, True), done.stdout + done.stderr


def test_pytest_finds_the_specs_that_came_with_it(installed: Path, project: Path) -> None:
    command = ("-m", "pytest", "--pyargs", "gradverify.specs", "--collect-only", "-q", "--gv-checks", "vjp")
    done = run(installed / "python", *command, cwd=project)
    assert "ste_quant.py::ste_quant::vjp[cpu-float64]" in done.stdout, done.stdout + done.stderr
