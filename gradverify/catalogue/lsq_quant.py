"""Fake quantisation with a learned step size (LSQ).

This file needs torch and nothing else: copy it as it is. torch.compile breaks its graph at a Function that has a jvp
(torch 2.13): delete `jvp` where one graph matters more than forward mode.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor


class LsqQuant(torch.autograd.Function):
    """Round x to the levels q s, q = qmin ... qmax, with a gradient for x and for the step s.

    With s > 0, v = x / s, c = clamp(v, qmin, qmax), inside = (qmin <= v <= qmax), and k the gradient scale of the step:

        forward    y  = round(c) s                                         ties to even
        backward   dx = u inside
                   ds = k sum u e,   e = round(v) - v inside, qmin below, qmax above
        jvp        y' = x' inside + k e s'

    e is the derivative of s (c + f) where f = round(c) - c is held constant: rounding is a constant offset, the
    straight-through estimator. So is it for derivatives of second order: e is a constant in x and s, and y has none.
    k scales the derivative by s only, forward mode included. Both bounds count as inside, as in torch.clamp; the
    paper's strict inequalities differ from that at v = qmin and v = qmax alone, where they say dx = 0 and e = v.

    Shapes: x [*], s broadcasts to it, y [*] in x's dtype; half precision is computed, and summed for ds, in float32.
    Backward keeps x and s.

    Source: Esser et al. 2020, arXiv:1902.08153, equations 1 to 3 and section 2.2.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, step: Tensor, qmin: int, qmax: int, grad_scale: float) -> Tensor:  # noqa: ARG004
        """Return y = round(clamp(x / s, qmin, qmax)) s."""
        x_wide, step = _widened(x), _widened(step, x)
        return ((x_wide / step).clamp(qmin, qmax).round() * step).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        """Keep x and s."""
        x, step, ctx.qmin, ctx.qmax, ctx.grad_scale = inputs
        ctx.save_for_backward(x, step)
        ctx.save_for_forward(x, step)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Return dx = u inside, ds = k sum u e. An undefined cotangent arrives as zeros."""
        (u,), (x, step) = cotangents, ctx.saved_tensors
        inside, e = _slopes(x, step, ctx.qmin, ctx.qmax)
        dx = torch.where(inside, u, 0) if ctx.needs_input_grad[0] else None
        ds = None
        if ctx.needs_input_grad[1]:
            ds = (ctx.grad_scale * (_widened(u) * e).sum_to_size(step.shape)).to(step.dtype)
        return dx, ds, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Return y' = x' inside + k e s'."""
        x_tangent, step_tangent, (x, step) = tangents[0], tangents[1], ctx.saved_tensors
        inside, e = _slopes(x, step, ctx.qmin, ctx.qmax)
        y_tangent: Tensor = torch.where(inside, x_tangent, 0) + ctx.grad_scale * e * step_tangent
        return y_tangent.to(x_tangent.dtype)


def lsq_quant(
    x: Tensor,
    step: Tensor,
    *,
    qmin: int = -128,
    qmax: int = 127,
    grad_scale: float | None = 1.0,
    axis: int | None = None,
) -> Tensor:
    """Fake-quantise x with a step that is learned; see `LsqQuant` for the mathematics.

    Args:
        x: [*], floating.
        step: positive and floating. 0-dim for all of x; with `axis`, [C] for the C channels along it.
        qmin: lowest integer level, at most 0.
        qmax: highest integer level, at least 1.
        grad_scale: factor on the step's gradient; None: the paper's 1 / sqrt(N qmax), N the elements of x per step.
            The paper counts the features of an activation without its batch: pass that number yourself.
        axis: the channel axis of x, negative from the end; None: one step for the whole tensor.

    Returns:
        [*], x's dtype: x moved to the nearest level.

    Raises:
        TypeError: x or step is not floating.
        ValueError: qmin > 0, qmax < 1, or a shape does not fit.

    The step is not looked into (that would wait for the device). Keep it positive: train its logarithm, or clamp it
    after each update. A common start is 2 mean|x| / sqrt(qmax).
    """
    for name, t in (("x", x), ("step", step)):
        if not t.is_floating_point():
            raise TypeError(
                f"lsq_quant: {name} must be floating, but its dtype is {t.dtype}; convert it with .float()."
            )
    if qmin > 0 or qmax < 1:
        raise ValueError(
            f"lsq_quant: levels must hold 0 and 1, got qmin={qmin}, qmax={qmax}; take -128, 127 or 0, 255."
        )
    step = _along(step, x, axis)
    if grad_scale is None:
        grad_scale = 1 / math.sqrt(max(x.numel() // max(step.numel(), 1), 1) * qmax)
    return cast("Tensor", LsqQuant.apply(x, step, qmin, qmax, grad_scale))  # type: ignore[no-untyped-call]


def _slopes(x: Tensor, step: Tensor, qmin: int, qmax: int) -> tuple[Tensor, Tensor]:
    """The constants of the derivative: whether x is inside, and e = dy/ds."""
    v = _widened(x).detach() / _widened(step, x).detach()
    inside = (v >= qmin) & (v <= qmax)
    return inside, v.clamp(qmin, qmax).round() - torch.where(inside, v, 0)


def _widened(t: Tensor, like: Tensor | None = None) -> Tensor:
    """Return t in the dtype in which `like`, or t itself, is computed: at least float32."""
    return t.to(torch.promote_types((t if like is None else like).dtype, torch.float32))


def _along(step: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Return steps per channel [C] as [1, ..., C, ..., 1], to broadcast along `axis` of x; a 0-dim step as it is."""
    if step.ndim == 0:
        return step
    if axis is None:
        raise ValueError(f"lsq_quant: step has shape {tuple(step.shape)} but no axis is given; pass axis=, or 0-dim.")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"lsq_quant: axis={axis} is outside x of shape {tuple(x.shape)}; pass {-x.ndim}...{x.ndim - 1}."
        )
    if step.shape != (x.shape[axis],):
        raise ValueError(
            f"lsq_quant: step must be [{x.shape[axis]}] for axis={axis} of x {tuple(x.shape)}, got "
            f"{tuple(step.shape)}; give one step per channel."
        )
    return step.reshape([step.shape[0] if i == axis % x.ndim else 1 for i in range(x.ndim)])
