"""One output's gradient is dropped, swapped, or right only when it comes alone."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, POSITIVE, SMALL, AutocastRule, Rule, arg, pair

fault = partial(pair, cls="multi-output")


def attention_with_lse(s, v):
    """softmax(s) v and the logsumexp of s: [n m], [m d] -> [n d], [n]."""
    return torch.softmax(s, -1) @ v, torch.logsumexp(s, -1)


class AttentionWithLse(AutocastRule):
    @staticmethod
    def forward(ctx, s, v):
        out, lse = attention_with_lse(s, v)
        ctx.save_for_backward(s, v, out, lse)
        return out, lse

    @staticmethod
    def backward(ctx, g, g_lse):
        s, v, out, lse = ctx.saved_tensors
        p = torch.exp(s - lse[:, None])
        delta = (g * out).sum(-1) - g_lse
        return p * (g @ v.T - delta[:, None]), p.T @ g


class AttentionLseDropped(AttentionWithLse):
    """The logsumexp is taken for a by-product."""

    @staticmethod
    def backward(ctx, g, g_lse):
        return AttentionWithLse.backward(ctx, g, torch.zeros_like(g_lse))


def spread_and_mean(x):
    """Variance and mean of rows: [b n] -> [b], [b]."""
    return torch.var_mean(x, -1, unbiased=False)


class SpreadAndMean(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return spread_and_mean(x)

    @staticmethod
    def backward(ctx, g_var, g_mean):
        (x,) = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        return (2 * g_var[:, None] * centred + g_mean[:, None]) / max(x.shape[-1], 1)


class SpreadAndMeanOverwritten(SpreadAndMean):
    """The second output's gradient replaces the first's where it has to be added."""

    @staticmethod
    def backward(ctx, g_var, g_mean):
        alone = torch.where(g_mean != 0, torch.zeros_like(g_var), g_var)
        return SpreadAndMean.backward(ctx, alone, g_mean)


def polar(r, angle):
    return r * torch.cos(angle), r * torch.sin(angle)


class Polar(Rule):
    @staticmethod
    def forward(ctx, r, angle):
        ctx.save_for_backward(r, angle)
        return polar(r, angle)

    @staticmethod
    def backward(ctx, gx, gy):
        r, angle = ctx.saved_tensors
        c, s = torch.cos(angle), torch.sin(angle)
        return gx * c + gy * s, r * (gy * c - gx * s)


class PolarSwapped(Polar):
    """The two cotangents are swapped."""

    @staticmethod
    def backward(ctx, gx, gy):
        return Polar.backward(ctx, gy, gx)


def split_sort(x):
    """Sorted rows, and where they came from, which is an integer output: [b n] -> [b n], [b n]."""
    return tuple(torch.sort(x, -1))


class SplitSort(Rule):
    @staticmethod
    def forward(ctx, x):
        y, where = split_sort(x)
        ctx.save_for_backward(where)
        ctx.mark_non_differentiable(where)
        return y, where

    @staticmethod
    def backward(ctx, g, _):
        (where,) = ctx.saved_tensors
        return torch.zeros_like(g).scatter(-1, where, g)


class SplitSortGathers(SplitSort):
    """Applies the permutation where its inverse belongs: equal up to two elements."""

    @staticmethod
    def backward(ctx, g, _):
        (where,) = ctx.saved_tensors
        return g.gather(-1, where)


def state_of(x):
    """Energy, momentum and mean in one dict: [b n] -> [b], [b n], [b]."""
    return {"energy": x.square().sum(-1) / 2, "state": [torch.sin(x), {"mean": x.mean(-1)}], "rows": x.shape[0]}


class StateOf(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x.square().sum(-1) / 2, torch.sin(x), x.mean(-1)

    @staticmethod
    def backward(ctx, ge, gs, gm):
        (x,) = ctx.saved_tensors
        grad = torch.zeros_like(x)
        for g, slope in ((ge, x), (gm, torch.ones_like(x) / max(x.shape[-1], 1))):
            grad = grad if g is None else grad + g[:, None] * slope
        return grad if gs is None else grad + gs * torch.cos(x)


class StateOfSwapped(StateOf):
    """With only one of the two gradients of the rows, it is taken for the other."""

    @staticmethod
    def backward(ctx, ge, gs, gm):
        if (ge is None) != (gm is None):
            ge, gm = gm, ge
        return StateOf.backward(ctx, ge, gs, gm)


def packed(rule):
    def op(x):
        energy, wave, mean = rule.apply(x)
        return {"state": [wave, {"mean": mean}], "energy": energy, "rows": x.shape[0]}

    return op


FAULTS = (
    fault(
        "logsumexp_gradient_dropped",
        wrong=AttentionLseDropped,
        right=AttentionWithLse,
        args=[arg("s", "n m"), arg("v", "m d")],
        dims={"m": NONEMPTY},
        reference=attention_with_lse,
        source="Dao-AILab/flash-attention#889",
    ),
    fault(
        "second_output_overwrites",
        wrong=SpreadAndMeanOverwritten,
        right=SpreadAndMean,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=spread_and_mean,
        note="both outputs used",
    ),
    fault(
        "cotangents_swapped",
        wrong=PolarSwapped,
        right=Polar,
        args=[arg("r", "*b", POSITIVE), arg("angle", "*b", SMALL)],
        reference=polar,
    ),
    fault(
        "inverse_permutation",
        wrong=SplitSortGathers,
        right=SplitSort,
        args=[arg("x", "b n")],
        reference=split_sort,
        note="three elements or more",
    ),
    fault(
        "dict_outputs_swapped_when_alone",
        primary="partial",
        wrong=packed(StateOfSwapped),
        right=packed(StateOf),
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=state_of,
        note="one of the two used without the other",
    ),
)
