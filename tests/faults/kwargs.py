"""One branch of a flag or a mode; the default is right."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, POSITIVE, AutocastRule, Rule, arg, integers, pair

fault = partial(pair, cls="kwargs")


def batch_norm(x, mean, var, training=True):
    """Normalises columns by the batch's statistics, or by the given ones: [b n], [n], [n] -> [b n]."""
    if training:
        mean, var = x.mean(0), x.var(0, unbiased=False)
    return (x - mean) * torch.rsqrt(var + 0.1)


class BatchNorm(Rule):
    @staticmethod
    def forward(ctx, x, mean, var, training=True):
        ctx.training = training
        ctx.save_for_backward(x, var)
        return batch_norm(x, mean, var, training)

    @staticmethod
    def backward(ctx, g):
        x, var = ctx.saved_tensors
        gx = _batch_norm_training(x, g) if ctx.training else g * torch.rsqrt(var + 0.1)
        return gx, None, None, None


class BatchNormAlwaysTrains(BatchNorm):
    """The backward of training in evaluation too."""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        return _batch_norm_training(x, g), None, None, None


def _batch_norm_training(x, g):
    r = torch.rsqrt(x.var(0, unbiased=False) + 0.1)
    y = (x - x.mean(0)) * r
    return r * (g - g.mean(0) - y * (g * y).mean(0))


def group_norm(x, w, groups=1):
    """RMS norm within each of `groups` parts of a row: [b 6], [6] -> [b 6]."""
    parts = x.unflatten(-1, (groups, -1))
    return w * (parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + 0.1)).flatten(-2)


class GroupNorm(Rule):
    @staticmethod
    def forward(ctx, x, w, groups=1):
        ctx.groups = groups
        ctx.save_for_backward(x, w)
        return group_norm(x, w, groups)

    @staticmethod
    def backward(ctx, g):
        return *_group_norm_backward(ctx, g, ctx.groups), None


class GroupNormOneGroup(GroupNorm):
    """The backward does not know groups."""

    @staticmethod
    def backward(ctx, g):
        return *_group_norm_backward(ctx, g, 1), None


def _group_norm_backward(ctx, g, groups):
    x, w = ctx.saved_tensors
    parts, gw = x.unflatten(-1, (groups, -1)), (g * w).unflatten(-1, (groups, -1))
    r = torch.rsqrt(parts.square().mean(-1, keepdim=True) + 0.1)
    gx = r * gw - parts * r**3 * (gw * parts).mean(-1, keepdim=True)
    return gx.flatten(-2), (g * (parts * r).flatten(-2)).sum(0)


def nll(x, target, reduction="mean"):
    """Cross entropy of [b 4], [b] with reduction mean, sum or none."""
    loss = -torch.log_softmax(x, -1).gather(-1, target[:, None])[:, 0]
    return {"mean": loss.mean, "sum": loss.sum, "none": loss.clone}[reduction]()


class Nll(Rule):
    @staticmethod
    def forward(ctx, x, target, reduction="mean"):
        ctx.reduction = reduction
        ctx.save_for_backward(x, target)
        return nll(x, target, reduction)

    @staticmethod
    def backward(ctx, g):
        saved = ctx.saved_tensors
        per_row = g if ctx.reduction == "none" else g.expand(len(saved[0]))
        return _nll_backward(saved, per_row, ctx.reduction), None, None


class NllOneCotangent(Nll):
    """Reads one number of the cotangent, which is all there is unless reduction is none."""

    @staticmethod
    def backward(ctx, g):
        saved = ctx.saved_tensors
        return _nll_backward(saved, g.reshape(-1)[:1].expand(len(saved[0])), ctx.reduction), None, None


def _nll_backward(saved, per_row, reduction):
    x, target = saved
    rows = len(x) if reduction == "mean" else 1
    hot = torch.nn.functional.one_hot(target, x.shape[-1])
    return (torch.softmax(x, -1) - hot) * per_row[:, None] / rows


def causal_attention(q, k, v, scale=0.5, causal=False):
    """Attention with an optional causal mask: [n d], [n d], [n e] -> [n e]."""
    return _weights(q, k, scale, causal) @ v


def _weights(q, k, scale, causal):
    s = scale * q @ k.T
    later = torch.ones_like(s, dtype=torch.bool).triu(1)
    return torch.softmax(s.masked_fill(later, -torch.inf) if causal else s, -1)


class CausalAttention(AutocastRule):
    @staticmethod
    def forward(ctx, q, k, v, scale=0.5, causal=False):
        ctx.scale, ctx.causal = scale, causal
        ctx.save_for_backward(q, k, v)
        return causal_attention(q, k, v, scale, causal)

    @staticmethod
    def backward(ctx, g):
        return _attention_backward(ctx, g, scale=ctx.scale, causal=ctx.causal)


class CausalAttentionRecomputes(CausalAttention):
    """The weights are recomputed without the mask."""

    @staticmethod
    def backward(ctx, g):
        return _attention_backward(ctx, g, scale=ctx.scale, causal=False)


class CausalAttentionScale(CausalAttention):
    """The backward has the default scale written into it."""

    @staticmethod
    def backward(ctx, g):
        return _attention_backward(ctx, g, scale=0.5, causal=ctx.causal)


def _attention_backward(ctx, g, *, scale, causal):
    q, k, v = ctx.saved_tensors
    p = _weights(q, k, scale, causal)
    gp = g @ v.T
    gs = scale * p * (gp - (gp * p).sum(-1, keepdim=True))
    return gs @ k, gs.T @ q, p.T @ g, None, None


QKV = [arg("q", "n d"), arg("k", "n d"), arg("v", "n e")]

FAULTS = (
    fault(
        "evaluation_runs_training",
        wrong=BatchNormAlwaysTrains,
        right=BatchNorm,
        args=[
            arg("x", "b n"),
            arg("mean", "n", role="frozen"),
            arg("var", "n", POSITIVE, role="frozen"),
        ],
        kwargs={"training": (True, False)},
        dims={"b": NONEMPTY},
        reference=batch_norm,
        source="apache/mxnet#9580",
    ),
    fault(
        "groups_ignored",
        wrong=GroupNormOneGroup,
        right=GroupNorm,
        args=[arg("x", "b 6"), arg("w", "6")],
        kwargs={"groups": (1, 2, 3)},
        reference=group_norm,
        source="state-spaces/mamba#547",
    ),
    fault(
        "reduction_none",
        wrong=NllOneCotangent,
        right=Nll,
        args=[arg("x", "b 4"), integers("target", "b", lo=0, hi=3)],
        kwargs={"reduction": ("mean", "sum", "none")},
        dims={"b": NONEMPTY},
        reference=nll,
        source="linkedin/Liger-Kernel#678",
    ),
    fault(
        "mask_not_recomputed",
        wrong=CausalAttentionRecomputes,
        right=CausalAttention,
        args=QKV,
        kwargs={"scale": (0.5, 1.0, 0.125), "causal": (False, True)},
        dims={"n": NONEMPTY},
        reference=causal_attention,
        source="triton-lang/triton#2020",
    ),
    fault(
        "default_scale_written_in",
        wrong=CausalAttentionScale,
        right=CausalAttention,
        args=QKV,
        kwargs={"scale": (0.5, 1.0, 0.125), "causal": (False, True)},
        dims={"n": NONEMPTY},
        reference=causal_attention,
    ),
)
