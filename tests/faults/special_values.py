"""Zeros, ties, empty masks, saturation, overflow: what normal draws never meet."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, SMALL, Domain, Rule, arg, mask, pair

fault = partial(pair, cls="special-values", primary="special")
ADDITIVE = Domain(kind="additive_mask")


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


def softplus(x):
    return torch.where(x > 30, x, torch.log1p(torch.exp(x.clamp_max(30))))


class Softplus(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


class SoftplusOverflow(Softplus):
    """The forward is stable, exp(x) / (1 + exp(x)) is inf / inf."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.exp(x) / (1 + torch.exp(x))


def deviation(x):
    """Standard deviation of each row: [b n] -> [b]."""
    return (x - x.mean(-1, keepdim=True)).square().mean(-1).sqrt()


class Deviation(Rule):
    """At a constant row, where it has a kink, the gradient is 0, a subgradient."""

    @staticmethod
    def forward(ctx, x):
        y = deviation(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        scale = torch.where(y == 0, torch.zeros_like(y), g / (x.shape[-1] * torch.where(y == 0, torch.ones_like(y), y)))
        return scale[:, None] * (x - x.mean(-1, keepdim=True))


class DeviationDivides(Deviation):
    """0 / 0 at a constant row."""

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g / (x.shape[-1] * y))[:, None] * (x - x.mean(-1, keepdim=True))


def power(x):
    """x^(3/2) on x >= 0: a finite slope on one side of the bound."""
    return x * x.sqrt()


class Power(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return power(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 1.5 * g * x.sqrt()


class PowerDivides(Power):
    """1.5 y / x is 0 / 0 at the bound of the domain, where differences have one side only."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 1.5 * g * power(x) / x


def larger(x, y):
    return torch.maximum(x, y)


class Larger(Rule):
    """Equal elements share the gradient."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return larger(x, y)

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        share = (x > y).to(g.dtype) + (x == y).to(g.dtype) / 2
        return g * share, g * (1 - share)


class LargerPaysBoth(Larger):
    """Where the two are equal, each gets the whole gradient."""

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * (x >= y), g * (y >= x)


def biased_softmax(x, bias):
    """Softmax of x + bias, bias 0 or -inf; a row without any kept entry is all zeros."""
    return masked_softmax(x, bias == 0)


class BiasedSoftmax(Rule):
    @staticmethod
    def forward(ctx, x, bias):
        y = biased_softmax(x, bias)
        ctx.save_for_backward(x, bias, y)
        return y

    @staticmethod
    def backward(ctx, g):
        _, _, y = ctx.saved_tensors
        return y * (g - (g * y).sum(-1, keepdim=True)), None


class BiasedSoftmaxRecomputes(BiasedSoftmax):
    """The weights are recomputed from x + bias, which is -inf throughout a row."""

    @staticmethod
    def backward(ctx, g):
        x, bias, _ = ctx.saved_tensors
        y = torch.softmax(x + bias, -1)
        return y * (g - (g * y).sum(-1, keepdim=True)), None


class BiasedSoftmaxForward(BiasedSoftmax):
    """Already the forward is NaN in such a row."""

    @staticmethod
    def forward(ctx, x, bias):
        y = torch.softmax(x + bias, -1)
        ctx.save_for_backward(x, bias, y)
        return y


FAULTS = (
    fault(
        "softplus_overflows",
        code="GV111",
        wrong=SoftplusOverflow,
        right=Softplus,
        args=[arg("x", "*b")],
        reference=softplus,
        source="huggingface/candle#1722",
        note="x above 709",
    ),
    fault(
        "deviation_of_a_constant_row",
        primary="vjp",
        must_fail=("vjp", "special"),
        code="GV111",
        wrong=DeviationDivides,
        right=Deviation,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        note="a row of equal numbers; there is no reference",
    ),
    fault(
        "divides_at_the_edge_of_the_domain",
        code="GV111",
        wrong=PowerDivides,
        right=Power,
        args=[arg("x", "*b", Domain(lo=0.0, hi=4.0))],
        note="a bound beyond which the forward is not defined, with a finite slope on this side",
    ),
    fault(
        "maximum_pays_both",
        wrong=LargerPaysBoth,
        right=Larger,
        args=[arg("x", "*b"), arg("y", "*b")],
        reference=larger,
        source="sahandsafizadeh/qeep#101",
        note="equal elements of two arguments",
    ),
    fault(
        "bias_masks_a_row",
        code="GV111",
        wrong=BiasedSoftmaxRecomputes,
        right=BiasedSoftmax,
        args=[arg("x", "b n"), arg("bias", "b n", ADDITIVE, role="frozen")],
        dims={"n": NONEMPTY},
        reference=biased_softmax,
        source="ROCm/TransformerEngine#556",
        note="a row of -inf",
    ),
    fault(
        "bias_masks_a_row_of_the_forward",
        code="GV208",
        wrong=BiasedSoftmaxForward,
        right=BiasedSoftmax,
        args=[arg("x", "b n"), arg("bias", "b n", ADDITIVE, role="frozen")],
        dims={"n": NONEMPTY},
        reference=biased_softmax,
        source="ROCm/TransformerEngine#556",
        note="a row of -inf",
    ),
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
        primary="vjp",
        must_fail=("vjp", "special"),
        wrong=ExcessAtBound,
        right=Excess,
        args=[arg("x", "*b", Domain(lo=-1.0, hi=1.0))],
        reference=excess,
        note="values exactly on the bounds of the domain",
    ),
)
