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
