"""Gradients of another shape or dtype than their input's: torch casts them, sums them to size, and says nothing."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import ANY, NONEMPTY, SMALL, AutocastRule, Rule, arg, pair

fault = partial(pair, cls="convention", primary="convention")


def biased(x, bias):
    """tanh(x) + bias, the bias added to every row: [b n], [n] -> [b n]."""
    return torch.tanh(x) + bias


class Biased(Rule):
    """Returns the cotangent itself where it can, and sums it where the bias was repeated."""

    @staticmethod
    def forward(ctx, x, bias):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y + bias

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y * y), g.sum(0)


class BiasedUnsummed(Biased):
    """One gradient a row: torch sums the rows, a caller of backward itself does not."""

    @staticmethod
    def backward(ctx, g):
        return Biased.backward(ctx, g)[0], g


class BiasedKeepsAxis(Biased):
    """Sums the rows and keeps their axis."""

    @staticmethod
    def backward(ctx, g):
        return Biased.backward(ctx, g)[0], g.sum(0, keepdim=True)


def total(x):
    """The sum over rows: [b n] -> [n]."""
    return x.sum(0)


class Total(Rule):
    """The gradient is an expanded view of the cotangent: right, whatever its strides."""

    @staticmethod
    def forward(ctx, x):
        ctx.rows = len(x)
        return total(x)

    @staticmethod
    def backward(ctx, g):
        return g.expand(ctx.rows, *g.shape)


class TotalNarrow(Total):
    """Filled from a mask of ones in torch's default dtype."""

    @staticmethod
    def backward(ctx, g):
        return torch.ones(ctx.rows, len(g)) * g.float()


def mixed(x, m):
    """x m: [b n], [n n] -> [b n]."""
    return x @ m


class Mixed(AutocastRule):
    """The gradient of the matrix is a transposed view."""

    @staticmethod
    def forward(ctx, x, m):
        ctx.save_for_backward(x, m)
        return mixed(x, m)

    @staticmethod
    def backward(ctx, g):
        x, m = ctx.saved_tensors
        return g @ m.T, (g.T @ x).T


class MixedComplex(Mixed):
    """Goes through a complex product, and leaves it to torch to drop the imaginary part."""

    @staticmethod
    def backward(ctx, g):
        gx, gm = Mixed.backward(ctx, g)
        return gx, torch.complex(gm, torch.zeros_like(gm))


def squashed(x):
    return torch.tanh(x).square()


class Squashed(Rule):
    """Recomputes with gradients on, for the derivative's own use."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return squashed(x)

    @staticmethod
    def backward(ctx, g):
        return Squashed.recomputed(ctx, g).detach()

    @staticmethod
    def recomputed(ctx, g):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(squashed(x), x, g, create_graph=True)[0]


class SquashedOnTape(Squashed):
    """What it returns still hangs on the graph that it was recomputed on."""

    @staticmethod
    def backward(ctx, g):
        return Squashed.recomputed(ctx, g)


ROWS = {"b": NONEMPTY, "n": NONEMPTY}

FAULTS = (
    fault(
        "bias_gradient_unsummed",
        wrong=BiasedUnsummed,
        right=Biased,
        args=[arg("x", "b n", SMALL), arg("bias", "n", ANY)],
        dims=ROWS,
        reference=biased,
        code="GV109",
        source="pytorch/pytorch#14485",
        note="more than one row",
    ),
    fault(
        "bias_gradient_keeps_an_axis",
        wrong=BiasedKeepsAxis,
        right=Biased,
        args=[arg("x", "b n", SMALL), arg("bias", "n", ANY)],
        dims=ROWS,
        reference=biased,
        code="GV109",
    ),
    fault(
        "gradient_in_the_default_dtype",
        wrong=TotalNarrow,
        right=Total,
        args=[arg("x", "b n", SMALL)],
        dims=ROWS,
        reference=total,
        code="GV109",
        source="pytorch/pytorch#1787",
    ),
    fault(
        "complex_gradient_of_a_real_input",
        wrong=MixedComplex,
        right=Mixed,
        args=[arg("x", "b n", SMALL), arg("m", "n n", SMALL)],
        dims=ROWS,
        reference=mixed,
        code="GV109",
    ),
    fault(
        "gradient_on_a_graph_of_its_own",
        wrong=SquashedOnTape,
        right=Squashed,
        args=[arg("x", "b n", SMALL)],
        reference=squashed,
        code="GV207",
    ),
)
