"""Mutation of inputs, cotangents and saved tensors; buffers and state that outlive a call."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, SMALL, Rule, arg, pair

fault = partial(pair, cls="state-alias", primary="purity")


def swiglu(a, b):
    return a * torch.sigmoid(a) * b


class Swiglu(Rule):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return swiglu(a, b)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        p = torch.sigmoid(a)
        return g * b * (p + a * p * (1 - p)), g * a * p


class SwigluOverwrites(Swiglu):
    """Writes the gradients over the saved inputs, to save memory."""

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        ga, gb = Swiglu.backward(ctx, g)
        return a.copy_(ga), b.copy_(gb)


def leaky(x):
    return torch.where(x > 0, x, 0.1 * x)


class Leaky(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return leaky(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, g, 0.1 * g)


class LeakyOnCotangent(Leaky):
    """Works in place on the incoming gradient."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        g[x <= 0] *= 0.1
        return g.clone()


def clipped_square(x):
    return x.clamp(-1, 1).square()


class ClippedSquare(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return clipped_square(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 2 * x * (x.abs() < 1)


class ClippedSquareInPlace(ClippedSquare):
    """Clips its argument itself, and does not mark it dirty."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.clone())
        return x.clamp_(-1, 1).square()


def exponential(x):
    return torch.exp(x)


class Exponential(Rule):
    @staticmethod
    def forward(ctx, x):
        y = exponential(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class ExponentialConsumesOutput(Exponential):
    """The backward multiplies the saved output, which the caller holds, in place."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y.mul_(g).clone()


_WORKSPACE: dict[torch.Size, torch.Tensor] = {}


class ExponentialWorkspace(Exponential):
    """The saved output lies in one workspace per shape: the next call of that shape overwrites it."""

    @staticmethod
    def forward(ctx, x):
        ctx.work = _WORKSPACE.setdefault(x.shape, torch.empty_like(x, memory_format=torch.contiguous_format))
        ctx.work.copy_(torch.exp(x))
        return ctx.work.clone()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.work


class ExponentialTwice(Exponential):
    """Scales the saved tensor's copy in place: right on the first backward through a graph, not on the second."""

    @staticmethod
    def forward(ctx, x):
        ctx.y = exponential(x).clone()
        return ctx.y.clone()

    @staticmethod
    def backward(ctx, g):
        return ctx.y.mul_(g).clone()


_RUNNING = {"scale": 1.0}


def tempered(x):
    return torch.tanh(x)


class Tempered(Rule):
    @staticmethod
    def forward(ctx, x):
        y = tempered(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)


class TemperedRunning(Tempered):
    """Divides by statistics that each backward updates: the gradient changes from call to call."""

    @staticmethod
    def backward(ctx, g):
        _RUNNING["scale"] = 0.9 * _RUNNING["scale"] + 0.1 * (1 + float(g.abs().mean()))
        return Tempered.backward(ctx, g) / _RUNNING["scale"]


_LAST: list[torch.Tensor] = []


class TemperedGlobal(Tempered):
    """Saves for backward on the module: of two forwards, the second one's tensors serve both backwards."""

    @staticmethod
    def forward(ctx, x):
        y = tempered(x)
        _LAST[:] = [y.clone()]
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = _LAST
        return g * (1 - y * y)


UNARY = [arg("x", "n", SMALL)]
SOME = {"n": NONEMPTY}

FAULTS = (
    fault(
        "gradients_over_saved_inputs",
        wrong=SwigluOverwrites,
        right=Swiglu,
        args=[arg("a", "b n"), arg("b", "b n")],
        reference=swiglu,
        source="linkedin/Liger-Kernel#254",
    ),
    fault("cotangent_in_place", wrong=LeakyOnCotangent, right=Leaky, args=[arg("x", "b n")], reference=leaky),
    fault(
        "input_clipped_in_place",
        wrong=ClippedSquareInPlace,
        right=ClippedSquare,
        args=[arg("x", "b n")],
        reference=clipped_square,
        source="pytorch/pytorch#30454",
    ),
    fault(
        "output_is_the_saved_buffer",
        wrong=ExponentialConsumesOutput,
        right=Exponential,
        args=UNARY,
        dims=SOME,
        reference=exponential,
        source="bitsandbytes-foundation/bitsandbytes#736",
    ),
    fault(
        "workspace_by_shape",
        wrong=ExponentialWorkspace,
        right=Exponential,
        args=UNARY,
        dims=SOME,
        reference=exponential,
        primary="repeat",
        note="two forwards of one shape before the first backward",
    ),
    fault(
        "second_backward_differs",
        wrong=ExponentialTwice,
        right=Exponential,
        args=UNARY,
        dims=SOME,
        reference=exponential,
        primary="repeat",
        source="dmlc/dgl#1060",
        note="two backwards through one graph",
    ),
    fault(
        "running_statistics",
        wrong=TemperedRunning,
        right=Tempered,
        args=UNARY,
        dims=SOME,
        reference=tempered,
        primary="repeat",
        source="pytorch/pytorch#586",
    ),
    fault(
        "saved_on_the_module",
        wrong=TemperedGlobal,
        right=Tempered,
        args=UNARY,
        dims=SOME,
        reference=tempered,
        primary="repeat",
        note="two forwards before the first backward",
    ),
)
