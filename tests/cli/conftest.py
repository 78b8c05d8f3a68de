"""A project directory, the command line in this process, and an engine that answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gradverify.engine
from gradverify.cli.main import run
from tests.cli.fake import Engine

OPS = """
from typing import Annotated
import torch
from torch import Tensor

class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Annotated[Tensor, "*b k"], w: Annotated[Tensor, "k"]):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, (g * x).reshape(-1, w.numel()).sum(0)

class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Annotated[Tensor, "n"]):
        return x

class Layer(torch.nn.Module):
    def forward(self, x: Annotated[Tensor, "n"]):
        return x

class Sized(torch.nn.Module):
    def __init__(self, size: int):
        super().__init__()

class Plain: ...

def bare(x, w):
    return x * w

def größe(x: Annotated[Tensor, "n"]) -> Tensor:
    return x

async def later(x): ...

layer = Layer()
apply = Scale.apply
number = 3
"""

SPEC = """
from typing import Annotated
from torch import Tensor
import gradverify as gv
from mypkg.ops import Scale

@gv.spec(Scale)
def scale(x: Annotated[Tensor, "*b k"], w: Annotated[Tensor, "k"]) -> Tensor:
    return x * w

@gv.spec(Scale, backward_of=lambda x, w: x * w)
def scale_twice(x: Annotated[Tensor, "*b k"], w: Annotated[Tensor, "k"]) -> Tensor: ...
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a package below src/, a spec file, and nothing of the surrounding environment."""
    (tmp_path / "src" / "mypkg").mkdir(parents=True)
    (tmp_path / "src" / "mypkg" / "__init__.py").write_text("")
    (tmp_path / "src" / "mypkg" / "ops.py").write_text(OPS, encoding="utf-8")
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "scale.py").write_text(SPEC, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[tool.gradverify]\nspecs = ["specs/*.py"]\n')
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "GRADVERIFY_SEED", "GRADVERIFY_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("mypkg", "broken", "exits", "needs") or name.startswith("gradverify_spec_"):
            del sys.modules[name]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The fake, in the place of gradverify.engine.session."""
    fake = Engine()
    monkeypatch.setitem(sys.modules, "gradverify.engine.session", fake)
    monkeypatch.setattr(gradverify.engine, "session", fake, raising=False)
    monkeypatch.setattr("gradverify.engine.environment.environment", fake.environment)
    return fake


@pytest.fixture
def gradverify_(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Call the command line: exit code, standard output, standard error."""

    def call(*arguments: str) -> Answer:
        capfd.readouterr()
        code = run(list(arguments))
        return Answer(code, *capfd.readouterr())

    return call
