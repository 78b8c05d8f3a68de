"""Masks drawn twice; the global generator touched by an op that is not declared random."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, SMALL, Rule, arg, pair

fault = partial(pair, cls="randomness")


class Dropout(Rule):
    """Keeps half of sin(x), doubled: one mask for both passes."""

    @staticmethod
    def forward(ctx, x):
        keep = torch.rand(x.shape, dtype=x.dtype) < 0.5
        ctx.save_for_backward(x, keep)
        return 2 * torch.sin(x) * keep

    @staticmethod
    def backward(ctx, g):
        x, keep = ctx.saved_tensors
        return 2 * g * torch.cos(x) * keep


class DropoutTwice(Dropout):
    """The backward draws its own mask."""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        return 2 * g * torch.cos(x) * (torch.rand(x.shape, dtype=x.dtype) < 0.5)


class RandomSlope(Rule):
    """Random leaky slopes in [1/8, 1/3], drawn again in backward from the generator's state of the forward."""

    @staticmethod
    def forward(ctx, x):
        ctx.state = torch.get_rng_state()
        ctx.save_for_backward(x)
        return torch.where(x > 0, x, x * _slopes(x))

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(ctx.state)
            return torch.where(x > 0, g, g * _slopes(x))


class RandomSlopeMean(RandomSlope):
    """The backward takes the mean slope, as in evaluation."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, g, g * (1 / 8 + 1 / 3) / 2)


def _slopes(x):
    return 1 / 8 + (1 / 3 - 1 / 8) * torch.rand(x.shape, dtype=x.dtype)


class Jitter(Rule):
    """Multiplies by 1 + noise, and remembers the noise."""

    @staticmethod
    def forward(ctx, x):
        noise = 1 + 0.1 * torch.randn(x.shape, dtype=x.dtype)
        ctx.save_for_backward(x, noise)
        return torch.atan(x * noise)

    @staticmethod
    def backward(ctx, g):
        x, noise = ctx.saved_tensors
        return g * noise / (1 + (x * noise).square())


class JitterForgotten(Jitter):
    """The outer factor of the noise is left out."""

    @staticmethod
    def backward(ctx, g):
        x, noise = ctx.saved_tensors
        return g / (1 + (x * noise).square())


def hat(x):
    return (1 - x.abs()).clamp_min(0)


class Hat(Rule):
    """Ties at the kinks are broken by a generator of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return hat(x)

    @staticmethod
    def backward(ctx, g):
        return _hat_backward(ctx, g, torch.Generator().manual_seed(0))


class HatGlobal(Hat):
    """Breaks ties with the global generator."""

    @staticmethod
    def backward(ctx, g):
        return _hat_backward(ctx, g, None)


class HatReseeds(Hat):
    """Seeds the global generator, so that its own draws repeat, and everybody's with them."""

    @staticmethod
    def forward(ctx, x):
        torch.default_generator.manual_seed(0)
        return Hat.forward(ctx, x)


def _hat_backward(ctx, g, generator):
    (x,) = ctx.saved_tensors
    coin = torch.rand(x.shape, dtype=x.dtype, generator=generator) < 0.5
    inside = (x.abs() < 1) | ((x.abs() == 1) & coin)
    return -g * torch.sign(x) * inside


FAULTS = (
    fault(
        "mask_drawn_twice",
        wrong=DropoutTwice,
        right=Dropout,
        primary="repeat",
        must_fail=("repeat", "vjp"),
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        stochastic=True,
        source="pytorch/pytorch#114333",
    ),
    fault(
        "slope_of_evaluation",
        wrong=RandomSlopeMean,
        right=RandomSlope,
        args=[arg("x", "b n", SMALL)],
        stochastic=True,
    ),
    fault(
        "noise_factor_forgotten",
        wrong=JitterForgotten,
        right=Jitter,
        args=[arg("x", "b n", SMALL)],
        stochastic=True,
    ),
    fault(
        "global_generator_drawn_from",
        wrong=HatGlobal,
        right=Hat,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=hat,
        primary="purity",
    ),
    fault(
        "global_generator_seeded",
        wrong=HatReseeds,
        right=Hat,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=hat,
        primary="purity",
    ),
)
