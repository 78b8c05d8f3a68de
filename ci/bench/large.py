"""The large ops of the judge's table: 2,000 to 1,000,000 inputs, with faults that random projections may miss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ci.bench.op import Bug, Fn, Op
from ci.bench.ops import (
    _rms_norm_frozen,
    _single,
    _softmax_frozen,
    entry,
    instead,
    layer_norm,
    moved,
    normal,
    rms_norm,
    scaled,
    softmax,
    where_small,
)

MILLION = 1_000_000


def gate(x: Tensor) -> Tensor:
    """x sigmoid(1.7 x)."""
    return x / (1 + torch.exp(-1.7 * x))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return softmax(q @ k.mT / 32**0.5) @ v


def _sorted(x: Tensor) -> Tensor:
    return torch.sort(x)[0]


def _swap(g: Tensor) -> Tensor:
    out = g.clone()
    out[700], out[1300] = g[1300], g[700]
    return out


def _conv(x: Tensor, w: Tensor) -> Tensor:
    return functional.conv2d(x, w, padding=1)


def _zero_row(g: Tensor) -> Tensor:
    return torch.cat([g[:40], 0 * g[40:41], g[41:]])


def _last_key(g: Tensor) -> Tensor:
    return torch.cat([g[:-1], 0 * g[-1:]])


def large_ops() -> list[Op]:
    """All of them; seeds as for the small ones."""
    gate_bugs = (
        entry(1234),
        entry(1234, 1.01),
        moved("a row of 64 shifted", lambda g: torch.cat([g[:640], g[640:704].roll(1), g[704:]])),
        moved("reversed", lambda g: g.flip(0)),
        scaled(1 + 5e-4),
        scaled(1 + 2e-5),
    )
    square = (normal("large a", 64, 64), normal("large b", 64, 64))
    norm = (normal("large ln", 32, 64, scale=0.3), normal("large lw", 64), normal("large lb", 64))
    qkv = tuple(normal(f"large {c}", 48, 32) for c in "qkv")
    wide = 10 ** (normal("large wide", 3000).clamp(-2, 2) * 3) * normal("large sign", 3000).sign()
    table: list[tuple[str, Fn, tuple[Tensor, ...], tuple[Bug, ...]]] = [
        ("gate", gate, (normal("large gate", 4096),), gate_bugs),
        (
            "matmul 64",
            torch.matmul,
            square,
            (moved("a transposed", lambda g: g.mT), moved("row of b dropped", _zero_row, 1), entry(777)),
        ),
        ("layer norm 32 x 64", layer_norm, norm, (instead("eps left out", lambda x, w, b: layer_norm(x, w, b, 0.0)),)),
        ("attention 48 x 32", _attention, qkv, (moved("last key dropped", _last_key, 1),)),
        ("softmax 64 x 64", softmax, (normal("large sm", 64, 64),), (instead("sum term dropped", _softmax_frozen),)),
        ("sort", _sorted, (normal("large sort", 2000),), (moved("two entries swapped", _swap),)),
        ("cube, 1e-6 to 1e6", lambda x: x * x * x, (wide,), (where_small(1e-3, 0.0),)),
        ("matmul 64 in float32", _single(torch.matmul), square, (moved("a transposed", lambda g: g.mT),)),
        (
            "convolution",
            _conv,
            (normal("large cx", 1, 8, 16, 16), normal("large cw", 8, 8, 3, 3)),
            (moved("kernel flipped", lambda g: g.flip(2, 3), 1),),
        ),
        (
            "running sum",
            lambda x: torch.cumsum(x, 0),
            (normal("large cs", 20_000),),
            (moved("reversed", lambda g: g.flip(0)),),
        ),
        (
            "logsumexp",
            lambda x: torch.logsumexp(x, 0),
            (normal("large lse", 100_000),),
            (entry(77_777), scaled(1.0001)),
        ),
        (
            "rms norm of a million",
            rms_norm,
            (normal("large rms", MILLION),),
            (instead("mean term dropped", _rms_norm_frozen), entry(123_456)),
        ),
        ("gate of a million", gate, (normal("large million", MILLION),), (entry(123_456), scaled(1.001))),
    ]
    return [Op(name=n, kind="large", fn=f, inputs=x, bugs=b) for n, f, x, b in table]
