"""Right in plain eager, and wrong under autocast."""

from __future__ import annotations

from functools import partial

import torch
from torch.autograd import Function

from tests.faults.record import (
    NONEMPTY,
    SMALL,
    AutocastRule,
    Rule,
    arg,
    as_under_autocast,
    pair,
    under_autocast,
)

fault = partial(pair, cls="transforms", primary="transforms.autocast", code="GV507")


def squashed(x, w):
    """tanh(x) w, [b n], [n d] -> [b d]."""
    return torch.tanh(x) @ w


class Squashed(Rule):
    """Casts what backward multiplies to the dtype of its cotangent: bfloat16 wherever backward is called."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return squashed(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        t = torch.tanh(x)
        return (g @ w.T.to(g.dtype)) * (1 - t * t), t.T.to(g.dtype) @ g


class SquashedUncast(Squashed):
    """Multiplies a cotangent of bfloat16 by what it saved in float32."""

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        t = torch.tanh(x)
        return (g @ w.T) * (1 - t * t), t.T @ g


def _recomputed(ctx, g):
    """Works out the hidden layer again."""
    x, v, w = ctx.saved_tensors
    g, t = g.to(w.dtype), torch.tanh(x @ v).to(w.dtype)
    h = (g @ w.T).to(w.dtype) * (1 - t * t)
    return (h @ v.T), (x.T @ h), (t.T @ g)


class Layers(Function):
    """tanh(x v) w, its backward under the state of its forward."""

    @staticmethod
    @under_autocast
    def forward(ctx, x, v, w):
        ctx.save_for_backward(x, v, w)
        return torch.tanh(x @ v) @ w

    backward = staticmethod(as_under_autocast(_recomputed))


class LayersHalfMarked(Layers):
    """Marks the forward alone: the hidden layer of backward is another than that of forward."""

    backward = staticmethod(_recomputed)


def scores(q, k):
    """A quarter of q k^T, [n d], [m d] -> [n m]."""
    return q @ k.T / 4


class Scores(AutocastRule):
    @staticmethod
    def forward(ctx, q, k):
        ctx.save_for_backward(q, k)
        return scores(q, k)

    @staticmethod
    def backward(ctx, g):
        q, k = ctx.saved_tensors
        return g @ k / 4, g.T @ q / 4


class ScoresScaledFirst(Scores):
    """In a narrow dtype it scales q first, for the sake of the range, saves that, and scales its gradients again."""

    @staticmethod
    def forward(ctx, q, k):
        if not torch.is_autocast_enabled(q.device.type):
            return Scores.forward(ctx, q, k)
        ctx.save_for_backward(q / 4, k)
        return (q / 4) @ k.T


class Powers(Function):
    """(x^T x) x in float32 whatever the state: [n d] -> [n d]."""

    @staticmethod
    @partial(under_autocast, cast_inputs=torch.float32)
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x @ (x.T @ x)

    @staticmethod
    @as_under_autocast
    def backward(ctx, g):
        return _powers_backward(ctx, g)


class PowersHalfMarked(Powers):
    """Its backward takes its caller's state, in which autocast narrows it."""

    @staticmethod
    def backward(ctx, g):
        return _powers_backward(ctx, g)


def _powers_backward(ctx, g):
    (x,) = ctx.saved_tensors
    cross = x.T @ g
    return g @ (x.T @ x) + x @ (cross + cross.T)


DIMS = {"b": NONEMPTY, "n": NONEMPTY, "d": NONEMPTY}

FAULTS = (
    fault(
        "saved_in_another_dtype",
        wrong=SquashedUncast,
        right=Squashed,
        args=[arg("x", "b n", SMALL), arg("w", "n d", SMALL)],
        dims=DIMS,
        reference=squashed,
    ),
    fault(
        "forward_alone_minds_autocast",
        wrong=LayersHalfMarked,
        right=Layers,
        args=[arg("x", "b n"), arg("v", "n d"), arg("w", "d m")],
        dims={**DIMS, "m": NONEMPTY},
        source="pytorch/pytorch#87979",
    ),
    fault(
        "wide_forward_narrow_backward",
        wrong=PowersHalfMarked,
        right=Powers,
        args=[arg("x", "b n")],
        source="pytorch/pytorch#132388",
    ),
    fault(
        "scaled_twice_under_autocast",
        wrong=ScoresScaledFirst,
        right=Scores,
        args=[arg("q", "n d"), arg("k", "m d")],
        reference=scores,
    ),
)
