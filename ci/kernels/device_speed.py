"""How fast, and with how much memory: medians of do_bench beside PyTorch's own kernels, forced one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ci.kernels.calls import (
    BY_DESCRIPTORS,
    Call,
    Function,
    attention_call,
    backend_on,
    has_descriptors,
    matmul_call,
    plain_attention,
    settings,
    tangent,
)

TOKENS, WIDTH = 16_384, 2_048
"""Rows of all sequences together, and features of all heads: every attention below has as many."""

LENGTHS = (1_024, 2_048, 4_096, 8_192, 16_384)
HEADS = (64, 128)
JVP_LENGTHS = (1_024, 2_048)
"""Unfused, forward mode holds all scores and their tangents: more does not fit."""

WARMUP, REPEATS = 25, 100
"""Milliseconds of each, for a measurement."""

MUST = {
    "attention forward D 128 / flash": 1.25,
    "attention forward D 64 / flash": 1.20,
    "attention backward D 128 / flash": 1.0,
    "attention backward D 64 / flash": 1.0,
    "attention jvp D 64 / unfused": 3.0,
    "attention jvp D 128 / unfused": 3.0,
    "matmul forward / cuBLAS": 0.92,
    "matmul forward / linear + act": 1.05,
}
"""The least speed, as a multiple of the rival's; geometric mean over the shapes of two thousand rows and more."""


@dataclass(frozen=True)
class Timing:
    """One measurement: milliseconds, and arithmetic per second by the model's count."""

    call: str
    group: str
    rows: int
    who: str
    milliseconds: float
    teraflops: float


def median(function: Callable[[], object]) -> float:
    """Milliseconds of a call, the median; NaN where the device cannot run it."""
    from triton.testing import do_bench

    try:
        return float(do_bench(function, warmup=WARMUP, rep=REPEATS, return_mode="median"))
    except (RuntimeError, torch.OutOfMemoryError):  # a forced backend that has no kernel for this shape
        return float("nan")


