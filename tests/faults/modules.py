"""Modules whose parameters are arguments: a wrong Function inside, a wrong mode, one weight in two places."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from gradverify.cases.parameters import with_parameters
from gradverify.records.spec import Dim
from tests.faults.record import AutocastRule, Fault, Rule, arg, pair

TWO = Dim(lo=2)


def fault(name: str, *, wrong: nn.Module, right: nn.Module, **fields) -> Fault:
    """A pair of modules under the same spec, each with its own parameters as arguments."""
    made = pair(name, wrong=wrong, right=right, **fields)
    return replace(made, wrong=with_parameters(made.wrong), right=with_parameters(made.right))


class RootMeanSquare(Rule):
    """w x / sqrt(mean x^2 + 0.1): [b n], [n] -> [b n]."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return w * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.1)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.1)
        u = g * w
        return r * (u - x * r.square() * (u * x).mean(-1, keepdim=True)), (g * x * r).sum(0)


class RootMeanSquareRaw(RootMeanSquare):
    """The gradient of the weight by the input instead of the normalised one."""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        return RootMeanSquare.backward(ctx, g)[0], (g * x).sum(0)


class Norm(nn.Module):
    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.rule.apply(x, self.weight)


def block(rule) -> nn.Module:
    """A norm, a linear layer and a dropout, as blocks have them."""
    made = nn.Sequential(Norm(rule), nn.Linear(4, 3), nn.Tanh())
    with torch.no_grad():
        made[1].weight.copy_(torch.linspace(-1, 1, 12).reshape(3, 4))
        made[1].bias.copy_(torch.linspace(0.1, 0.3, 3))
    return made


class BatchNorm(Rule):
    """Columns normalised by the batch's statistics, or by the given ones: [b n], [n], [n], [n] -> [b n]."""

    @staticmethod
    def forward(ctx, x, w, mean, var, training):
        if training:
            mean, var = x.mean(0), x.var(0, unbiased=False)
        r = torch.rsqrt(var + 1e-3)
        ctx.save_for_backward(x, w, mean, r)
        ctx.training = training
        return w * (x - mean) * r

    @staticmethod
    def backward(ctx, g):
        x, w, mean, r = ctx.saved_tensors
        z, u = (x - mean) * r, g * w * r
        gx = u - u.mean(0) - z * (u * z).mean(0) if ctx.training else u
        return gx, (g * z).sum(0), None, None, None


class BatchNormAlwaysTraining(BatchNorm):
    """Backward is that of training in evaluation, too."""

    @staticmethod
    def backward(ctx, g):
        ctx.training = True
        return BatchNorm.backward(ctx, g)


class Batch(nn.Module):
    """Keeps running statistics, which it changes in place in training."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.tensor([0.5, -1.0, 2.0]))
        self.register_buffer("var", torch.tensor([0.5, 2.0, 3.0]))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.batches += 1
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
                self.var.mul_(0.9).add_(0.1 * x.var(0))
        return self.rule.apply(x, self.weight, self.mean, self.var, self.training)


class Tied(AutocastRule):
    """x W W^T: [b n], [n m] -> [b n]."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w @ w.T

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w @ w.T, x.T @ g @ w + g.T @ x @ w


class TiedOnce(Tied):
    """The weight is used twice, and its gradient is that of the first use."""

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w @ w.T, x.T @ g @ w


class Autoencoder(nn.Module):
    """One parameter under two names: it is one argument."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        self.encoder = nn.Linear(3, 2, bias=False)
        self.decoder = nn.Linear(2, 3, bias=False)
        self.decoder.weight = self.encoder.weight
        with torch.no_grad():
            self.encoder.weight.copy_(torch.tensor([[1.0, -0.5, 0.25], [0.5, 1.5, -1.0]]))

    def forward(self, x):
        return self.rule.apply(x, self.decoder.weight.T)


FAULTS = (
    fault(
        "norm_weight_by_the_raw_input",
        cls="formula",
        wrong=block(RootMeanSquareRaw),
        right=block(RootMeanSquare),
        args=[arg("input", "b 4")],
        source="linkedin/Liger-Kernel#1068",
        note="the weight is one; inside a module, under its path 0.weight",
    ),
    fault(
        "evaluation_runs_the_backward_of_training",
        cls="kwargs",
        wrong=Batch(BatchNormAlwaysTraining),
        right=Batch(BatchNorm),
        args=[arg("x", "b 3")],
        dims={"b": TWO},
        source="apache/mxnet#9580",
        note="training=False; the twin changes its buffers in training, which is no fault",
    ),
    fault(
        "tied_weight_counted_once",
        cls="formula",
        wrong=Autoencoder(TiedOnce),
        right=Autoencoder(Tied),
        args=[arg("x", "b 3")],
        note="one parameter under two names",
    ),
)
