"""Calls of the fused ops beside what they are compared with: plain float64, and PyTorch's own fused kernels.

It needs torch and the catalogue, nothing else: a machine with a GPU may have no more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradverify.catalogue.attention import attention
from gradverify.catalogue.matmul import Tiles, matmul

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda z: z,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "silu": functional.silu,
}
RIVALS = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}

ACCUMULATORS = {torch.float64: torch.float64}
SMALLEST_TILE = 16

Function = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Call:
    """Inputs by shape, our op, and the same in plain PyTorch.

    `rivals`: name -> PyTorch's own fast way; the first is the one whose error ours is held against. `turned`: inputs,
    cotangent and tangents lie in memory the other way round, with gaps: no stride is 1. `apart`: of inputs and
    cotangent, gradients whose sums are taken in any order: name -> how far equal calls may lie apart, by element.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    ours: Function
    plain: Function
    rivals: Mapping[str, Function] = field(default_factory=dict)
    turned: bool = False
    apart: Callable[[Mapping[str, Tensor], Tensor], Mapping[str, Tensor]] | None = None

    def inputs(self, dtype: torch.dtype, device: str, *, seed: int = 0, grad: bool = True) -> dict[str, Tensor]:
        """Standard normal inputs, drawn on the CPU so that every device gets the same."""
        g = torch.Generator().manual_seed(seed)
        drawn = {n: torch.randn(s, generator=g, dtype=torch.float64) for n, s in self.shapes.items()}
        return {n: self.laid(t.to(device, dtype)).requires_grad_(grad) for n, t in drawn.items()}

    def laid(self, t: Tensor) -> Tensor:
        """The tensor in the memory of this call."""
        if not self.turned:
            return t
        backwards = list(range(t.ndim))[::-1]
        return t.permute(backwards).repeat_interleave(2, -1)[..., ::2].permute(backwards)


BY_DESCRIPTORS = Tiles(128, 128, 64, warps=8, tma=True)
"""The persistent kernel of a GPU that `has_descriptors`."""


def has_descriptors(device: str) -> bool:
    """Whether it has them, and the shared memory for such tiles in float32; a CPU rehearses."""
    return not device.startswith("cuda") or torch.cuda.get_device_capability(device)[0] in (9, 10)


def backend_on(device: str) -> Literal["triton", "torch"]:
    """Kernels on a GPU; on a CPU what stands in for them."""
    return "triton" if device.startswith("cuda") else "torch"


def attention_call(
    device: str,
    *,
    b: int,
    h: int,
    s: int,
    d: int,
    causal: bool,
    kv: int | None = None,
    keys: int | None = None,
    wide: int | None = None,
    window: int | None = None,
    hidden: float = 0.0,
    bias: bool = False,
    deterministic: bool = True,
) -> Call:
    """Attention of s rows over as many keys, or over `keys`; `kv` heads of k and v, `wide` features of v.

    `hidden`: the share of scores that a boolean mask hides. `bias`: an additive mask, differentiated too.
    """
    keys, kv, wide = keys or s, kv or h, wide or d
    named = {n: _sdpa(backend, causal=causal) for n, backend in RIVALS.items() if n != "math"}
    square = keys == s and kv == h and window is None and not hidden and not bias
    seen = torch.rand(s, keys, generator=torch.Generator().manual_seed(0)) >= hidden if hidden else None
    options = {"causal": causal, "window": window}

    def masked(q: Tensor, mask: Tensor | None) -> Tensor | None:
        return mask if seen is None else seen.to(q.device)

    return Call(
        name=f"attention B {b} H {h}{'' if kv == h else f':{kv}'} S {s}{'' if keys == s else f':{keys}'} D {d}"
        f"{'' if wide == d else f':{wide}'}{' causal' if causal else ''}{'' if window is None else f' window {window}'}"
        f"{' masked' if hidden else ''}{' biased' if bias else ''}{'' if deterministic else ' by atomics'}",
        shapes={"q": (b, h, s, d), "k": (b, kv, keys, d), "v": (b, kv, keys, wide)}
        | ({"mask": (h, 1, keys)} if bias else {}),
        ours=lambda q, k, v, mask=None: attention(
            q, k, v, masked(q, mask), **options, deterministic=deterministic, backend=backend_on(device)
        ),
        plain=lambda q, k, v, mask=None: plain_attention(q, k, v, masked(q, mask), **options),
        rivals=(named if device.startswith("cuda") else {"math": _sdpa(RIVALS["math"], causal=causal)})
        if square
        else {},
        apart=None if deterministic or hidden or bias else partial(any_order, **options),
    )


