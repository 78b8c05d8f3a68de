"""The identity, with a weight on its gradient.

This file needs torch and nothing else: copy it as it is. torch.compile breaks its graph at a Function that has a jvp
(torch 2.13): delete `jvp` where one graph matters more than forward mode.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class ReweightGradient(torch.autograd.Function):
    """Return x; multiply what flows back by w.

        forward    y  = x
        backward   dx = w u
        jvp        y' = w x'

    The derivative is that of w x with w constant: w carries no gradient, in derivatives of any order, and its tangent
    is ignored. w = -1 reverses gradients (domain-adversarial training), 0 stops them, 1 / p corrects for sampling with
    probability p, a mask selects. jvp is the transpose of backward, so forward mode is weighted too.

    Shapes: x [*], w broadcasts to it, y [*] is a copy of x: were it a view, torch would ask for a view of x' in forward
    mode. The product is taken in the wider of both dtypes and returned in x's.

    Source: Ganin, Lempitsky 2015, arXiv:1409.7495, section 3.2 (w = -1); Ren et al. 2018, arXiv:1803.09050 (weights per
    example).
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG004
        """Return y = x."""
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        """Keep w."""
        _, weight = inputs
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, None]:
        """Return dx = w u. An undefined cotangent arrives as zeros."""
        (u,), (weight,) = cotangents, ctx.saved_tensors
        dx = (weight.detach() * u).to(u.dtype) if ctx.needs_input_grad[0] else None
        return dx, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Return y' = w x', whatever the tangent of w."""
        x_tangent, weight = tangents[0], cast("Tensor", ctx.saved_tensors[0])
        return (weight.detach() * x_tangent).to(x_tangent.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        """Return y with the batch in front, also where only the weight has one.

        generate_vmap_rule would not do: y does not depend on w, so torch would take a batch of w for none, and weight
        the sum of the batch's cotangents.
        """
        x_axis, w_axis = in_dims
        x = x.expand(info.batch_size, *x.shape) if x_axis is None else x.movedim(x_axis, 0)
        if w_axis is not None:
            weight = weight.movedim(w_axis, 0)
            weight = weight.reshape(info.batch_size, *(1,) * (x.ndim - weight.ndim), *weight.shape[1:])
        return cast("Tensor", ReweightGradient.apply(x, weight)), 0  # type: ignore[no-untyped-call]


def reweight_gradient(x: Tensor, weight: Tensor | float) -> Tensor:
    """Return x, with w as a factor on its gradient; see `ReweightGradient` for the mathematics.

    Args:
        x: [*], floating.
        weight: a number, or a tensor that broadcasts to x without enlarging it: [n, 1] for a weight per row. Any sign.

    Returns:
        [*], a copy of x.

    Raises:
        TypeError: x is not floating, or the weight complex.
        ValueError: the weight does not broadcast to x's shape.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"reweight_gradient: x must be floating, but its dtype is {x.dtype}; only floats have gradients."
        )
    weight = torch.as_tensor(weight, device=x.device, dtype=None if isinstance(weight, Tensor) else x.dtype)
    if weight.is_complex():
        raise TypeError(f"reweight_gradient: weight must be real, but its dtype is {weight.dtype}; pass weight.real.")
    if not _broadcasts(weight, x):
        raise ValueError(
            f"reweight_gradient: weight {tuple(weight.shape)} must broadcast to x {tuple(x.shape)}; "
            "add axes of size 1: weight[:, None] for a weight per row."
        )
    return cast("Tensor", ReweightGradient.apply(x, weight.detach()))  # type: ignore[no-untyped-call]


def _broadcasts(weight: Tensor, x: Tensor) -> bool:
    """Whether the weight expands to x's shape and not the other way round."""
    trailing = zip(reversed(weight.shape), reversed(x.shape), strict=False)
    return weight.ndim <= x.ndim and all(w in (1, n) for w, n in trailing)
