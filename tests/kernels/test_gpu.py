"""ci/gpu where there is no GPU: its references, its tables, what it says of a machine that lacks something."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from ci.kernels import calls, device_checks, device_speed, gpu
from ci.kernels.device_speed import Timing

ROOT = Path(__file__).resolve().parents[2]


def test_plain_attention_is_torchs_own_where_torch_has_it():
    q, k, v = (torch.randn(2, 2, 7, 4, dtype=torch.float64) for _ in range(3))
    for causal in (False, True):
        want = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        assert calls.distance(calls.plain_attention(q, k, v, causal=causal), want) < 1e-14


def test_rows_of_plain_attention_that_see_nothing_are_zero_without_a_gradient():
    q, k, v = (torch.randn(1, 1, n, 2, dtype=torch.float64, requires_grad=True) for n in (5, 3, 3))
    y = calls.plain_attention(q, k, v, causal=True)
    grads = torch.autograd.grad(y.sum(), (q, k, v))
    assert (y[..., :2, :] == 0).all()
    assert (y[..., 2, :] == v[..., 0, :]).all()
    assert (grads[0][..., :2, :] == 0).all()
    assert all(g.isfinite().all() for g in grads)


def test_float64_is_verified_and_a_wrong_op_is_seen(monkeypatch):
    few = [next(device_checks.small_calls("cpu"))]
    monkeypatch.setattr(device_checks, "small_calls", lambda _: few)
    assert not [r for r in device_checks.verify("cpu") if r.wrong]
    wrong = calls.Call(name="w", shapes=few[0].shapes, ours=lambda **t: few[0].ours(**t) * 1.001, plain=few[0].plain)
    monkeypatch.setattr(device_checks, "small_calls", lambda _: [wrong])
    rows = [r for r in device_checks.verify("cpu") if r.call == "w"]
    assert [r.what for r in rows] == ["y", "dx", "dw", "db", "y'"]
    assert all("differs by 1.0e-03 of its size" in r.wrong for r in rows)


def test_an_error_is_a_ratio_to_anothers_and_no_smaller_than_a_rounding():
    assert device_checks.compared("bf16", "c", "y", 2e-3, 2e-3).wrong == ""
    assert (
        "1.50 times the error of PyTorch's kernel, 1.3 is allowed"
        in device_checks.compared("bf16", "c", "y", 3e-3, 2e-3).wrong
    )
    assert device_checks.compared("bf16", "c", "y", 1e-4, 0.0).wrong == ""
    assert device_checks.compared("fp32", "c", "y", 1e-6, 1e-7).wrong == ""
    assert device_checks.compared("fp32", "c", "y", 1e-4, 1e-7).wrong  # as of products in plain tf32
    assert device_checks.compared("fp16", "c", "y", math.nan, 1e-3).wrong


def test_repeats_are_held_bit_by_bit(monkeypatch):
    call = calls.matmul_call("cpu", m=4, n=4, k=4, act="none")
    noisy = calls.Call(
        name="noisy", shapes=call.shapes, ours=lambda **t: call.ours(**t) * (1 + torch.rand(())), plain=call.plain
    )
    monkeypatch.setattr(device_checks, "narrow_calls", lambda _: [call, noisy])
    rows = list(device_checks.repeat("cpu"))
    assert {r.call for r in rows if r.wrong} == {"noisy"}


def test_a_piece_that_breaks_off_is_a_failure_and_the_next_one_runs(monkeypatch, tmp_path, capsys):
    def broken(_):
        yield device_checks.Row("c", "y", 0.0, 0.0, 0.0)
        raise RuntimeError("out of resources\nand more")

    monkeypatch.setattr(device_checks, "repeat", broken)
    assert gpu.main(["repeat", "sanitize", "--device", "cpu", "--out", str(tmp_path)]) == 1
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["repeat"]["wrong"] == ["repeat broke off: RuntimeError: out of resources"]
    assert len(results["repeat"]["rows"]) == 1
    assert results["sanitize"]["wrong"] == []
    assert "! repeat broke off: RuntimeError: out of resources" in capsys.readouterr().out


def test_an_interrupt_keeps_what_is_done(monkeypatch, tmp_path, capsys):
    def interrupted(_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(device_checks, "repeat", interrupted)
    assert gpu.main(["sanitize", "repeat", "memory", "--device", "cpu", "--out", str(tmp_path)]) == 130
    assert set(json.loads((tmp_path / "gpu.json").read_text())) == {"machine", "sanitize"}
    assert f"interrupted in repeat; the pieces before it are in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ['{"machine": {"device": "NVIDIA H100", "commit": "1"}, "speed": {}}', '{"machine": {"de']
)
def test_results_of_another_machine_and_what_cannot_be_read_are_put_aside(text, tmp_path, capsys):
    (tmp_path / "gpu.json").write_text(text)
    (tmp_path / "gpu.md").write_text("old")
    assert gpu.main(["sanitize", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "gpu.old.json").read_text() == text
    assert (tmp_path / "gpu.old.md").read_text() == "old"
    assert "speed" not in json.loads((tmp_path / "gpu.json").read_text())
    assert "kept as gpu.old.json" in capsys.readouterr().out
    assert sorted(f.name for f in tmp_path.iterdir()) == ["gpu.json", "gpu.md", "gpu.old.json", "gpu.old.md"]


def test_a_rehearsal_writes_no_results():
    assert gpu.parsed(["--device", "cpu"]).out == ROOT / ".cache" / "gpu"
    assert gpu.parsed([]).out == ROOT / "ci" / "bench" / "results"


@pytest.mark.parametrize("device", ["gpu", "cuda:", "xpu", "cuda:x"])
def test_an_unknown_device_is_misuse(device, capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", device])
    assert f"no device {device!r}; there are cuda, cuda:N and cpu" in capsys.readouterr().err


def test_a_kernel_of_ours_that_did_not_run_is_wrong_and_a_rival_that_did_not_is_told():
    ran = [timing("ours", 1.0), timing("cuBLAS", 1.0)]
    silent = [timing("ours", math.nan, 8192), timing("cuBLAS", 1.0, 8192)]
    assert "c8192: matmul forward did not run" in device_speed.not_measured(ran + silent)
    found = device_speed.not_measured(ran)
    assert "matmul forward / cuBLAS: nothing was measured" not in found
    assert "attention forward D 64 / flash: nothing was measured" in found


def test_every_plain_attention_is_the_one_that_it_is_held_against():
    for call in device_checks.small_calls("cpu"):
        inputs, cotangent = calls.settings(call, torch.float64, "cpu", 0)
        ours, plain = (calls.results(f, inputs, cotangent) for f in (call.ours, call.plain))
        assert all(calls.distance(ours[n], t) < 1e-14 for n, t in plain.items()), call.name


def test_float64_is_verified_in_strange_memory_too():
    """No stride is 1, so that a kernel that takes one for granted is seen."""
    turned = [c for c in device_checks.small_calls("cpu") if c.turned]
    assert {c.name.split()[0] for c in turned} == {"matmul", "attention"}
    for call in turned:
        inputs, cotangent = calls.settings(call, torch.float64, "cpu", 0)
        assert all(1 not in t.stride() for t in (*inputs.values(), cotangent))
        straight = replace(call, turned=False).inputs(torch.float64, "cpu")
        assert all(torch.equal(t, straight[n]) for n, t in inputs.items())


def test_what_is_added_in_any_order_may_vary_by_an_order_of_summation_and_no_more(monkeypatch):
    call = calls.attention_call("cpu", b=1, h=2, kv=1, s=40, d=16, causal=True, deterministic=False)

    def jittery(factor: float):
        def ours(q, k, v):
            q = q.clone()
            if q.requires_grad:
                q.register_hook(lambda g: (g * (1 + factor * torch.rand(g.shape))).to(g.dtype))
            return call.ours(q, k, v)

        return replace(call, name=f"{factor:g}", ours=ours)

    monkeypatch.setattr(device_checks, "narrow_calls", lambda _: [call, jittery(2.0**-5)])
    rows = [r for r in device_checks.repeat("cpu") if r.what == "dq, in any order"]
    assert [(r.value > 0, r.ratio <= 1, bool(r.wrong)) for r in rows] == [
        (False, True, False),
        (True, False, True),
    ]
    assert "times as far apart as an order of summation may put them" in rows[1].wrong
    assert all(not r.wrong for r in device_checks.repeat("cpu") if r.what != "dq, in any order")


def test_the_bound_of_any_order_holds_for_orders_at_random():
    """Parts of one tile each, added in float32 in all orders, rounded to bfloat16."""
    call = calls.attention_call("cpu", b=1, h=1, s=256, d=8, causal=False, deterministic=False)
    inputs, cotangent = calls.settings(call, torch.bfloat16, "cpu", 3)
    bar = call.apart(inputs, cotangent)["dq"]
    q, k, v = (t.detach().float() for t in inputs.values())
    u, scale = cotangent.float(), 8**-0.5
    p = (scale * q @ k.mT).softmax(-1)
    dp = u @ v.mT
    ds = (p * (dp - (p * dp).sum(-1, keepdim=True))).bfloat16().float()
    parts = torch.stack([d @ t for d, t in zip(ds.split(16, -1), k.split(16, -2), strict=True)])
    found = []
    for _ in range(20):
        total = torch.zeros_like(parts[0])
        for i in torch.randperm(len(parts)):
            total = total + parts[i]
        found.append((scale * total).bfloat16())
    assert not all(torch.equal(f, found[0]) for f in found)
    assert max(device_checks.in_bars(f, found[0], bar) for f in found) <= 1
    assert device_checks.in_bars(found[0], torch.full_like(found[0], torch.nan), bar) == math.inf


def timing(who: str, ms: float, rows: int = 4096, group: str = "matmul forward") -> Timing:
    return Timing(f"c{rows}", group, rows, who, ms, 1.0)


def test_speeds_are_geometric_means_of_ratios_and_what_is_demanded_stands_beside():
    timings = [timing("ours", 2.0), timing("cuBLAS", 1.0), timing("ours", 1.0, 8192), timing("cuBLAS", 4.0, 8192)]
    timings += [timing("ours", 1.0, 1024), timing("cuBLAS", 9.0, 1024)]  # too short to count
    timings += [timing("cuDNN", math.nan)]  # cannot run this shape
    found = device_speed.ratios(timings)
    assert list(found) == ["matmul forward / cuBLAS"]
    assert found["matmul forward / cuBLAS"] == (pytest.approx(2**0.5), 0.92)


def test_the_fused_backward_stands_beside_the_split_one_and_pytorchs():
    split = Timing("attention S 4096", "attention backward D 64", 4096, "ours", 2.0, 5.0)
    others = [split, replace(split, who="flash", milliseconds=3.0)]
    call = calls.attention_call("cpu", b=1, h=1, s=8, d=8, causal=True, deterministic=False)
    found = list(device_speed._timed_fused(call, "cpu", lambda f: f() and 1.0, others))
    assert [(t.who, t.milliseconds, t.teraflops) for t in found] == [
        ("ours", 1.0, 10.0),
        ("split", 2.0, 5.0),
        ("flash", 3.0, 5.0),
    ]
    group = "attention backward, fused D 64"
    assert {n: r for n, (r, _) in device_speed.ratios(found).items()} == pytest.approx(
        {f"{group} / split": 2.0, f"{group} / flash": 3.0}
    )


def test_every_demanded_speed_is_one_that_is_measured():
    d = "|".join(f"D {d}" for d in device_speed.HEADS)
    assert all(n.split(" / ")[1] in ("flash", "unfused", "cuBLAS", "linear + act") for n in device_speed.MUST)
    assert all(n.startswith("matmul") or any(h in n for h in d.split("|")) for n in device_speed.MUST)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_how_to_rehearse(capsys):
    assert gpu.main([]) == 3
    assert capsys.readouterr().err.endswith("); --device cpu rehearses.\n")


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "missing", lambda _: ["triton"])
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.startswith("ci/gpu: triton is not installed for ")


def test_an_unknown_piece_is_misuse(capsys):
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["fast"])
    assert "no piece 'fast'; there are verify, precision, repeat, sanitize, speed, memory" in capsys.readouterr().err


def test_pieces_run_one_at_a_time_and_are_gathered(tmp_path, capsys):
    assert gpu.main(["sanitize", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert gpu.main(["memory", "--device", "cpu", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert set(results) == {"machine", "sanitize", "memory"}
    text = (tmp_path / "gpu.md").read_text()
    assert "### sanitize\n\nnothing wrong" in text
    assert "| compute-sanitizer | not installed here: nothing was looked at |" in text
    assert "a rehearsal" in text


def test_what_fails_is_listed_and_the_speeds_have_their_verdict():
    results = {
        "machine": {"device": "G"},
        "precision": {"rows": [], "wrong": ["x"], "seconds": 1.0},
        "speed": {
            "rows": [],
            "wrong": [],
            "seconds": 2.0,
            "ratios": {"a / b": {"ratio": 0.9, "must": 0.92}, "c / d": {"ratio": 2.0, "must": math.nan}},
        },
    }
    text = gpu.markdown(results)
    assert "1 wrong, 1 s." in text
    assert "| a / b | 0.9 | 0.92 | missed |" in text
    assert "| c / d | 2 | nan |  |" in text


def test_the_script_needs_nothing_but_torch_triton_and_the_standard_library():
    """hypothesis, msgspec and the rest may be missing where the GPU is."""
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hypothesis", "msgspec", "pytest", "click", "rich", "jinja2"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from ci.kernels import gpu
print(gpu.main(["sanitize", "memory", "--device", "cpu", "--out", sys.argv[1]]))
from ci.kernels.device_checks import tiny
tiny("cpu")
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = ROOT / ".cache" / "gpu-test"
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.splitlines()[-1:] == ["0"], done.stderr