def any_order(
    inputs: Mapping[str, Tensor], cotangent: Tensor, *, causal: bool, window: int | None
) -> dict[str, Tensor]:
    """How far two dq = scale Σ part of the same parts may lie apart, whatever the order of summation.

    Each sum of T parts in float32 errs by at most (T - 1) u Σ|part|, and its rounding to q's dtype by half a unit.
    T: for the smallest tiles that a GPU takes; Σ|part| is at most scale p (|u vᵀ| + <|u|, |o|>) |k|.
    """
    q, k, v = (t.detach().double() for t in inputs.values())
    u, scale = cotangent.double(), q.shape[-1] ** -0.5
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    one = torch.eye(k.shape[2], dtype=k.dtype, device=k.device).expand(*k.shape[:3], -1)
    p = plain_attention(q, k, one, causal=causal, window=window)
    dp = u @ v.mT
    parts = scale * (p * (dp.abs() + (u * (p @ v)).abs().sum(-1, keepdim=True))) @ k.abs()
    dq = scale * (p * (dp - (p * dp).sum(-1, keepdim=True))) @ k
    narrow, sums = (torch.finfo(t).eps for t in (cotangent.dtype, ACCUMULATORS.get(cotangent.dtype, torch.float32)))
    return {"dq": (k.shape[2] // SMALLEST_TILE) * sums * parts + narrow * (dq.abs() + narrow * parts)}


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool, window: int | None = None
) -> Tensor:
    """All scores at once; the last row sees the last key; a row that sees nothing is 0."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    if not causal and window is None and (mask is None or mask.dtype != torch.bool):
        return scores.softmax(-1) @ v
    hidden = torch.zeros(scores.shape[-2:], dtype=torch.bool, device=q.device)
    ahead = torch.arange(hidden.shape[1], device=q.device) - torch.arange(hidden.shape[0], device=q.device)[:, None]
    ahead = ahead - (hidden.shape[1] - hidden.shape[0])
    if causal:
        hidden = hidden | (ahead > 0)
    if window is not None:
        hidden = hidden | (ahead.abs() > window)
    if mask is not None and mask.dtype == torch.bool:
        hidden = hidden | ~mask
    dead = hidden.all(-1, keepdim=True)
    scores = scores.masked_fill(hidden & ~dead, -torch.inf)
    return scores.softmax(-1).masked_fill(dead, 0) @ v


def _sdpa(backend: SDPBackend, *, causal: bool) -> Function:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return call


def matmul_call(
    device: str,
    *,
    m: int,
    n: int,
    k: int,
    act: str,
    bias: bool = True,
    save: Literal["input", "preactivation"] = "input",
    tiles: Tiles | None = None,
) -> Call:
    """act(x @ w + b)."""
    function = ACTIVATIONS[act]
    rivals: dict[str, Function] = {"linear + act": lambda x, w, b=None: function(functional.linear(x, w.mT, b))}
    if act == "none" and not bias:
        rivals = {"cuBLAS": lambda x, w: x @ w}
    return Call(
        name=f"matmul {m} x {n} x {k} {act}{'' if bias else ', no bias'}{'' if save == 'input' else ', z kept'}"
        f"{', by descriptors' if tiles and tiles.tma else ''}",
        shapes={"x": (m, k), "w": (k, n)} | ({"b": (n,)} if bias else {}),
        ours=lambda x, w, b=None: matmul(
            x, w, b, act=cast("Any", act), save=save, backend=backend_on(device), tiles=tiles
        ),
        plain=lambda x, w, b=None: function(x @ w if b is None else x @ w + b),
        rivals=rivals,
    )


def results(function: Function, inputs: Mapping[str, Tensor], cotangent: Tensor) -> dict[str, Tensor]:
    """The output and the gradients, by name."""
    y = function(**inputs)
    grads = torch.autograd.grad(y, list(inputs.values()), cotangent.to(y.dtype))
    return {"y": y.detach()} | {f"d{n}": g for n, g in zip(inputs, grads, strict=True)}


def tangent(function: Function, inputs: Mapping[str, Tensor], tangents: Mapping[str, Tensor]) -> Tensor:
    """The tangent of the output, by forward mode; torch warns of a deprecation of its own there."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        duals = {n: forward_ad.make_dual(t.detach(), tangents[n]) for n, t in inputs.items()}
        return forward_ad.unpack_dual(function(**duals)).tangent


def distance(value: Tensor, exact: Tensor) -> float:
    """||value - exact|| / ||exact||, in float64."""
    size = float(torch.linalg.vector_norm(exact.double()))
    gap = float(torch.linalg.vector_norm(value.double() - exact.double()))
    return gap / size if size else gap


def settings(call: Call, dtype: torch.dtype, device: str, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs in a dtype and a cotangent in it, the same for ours, the rival and the truth."""
    inputs = call.inputs(dtype, device, seed=seed)
    with torch.no_grad():
        shape = call.plain(**{n: t.to("meta") for n, t in inputs.items()}).shape
    g = torch.Generator().manual_seed(seed + 1)
    return inputs, call.laid(torch.randn(shape, generator=g, dtype=torch.float64).to(device, dtype))


def widened(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same numbers in float64."""
    return {n: t.detach().double().requires_grad_() for n, t in inputs.items()}
