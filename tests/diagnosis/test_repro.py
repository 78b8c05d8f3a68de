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
from tests.test_faults import one_by_one, results

ROOT = Path(__file__).parents[2]
WITH_SNIPPETS = ("vjp", "edges", "special", "linear", "layout")
CHOSEN = [f for f in FAULTS if f.primary in WITH_SNIPPETS]
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")


LARGE = {"one_entry_of_4096"}
STOCHASTIC = {"slope_of_evaluation", "noise_factor_forgotten"}
OF_NO_ELEMENT = {
    "empty_batch_nan",
    "bias_masks_a_row_of_the_forward",
    "images_in_channels_last_order",
    "maximum_pays_both",
    "max_pays_every_tie",
    "second_output_overwrites",
    "scaling_without_sign",
}
MODULES = {
    "norm_weight_by_the_raw_input",
    "evaluation_runs_the_backward_of_training",
    "tied_weight_counted_once",
}
COMPLEX = {
    "product_without_conj",
    "power_of_the_real_part",
    "power_by_wirtinger",
    "modulus_conjugated",
    "real_scale_without_conj",
    "scan_without_conj",
    "spectrum_mirrored",
    "rotated_forwards",
    "mirrored_as_if_holomorphic",
}
WITHOUT = LARGE | STOCHASTIC | OF_NO_ELEMENT | MODULES | COMPLEX
"""Faults that have no snippet: of more numbers than are written out, of an op that draws, of what is no element of a
gradient under an element of an output, of parameters that a module holds, of complex numbers."""

BARE = {
    "softmax_diagonal",
    "bilinear_transposed",
    "tail_of_a_block_of_64",
    "one_block_of_128_rows",
    "broadcast_cut_to_shape",
    "norm_at_zero",
    "sign_below_atol",
    "cotangents_swapped",
    "surrogate_returns_zero",
    "frozen_forgotten",
}
"""Ten whose snippets are run in an interpreter of their own, too."""


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


def bare(code):
    """What a snippet prints in an interpreter of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@one_by_one(CHOSEN)
def test_a_snippet_shows_its_fault(fault):
    result = results(fault.wrong, fault.must_fail)[fault.primary]
    snippet = result.finding.repro
    assert bool(snippet) != (fault.name in WITHOUT)
    if snippet:
        assert "gradverify" not in snippet.replace("tests.faults", "")
        for run in (forked, bare) if fault.name in BARE else (forked,):
            text = run(snippet)
            assert shows(result, text), f"{snippet}\n{text}"


def test_ten_run_in_a_bare_interpreter_and_only_faults_are_named():
    names = {f.name for f in CHOSEN}
    assert names >= WITHOUT | BARE
    assert not WITHOUT & BARE
    assert len(BARE) == 10


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
