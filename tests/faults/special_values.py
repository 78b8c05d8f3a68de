"""Zeros, ties, empty masks, saturation, overflow: what normal draws never meet."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, SMALL, Domain, Rule, arg, mask, pair

fault = partial(pair, cls="special-values")


def prod(x):
    return x.prod(-1)


class Prod(Rule):
    """The product of the others, from the left times from the right: no division."""

    @staticmethod
    def forward(ctx, x):
        y = prod(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        one = torch.ones_like(x[:, :1])
        left = torch.cat((one, x[:, :-1]), 1).cumprod(1)
        right = torch.cat((x[:, 1:], one), 1).flip(1).cumprod(1).flip(1)
        return g[:, None] * left * right


class ProdDivides(Prod):
    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g * y)[:, None] / x


def cumprod(x):
    return x.cumprod(-1)


class Cumprod(Rule):
    """Entry i sums g_k times the product of x_0..x_k without x_i, by running suffixes: [b n] -> [b n]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return cumprod(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        before = torch.cat((torch.ones_like(x[:, :1]), x[:, :-1]), 1).cumprod(1)
        after, rows = torch.zeros_like(x[:, 0]), []
        for i in reversed(range(x.shape[1])):
            following = x[:, i + 1] if i + 1 < x.shape[1] else torch.zeros_like(after)
            after = g[:, i] + following * after
            rows.append(before[:, i] * after)
        return torch.stack(rows[::-1], 1)


class CumprodDivides(Cumprod):
    """Divides by x, and calls 0/0 zero: finite, and wrong at a zero."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        suffix = (g * x.cumprod(-1)).flip(-1).cumsum(-1).flip(-1)
        return torch.where(x == 0, torch.zeros_like(x), suffix / torch.where(x == 0, torch.ones_like(x), x))


def top(x):
    return x.amax(-1)


class Top(Rule):
    """Ties share the gradient evenly."""

    @staticmethod
    def forward(ctx, x):
        y = top(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        tied = (x == y[:, None]).to(x.dtype)
        return g[:, None] * tied / tied.sum(-1, keepdim=True)


class TopAllTied(Top):
    """Every tied element gets the whole gradient."""

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g[:, None] * (x == y[:, None])


def sigmoid(x):
    return torch.sigmoid(x)


class Sigmoid(Rule):
    @staticmethod
    def forward(ctx, x):
        y = sigmoid(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        _, y = ctx.saved_tensors
        return g * y * (1 - y)


class SigmoidOverflow(Sigmoid):
    """exp(-x) / (1 + exp(-x))^2 is inf / inf at large negative x."""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        e = torch.exp(-x)
        return g * e / (1 + e).square()


def log_sum_exp(x):
    return torch.logsumexp(x, -1)


class LogSumExp(Rule):
    @staticmethod
    def forward(ctx, x):
        y = log_sum_exp(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g[:, None] * torch.exp(x - y[:, None])


class LogSumExpUnshifted(LogSumExp):
    """The backward does not subtract the maximum."""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        e = torch.exp(x)
        return g[:, None] * e / e.sum(-1, keepdim=True)


def masked_softmax(x, keep):
    """Softmax over the kept entries; a row without any is all zeros."""
    top = x.masked_fill(~keep, -torch.inf).amax(-1, keepdim=True).clamp_min(-1e300)
    e = torch.exp(torch.where(keep, x - top, -torch.inf))
    return e / e.sum(-1, keepdim=True).clamp_min(1e-300)


class MaskedSoftmax(Rule):
    @staticmethod
    def forward(ctx, x, keep):
        y = masked_softmax(x, keep)
        ctx.save_for_backward(x, keep, y)
        return y

    @staticmethod
    def backward(ctx, g):
        _, _, y = ctx.saved_tensors
        return y * (g - (g * y).sum(-1, keepdim=True)), None


class MaskedSoftmaxNaN(MaskedSoftmax):
    """Recomputes the weights without care for a row that is masked out entirely."""

    @staticmethod
    def backward(ctx, g):
        x, keep, _ = ctx.saved_tensors
        y = torch.softmax(x.masked_fill(~keep, -torch.inf), -1)
        return y * (g - (g * y).sum(-1, keepdim=True)), None


def length(x):
    return torch.linalg.vector_norm(x, dim=-1)


class Length(Rule):
    """At zero, where the norm has a kink, the gradient is 0, a subgradient."""

    @staticmethod
    def forward(ctx, x):
        y = length(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g / torch.where(y == 0, torch.ones_like(y), y))[:, None] * x


class LengthNaN(Length):
    """x / |x| at zero."""

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g / y)[:, None] * x


def excess(x):
    """Signed square beyond the box [-1, 1]: continuous slope, second derivative with jumps."""
    return (x - x.clamp(-1, 1)) * (x - x.clamp(-1, 1)).abs() / 2


class Excess(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return excess(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x - x.clamp(-1, 1)).abs()


class ExcessAtBound(Excess):
    """At the bound itself, where the slope is 0, the gradient of the linear piece is passed."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        at_bound = (x.abs() == 1).to(x.dtype)
        return g * ((x - x.clamp(-1, 1)).abs() + at_bound)


FAULTS = (
    fault(
        "prod_divides_by_input",
        code="GV111",
        wrong=ProdDivides,
        right=Prod,
        args=[arg("x", "b n", SMALL)],
        dims={"n": NONEMPTY},
        reference=prod,
        source="tinygrad/tinygrad#17404",
        note="a zero",
    ),
    fault(
        "cumprod_zero_over_zero",
        wrong=CumprodDivides,
        right=Cumprod,
        args=[arg("x", "b n", SMALL)],
        dims={"n": NONEMPTY},
        reference=cumprod,
        source="pymc-devs/pytensor#1956",
        note="a zero",
    ),
    fault(
        "max_pays_every_tie",
        wrong=TopAllTied,
        right=Top,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=top,
        source="sahandsafizadeh/qeep#101",
        note="ties",
    ),
    fault(
        "sigmoid_overflows",
        code="GV111",
        wrong=SigmoidOverflow,
        right=Sigmoid,
        args=[arg("x", "*b")],
        reference=sigmoid,
        source="huggingface/candle#1722",
        note="x below -710",
    ),
    fault(
        "logsumexp_not_shifted",
        code="GV111",
        wrong=LogSumExpUnshifted,
        right=LogSumExp,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=log_sum_exp,
        note="x above 710",
    ),
    fault(
        "row_masked_out",
        code="GV111",
        wrong=MaskedSoftmaxNaN,
        right=MaskedSoftmax,
        args=[arg("x", "b n"), mask("keep", "b n")],
        dims={"n": NONEMPTY},
        reference=masked_softmax,
        source="ROCm/TransformerEngine#556",
        note="a row without any kept entry",
    ),
    fault(
        "norm_at_zero",
        code="GV111",
        wrong=LengthNaN,
        right=Length,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=length,
        note="a row of zeros",
        source="pytorch/functorch#1097",
    ),
    fault(
        "slope_at_the_bound",
        wrong=ExcessAtBound,
        right=Excess,
        args=[arg("x", "*b", Domain(lo=-1.0, hi=1.0))],
        reference=excess,
        note="values exactly on the bounds of the domain",
    ),
)
