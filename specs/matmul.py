"""act(x @ w + b) in one kernel: every activation, and both things that its backward can start from.

gelu by erfc, and by the sigmoid: 1 + erf(z) and 1 + tanh(z) have no digits left far below 0, and no derivative either.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

import gradverify as gv
from gradverify.catalogue import matmul as ops

ACTIVATIONS = {
    "none": lambda z: z,
    "relu": lambda z: z.clamp(min=0),
    "gelu": lambda z: z / 2 * torch.erfc(-z / 2**0.5),
    "gelu_tanh": lambda z: z * torch.sigmoid((8 / math.pi) ** 0.5 * (z + 0.044715 * z**3)),
    "silu": lambda z: z * torch.sigmoid(z),
}


@gv.spec(
    ops.matmul,
    dims={"n": gv.dim(around=16), "k": gv.dim(around=16)},
    examples=[
        gv.example(m=(), k=1, n=1),  # a vector: no rows at all
        gv.example(m=(0,), k=3, n=2, act="silu"),
        gv.example(m=(2,), k=0, n=3, act="gelu"),  # nothing to sum: y = act(b)
        gv.example(m=(3,), k=2, n=0, act="gelu_tanh"),
        gv.example(m=(2, 17), k=33, n=16, act="gelu", save="preactivation"),
        gv.example(m=(65,), k=17, n=31, act="relu", save="preactivation"),
    ],
)
def matmul(
    x: Annotated[Tensor, "*m k"],
    w: Annotated[Tensor, "k n"],
    b: Annotated[Tensor, "n"] | None = None,
    *,
    act: Literal["none", "relu", "gelu", "gelu_tanh", "silu"] = "none",
    save: Literal["input", "preactivation"] = "input",
    backend: Literal["auto"] = "auto",
) -> Tensor:
    """act(x @ w + b)."""
    z = (x.unsqueeze(-1) * w).sum(-2)
    return ACTIVATIONS[act](z if b is None else z + b)
