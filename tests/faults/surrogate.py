"""The gradient is declared, and is not what is declared. Finite differences of the forward are the wrong judge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

import gradverify
from gradverify.records.spec import Contract, Domain
from tests.faults.record import NONEMPTY, POSITIVE, SMALL, Rule, arg, backward_of, pair

fault = partial(pair, cls="surrogate")

SHARPNESS = 4.0


def spike(v):
    return (v >= 0).to(v.dtype)


class Spike(Rule):
    """Heaviside forward, derivative of sigmoid(4 v) backward."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return spike(v)

    @staticmethod
    def backward(ctx, g):
        return _spike_backward(ctx, g, SHARPNESS)


class SpikeSilent(Spike):
    """A backend that does not know the surrogate returns zeros."""

    @staticmethod
    def backward(ctx, g):
        return torch.zeros_like(g)


class SpikeBlunt(Spike):
    """Half the sharpness that is declared."""

    @staticmethod
    def backward(ctx, g):
        return _spike_backward(ctx, g, SHARPNESS / 2)


def _spike_backward(ctx, g, sharpness):
    (v,) = ctx.saved_tensors
    p = torch.sigmoid(sharpness * v)
    return g * sharpness * p * (1 - p)


def binarise(x):
    return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))


class Binarise(Rule):
    """Straight-through inside [-1, 1]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return binarise(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() <= 1)


class BinariseEverywhere(Binarise):
    """No cancelling outside the range."""

    @staticmethod
    def backward(ctx, g):
        return g.clone()


class BinariseBackwards(Binarise):
    """The forward sends 0 to -1, the body of the spec to +1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x > 0, torch.ones_like(x), -torch.ones_like(x))


def reverse(x, strength=1.0):
    return x.clone()


class Reverse(Rule):
    """Gradient reversal."""

    @staticmethod
    def forward(ctx, x, strength=1.0):
        ctx.strength = strength
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return -ctx.strength * g, None


class ReverseNot(Reverse):
    """The sign is lost."""

    @staticmethod
    def backward(ctx, g):
        return ctx.strength * g, None


def reversed_stand_in(x, strength=1.0):
    return -strength * x


LEVELS = 4


def learned_step(x, step):
    """Quantiser with a learned step: [n], [] -> [n] (Esser et al. 2020)."""
    return step * (x / step).clamp(-LEVELS, LEVELS).round()


class LearnedStep(Rule):
    @staticmethod
    def forward(ctx, x, step):
        ctx.save_for_backward(x, step)
        return learned_step(x, step)

    @staticmethod
    def backward(ctx, g):
        x, step = ctx.saved_tensors
        z = x / step
        inside = z.abs() <= LEVELS
        residue = z.clamp(-LEVELS, LEVELS).round() - torch.where(inside, z, torch.zeros_like(z))
        return g * inside, (g * residue).sum()


class LearnedStepHalf(LearnedStep):
    """Inside the range the step gets round(z) where round(z) - z belongs."""

    @staticmethod
    def backward(ctx, g):
        x, step = ctx.saved_tensors
        z = x / step
        return g * (z.abs() <= LEVELS), (g * z.clamp(-LEVELS, LEVELS).round()).sum()


def learned_step_stand_in(x, step):
    z = (x / step).clamp(-LEVELS, LEVELS)
    return step * (z + gradverify.frozen(z.round() - z))


def learned_step_not_frozen(x, step):
    """What is rounded is not marked: its steps are seen, and the stand-in is as flat as the quantiser."""
    z = (x / step).clamp(-LEVELS, LEVELS)
    return step * (z + (z.round() - z).detach())


def focal(x):
    """-(1 - p) log p with the focal weight 1 - p taken as data: [n] -> [n]."""
    p = torch.sigmoid(x)
    return -(1 - p) * torch.log(p)


def focal_stand_in(x):
    p = torch.sigmoid(x)
    return -gradverify.frozen(1 - p) * torch.log(p)


