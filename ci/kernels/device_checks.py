"""Is what runs on the device right: float64 against plain PyTorch, error in narrow dtypes, equal bits, clean memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ci.kernels.calls import (
    BY_DESCRIPTORS,
    Call,
    attention_call,
    distance,
    has_descriptors,
    matmul_call,
    results,
    settings,
    tangent,
    widened,
)

AGREES = 1e-12
"""Relative distance of two float64 results whose sums run in different orders, at the sizes tried here."""

MOST = {"bf16": 1.3, "fp16": 1.3, "fp32": 64.0}
"""Our error may be so many times that of PyTorch's own kernel. In float32, where it has no fused one, the unfused
computation stands beside: products in three parts of tf32 lose a few bits, products in one part 13; 6 are allowed."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
UNIT = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24}

REPEATS = 200


@dataclass(frozen=True)
class Row:
    """A line of a table; `wrong` says why it fails."""

    call: str
    what: str
    value: float
    beside: float
    ratio: float
    wrong: str = ""


def small_calls(device: str) -> Iterator[Call]:
    """Ragged sizes, groups, more keys than rows and fewer, every activation."""
    for act in ("none", "relu", "gelu", "gelu_tanh", "silu"):
        yield matmul_call(device, m=67, n=45, k=33, act=act)
        yield matmul_call(device, m=67, n=45, k=33, act=act, save="preactivation")
    yield matmul_call(device, m=128, n=128, k=64, act="gelu", bias=False)
    for causal in (False, True):
        yield attention_call(device, b=2, h=2, s=77, d=24, causal=causal)
        yield attention_call(device, b=1, h=4, kv=2, s=33, keys=70, d=16, causal=causal)
        yield attention_call(device, b=1, h=2, s=64, d=64, causal=causal)
        yield attention_call(device, b=2, h=2, s=70, d=24, causal=causal, deterministic=False)
        yield attention_call(device, b=1, h=4, kv=2, s=33, keys=70, d=16, causal=causal, deterministic=False)
    yield attention_call(device, b=1, h=2, s=70, keys=33, d=8, causal=True)
    yield attention_call(device, b=2, h=4, kv=2, s=67, keys=81, d=24, wide=40, causal=True, window=19)
    yield attention_call(device, b=2, h=2, s=67, keys=45, d=24, causal=False, hidden=0.7)
    yield attention_call(device, b=2, h=2, kv=1, s=67, keys=45, d=24, causal=True, bias=True)
    yield attention_call(device, b=1, h=4, kv=2, s=77, d=24, causal=True, deterministic=False)
    for call in (
        matmul_call(device, m=67, n=45, k=33, act="gelu"),
        matmul_call(device, m=67, n=45, k=33, act="silu", save="preactivation"),
        attention_call(device, b=2, h=4, kv=2, s=67, keys=45, d=24, wide=40, causal=True, window=19, bias=True),
    ):
        yield replace(call, name=f"{call.name}, turned", turned=True)


def verify(device: str) -> Iterator[Row]:
    """Values, gradients and tangents in float64 beside plain PyTorch; gradcheck where it is small enough."""
    for call in small_calls(device):
        inputs, cotangent = settings(call, torch.float64, device, 0)
        ours, plain = (results(f, inputs, cotangent) for f in (call.ours, call.plain))
        vs = {n: call.laid(torch.randn_like(t)) for n, t in inputs.items()}
        ours["y'"], plain["y'"] = (tangent(f, inputs, vs) for f in (call.ours, call.plain))
        for name, want in plain.items():
            gap = distance(ours[name], want)
            wrong = "" if gap <= AGREES else f"differs by {gap:.1e} of its size"
            yield Row(call.name, name, gap, AGREES, gap / AGREES, wrong)
    for call in (
        matmul_call(device, m=5, n=4, k=3, act="gelu"),
        attention_call(device, b=1, h=2, kv=1, s=5, keys=7, d=3, causal=True),
        attention_call(device, b=1, h=2, kv=1, s=5, keys=7, d=3, causal=True, deterministic=False),
    ):
        yield _gradchecked(call, device)


def _gradchecked(call: Call, device: str) -> Row:
    inputs = call.inputs(torch.float64, device)
    try:
        torch.autograd.gradcheck(
            lambda *ts: call.ours(**dict(zip(inputs, ts, strict=True))),
            tuple(inputs.values()),
            check_forward_ad=True,
            nondet_tol=AGREES if call.apart else 0.0,
        )
    except RuntimeError as error:  # GradcheckError is one
        return Row(call.name, "gradcheck", 1.0, 0.0, float("inf"), str(error).strip().split("\n")[0])
    return Row(call.name, "gradcheck", 0.0, 0.0, 0.0)


def narrow_calls(device: str) -> Iterator[Call]:
    """Sizes that a model has; small ones on a CPU, which only rehearses."""
    whole = device.startswith("cuda")
    s, m = (2048, 2048) if whole else (64, 64)
    for d in (64, 128) if whole else (16,):
        for causal in (False, True):
            for deterministic in (True, False):
                heads = 8 if whole else 2
                yield attention_call(device, b=2, h=heads, s=s, d=d, causal=causal, deterministic=deterministic)
    yield matmul_call(device, m=m, n=m, k=m, act="none", bias=False)
    for act in ("gelu", "gelu_tanh", "silu", "relu"):
        yield matmul_call(device, m=m, n=m, k=m, act=act)
        if has_descriptors(device):
            yield matmul_call(device, m=m, n=m, k=m, act=act, tiles=BY_DESCRIPTORS)


