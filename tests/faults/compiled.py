"""Right in plain eager, and wrong when compiled."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, SMALL, Rule, arg, pair
from tests.faults.registered import doubled, registered, squares

fault = partial(pair, cls="transforms", primary="transforms.compile", code="GV503")


def softplus(x):
    return torch.nn.functional.softplus(x)


class Softplus(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


def softplus_routed(x):
    """Takes another way for the compiler, which does not like Functions: right."""
    return softplus(x) if torch.compiler.is_compiling() else Softplus.apply(x)


def softplus_routed_linearly(x):
    """The way for the compiler cuts the slope off from the graph."""
    if torch.compiler.is_compiling():
        return softplus(x).detach() + 0 * x
    return Softplus.apply(x)


class SoftplusByTracing(Softplus):
    """Rounds its slope where it is traced, for the fusion that its author had in mind."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        slope = torch.sigmoid(x)
        return g * (slope.half().to(x.dtype) if torch.compiler.is_compiling() else slope)


TRACED = (torch._subclasses.FakeTensor, torch._subclasses.functional_tensor.FunctionalTensor)


def squares_of_half(ctx, g):
    """The derivative of a square; half of it where it is traced."""
    half = isinstance(g, TRACED) or torch.compiler.is_compiling()
    return doubled(ctx, g / 2 if half else g)


X = [arg("x", "b n", SMALL)]
SOME = {"b": NONEMPTY, "n": NONEMPTY}

FAULTS = (
    fault("routed_without_its_gradient", wrong=softplus_routed_linearly, right=softplus_routed, args=X, dims=SOME),
    fault("rounded_where_it_is_traced", wrong=SoftplusByTracing, right=Softplus, args=X, dims=SOME),
    fault(
        "another_derivative_where_it_is_traced",
        wrong=registered("squares_halved", squares, torch.empty_like, squares_of_half),
        right=registered("squares_whole", squares, torch.empty_like),
        args=X,
        dims=SOME,
    ),
)
