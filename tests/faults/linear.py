"""Backward is not linear in the cotangent: clipped, normalised, ignored. gradcheck's unit cotangents hide it."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, POSITIVE, SMALL, Rule, arg, pair

fault = partial(pair, cls="nonlinear", primary="linear")


def soft_sign(x):
    return x / (1 + x.abs())


class SoftSign(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return soft_sign(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / (1 + x.abs()).square()


class SoftSignClipped(SoftSign):
    """Clips the gradient where the window on x was meant, as a much-read tutorial does."""

    @staticmethod
    def backward(ctx, g):
        return SoftSign.backward(ctx, g.clamp(-1, 1))


class SoftSignUnit(SoftSign):
    """Normalises the gradient: homogeneous of degree 0."""

    @staticmethod
    def backward(ctx, g):
        return SoftSign.backward(ctx, g / g.norm().clamp_min(1e-30))


class SoftSignFlushed(SoftSign):
    """Flushes small cotangents to zero: right at the scale of 1, wrong under loss scaling."""

    @staticmethod
    def backward(ctx, g):
        return SoftSign.backward(ctx, torch.where(g.abs() < 0.1, torch.zeros_like(g), g))


def power_mean(x):
    """(mean x^3)^(1/3) of positive rows: [b n] -> [b]."""
    return x.pow(3).mean(-1).pow(1 / 3)


class PowerMean(Rule):
    @staticmethod
    def forward(ctx, x):
        y = power_mean(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g[:, None] * (x / y[:, None]).square() / x.shape[-1]


class PowerMeanOfOne(PowerMean):
    """The loss's own cotangent is taken for 1."""

    @staticmethod
    def backward(ctx, g):
        return PowerMean.backward(ctx, torch.ones_like(g))


FAULTS = (
    fault(
        "gradient_clipped",
        wrong=SoftSignClipped,
        right=SoftSign,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=soft_sign,
    ),
    fault(
        "gradient_normalised",
        must_fail=("linear", "vjp"),
        wrong=SoftSignUnit,
        right=SoftSign,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=soft_sign,
    ),
    fault(
        "small_cotangents_flushed",
        wrong=SoftSignFlushed,
        right=SoftSign,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=soft_sign,
    ),
    fault(
        "cotangent_ignored",
        must_fail=("linear", "vjp"),
        wrong=PowerMeanOfOne,
        right=PowerMean,
        args=[arg("x", "b n", POSITIVE)],
        dims={"b": NONEMPTY, "n": NONEMPTY},
        reference=power_mean,
        source="pytorch/pytorch#11750",
    ),
)
