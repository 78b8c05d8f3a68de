"""A project of its own for each test, and pytest run in it with our plugin and those that are named, and no others."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest

# What is imported here stays loaded between the runs: torch cannot be imported twice.
import gradverify.pytest_plugin.collect
import gradverify.pytest_plugin.fixture
import gradverify.pytest_plugin.hooks
import gradverify.pytest_plugin.items
import gradverify.pytest_plugin.properties
import gradverify.pytest_plugin.report
from gradverify.records.described import described
from gradverify.records.run import Run, totals
from gradverify.records.verdict import Result
from tests.cli.fake import ENVIRONMENT
from tests.reports.runs import passed

ROOT = Path(__file__).resolve().parents[2]

OPS = """
import torch

class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, (g * x).sum_to_size(w.shape)

class Wrong(Scale):
    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, 2 * (g * x).sum_to_size(w.shape)
"""

HEAD = """
from typing import Annotated
import pytest
from torch import Tensor
import gradverify as gv
from ops import Scale, Wrong
"""


def spec(name: str, op: str = "Scale", options: str = "", above: str = "") -> str:
    return f"""
{above}
@gv.spec({op}{options and ", "}{options})
def {name}(x: Annotated[Tensor, "*b k"], w: Annotated[Tensor, "k"]) -> Tensor:
    return x * w
"""


class Project:
    """A folder with ops and tests, and pytest in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.write("ops.py", OPS)

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, *arguments: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        """In this process, under the filters of warnings that Python starts with."""
        named = [word for plugin in plugins for word in ("-p", plugin)]
        with warnings.catch_warnings():
            warnings.resetwarnings()
            return self.pytester.runpytest_inprocess(*named, *arguments, plugins=[gradverify.pytest_plugin.hooks])

    def ids(self, *arguments: str, plugins: tuple[str, ...] = ()) -> list[str]:
        done = self.run("--collect-only", "-q", *arguments, plugins=plugins)
        return [line for line in done.outlines if "::" in line]

    def start(self, *arguments: str, plugins: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> pytest.RunResult:
        """In a process of its own."""
        ours = ("gradverify.pytest_plugin.hooks", *plugins)
        named = [word for plugin in ours for word in ("-p", plugin)]
        return self.pytester.run(sys.executable, *before, "-m", "pytest", *named, *arguments)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("CI", "PYTEST_ADDOPTS", "GRADVERIFY_SEED", "GRADVERIFY_PROFILE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(pytester.path))
    return Project(pytester)


class Answers:
    """In place of the engine: what it says of each claim, PASS unless it was told otherwise, and what it was asked."""

    def __init__(self) -> None:
        self.of: dict[str, Result] = {}
        self.asked: list[tuple[str, str]] = []
        self.plans: list[Any] = []

    def run_one(self, spec: Any, trial: Any, plan: Any, policy: Any, **_: Any) -> Run:
        self.asked.append((spec.name, trial.claim))
        self.plans.append(plan)
        answer = self.of.get(trial.claim, passed(trial.claim))
        result = msgspec.structs.replace(answer, claim=trial.claim, device=trial.device, dtype=trial.dtype)
        ops = (described(spec, checks=(result,)),)
        return Run(environment=ENVIRONMENT, ops=ops, totals=totals(ops))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    fake = Answers()
    monkeypatch.setattr(gradverify.pytest_plugin.items, "run_one", fake.run_one)
    return fake
