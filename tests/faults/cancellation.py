"""Digits that cancel in float32 where values lie far from zero, or near each other: small values hide it."""

from __future__ import annotations

from functools import partial

import torch

from gradverify.records.spec import Dim
from tests.faults.record import NONEMPTY, AutocastRule, Domain, Rule, arg, pair

fault = partial(pair, cls="cancellation", primary="precision", dtypes=("float32",))


def whiten(x):
    apart = x - x.mean(-1, keepdim=True)
    return apart * torch.rsqrt(apart.square().mean(-1, keepdim=True) + 1e-3)


class Whitened(Rule):
    """Rows with mean 0 and variance 1; backward has the mean and the scale of each from forward."""

    @staticmethod
    def scale(x, mean):
        return torch.rsqrt((x - mean).square().mean(-1, keepdim=True) + 1e-3)

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return whiten(x)

    @classmethod
    def pulled(cls, ctx, g):
        (x,) = ctx.saved_tensors
        mean = x.mean(-1, keepdim=True)
        r = cls.scale(x, mean)
        y = (x - mean) * r
        return r * (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True))

    @staticmethod
    def backward(ctx, g):
        return Whitened.pulled(ctx, g)


class WhitenedFromRawMoments(Whitened):
    """The mean of squares and the mean are what is kept: their difference is the variance."""

    @staticmethod
    def scale(x, mean):
        return torch.rsqrt((x.square().mean(-1, keepdim=True) - mean.square()).clamp_min(0) + 1e-3)

    @staticmethod
    def backward(ctx, g):
        return WhitenedFromRawMoments.pulled(ctx, g)


def attended(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


class Attended(AutocastRule):
    """[m d], [n d], [n e] -> [m e]; backward has the weights from the scores, relative to the largest of each row."""

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(q, k, v)
        return attended(q, k, v)

    @staticmethod
    def weights(s):
        return s.softmax(-1)

    @classmethod
    def pulled(cls, ctx, g):
        q, k, v = ctx.saved_tensors
        p = cls.weights(q @ k.mT)
        by_p = g @ v.mT
        by_s = p * (by_p - (p * by_p).sum(-1, keepdim=True))
        return by_s @ k, by_s.mT @ q, p.mT @ g

    @staticmethod
    def backward(ctx, g):
        return Attended.pulled(ctx, g)


class AttendedFromLse(Attended):
    """exp(s - lse): the saved lse is rounded by 2^-24 of its own size, and the weights by as much of theirs."""

    @staticmethod
    def weights(s):
        return (s - s.logsumexp(-1, keepdim=True)).exp()

    @staticmethod
    def backward(ctx, g):
        return AttendedFromLse.pulled(ctx, g)


def distances(x, y):
    return ((x[:, None] - y).square().sum(-1) + 1e-6).sqrt()


class Distances(Rule):
    """[m d], [n d] -> [m n]: of every pair of rows."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return distances(x, y)

    @staticmethod
    def between(x, y):
        return distances(x, y)

    @classmethod
    def pulled(cls, ctx, g):
        x, y = ctx.saved_tensors
        pairs = (g / cls.between(x, y))[..., None] * (x[:, None] - y)
        return pairs.sum(1), -pairs.sum(0)

    @staticmethod
    def backward(ctx, g):
        return Distances.pulled(ctx, g)


class DistancesExpanded(Distances):
    """Those of backward from |x|^2 + |y|^2 - 2 <x, y>, one product of matrices."""

    @staticmethod
    def between(x, y):
        squares = x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.mT
        return (squares.clamp_min(0) + 1e-6).sqrt()

    @staticmethod
    def backward(ctx, g):
        return DistancesExpanded.pulled(ctx, g)


def logarithmic_mean(x, y):
    """(x - y) / (log x - log y), which is near both where they are near each other; in float64 inside."""
    a, b = x.double(), y.double()
    return ((a - b) / torch.log1p((a - b) / b)).to(x.dtype)


class LogarithmicMean(Rule):
    """Of each two numbers. Its derivative by x is (t - 1 + y / x) / t^2 with t = log(x / y)."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return logarithmic_mean(x, y)

    @staticmethod
    def slopes(x, y):
        t = torch.log1p((x - y) / y)
        return (t - (x - y) / x) / t.square(), ((x - y) / y - t) / t.square()

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        by_x, by_y = LogarithmicMean.slopes(x.double(), y.double())
        return g * by_x.to(g.dtype), g * by_y.to(g.dtype)


class LogarithmicMeanInItsDtype(LogarithmicMean):
    """What is left of t - (x - y) / x is t^2 / 2."""

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        by_x, by_y = LogarithmicMean.slopes(x, y)
        return g * by_x, g * by_y


ROWS = [arg("x", "b n")]
APART = Domain(kind="positive")

FAULTS = (
    fault(
        "raw_moments_in_backward",
        wrong=WhitenedFromRawMoments,
        right=Whitened,
        args=ROWS,
        dims={"b": NONEMPTY, "n": Dim(lo=3)},
        reference=whiten,
    ),
    fault(
        "weights_from_the_logsumexp",
        wrong=AttendedFromLse,
        right=Attended,
        args=[arg("q", "m d"), arg("k", "n d"), arg("v", "n e")],
        dims={"m": NONEMPTY, "n": Dim(lo=2), "d": NONEMPTY, "e": NONEMPTY},
        reference=attended,
    ),
    fault(
        "distances_expanded_in_backward",
        wrong=DistancesExpanded,
        right=Distances,
        args=[arg("x", "m d"), arg("y", "n d")],
        dims={"m": NONEMPTY, "n": NONEMPTY, "d": Dim(lo=2)},
        reference=distances,
    ),
    fault(
        "logarithmic_mean_of_near_numbers",
        wrong=LogarithmicMeanInItsDtype,
        right=LogarithmicMean,
        args=[arg("x", "b", APART), arg("y", "b", APART)],
        reference=logarithmic_mean,
    ),
)
