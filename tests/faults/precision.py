"""Errors that float64 shows: narrow accumulators, cancellation, cut constants, and entries that are small."""

from __future__ import annotations

import math
from functools import partial

import torch

from gradverify.records.spec import Dim
from tests.faults.record import NONEMPTY, SMALL, Domain, Rule, arg, pair

fault = partial(pair, cls="precision")


def softplus(x):
    return torch.logaddexp(x, torch.zeros_like(x))


class Softplus(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


class SoftplusOneInTenThousand(Softplus):
    @staticmethod
    def backward(ctx, g):
        return Softplus.backward(ctx, g) * (1 + 1e-4)


class SoftplusFloat32(Softplus):
    """The derivative goes through float32: seven digits."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x.float()).double()


def gelu(x):
    return x * torch.special.ndtr(x)


class Gelu(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return gelu(x)

    @staticmethod
    def backward(ctx, g):
        return _gelu_backward(ctx, g, peak=1 / math.sqrt(2 * math.pi))


class GeluFourDigits(Gelu):
    """1 / sqrt(2 pi) cut to 0.3989: 1e-4 of that term."""

    @staticmethod
    def backward(ctx, g):
        return _gelu_backward(ctx, g, peak=0.3989)


class GeluFiveDigits(Gelu):
    """1 / sqrt(2 pi) as 0.39895: 2e-5 of that term."""

    @staticmethod
    def backward(ctx, g):
        return _gelu_backward(ctx, g, peak=0.39895)


def _gelu_backward(ctx, g, *, peak):
    (x,) = ctx.saved_tensors
    return g * (torch.special.ndtr(x) + x * peak * torch.exp(-x * x / 2))


def affine(x, b):
    return torch.atan(x + b)


class Affine(Rule):
    @staticmethod
    def forward(ctx, x, b):
        ctx.save_for_backward(x, b)
        return affine(x, b)

    @staticmethod
    def backward(ctx, g):
        x, b = ctx.saved_tensors
        gx = g / (1 + (x + b).square())
        return gx, gx.sum(0)


class AffineSumsInBfloat16(Affine):
    """The bias gradient is accumulated in bfloat16."""

    @staticmethod
    def backward(ctx, g):
        gx, _ = Affine.backward(ctx, g)
        total = torch.zeros_like(gx[0], dtype=torch.bfloat16) if len(gx) else None
        for row in gx:
            total = total + row.bfloat16()
        return gx, gx.sum(0) if total is None else total.to(gx.dtype)


class AffineThroughBfloat16(Affine):
    """Gradients rounded through bfloat16 on their way."""

    @staticmethod
    def backward(ctx, g):
        return tuple(grad.bfloat16().to(grad.dtype) for grad in Affine.backward(ctx, g))


def whiten(x):
    """Rows far from zero, divided by their spread: [b n] -> [b n]."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-3)


class Whiten(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return whiten(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        return _whiten_backward(centred, centred.square().mean(-1, keepdim=True), g)


class WhitenCancels(Whiten):
    """Variance as mean of squares minus square of the mean: at 1e5 six digits of sixteen are left."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        mean = x.mean(-1, keepdim=True)
        return _whiten_backward(x - mean, (x.square().mean(-1, keepdim=True) - mean.square()).clamp_min(0), g)


def _whiten_backward(centred, variance, g):
    r = torch.rsqrt(variance + 1e-3)
    y = centred * r
    return r * (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True))


def two_scales(x):
    """tanh, and a penalty a hundred million times smaller: [n] -> [n], [n]."""
    return torch.tanh(x), 1e-8 * x**3


class TwoScales(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return two_scales(x)

    @staticmethod
    def backward(ctx, g, penalty):
        (x,) = ctx.saved_tensors
        return g * (1 - torch.tanh(x).square()) + penalty * 3e-8 * x * x


class TwoScalesSmallDoubled(TwoScales):
    @staticmethod
    def backward(ctx, g, penalty):
        return TwoScales.backward(ctx, g, 2 * penalty)


def cosines(x):
    return torch.cos(x)


class Cosines(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return cosines(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return -g * torch.sin(x)


class CosinesOneMissing(Cosines):
    """One entry of thousands has no gradient."""

    @staticmethod
    def backward(ctx, g):
        grad = Cosines.backward(ctx, g)
        grad[1234] = 0
        return grad


def tiny_loss(x, t):
    """A loss whose every gradient is about 1e-6: [b n], [b n] -> []."""
    return 1e-6 * torch.log(torch.cosh(x - t)).sum()


class TinyLoss(Rule):
    @staticmethod
    def forward(ctx, x, t):
        ctx.save_for_backward(x, t)
        return tiny_loss(x, t)

    @staticmethod
    def backward(ctx, g):
        x, t = ctx.saved_tensors
        grad = g * 1e-6 * torch.tanh(x - t)
        return grad, -grad


class TinyLossSwallowed(TinyLoss):
    """The gradient of the target has its sign lost; gradcheck's atol swallows it."""

    @staticmethod
    def backward(ctx, g):
        grad, _ = TinyLoss.backward(ctx, g)
        return grad, grad


FAULTS = (
    fault(
        "all_off_by_1e-4",
        wrong=SoftplusOneInTenThousand,
        right=Softplus,
        args=[arg("x", "*b")],
        reference=softplus,
    ),
    fault("constant_of_four_digits", wrong=GeluFourDigits, right=Gelu, args=[arg("x", "*b")], reference=gelu),
    fault("constant_of_five_digits", wrong=GeluFiveDigits, right=Gelu, args=[arg("x", "*b")], reference=gelu),
    fault(
        "bias_summed_in_bfloat16",
        wrong=AffineSumsInBfloat16,
        right=Affine,
        args=[arg("x", "b n", SMALL), arg("b", "n", SMALL)],
        reference=affine,
        source="pytorch/pytorch#68048",
    ),
    fault(
        "rounded_through_bfloat16",
        wrong=AffineThroughBfloat16,
        right=Affine,
        args=[arg("x", "b n", SMALL), arg("b", "n", SMALL)],
        reference=affine,
        source="linkedin/Liger-Kernel#1253",
        must_fail=("vjp", "linear"),
    ),
    fault(
        "variance_cancels",
        wrong=WhitenCancels,
        right=Whiten,
        args=[arg("x", "b n", Domain(lo=1e5, hi=1e5 + 1))],
        dims={"n": Dim(lo=2)},
        reference=whiten,
        note="rows far from zero",
    ),
    fault(
        "small_output_doubled",
        wrong=TwoScalesSmallDoubled,
        right=TwoScales,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=two_scales,
    ),
    fault(
        "one_entry_of_4096",
        wrong=CosinesOneMissing,
        right=Cosines,
        args=[arg("x", "4096")],
        reference=cosines,
    ),
    fault(
        "sign_below_atol",
        wrong=TinyLossSwallowed,
        right=TinyLoss,
        args=[arg("x", "b n", SMALL), arg("t", "b n", SMALL)],
        reference=tiny_loss,
    ),
)

IMPRECISE = (
    pair(
        "derivative_in_float32",
        cls="precision",
        wrong=SoftplusFloat32,
        right=Softplus,
        args=[arg("x", "*b", SMALL)],
        reference=softplus,
        code="GV602",
        note="a warned pass; `digits=9` in the spec makes it fail",
    ),
)
