"""ci/interpret: the strict interpreter proves itself, a right op is verified, wrong kernels are named by their line."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.kernels.record import Mutant

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
OP = Path(__file__).with_name("scale_add.py")


def run(*args: object, interpret: str = "1", code: str = "") -> subprocess.CompletedProcess[str]:
    """A process of its own: triton decides at its import how kernels run."""
    env = {**os.environ, "TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "ci.kernels.interpret", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_the_strict_interpreter_proves_every_change_of_it():
    done = run(code="from ci.kernels.interpreter import install; install(); install(); print('proven')")
    assert done.stdout == "proven\n", done.stderr


def test_it_needs_its_variable_before_triton():
    done = run(code="import ci.kernels.interpreter", interpret="0")
    assert "ImportError: set TRITON_INTERPRET=1 before Python starts" in done.stderr


def test_a_change_that_does_not_hold_is_refused_with_tritons_version():
    code = """
from unittest.mock import patch
import ci.kernels.interpreter as strict
strict._install()
from ci.kernels import selftest
stock = strict.InterpreterBuilder
clash = strict.Launch.clash
def adders_clash(self, how, *seen): return clash(self, "load" if how == "add" else how, *seen)
for where, name, value in (
    (strict.Strict, "create_masked_load", stock.create_masked_load),
    (selftest.Memory, "check", lambda self, *_: None),
    (strict, "GARBAGE", dict.fromkeys("fiub", 0)),
    (strict.Strict, "cast_impl", stock.cast_impl),
    (strict.Strict, "binary_op", stock.binary_op),
    (selftest.Memory, "check_written", lambda self, *_: None),
    (strict.Launch, "clash", lambda self, how, *_: None),
    (strict.Launch, "clash", adders_clash),
):
    with patch.object(where, name, value):
        try: selftest.proven(strict.MEMORY)
        except strict.Unsupported as error: print(error)
selftest.proven(strict.MEMORY)
"""
    import triton

    done = run(code=code)
    checks = [line.split("'")[1] for line in done.stdout.splitlines()]
    assert checks == [
        *("bounds", "bounds", "undefined", "bfloat16_casts", "bfloat16_arithmetic"),
        *("additions", "races", "additions"),
    ], done.stderr
    assert all(f"with triton {triton.__version__}" in line for line in done.stdout.splitlines())


def test_a_right_op_is_verified_and_narrow_dtypes_are_compared():
    done = run("--op", f"{OP}:scale_add", "--examples=4", "--jobs=1", "--claim=forward", "--claim=bfloat16")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[1:3] for line in done.stdout.splitlines() if " cases " in line and " programs " in line] == [
        ["forward", "PASS"],
        ["bfloat16", "PASS"],
    ]
    assert "error beside plain PyTorch's: y " in done.stdout


def test_what_was_not_tried_is_said():
    from ci.kernels.interpret import Row, trouble

    row = Row("o", "vjp", "FAIL", "GV199", 3, 0.1, 1.0, "wrong gradient of `x`", ("k.py:3: loads",), frozenset(), 0)
    assert list(trouble([row])) == ["o, vjp: FAIL GV199 wrong gradient of `x`", "o, vjp: k.py:3: loads"]
    code = f"""
from ci.kernels.interpret import Row, uncovered
row = Row("o", "vjp", "SKIP", "", 0, 0.0, 1.0, "no jvp", (), frozenset(), 0)
print(*uncovered("{OP}:scale_add", [row]), sep=chr(10))
"""
    assert run(code=code).stdout.splitlines() == [
        "only 0 cases were judged; 100 are wanted",
        "o, vjp: skipped, no jvp",
        "no kernel ran: the op did not take backend='interpret'",
        "kernels that never ran: _backward, _forward",
    ]


CAUGHT = {
    "bias_unmasked": ("forward", "out of bounds", "loads"),
    "store_unmasked": ("forward", "out of bounds", "stores"),
    "stored_by_all": ("vjp", "race", "touches, too"),
    "lane_undefined": ("vjp", "GV199", "the gradient of `b`"),
    "rows_forgotten": ("vjp", "GV199", "the gradient of `x`"),
    "scaled_twice": ("vjp", "GV199", "the gradient of `x`"),
    "column_stride_ignored": ("layout", "out of bounds", "between its elements (`u`): tile = tl.load(u + m"),
}


def test_every_wrong_kernel_is_caught_and_named_by_its_line():
    """One process for all: a rehearsal of --mutants."""
    done = run(
        code="""
from ci.kernels.mutants import hunted
from tests.kernels.mutants import MUTANTS
for m in MUTANTS:
    found = hunted(m)
    said = (*found.row.faults, found.row.said)[0] if found.row else ""
    print(m.name, found.row.claim if found.row else "", found.how, said, sep="|")
"""
    )
    rows = [line.split("|", 3) for line in done.stdout.splitlines()]
    assert {name: (claim, how) for name, claim, how, _ in rows} == {n: c[:2] for n, c in CAUGHT.items()}, done.stderr
    for name, _, how, said in rows:
        assert CAUGHT[name][2] in said
        assert how == "GV199" or said.startswith(f"{name}.py:")


def test_a_patch_that_no_longer_applies_is_loud():
    with pytest.raises(LookupError, match="mutant 'old': its text stands 0 times in _forward, not once; adapt it"):
        Mutant(name="old", op="o", kind="", function="_forward", old="gone", new="").planted_in(OP.read_text())
    with pytest.raises(LookupError, match="stands 2 times in _backward"):
        Mutant(name="old", op="o", kind="", function="_backward", old="mask=inside", new="").planted_in(OP.read_text())


@pytest.mark.parametrize("op", sorted(f.stem for f in (ROOT / "tests/faults/kernels").glob("[!r_]*.py")))
def test_every_mutant_of_the_catalogue_applies_and_has_a_name_of_its_own(op):
    mutants = importlib.import_module(f"tests.faults.kernels.{op}").MUTANTS
    source = (ROOT / f"gradverify/catalogue/{op}.py").read_text()
    assert len({m.name for m in mutants}) == len(mutants) >= 10
    assert all(m.op == op and m.planted_in(source) != source for m in mutants)


def test_the_table_of_planted_bugs_counts_by_kind():
    code = """
from ci.kernels.mutants import by_kind
print(by_kind([
    ("o", "stride", "a", "`vjp`", "GV199"),
    ("o", "stride", "b", "`layout`", "out of bounds"),
    ("o", "grid", "c", "none", "survived"),
]))
"""
    assert run(code=code).stdout.splitlines() == [
        "2 of 3 planted bugs of the kernels are caught.",
        "",
        "| kind of bug | planted | caught | of them by bounds or races | under the claim |",
        "| --- | --- | --- | --- | --- |",
        "| grid | 1 | 0 |  |  |",
        "| stride | 2 | 2 | 1 | `vjp` 1, `layout` 1 |",
    ]


def test_an_unknown_op_is_misuse():
    done = run("--op", "softmax")
    assert done.returncode == 2
    assert done.stderr.startswith("ci/interpret: no op 'softmax'; there are matmul")
