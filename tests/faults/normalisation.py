"""1/N by the wrong N: ignored rows, weights, padding, ranks. Uniform weights and full rows hide it."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional

from gradverify.records.spec import Dim
from tests.faults.record import NONEMPTY, POSITIVE, AutocastRule, Rule, arg, integers, mask, pair

fault = partial(pair, cls="normalisation")


def cross_entropy(x, target):
    """Mean over the rows whose target is not -1: [b 5], [b] -> []."""
    kept = target >= 0
    picked = torch.log_softmax(x, -1).gather(-1, target.clamp_min(0)[:, None])[:, 0]
    return -(picked * kept).sum() / kept.sum().clamp_min(1)


def _one_hot_gap(x, target):
    return torch.softmax(x, -1) - functional.one_hot(target.clamp_min(0), x.shape[-1])


class CrossEntropy(Rule):
    @staticmethod
    def forward(ctx, x, target):
        ctx.save_for_backward(x, target)
        return cross_entropy(x, target)

    @staticmethod
    def backward(ctx, g):
        x, target = ctx.saved_tensors
        kept = target >= 0
        return g * _one_hot_gap(x, target) * kept[:, None] / kept.sum().clamp_min(1), None


class CrossEntropyAllRows(CrossEntropy):
    """Divides by all rows, also the ignored ones."""

    @staticmethod
    def backward(ctx, g):
        x, target = ctx.saved_tensors
        return g * _one_hot_gap(x, target) * (target >= 0)[:, None] / max(len(target), 1), None


def weighted_loss(x, target, weight):
    """Class weights, mean by the sum of the weights that occur: [b 5], [b], [5] -> []."""
    picked = torch.log_softmax(x, -1).gather(-1, target[:, None])[:, 0]
    w = weight[target]
    return -(w * picked).sum() / w.sum()


class WeightedLoss(Rule):
    @staticmethod
    def forward(ctx, x, target, weight):
        ctx.save_for_backward(x, target, weight)
        return weighted_loss(x, target, weight)

    @staticmethod
    def backward(ctx, g):
        x, target, weight = ctx.saved_tensors
        w = weight[target]
        return g * _one_hot_gap(x, target) * w[:, None] / w.sum(), None, None


class WeightedLossByCount(WeightedLoss):
    """Divides by the number of rows."""

    @staticmethod
    def backward(ctx, g):
        x, target, weight = ctx.saved_tensors
        return g * _one_hot_gap(x, target) * weight[target][:, None] / len(target), None, None


def masked_mean(x, keep):
    """Mean over the kept tokens: [b n d], [b n] -> [b d]; 0 for a row without any."""
    return (x * keep[..., None]).sum(1) / keep.sum(1, keepdim=True).clamp_min(1)


class MaskedMean(Rule):
    @staticmethod
    def forward(ctx, x, keep):
        ctx.save_for_backward(keep)
        return masked_mean(x, keep)

    @staticmethod
    def backward(ctx, g):
        (keep,) = ctx.saved_tensors
        return (g / keep.sum(1, keepdim=True).clamp_min(1))[:, None] * keep[..., None], None


class MaskedMeanPadding(MaskedMean):
    """Padding counts."""

    @staticmethod
    def backward(ctx, g):
        (keep,) = ctx.saved_tensors
        return (g / max(keep.shape[1], 1))[:, None] * keep[..., None], None


def rank_mean(x):
    """Mean over ranks of each rank's mean log-cosh: [ranks n] -> []."""
    return torch.log(torch.cosh(x)).mean(1).mean(0)


class RankMean(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return rank_mean(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.tanh(x) / x.numel()


class RankMeanTwice(RankMean):
    """The number of ranks is divided out twice."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.tanh(x) / (x.numel() * len(x))


def expert(x, w):
    """One expert on every rank, averaged: [ranks b d], [d e] -> [b e]."""
    return torch.relu(x @ w).mean(0)


class Expert(AutocastRule):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return expert(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        gz = (x @ w > 0) * g / len(x)
        return gz @ w.T, torch.einsum("rbd,rbe->de", x, gz)


class ExpertSummed(Expert):
    """The weight's gradient is summed over ranks and not averaged."""

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        gz = (x @ w > 0) * g
        return gz @ w.T / len(x), torch.einsum("rbd,rbe->de", x, gz)


def standardise(x):
    """Rows over their unbiased standard deviation: [b n] -> [b n]."""
    return x / torch.sqrt(x.var(-1, keepdim=True) + 0.1)


class Standardise(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return standardise(x)

    @staticmethod
    def backward(ctx, g):
        return _standardise_backward(ctx, g, lost=1)


class StandardiseBiased(Standardise):
    """The backward divides by n where the forward divided by n - 1."""

    @staticmethod
    def backward(ctx, g):
        return _standardise_backward(ctx, g, lost=0)


def _standardise_backward(ctx, g, *, lost):
    (x,) = ctx.saved_tensors
    r = torch.rsqrt(x.var(-1, keepdim=True) + 0.1)
    centred = x - x.mean(-1, keepdim=True)
    return g * r - centred * r**3 * (g * x).sum(-1, keepdim=True) / (x.shape[-1] - lost)


FAULTS = (
    fault(
        "mean_over_ignored_rows",
        wrong=CrossEntropyAllRows,
        right=CrossEntropy,
        args=[arg("x", "b 5"), integers("target", "b", lo=-1, hi=4)],
        reference=cross_entropy,
        source="linkedin/Liger-Kernel#678",
        note="ignored rows",
    ),
    fault(
        "weighted_mean_by_count",
        wrong=WeightedLossByCount,
        right=WeightedLoss,
        args=[
            arg("x", "b 5"),
            integers("target", "b", lo=0, hi=4),
            arg("weight", "5", POSITIVE, role="frozen"),
        ],
        dims={"b": NONEMPTY},
        reference=weighted_loss,
        note="weights that are not uniform",
    ),
    fault(
        "masked_mean_counts_padding",
        wrong=MaskedMeanPadding,
        right=MaskedMean,
        args=[arg("x", "b n d"), mask("keep", "b n")],
        reference=masked_mean,
        note="padding",
    ),
    fault(
        "ranks_divided_twice",
        wrong=RankMeanTwice,
        right=RankMean,
        args=[arg("x", "ranks n", POSITIVE)],
        dims={"ranks": NONEMPTY, "n": NONEMPTY},
        reference=rank_mean,
        source="meta-pytorch/torchtune#2172",
        note="more than one rank",
    ),
    fault(
        "expert_not_averaged",
        wrong=ExpertSummed,
        right=Expert,
        args=[arg("x", "ranks b d"), arg("w", "d e")],
        dims={"ranks": NONEMPTY},
        reference=expert,
        source="databricks/megablocks#20",
        note="more than one rank",
    ),
    fault(
        "unbiased_variance_by_n",
        wrong=StandardiseBiased,
        right=Standardise,
        args=[arg("x", "b n")],
        dims={"n": Dim(lo=2)},
        reference=standardise,
    ),
)
