"""Calls that outlive their output, and tensors that are kept where torch does not see them."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch

from tests.faults.record import NONEMPTY, SMALL, Rule, arg, mask, pair

fault = partial(pair, cls="saved-tensors", primary="memory", code="GV207")


class Exponential(Rule):
    """Saves its output through torch, which knows how not to hold it in a cycle."""

    @staticmethod
    def forward(ctx, x):
        y = torch.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class ExponentialCycle(Exponential):
    """The output refers to its node, and the node to the output."""

    @staticmethod
    def forward(ctx, x):
        ctx.y = torch.exp(x)
        return ctx.y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.y


def softened(x):
    return x * torch.sigmoid(x)


class Softened(Rule):
    """Numbers may lie in a dict on the context, and an intermediate result among the saved tensors."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, torch.sigmoid(x))
        ctx.parts = {"one": 1.0, "size": x.shape}
        return softened(x)

    @staticmethod
    def backward(ctx, g):
        x, p = ctx.saved_tensors
        return g * (p + x * p * (ctx.parts["one"] - p))


class SoftenedParts(Softened):
    """The input lies in a dict on the context."""

    @staticmethod
    def forward(ctx, x):
        ctx.parts = {"x": x.view_as(x), "p": torch.sigmoid(x)}
        return softened(x)

    @staticmethod
    def backward(ctx, g):
        x, p = ctx.parts["x"].clone(), ctx.parts["p"]
        return g * (p + x * p * (1 - p))


class SoftenedClosure(Softened):
    """The input is held by a function that the context keeps."""

    @staticmethod
    def forward(ctx, x):
        def slope():
            p = torch.sigmoid(x)
            return p + x * p * (1 - p)

        ctx.slope = slope
        return softened(x)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope()


class Measured(Softened):
    """Keeps numbers of every call: a list that grows, but holds no tensor of a call."""

    seen: ClassVar[list[float]] = []

    @staticmethod
    def forward(ctx, x):
        Measured.seen.append(float(x.abs().max()))
        return Softened.forward(ctx, x)


class Logged(Softened):
    """Keeps what it was given, to look at later."""

    seen: ClassVar[list[torch.Tensor]] = []

    @staticmethod
    def forward(ctx, x):
        Logged.seen.append(x)
        return Softened.forward(ctx, x)


class Registered(Softened):
    """Intermediate results lie in a registry until the context goes."""

    registry: ClassVar[dict[int, torch.Tensor]] = {}

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, torch.sigmoid(x))
        return softened(x)

    @staticmethod
    def backward(ctx, g):
        x, p = ctx.saved_tensors
        return g * (p + x * p * (1 - p))


class RegisteredForBackward(Softened):
    """Intermediate results lie in a registry until backward: a call that is never differentiated leaves them there."""

    registry: ClassVar[dict[int, torch.Tensor]] = {}
    calls = 0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        if ctx.needs_input_grad[0]:
            RegisteredForBackward.calls += 1
            ctx.call, ctx.p = RegisteredForBackward.calls, torch.sigmoid(x)
            RegisteredForBackward.registry[ctx.call] = ctx.p
        return softened(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        RegisteredForBackward.registry.pop(ctx.call, None)
        return g * (ctx.p + x * ctx.p * (1 - ctx.p))


def tapered(x, off):
    """x times a window of its size, zero where `off`: [n], [n] -> [n]."""
    window = torch.hann_window(len(x), periodic=False, dtype=x.dtype) if len(x) else x
    return torch.where(off, torch.zeros_like(x), x * window)


class Tapered(Rule):
    """The window is made once a size and kept."""

    windows: ClassVar[dict[tuple[int, torch.dtype], torch.Tensor]] = {}

    @staticmethod
    def forward(ctx, x, off):
        key = (len(x), x.dtype)
        if key not in Tapered.windows:
            Tapered.windows[key] = torch.hann_window(len(x), periodic=False, dtype=x.dtype)
        ctx.save_for_backward(Tapered.windows[key], off)
        return tapered(x, off)

    @staticmethod
    def backward(ctx, g):
        window, off = ctx.saved_tensors
        return torch.where(off, torch.zeros_like(g), g * window), None


class TaperedEachCall(Tapered):
    """The window is kept under a key that no other call has."""

    @staticmethod
    def forward(ctx, x, off):
        window = torch.hann_window(len(x), periodic=False, dtype=x.dtype)
        Tapered.windows[id(window), x.dtype] = window
        ctx.save_for_backward(window, off)
        return tapered(x, off)


UNARY = [arg("x", "n", SMALL)]
SOME = {"n": NONEMPTY}

FAULTS = (
    fault(
        "output_on_the_context",
        wrong=ExponentialCycle,
        right=Exponential,
        args=UNARY,
        dims=SOME,
        reference=torch.exp,
        must_fail=("memory", "lifetime"),
        source="pytorch/pytorch#25340",
    ),
    fault(
        "input_in_a_dict_on_the_context",
        wrong=SoftenedParts,
        right=Softened,
        args=UNARY,
        dims=SOME,
        reference=softened,
        must_fail=("memory", "lifetime"),
        source="pytorch/pytorch#153005",
    ),
    fault(
        "input_in_a_closure_on_the_context",
        wrong=SoftenedClosure,
        right=Softened,
        args=UNARY,
        dims=SOME,
        reference=softened,
        must_fail=("memory", "lifetime"),
    ),
    fault(
        "inputs_in_a_log",
        wrong=Logged,
        right=Measured,
        args=UNARY,
        dims=SOME,
        reference=softened,
        source="dmlc/dgl#1060",
    ),
    fault(
        "registry_cleared_by_backward",
        wrong=RegisteredForBackward,
        right=Registered,
        args=UNARY,
        dims=SOME,
        reference=softened,
        note="a call that is never differentiated",
    ),
    fault(
        "cache_that_never_hits",
        wrong=TaperedEachCall,
        right=Tapered,
        args=[arg("x", "n", SMALL), mask("off", "n")],
        dims=SOME,
        reference=tapered,
    ),
)
