"""Quantisation with a learned step size: what the surrogate holds constant is named by `gv.frozen`.

Plain `detach()` would not do inside a surrogate: finite differences call it at shifted points, where a detached term
changes all the same. `gv.frozen` records the term at the point itself and replays it at the shifted ones.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor

import gradverify as gv
from gradverify.catalogue import lsq_quant as ops


def held_rounding(x: Tensor, step: Tensor, *, qmin: int, qmax: int, grad_scale: float | None) -> Tensor:
    """What backward is the derivative of: s (c + f), with c = clamp(x / s) and the rounding f = round(c) - c constant.

    Only a share k of what s moves counts: the step's gradient is scaled by k. At the point itself s is the step.
    """
    per_step = x.numel() // max(step.numel(), 1)
    k = 1 / math.sqrt(max(per_step, 1) * qmax) if grad_scale is None else grad_scale
    start = gv.frozen(step)
    s = start + k * (step - start)
    c = (x / s).clamp(qmin, qmax)
    return s * (c + gv.frozen(c.round() - c))


@gv.spec(
    ops.lsq_quant,
    backward_of=held_rounding,
    examples=[gv.example(b=()), gv.example(b=(0, 3)), gv.example(b=(65,), qmin=0, qmax=255)],
)
def lsq_quant(
    x: Annotated[Tensor, "*b"],
    step: Annotated[Tensor, "", gv.domain(0.01, 10)],
    *,
    qmin: Literal[-128, -8, 0] = -128,
    qmax: Literal[127, 7, 255] = 127,
    grad_scale: Annotated[float, gv.domain(0.01, 2)] | None = None,
) -> Tensor:
    """Round to the nearest of the levels q s, q = qmin ... qmax; both x and the step s are learned."""
    return (x / step).clamp(qmin, qmax).round() * step


@gv.spec(
    ops.lsq_quant,
    backward_of=lambda x, step, *, axis, **levels: held_rounding(x, step.unsqueeze(-1), **levels),
    examples=[gv.example(b=2, c=1, n=3, axis=-2), gv.example(b=0, c=2, n=1), gv.example(b=1, c=0, n=2)],
)
def lsq_quant_channel(
    x: Annotated[Tensor, "b c n"],
    step: Annotated[Tensor, "c", gv.domain(0.01, 10)],
    *,
    qmin: Literal[-128, -8, 0] = -128,
    qmax: Literal[127, 7, 255] = 127,
    grad_scale: Annotated[float, gv.domain(0.01, 2)] | None = None,
    axis: Literal[1, -2] = 1,
) -> Tensor:
    """The same with a step for each channel; both values of `axis` name the axis of letter c."""
    return (x / step.unsqueeze(-1)).clamp(qmin, qmax).round() * step.unsqueeze(-1)
