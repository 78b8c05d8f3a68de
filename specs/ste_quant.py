"""Straight-through quantisation with a fixed scale, per tensor and per channel.

A quantiser is a staircase: its true derivative is 0 or does not exist. What its backward promises is the derivative of
another function, named by `backward_of`. The forward is still held against the body of the spec.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

import gradverify as gv
from gradverify.catalogue import ste_quant as ops


def clamped(x: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int, qmax: int) -> Tensor:
    """What backward is the derivative of: clamping x to the outermost levels."""
    return x.clamp((qmin - zero_point) * scale, (qmax - zero_point) * scale)


@gv.spec(
    ops.ste_quant,
    backward_of=clamped,
    examples=[gv.example(b=(), qmin=0, qmax=255), gv.example(b=(0,)), gv.example(b=(65, 3), qmin=-8, qmax=7)],
)
def ste_quant(
    x: Annotated[Tensor, "*b"],
    scale: Annotated[Tensor, "", gv.domain(0.01, 10), gv.no_grad],
    zero_point: Annotated[Tensor, "", gv.integers(-5, 5)],
    *,
    qmin: Literal[-128, -8, 0] = -128,
    qmax: Literal[127, 7, 255] = 127,
) -> Tensor:
    """Round to the nearest of the levels (q - z) s, q = qmin ... qmax; the scale carries no gradient."""
    q = ((x / scale).round() + zero_point).clamp(qmin, qmax)
    return (q - zero_point) * scale


def per_channel(values: Tensor) -> Tensor:
    """[c] as [c, 1], to meet x of [b, c, n]."""
    return values.unsqueeze(-1)


@gv.spec(
    ops.ste_quant,
    backward_of=lambda x, scale, zero_point, *, qmin, qmax, axis: clamped(
        x, per_channel(scale), per_channel(zero_point), qmin=qmin, qmax=qmax
    ),
    examples=[gv.example(b=2, c=1, n=3, axis=-2), gv.example(b=0, c=2, n=1), gv.example(b=1, c=0, n=2)],
)
def ste_quant_channel(
    x: Annotated[Tensor, "b c n"],
    scale: Annotated[Tensor, "c", gv.domain(0.01, 10), gv.no_grad],
    zero_point: Annotated[Tensor, "c", gv.integers(-5, 5)],
    *,
    qmin: Literal[-128, -8, 0] = -128,
    qmax: Literal[127, 7, 255] = 127,
    axis: Literal[1, -2] = 1,
) -> Tensor:
    """The same with a scale and zero point for each channel; both values of `axis` name the axis of letter c."""
    q = ((x / per_channel(scale)).round() + per_channel(zero_point)).clamp(qmin, qmax)
    return (q - per_channel(zero_point)) * per_channel(scale)
