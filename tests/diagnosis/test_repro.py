"""Every snippet that the fault suite produces runs in plain torch, and shows the fault."""

from __future__ import annotations

import contextlib
import io
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradverify.diagnosis.repro import literal
from tests.faults.table import FAULTS
from tests.test_faults import results

ROOT = Path(__file__).parents[2]
WITH_SNIPPETS = ("vjp", "edges", "special", "linear", "layout")
CHOSEN = [f for f in FAULTS if f.primary in WITH_SNIPPETS]
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")


def result_of(fault):
    return results(fault.wrong, fault.must_fail)[fault.primary]


def forked(code):
    """What a snippet prints, run in a child of this process, which holds torch already."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                exec(compile(code, "<snippet>", "exec"), {"__name__": "__main__"})
        except BaseException as error:  # noqa: BLE001 whatever a snippet raises is told
            said.write(f"raised {type(error).__name__}: {error}\n")
        os.write(write, said.getvalue().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


def shows(result, text):
    """Whether what was printed are the wrong number and the true one."""
    e = result.worst.evidence
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == 2, text
    wrong, true = (float(line.split()[0]) for line in lines)
    if e.claim in ("linear", "layout"):
        return wrong != true
    if not math.isfinite(wrong):
        return math.isfinite(true)
    gap = abs(e.analytic - e.numeric.value)
    return abs(wrong - e.analytic) <= 1e-3 * gap and abs(true - e.numeric.value) <= 1e-2 * gap


@pytest.mark.parametrize("fault", CHOSEN, ids=lambda f: f.name)
def test_a_snippet_shows_its_fault(fault):
    result = result_of(fault)
    if result.finding.repro:
        assert "gradverify" not in result.finding.repro.replace("tests.faults", "")
        text = forked(result.finding.repro)
        assert shows(result, text), f"{result.finding.repro}\n{text}"


def test_most_have_a_snippet():
    with_one = [f for f in CHOSEN if result_of(f).finding.repro]
    assert len(with_one) >= 0.66 * len(CHOSEN), [f.name for f in CHOSEN if f not in with_one]


def test_snippets_run_in_a_bare_interpreter():
    snippets = [r.finding.repro for f in CHOSEN[:24] if (r := result_of(f)).finding.repro][:3]
    assert len(snippets) == 3
    for snippet in snippets:
        done = subprocess.run([sys.executable, "-"], input=snippet, capture_output=True, text=True, cwd=ROOT,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, dtype=torch.float64),
        torch.randn(2, 3).T,
        torch.randn(4, 4)[::2, 1:],
        torch.randn(3, 1).expand(3, 4),
        torch.randn(()),
        torch.zeros(0, 3),
        torch.tensor([1, 2]),
        torch.tensor([True]),
        torch.tensor([float("inf"), float("nan")]),
        torch.randn(3, dtype=torch.bfloat16),
    ],
    ids=[
        "float64",
        "transposed",
        "sliced",
        "expanded",
        "scalar",
        "empty",
        "integers",
        "boolean",
        "infinite",
        "bfloat16",
    ],
)
def test_a_literal_makes_the_tensor_again(tensor):
    again = eval(literal(tensor))
    assert (again.dtype, again.shape, again.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert torch.equal(again.nan_to_num(7), tensor.nan_to_num(7))
