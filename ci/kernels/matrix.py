"""What is compiled: calls of the ops on meta tensors, each with its backward and its forward mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from gradverify.catalogue.matmul import Tiles

WIDE = Tiles(128, 256, 64, group=8, warps=8, stages=4, tma=True)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}

RAGGED: dict[str, Any] = {"d": 80, "s": 1000, "heads": (16, 4), "causal": True}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One call of an op.

    Attributes:
        op: in the catalogue.
        dtype: of DTYPES.
        shapes: argument -> shape; `~` before a name: transposed in memory.
        options: keywords.
        whole: only with --all.
        least: the first architecture that it is for.
    """

    op: str
    dtype: str
    shapes: Shapes
    options: Mapping[str, Any] = field(default_factory=dict)
    words: str
    whole: bool = False
    least: int = 0

    @property
    def name(self) -> str:
        return f"{self.op} {self.dtype} {self.words}"


def called(function: Callable[..., Tensor], entry: Entry) -> None:
    """Forward, backward and forward mode of an entry, on meta tensors."""
    args = {n: torch.empty(s, dtype=DTYPES[entry.dtype], device="meta") for n, s in entry.shapes.items()}
    y = function(**{n: t.requires_grad_() for n, t in args.items()}, **entry.options, backend="triton")
    y.backward(torch.empty_like(y))
    with forward_ad.dual_level():
        duals = {n: forward_ad.make_dual(t.detach(), torch.empty_like(t)) for n, t in args.items()}
        function(**duals, **entry.options, backend="triton")


def _matmul(dtype: str, words: str, *, m: int = 4096, n: int = 4096, k: int = 1024, **options: Any) -> Entry:
    own = {key: options.pop(key) for key in ("whole", "least") if key in options}
    shapes = {"x": (m, k), "w": (k, n), "b": (n,)}
    return Entry(op="matmul", dtype=dtype, shapes=shapes, options=options, words=words, **own)


def _attention(
    dtype: str, words: str, *, d: int, s: int = 4096, heads: tuple[int, int] = (16, 16), **options: Any
) -> Entry:
    whole = options.pop("whole", False)
    q, kv = heads
    shapes = {"q": (2, q, s, d), "k": (2, kv, s, d), "v": (2, kv, s, d)}
    return Entry(op="attention", dtype=dtype, shapes=shapes, options=options, words=words, whole=whole)


def _named() -> Iterator[Entry]:
    yield _matmul("bf16", "gelu", act="gelu")
    yield _matmul("bf16", "silu, kept", act="silu", save="preactivation")
    yield _matmul("fp16", "ragged", m=1000, n=1001, k=77, act="gelu_tanh")
    yield _matmul("fp64", "gelu", act="gelu")
    yield _attention("bf16", "D 128 causal", d=128, causal=True)
    yield _attention("bf16", "D 64", d=64)
    yield _attention("fp16", "D 80 ragged, grouped", **RAGGED)
    yield _attention("fp64", "D 64 causal", d=64, causal=True)
    yield _attention("bf16", "D 128 causal, fused", d=128, causal=True, deterministic=False)
    yield _attention("bf16", "D 64, fused", d=64, deterministic=False)


def _rest() -> Iterator[Entry]:
    yield _matmul("fp32", "gelu", act="gelu", whole=True)
    yield _attention("fp32", "D 64 causal", d=64, causal=True, whole=True)
    yield _attention("fp16", "D 80 ragged, fused", **RAGGED, deterministic=False, whole=True)
    yield _attention("fp64", "D 64 causal, fused", d=64, causal=True, deterministic=False, whole=True)
    yield _attention("fp32", "D 64 causal, fused", d=64, causal=True, deterministic=False, whole=True)
    for act in ("none", "relu", "gelu", "gelu_tanh", "silu"):
        yield _matmul("bf16", f"{act}, by descriptors", act=act, tiles=WIDE, least=90, whole=True)
    for dtype in DTYPES:
        for act in ("none", "relu", "gelu_tanh"):
            yield _matmul(dtype, act, act=act, whole=True)
        for d in (32, 96, 128, 256):
            yield _attention(dtype, f"D {d} causal, all", d=d, causal=True, whole=True)
            yield _attention(dtype, f"D {d} causal, fused, all", d=d, causal=True, deterministic=False, whole=True)
        yield _attention(dtype, "D 64 window", d=64, causal=True, window=256, whole=True)


ENTRIES = (*_named(), *_rest())
