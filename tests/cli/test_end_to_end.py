"""The command line and the Python interface with the real engine, on an op of the user's, right and wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import torch

import gradverify
from tests.cli.conftest import OPS

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "specs" / "report.schema.json").read_text())
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def right_and_wrong(project: Path) -> Path:
    """`mypkg.ops` with a gradient of `w` that holds for every size, and `mypkg.wrong` with twice as much."""
    text = OPS.replace("(g * x).reshape(-1, w.numel()).sum(0)", "(g * x).sum_to_size(w.shape)")
    (project / "src" / "mypkg" / "ops.py").write_text(text, encoding="utf-8")
    wrong = text.replace("(g * x).sum_to_size", "2 * (g * x).sum_to_size")
    (project / "src" / "mypkg" / "wrong.py").write_text(wrong, encoding="utf-8")
    return project


def test_a_right_op_passes(right_and_wrong, gradverify_) -> None:
    answer = gradverify_("check", "mypkg.ops:Scale", "--examples", "5")
    assert answer.code == 0
    assert re.search(r"✓ vjp +\d+ cases +any error above \de-\d+ would have been seen", answer.out)
    assert answer.out.splitlines()[-1].startswith("PASS  ")
    assert "  - forward: no reference to compare with\n" in answer.out
    assert re.search(r"\n  ✓ transforms +\d+ cases +checkpoint, hooks.*: as in plain eager\n", answer.out)


def test_a_wrong_op_fails_with_both_numbers_and_the_error_bar(right_and_wrong, gradverify_) -> None:
    answer = gradverify_("check", "mypkg.wrong:Scale", "--checks", "vjp,linear", "--examples", "5")
    assert answer.code == 1
    assert re.search(r"✗ vjp +GV", answer.out)
    assert re.search(r"backward\(\) .*= -?[\d.]+", answer.out)
    assert re.search(r"central differences .*= -?[\d.]+ \+- \de-\d+", answer.out)
    assert "✓ linear" in answer.out
    assert answer.out.splitlines()[-1].startswith("FAIL  1 of 2 checks, ")


REGISTERED = """
import torch
from torch import Tensor, nn

@torch.library.custom_op("endtoend::scale", mutates_args=())
def scale(x: Tensor, w: Tensor, twice: bool = False) -> Tensor:
    return x * w * (2 if twice else 1)

def setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.twice = inputs[2]

def backward(ctx, g):
    x, w = ctx.saved_tensors
    g = 2 * g if ctx.twice else g
    return g * w, g * x, None

scale.register_autograd(backward, setup_context=setup)

library = torch.library.Library("endtoend2", "DEF")
library.define("scale.flipped(Tensor x, Tensor w, *, bool flip=False) -> Tensor")
library.impl("scale.flipped", lambda x, w, flip=False: -x * w if flip else x * w, "CPU")

def keep(ctx, inputs, keyword_only_inputs, output):
    ctx.save_for_backward(*inputs)

def never_flipped(ctx, g):
    x, w = ctx.saved_tensors
    return g * w, g * x

torch.library.register_autograd("endtoend2::scale.flipped", never_flipped, setup_context=keep, lib=library)

def block() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh())
"""
REGISTERED_OPS = {
    "mypkg.registered:scale": (0, r"torch\.ops\.endtoend\.scale  custom_op"),
    "mypkg.registered:torch.ops.endtoend.scale": (0, r"torch\.ops\.endtoend\.scale  registered op"),
    "mypkg.registered:torch.ops.endtoend.scale.default": (0, r"torch\.ops\.endtoend\.scale\.default  registered op"),
    "mypkg.registered:torch.ops.endtoend2.scale": (1, r"flip=True"),
    "mypkg.registered:torch.ops.endtoend2.scale.flipped": (1, r"flip=True"),
}


def test_registered_ops_are_named_by_their_module_and_their_own_name(project, gradverify_) -> None:
    (project / "src" / "mypkg" / "registered.py").write_text(REGISTERED, encoding="utf-8")
    shapes = ("--arg", "x=n", "--arg", "w=n", "--checks", "vjp,partial", "--examples", "5")
    for target, (code, text) in REGISTERED_OPS.items():
        answer = gradverify_("check", target, *shapes)
        assert answer.code == code, answer.out
        assert re.search(text, answer.out)


def test_a_function_that_makes_a_module_is_judged_with_its_parameters(project, gradverify_) -> None:
    (project / "src" / "mypkg" / "registered2.py").write_text(REGISTERED.replace("endtoend", "again"), encoding="utf-8")
    command = ("check", "mypkg.registered2:block", "--arg", "input=b 3", "--checks", "vjp,repeat", "--examples", "5")
    answer = gradverify_(*command)
    assert answer.code == 0, answer.out
    assert "input Float[b 3]   0.weight Float[2 3] parameter   0.bias Float[2] parameter" in answer.out
    assert "judged as a float64 copy" in answer.out


def test_the_json_of_a_real_run_fits_the_schema(right_and_wrong, gradverify_) -> None:
    answer = gradverify_("check", "mypkg.wrong:Scale", "mypkg.ops:layer", "mypkg.ops:gone", "--examples", "3", "--json")
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(answer.out))
    assert answer.code == 1


def test_the_same_seed_gives_the_same_report(right_and_wrong, gradverify_) -> None:
    def checks() -> list[dict[str, object]]:
        run = json.loads(
            gradverify_("check", "mypkg.ops:Scale", "--checks", "vjp,layout", "--examples", "4", "--json").out
        )
        return [{k: v for k, v in check.items() if k != "seconds"} for check in run["ops"][0]["checks"]]

    assert checks() == checks()


def test_check_from_python(right_and_wrong, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(right_and_wrong / "src"))
    from mypkg import ops, wrong

    gradverify.check(ops.Scale, x="*b k", w="k", examples=5).raise_for_failures()
    with pytest.raises(gradverify.GradcheckError, match=r"FAIL vjp\[cpu-float64\] GV"):
        gradverify.check(wrong.Scale, x="*b k", w="k", examples=5, claims="vjp").raise_for_failures()
    x, w = torch.arange(6.0, dtype=torch.float64).reshape(2, 3) + 1, torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    gradverify.check(ops.Scale, x, w, examples=3).raise_for_failures()
    x.requires_grad_()
    w.requires_grad_()
    assert gradverify.gradcheck(ops.Scale.apply, (x, w))
    assert not gradverify.gradcheck(wrong.Scale.apply, (x, w), raise_exception=False)
    assert gradverify.gradcheck(wrong.Scale.apply, (x, w.detach()))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_in_the_middle_of_an_op_writes_the_report(right_and_wrong) -> None:
    slow = (
        "import time, pathlib\n"
        "def slow(x: Annotated[Tensor, 'n']):\n"
        "    pathlib.Path('begun').touch(); time.sleep(0.2); return x * 1\n"
    )
    with (right_and_wrong / "src" / "mypkg" / "ops.py").open("a", encoding="utf-8") as file:
        file.write(slow)
    command = [sys.executable, "-m", "gradverify", "check", "mypkg.ops:slow", "--report", "out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    until = time.monotonic() + 60
    while not (right_and_wrong / "begun").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert out.splitlines()[-1].startswith("INTERRUPTED")
    assert json.loads((right_and_wrong / "out" / "report.json").read_text())["run"]["interrupted"] is True