def speed(device: str) -> Iterator[Timing]:
    """All timings. A CPU has none: what would be timed is called once, at small sizes."""
    measure = median if device.startswith("cuda") else _rehearsed
    for s, d, causal in _shapes(device):
        heads = max(WIDTH // d, 1) if device.startswith("cuda") else 2
        batch = max(TOKENS // s, 1) if device.startswith("cuda") else 1
        call = attention_call(device, b=batch, h=heads, s=s, d=d, causal=causal)
        flops = 4.0 * batch * heads * s * s * d / (2 if causal else 1)
        timings = list(_timed(call, device, measure, s, f"attention {{}} D {d}", flops, 2.5 * flops))
        yield from timings
        fused = attention_call(device, b=batch, h=heads, s=s, d=d, causal=causal, deterministic=False)
        yield from _timed_fused(fused, device, measure, [t for t in timings if " backward " in t.group])
        if s in JVP_LENGTHS or not device.startswith("cuda"):
            unfused = lambda q, k, v, causal=causal: plain_attention(q, k, v, causal=causal)  # noqa: E731
            named = {"ours": call.ours, "unfused": unfused}
            yield from _timed_jvp(call, device, measure, s, f"attention jvp D {d}", 3 * flops, named)
    for m, n, k, act, bias in _products(device):
        call = matmul_call(device, m=m, n=n, k=k, act=act, bias=bias)
        if has_descriptors(device):
            other = matmul_call(device, m=m, n=n, k=k, act=act, bias=bias, tiles=BY_DESCRIPTORS)
            call = replace(call, rivals={**call.rivals, "ours by descriptors": other.ours})
        yield from _timed(call, device, measure, m, "matmul {}", 2.0 * m * n * k, 4.0 * m * n * k)


def _shapes(device: str) -> Iterator[tuple[int, int, bool]]:
    if not device.startswith("cuda"):
        yield 32, 16, True
        return
    for d in HEADS:
        for causal in (False, True):
            for s in LENGTHS:
                yield s, d, causal


def _products(device: str) -> Sequence[tuple[int, int, int, str, bool]]:
    if not device.startswith("cuda"):
        return ((32, 32, 32, "gelu", True),)
    sizes = ((4096, 4096, 4096), (8192, 8192, 4096), (8192, 4096, 8192))
    plain = [(*s, "none", False) for s in sizes]
    return (*plain, *((*s, act, True) for s in sizes[:2] for act in ("gelu", "silu", "relu")))


def _timed(
    call: Call,
    device: str,
    measure: Callable[[Callable[[], object]], float],
    rows: int,
    group: str,
    forward: float,
    backward: float,
) -> Iterator[Timing]:
    inputs, cotangent = settings(call, torch.bfloat16, device, 0)
    for who, function in {"ours": call.ours, **call.rivals}.items():
        frozen = {n: t.detach() for n, t in inputs.items()}
        ms = measure(lambda f=function, x=frozen: f(**x))
        yield Timing(call.name, group.format("forward"), rows, who, ms, forward / ms / 1e9)
        ms = _backward(function, inputs, cotangent, measure)
        yield Timing(call.name, group.format("backward"), rows, who, ms, backward / ms / 1e9)


def _timed_fused(
    call: Call, device: str, measure: Callable[[Callable[[], object]], float], others: Sequence[Timing]
) -> Iterator[Timing]:
    """The fused backward, in a group of its own with those that were timed already: PyTorch's, and our split one."""
    inputs, cotangent = settings(call, torch.bfloat16, device, 0)
    split = next(t for t in others if t.who == "ours")
    own = {"call": call.name, "group": split.group.replace("backward", "backward, fused")}
    ms = _backward(call.ours, inputs, cotangent, measure)
    done = split.teraflops * split.milliseconds / ms
    yield replace(split, **own, milliseconds=ms, teraflops=done)  # type: ignore[arg-type]
    for t in others:
        yield replace(t, **own, who="split" if t is split else t.who)  # type: ignore[arg-type]


def _backward(
    function: Function, inputs: Mapping[str, Tensor], cotangent: Tensor, measure: Callable[..., float]
) -> float:
    try:
        y = function(**inputs)
    except RuntimeError:  # no such kernel for this shape
        return float("nan")
    leaves = list(inputs.values())
    return measure(lambda: torch.autograd.grad(y, leaves, cotangent, retain_graph=True))


def _timed_jvp(
    call: Call,
    device: str,
    measure: Callable[..., float],
    rows: int,
    group: str,
    flops: float,
    named: Mapping[str, Function],
) -> Iterator[Timing]:
    inputs, _ = settings(call, torch.bfloat16, device, 0)
    vs = {n: torch.ones_like(t) for n, t in inputs.items()}
    for who, function in named.items():
        ms = measure(lambda f=function: tangent(f, inputs, vs))
        yield Timing(call.name, group, rows, who, ms, flops / ms / 1e9)


def _rehearsed(function: Callable[[], object]) -> float:
    function()
    return float("nan")


def ratios(timings: Sequence[Timing]) -> dict[str, tuple[float, float]]:
    """'group / rival' -> geometric mean of our speed in units of the rival's, and how much of it is demanded."""
    ours = {(t.call, t.group): t for t in timings if t.who == "ours"}
    found: dict[str, list[float]] = {}
    for t in timings:
        if t.who == "ours" or (t.rows < 2_048 and "jvp" not in t.group):
            continue
        ratio = t.milliseconds / ours[t.call, t.group].milliseconds
        if ratio == ratio:
            found.setdefault(f"{t.group} / {t.who}", []).append(ratio)
    means = {n: float(torch.tensor(r, dtype=torch.float64).log().mean().exp()) for n, r in found.items()}
    return {n: (mean, MUST.get(n, float("nan"))) for n, mean in means.items()}


def not_measured(timings: Sequence[Timing]) -> list[str]:
    """Kernels of ours that did not run, and demands that nothing was held against: neither may pass for met."""
    silent = [
        f"{t.call}: {t.group} did not run" for t in timings if t.who == "ours" and t.milliseconds != t.milliseconds
    ]
    return silent + [f"{n}: nothing was measured" for n in MUST if n not in ratios(timings)]


@dataclass(frozen=True)
class Memory:
    """Bytes held at the peak of a call beyond its inputs and results, at two lengths."""

    call: str
    what: str
    bytes_short: int
    bytes_long: int
    per_row: float
    wrong: str


def memory(device: str) -> Iterator[Memory]:
    """Forward and backward of attention hold a few numbers a row, not the square of the length."""
    if not device.startswith("cuda"):
        return
    for d in HEADS:
        for what, peak in PEAKS.items():
            one_order = not what.endswith("fused")
            short, long = (
                attention_call(device, b=1, h=8, s=s, d=d, causal=True, deterministic=one_order)
                for s in (8_192, 16_384)
            )
            small, large = (peak(call, device) for call in (short, long))
            # Twice the rows: twice the memory, where it grows with the rows; four times, where with their square.
            wrong = (
                ""
                if large <= 2.2 * max(small, 1 << 20)
                else f"grows {large / max(small, 1):.1f}-fold with twice the rows"
            )
            yield Memory(f"attention H 8 D {d} causal", what, small, large, large / (8 * 16_384), wrong)


def _peak_forward(call: Call, device: str) -> int:
    inputs, _ = settings(call, torch.bfloat16, device, 0)
    return _peak(lambda: call.ours(**{n: t.detach() for n, t in inputs.items()}))


def _peak_backward(call: Call, device: str) -> int:
    inputs, cotangent = settings(call, torch.bfloat16, device, 0)
    y = call.ours(**inputs)
    return _peak(lambda: torch.autograd.grad(y, list(inputs.values()), cotangent, retain_graph=True))


PEAKS = {"forward": _peak_forward, "backward": _peak_backward, "backward, fused": _peak_backward}


def _peak(function: Callable[[], object]) -> int:
    function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = function()
    torch.cuda.synchronize()
    tensors = kept if isinstance(kept, tuple) else (kept,)
    own = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
    return torch.cuda.max_memory_allocated() - before - own


def uses_kernels(device: str) -> str:
    """What `ours` is on a device."""
    return "Triton kernels" if backend_on(device) == "triton" else "plain PyTorch, a rehearsal"