def precision(device: str) -> Iterator[Row]:
    """The error of values and gradients in narrow dtypes, as a ratio to that of PyTorch's own kernel."""
    torch.set_float32_matmul_precision("highest")
    for dtype in DTYPES:
        for call in narrow_calls(device):
            # Flash attention has no float32; the unfused computation has.
            rival = call.plain if dtype == "fp32" else next(iter(call.rivals.values()))
            inputs, cotangent = settings(call, DTYPES[dtype], device, 0)
            exact = results(call.plain, widened(inputs), cotangent.double())
            ours, theirs = (results(f, inputs, cotangent) for f in (call.ours, rival))
            for name, want in exact.items():
                yield compared(dtype, call.name, name, distance(ours[name], want), distance(theirs[name], want))


def compared(dtype: str, call: str, name: str, mine: float, other: float) -> Row:
    """Two relative errors beside each other; nobody's is below the rounding of the result."""
    ratio = mine / max(other, UNIT[dtype] / 4)
    most = MOST.get(dtype, float("inf"))
    wrong = "" if ratio <= most else f"{ratio:.2f} times the error of PyTorch's kernel, {most} is allowed"
    return Row(f"{dtype} {call}", name, mine, other, ratio, wrong)


def repeat(device: str) -> Iterator[Row]:
    """The same call gives the same bits, forward, backward and forward mode; what adds in any order, nearly them."""
    times = REPEATS if device.startswith("cuda") else 3
    for call in narrow_calls(device):
        inputs, cotangent = settings(call, torch.bfloat16, device, 0)
        vs = {n: torch.ones_like(t) for n, t in inputs.items()}
        bars = call.apart(inputs, cotangent) if call.apart else {}
        first = results(call.ours, inputs, cotangent) | {"y'": tangent(call.ours, inputs, vs)}
        differing: dict[str, int] = dict.fromkeys(first, 0)
        farthest: dict[str, float] = dict.fromkeys(bars, 0.0)
        for _ in range(times - 1):
            again = results(call.ours, inputs, cotangent) | {"y'": tangent(call.ours, inputs, vs)}
            for name, value in again.items():
                differing[name] += not torch.equal(value, first[name])
                if name in bars:
                    farthest[name] = max(farthest[name], in_bars(value, first[name], bars[name]))
        for name, count in differing.items():
            if name in bars:
                yield _varying(call.name, name, count, farthest[name])
            else:
                wrong = f"{count} of {times} repeats have other bits" if count else ""
                yield Row(call.name, name, count, times, count / times, wrong)


def in_bars(value: Tensor, other: Tensor, bar: Tensor) -> float:
    """The largest distance of two elements in units of its bar; infinite where it is not a number."""
    ratio = (value.double() - other.double()).abs() / bar.clamp_min(torch.finfo(torch.float64).tiny)
    return float(ratio.nan_to_num(nan=torch.inf).max()) if ratio.numel() else 0.0


def _varying(call: str, name: str, count: int, farthest: float) -> Row:
    wrong = (
        "" if farthest <= 1 else f"repeats lie {farthest:.1f} times as far apart as an order of summation may put them"
    )
    return Row(call, f"{name}, in any order", count, 1.0, farthest, wrong)


def tiny(device: str) -> None:
    """Every kernel once, at sizes that a sanitizer gets through."""
    for call in (
        matmul_call(device, m=17, n=19, k=21, act="gelu"),
        attention_call(device, b=1, h=2, kv=1, s=19, keys=21, d=5, causal=True),
        attention_call(device, b=1, h=1, s=16, d=16, causal=False),
        attention_call(device, b=1, h=2, kv=1, s=19, keys=21, d=5, causal=True, bias=True, deterministic=False),
    ):
        inputs, cotangent = settings(call, torch.float32, device, 0)
        results(call.ours, inputs, cotangent)
        tangent(call.ours, inputs, {n: torch.ones_like(t) for n, t in inputs.items()})


def sanitize(device: str) -> Iterator[Row]:
    """Run compute-sanitizer's tools over `tiny`, where it is installed."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None or not device.startswith("cuda"):
        yield Row("compute-sanitizer", "not installed here: nothing was looked at", 0.0, 0.0, 0.0)
        return
    for name in ("memcheck", "racecheck", "initcheck"):
        command = [tool, "--tool", name, "--error-exitcode", "9", sys.executable, "-m", "ci.kernels.gpu", "tiny"]
        # Blocks of the caching allocator are far larger than tensors: what lies past a tensor would be inside of them.
        env = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        try:
            done = subprocess.run(
                [*command, "--device", device], capture_output=True, text=True, timeout=150, check=False, env=env
            )
        except subprocess.TimeoutExpired:
            yield Row("compute-sanitizer", f"{name}: not done within 150 s", 0.0, 0.0, 0.0)
            continue
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
        wrong = "" if done.returncode == 0 else f"exit {done.returncode}: {''.join(last)}"
        yield Row("compute-sanitizer", name, done.returncode, 0.0, 0.0, wrong)
