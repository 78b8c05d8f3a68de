"""ci/compile: what is read from a binary, what the gate says of it, and that nothing is compiled twice."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the kernels of this process are interpreted", allow_module_level=True)

from ci.kernels import aot  # noqa: E402
from ci.kernels import compile as building  # noqa: E402
from ci.kernels.aot import Facts, compiling  # noqa: E402
from ci.kernels.compile import Allowed, gate, line  # noqa: E402
from ci.kernels.matrix import ENTRIES, Entry  # noqa: E402
from tests.kernels import scale_add  # noqa: E402

ENTRY = Entry(op="matmul", dtype="bf16", shapes={}, words="gelu")
RIGHT = Facts("forward_kernel", 90, 128, 0, 1024, 256, False, True, {"HGMMA": 4}, 1.0, "b")


def compiled(arch: int) -> list[Facts]:
    x, b = (torch.empty(s, dtype=torch.float32, device="meta", requires_grad=True) for s in ((64, 100), (100,)))
    with compiling(scale_add, arch) as found:
        scale_add.scale_add(x, b, backend="triton").backward(torch.empty(64, 100, device="meta"))
    return found


def test_a_kernel_is_compiled_for_a_gpu_that_is_not_here_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    launch, found = scale_add.launch, compiled(80)
    assert [f.kernel for f in found] == ["_forward", "_backward"]
    assert all(f.arch == 80 and 8 < f.registers <= 255 and f.spilled == 0 and not f.dots for f in found)
    assert scale_add.launch is launch
    kept = sorted(tmp_path.rglob(aot.FACTS))
    assert len(kept) == 2
    assert compiled(80) == found
    kept[0].unlink()
    again = compiled(80)
    assert [replace(f, seconds=0.0) for f in again] == [replace(f, seconds=0.0) for f in found]
    assert again != found
    assert len(sorted(tmp_path.rglob(aot.FACTS))) == 2


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"shared": 240_000}, "240000 bytes of shared memory, a block has 232448"),
        (
            {"shared": 200_000, "arch": 80, "instructions": {"HMMA": 1}},
            "200000 bytes of shared memory, a block has 166912",
        ),
        ({"spilled": 8}, "8 bytes spilled"),
        ({"serialized": True}, "wgmma serialised (C7512)"),
        ({"instructions": {"HMMA": 4}}, "no HGMMA"),
        ({"instructions": {}, "arch": 100}, "no UTCHMMA or HMMA"),
        ({"instructions": {}, "dots": False}, ""),
    ],
)
def test_the_gate_names_each_breach(changes, wrong):
    row = gate(ENTRY, replace(RIGHT, **changes))
    assert "; ".join(row.wrong) == wrong
    assert (f"! {wrong}" in line(row)) == bool(wrong)


def test_float64_needs_its_own_tensor_cores_where_there_are_any():
    double = replace(ENTRY, dtype="fp64")
    assert gate(double, replace(RIGHT, instructions={"DFMA": 9})).wrong == ("no DMMA",)
    assert gate(double, replace(RIGHT, instructions={"DFMA": 9}, arch=100)).wrong == ()


def test_what_is_allowed_says_why_and_no_more_than_that(monkeypatch):
    allowed = Allowed(call="matmul bf16", kernels=("forward_kernel",), archs=(90,), spilled=16, reason="rare")
    monkeypatch.setattr(building, "ALLOWED", (allowed,))
    row = gate(ENTRY, replace(RIGHT, spilled=16))
    assert (row.wrong, row.allowed) == ((), ("16 bytes spilled (rare)",))
    assert gate(ENTRY, replace(RIGHT, spilled=17)).wrong == ("17 bytes spilled",)
    assert gate(ENTRY, replace(RIGHT, spilled=16, kernel="slope_kernel")).wrong == ("16 bytes spilled",)
    assert gate(ENTRY, replace(RIGHT, serialized=True)).wrong == ("wgmma serialised (C7512)",)


def test_a_log_without_figures_is_refused():
    with pytest.raises(LookupError, match=f"ptxas of triton {triton.__version__} says neither registers nor spills"):
        aot.read(None, "ptxas info: nothing", kernel="k", arch=90, seconds=0.0)


def test_every_entry_has_a_name_of_its_own():
    assert len({e.name for e in ENTRIES}) == len(ENTRIES)


def test_an_entry_that_is_not_there_is_misuse(capsys):
    assert building.main(["--only", "softmax"]) == 2
    assert capsys.readouterr().err == "ci/compile: no entry has 'softmax' in its name.\n"
