"""needs_input_grad, undefined cotangents, unused outputs, frozen arguments that get a gradient."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, POSITIVE, SMALL, Rule, arg, pair

fault = partial(pair, cls="partial-grad", primary="partial")


def biased_scores(s, mask):
    """log softmax(s + mask): [n m], [n m] -> [n m]."""
    return torch.log_softmax(s + mask, -1)


class BiasedScores(Rule):
    @staticmethod
    def forward(ctx, s, mask):
        y = biased_scores(s, mask)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        grad = g - y.exp() * g.sum(-1, keepdim=True)
        return tuple(grad if needed else None for needed in ctx.needs_input_grad)


class BiasedScoresMaskOnly(BiasedScores):
    """What backward needs is computed only if the scores require grad, and not if the mask alone does."""

    @staticmethod
    def forward(ctx, s, mask):
        y = biased_scores(s, mask)
        ctx.save_for_backward(y if ctx.needs_input_grad[0] else torch.zeros_like(y))
        return y


def scaled_norm(x, w):
    """w x / sqrt(mean x^2 + 0.01): [b n], [n] -> [b n]."""
    return w * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.01)


class ScaledNorm(Rule):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return scaled_norm(x, w)

    @staticmethod
    def backward(ctx, g):
        gx, gw = _scaled_norm_backward(ctx, g)
        return gx if ctx.needs_input_grad[0] else None, gw if ctx.needs_input_grad[1] else None


class ScaledNormFrozenWeight(ScaledNorm):
    """With a frozen weight the test for None skips the projection as well."""

    @staticmethod
    def backward(ctx, g):
        gx, gw = _scaled_norm_backward(ctx, g)
        if ctx.needs_input_grad[1]:
            return gx, gw
        x, w = ctx.saved_tensors
        return g * w * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.01), None


class ScaledNormSwappedMask(ScaledNorm):
    """needs_input_grad is read in the wrong order."""

    @staticmethod
    def backward(ctx, g):
        gx, gw = _scaled_norm_backward(ctx, g)
        return gx if ctx.needs_input_grad[1] else None, gw if ctx.needs_input_grad[0] else None


def _scaled_norm_backward(ctx, g):
    x, w = ctx.saved_tensors
    r = torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.01)
    gx = r * g * w - x * r**3 * (g * w * x).mean(-1, keepdim=True)
    return gx, (g * x * r).sum(0)


def value_and_energy(x):
    """sin(x) and the rows' energy: [b n] -> [b n], [b]."""
    return torch.sin(x), x.square().sum(-1) / 2


class ValueAndEnergy(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return value_and_energy(x)

    @staticmethod
    def backward(ctx, g, energy):
        (x,) = ctx.saved_tensors
        wave = torch.zeros_like(x) if g is None else g * torch.cos(x)
        return wave if energy is None else wave + energy[:, None] * x


class ValueAndEnergyUnused(ValueAndEnergy):
    """No gradient for the second output is read as no gradient at all."""

    @staticmethod
    def backward(ctx, g, energy):
        return None if energy is None else ValueAndEnergy.backward(ctx, g, energy)


def weighted_hinge(x, w):
    """w max(0, 1 - x), the weights being data: [n], [n] -> [n]."""
    return w * (1 - x).clamp_min(0)


class WeightedHinge(Rule):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return weighted_hinge(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return -g * w * (x < 1), None


class WeightedHingeLeaks(WeightedHinge):
    """Returns a gradient for the weights, which are declared to carry none."""

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return -g * w * (x < 1), g * (1 - x).clamp_min(0)


FAULTS = (
    fault(
        "only_the_mask_requires_grad",
        wrong=BiasedScoresMaskOnly,
        right=BiasedScores,
        args=[arg("s", "n m"), arg("mask", "n m")],
        reference=biased_scores,
        source="pytorch/pytorch#188302",
    ),
    fault(
        "frozen_weight_skips_too_much",
        wrong=ScaledNormFrozenWeight,
        right=ScaledNorm,
        args=[arg("x", "b n"), arg("w", "n")],
        dims={"n": NONEMPTY},
        reference=scaled_norm,
        source="linkedin/Liger-Kernel#1068",
    ),
    fault(
        "needs_input_grad_swapped",
        wrong=ScaledNormSwappedMask,
        right=ScaledNorm,
        args=[arg("x", "b n"), arg("w", "n")],
        dims={"n": NONEMPTY},
        reference=scaled_norm,
    ),
    fault(
        "unused_output_stops_all",
        wrong=ValueAndEnergyUnused,
        right=ValueAndEnergy,
        args=[arg("x", "b n", SMALL)],
        reference=value_and_energy,
    ),
    fault(
        "gradient_for_frozen_weights",
        wrong=WeightedHingeLeaks,
        right=WeightedHinge,
        args=[arg("x", "n", SMALL), arg("w", "n", POSITIVE, role="frozen")],
        dims={"n": NONEMPTY},
        reference=weighted_hinge,
    ),
)