class Focal(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return focal(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        p = torch.sigmoid(x)
        return -g * (1 - p).square()


class FocalThroughWeight(Focal):
    """The weight is differentiated too."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        p = torch.sigmoid(x)
        return g * (p * (1 - p) * torch.log(p) - (1 - p).square())


def rounded(x):
    return torch.round(x)


class Ewgs(Rule):
    """Element-wise gradient scaling, g (1 + d sign(g) (x - round x)): no function's derivative (Lee et al. 2021)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return rounded(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 + 0.25 * torch.sign(g) * (x - rounded(x)))


class EwgsUnsigned(Ewgs):
    """The sign of the cotangent is forgotten."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 + 0.25 * (x - rounded(x)))


def ewgs_rule(x, g):
    return g * (1 + 0.25 * torch.sign(g) * (x - rounded(x)))


class RoundThrough(Rule):
    @staticmethod
    def forward(ctx, x):
        return rounded(x)

    @staticmethod
    def backward(ctx, g):
        return g.clone()


VOLTAGE = [arg("v", "*b", SMALL)]
STEP = [arg("x", "n", Domain(lo=-8.0, hi=8.0)), arg("step", "", POSITIVE)]
SIGMOID = backward_of(lambda v: torch.sigmoid(SHARPNESS * v))
WINDOW = backward_of(lambda x: x.clamp(-1, 1))
ROUND = fault(
    "straight_through_undeclared",
    wrong=RoundThrough,
    right=RoundThrough,
    args=[arg("x", "n", SMALL)],
    dims={"n": NONEMPTY},
    reference=rounded,
    contract=backward_of(lambda x: x.clone()),
    code="GV112",
    note="the twin declares what it stands for",
)
LEARNED = fault(
    "frozen_forgotten",
    wrong=LearnedStep,
    right=LearnedStep,
    args=STEP,
    dims={"n": NONEMPTY},
    reference=learned_step,
    contract=backward_of(learned_step_stand_in),
    note="the twin marks with gradverify.frozen what carries no gradient",
)


def with_contract(given, contract):
    """The same op on both sides; the wrong side's contract is at fault."""
    return replace(given, wrong=given.wrong.with_(contract=contract))


FAULTS = (
    fault(
        "surrogate_returns_zero",
        wrong=SpikeSilent,
        right=Spike,
        args=VOLTAGE,
        reference=spike,
        contract=SIGMOID,
        source="fangwei123456/spikingjelly#660",
    ),
    fault(
        "surrogate_half_as_sharp",
        wrong=SpikeBlunt,
        right=Spike,
        args=VOLTAGE,
        reference=spike,
        contract=SIGMOID,
    ),
    fault(
        "no_cancelling_outside",
        wrong=BinariseEverywhere,
        right=Binarise,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=binarise,
        contract=WINDOW,
        source="eladhoffer/quantized.pytorch#5",
        note="values outside the window",
    ),
    fault(
        "sign_of_zero",
        wrong=BinariseBackwards,
        right=Binarise,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=binarise,
        contract=WINDOW,
        primary="forward",
        note="a zero",
    ),
    fault(
        "reversal_not_reversed",
        wrong=ReverseNot,
        right=Reverse,
        args=[arg("x", "*b")],
        kwargs={"strength": (1.0, 0.5)},
        reference=reverse,
        contract=backward_of(reversed_stand_in),
    ),
    fault(
        "step_without_residue",
        wrong=LearnedStepHalf,
        right=LearnedStep,
        args=STEP,
        dims={"n": NONEMPTY},
        reference=learned_step,
        contract=backward_of(learned_step_stand_in),
    ),
    with_contract(LEARNED, backward_of(learned_step_not_frozen)),
    fault(
        "weight_differentiated",
        wrong=FocalThroughWeight,
        right=Focal,
        args=[arg("x", "*b", SMALL)],
        reference=focal,
        contract=backward_of(focal_stand_in),
    ),
    fault(
        "scaling_without_sign",
        wrong=EwgsUnsigned,
        right=Ewgs,
        args=[arg("x", "n", SMALL)],
        dims={"n": NONEMPTY},
        reference=rounded,
        contract=Contract(kind="vjp", formula=ewgs_rule),
        linear=False,
    ),
    with_contract(ROUND, Contract()),
)
