"""Binary sign with the gradient of a hard tanh.

This file needs torch and nothing else: copy it as it is. torch.compile breaks its graph at a Function that has a jvp
(torch 2.13): delete `jvp` where one graph matters more than forward mode.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class SignSte(torch.autograd.Function):
    """Binarise x to -1 or +1; differentiate as if it were clamped to the window [-w, w], w > 0.

        forward    y  = +1 where x >= 0, -1 where x < 0                    so sign(0) = sign(-0) = +1, never 0
        backward   dx = u where |x| <= w, else 0
        jvp        y' = x' where |x| <= w, else 0

    The derivative is that of clamp(x, -w, w), hard tanh for w = 1; as in torch, both ends of the window are inside it.
    The window multiplies the cotangent, it does not clip it: backward is linear in u, and every higher derivative is
    right. Where x is NaN, so is y, and dx is 0.

    Shapes: x [*], y [*] in x's dtype. Backward keeps one boolean per element and lets go of x.

    Source: Hubara et al. 2016, arXiv:1602.02830, equations 1 and 4; Bengio, Leonard, Courville 2013, arXiv:1308.3432.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, window: float) -> Tensor:  # noqa: ARG004
        """Return y = +1 where x >= 0, -1 where x < 0, NaN where x is NaN."""
        sign = torch.where(x >= 0, torch.ones_like(x), -1)
        return torch.where(x.isnan(), x, sign)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        """Keep the mask |x| <= w."""
        x, window = inputs
        inside = x.abs() <= window
        ctx.save_for_backward(inside)
        ctx.save_for_forward(inside)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, None]:
        """Return dx = u inside, 0 outside. An undefined cotangent arrives as zeros."""
        (u,), (inside,) = cotangents, ctx.saved_tensors
        return (torch.where(inside, u, 0) if ctx.needs_input_grad[0] else None), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Return y' = x' inside, 0 outside."""
        (inside,) = ctx.saved_tensors
        return torch.where(inside, tangents[0], 0)


def sign_ste(x: Tensor, *, window: float = 1.0) -> Tensor:
    """Binarise x to -1 or +1; see `SignSte` for the mathematics.

    Args:
        x: [*], floating.
        window: positive half-width of the region that gradient passes; `float("inf")` passes all of it.

    Returns:
        [*], x's dtype: -1 or +1.

    Raises:
        TypeError: x is not floating.
        ValueError: the window is not positive.
    """
    if not x.is_floating_point():
        raise TypeError(f"sign_ste: x must be floating, but its dtype is {x.dtype}; convert it with x.float().")
    if not window > 0:
        raise ValueError(f"sign_ste: window must be positive, got {window}; 1.0 is the hard tanh of the paper.")
    return cast("Tensor", SignSte.apply(x, window))  # type: ignore[no-untyped-call]
