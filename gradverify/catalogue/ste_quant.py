"""Uniform affine fake quantisation whose gradient passes straight through the rounding.

This file needs torch and nothing else: copy it as it is. torch.compile breaks its graph at a Function that has a jvp
(torch 2.13): delete `jvp` where one graph matters more than forward mode.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class SteQuant(torch.autograd.Function):
    """Round x to the levels (q - z) s, q = qmin ... qmax; differentiate as if it were clamped to the outer levels.

    With the scale s > 0, the zero point z, lo = (qmin - z) s and hi = (qmax - z) s:

        forward    y  = (clamp(round(x / s) + z, qmin, qmax) - z) s        ties to even
        backward   dx = u where lo <= x <= hi, else 0
        jvp        y' = x' where lo <= x <= hi, else 0

    The derivative is that of clamp(x, lo, hi). As in torch, both bounds count as inside: the outermost levels
    themselves receive gradient, nothing beyond them does. s and z carry none; their tangents are ignored. Where x is
    NaN, so is y, and dx is 0.

    Shapes: x [*], s and z broadcast to it, y [*] in x's dtype; half precision is computed in float32. Backward keeps
    one boolean per element and lets go of x. Linear in u with a constant mask: every higher derivative is right.

    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432 (straight-through estimator); Jacob et al. 2018,
    arXiv:1712.05877, sections 2.1 and 3 (affine scheme, quantisation in training).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
        """Return y = (clamp(round(x / s) + z, qmin, qmax) - z) s."""
        x_wide, scale = _widened(x), _widened(scale, x)
        q = ((x_wide / scale).round() + zero_point).clamp(qmin, qmax)
        return ((q - zero_point) * scale).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        """Keep the mask lo <= x <= hi."""
        x, scale, zero_point, qmin, qmax = inputs
        x, scale = _widened(x), _widened(scale, x)
        inside = (x >= (qmin - zero_point) * scale) & (x <= (qmax - zero_point) * scale)
        ctx.save_for_backward(inside)
        ctx.save_for_forward(inside)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        """Return dx = u inside, 0 outside. An undefined cotangent arrives as zeros."""
        (u,), (inside,) = cotangents, ctx.saved_tensors
        dx = torch.where(inside, u, 0) if ctx.needs_input_grad[0] else None
        return dx, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Return y' = x' inside, 0 outside, whatever the tangents of s and z."""
        (inside,) = ctx.saved_tensors
        return torch.where(inside, tangents[0], 0)


def ste_quant(
    x: Tensor,
    scale: Tensor | float,
    zero_point: Tensor | int = 0,
    *,
    qmin: int = -128,
    qmax: int = 127,
    axis: int | None = None,
) -> Tensor:
    """Fake-quantise x with a fixed scale and zero point; see `SteQuant` for the mathematics.

    Args:
        x: [*], floating.
        scale: positive. One number or 0-dim tensor for all of x; with `axis`, [C] for the C channels along it.
        zero_point: integer, of the scale's shape or a single one: the level that stands for 0.
        qmin: lowest integer level.
        qmax: highest integer level.
        axis: the channel axis of x, negative from the end; None: one scale for the whole tensor.

    Returns:
        [*], x's dtype: x moved to the nearest level.

    Raises:
        TypeError: x is not floating, or the zero point not an integer.
        ValueError: qmin >= qmax, a scale given as a number is not positive, a shape does not fit.

    A scale tensor is not looked into (that would wait for the device): values <= 0 give no meaningful levels.
    """
    if not x.is_floating_point():
        raise TypeError(f"ste_quant: x must be floating, but its dtype is {x.dtype}; convert it with x.float().")
    if qmin >= qmax:
        raise ValueError(f"ste_quant: qmin must be below qmax, got qmin={qmin}, qmax={qmax}; swap or widen them.")
    if not isinstance(scale, Tensor) and not scale > 0:
        raise ValueError(f"ste_quant: scale must be positive, got {scale}; pass max(|x|) / qmax, for example.")
    scale = _widened(torch.as_tensor(scale, device=x.device), x)
    zero_point = torch.as_tensor(zero_point, device=x.device)
    if zero_point.is_floating_point() or zero_point.is_complex() or zero_point.dtype == torch.bool:
        raise TypeError(
            f"ste_quant: zero_point must be an integer, but its dtype is {zero_point.dtype}; "
            "round it: zero_point.round().to(torch.int32)."
        )
    scale, zero_point = (_along(t, x, axis, name=n) for t, n in ((scale, "scale"), (zero_point, "zero_point")))
    return cast("Tensor", SteQuant.apply(x, scale.detach(), zero_point, qmin, qmax))  # type: ignore[no-untyped-call]


def _widened(t: Tensor, like: Tensor | None = None) -> Tensor:
    """Return t in the dtype in which `like`, or t itself, is computed: at least float32."""
    return t.to(torch.promote_types((t if like is None else like).dtype, torch.float32))


def _along(t: Tensor, x: Tensor, axis: int | None, *, name: str) -> Tensor:
    """Return values per channel [C] as [1, ..., C, ..., 1], to broadcast along `axis` of x; a 0-dim tensor as it is."""
    if t.ndim == 0:
        return t
    if axis is None:
        raise ValueError(f"ste_quant: {name} has shape {tuple(t.shape)} but no axis is given; pass axis=, or 0-dim.")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"ste_quant: axis={axis} is outside x of shape {tuple(x.shape)}; pass {-x.ndim}...{x.ndim - 1}."
        )
    if t.shape != (x.shape[axis],):
        raise ValueError(
            f"ste_quant: {name} must be [{x.shape[axis]}] for axis={axis} of x {tuple(x.shape)}, got {tuple(t.shape)}; "
            "give one value per channel."
        )
    return t.reshape([t.shape[0] if i == axis % x.ndim else 1 for i in range(x.ndim)])
