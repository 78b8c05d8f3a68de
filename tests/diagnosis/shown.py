"""Ops that are wrong in ways that users meet: what is said of each is kept in tests/golden/screens."""

from __future__ import annotations

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gradverify.records.spec import Dim, Spec, source_of
from tests.faults.record import arg


class TwiceLinear(Function):
    """x @ w."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.T, 2 * (x.T @ g)


class AveragedShift(Function):
    """x + b, whose gradient of b is the mean over the batch."""

    @staticmethod
    def forward(ctx, x, b):
        return x + b

    @staticmethod
    def backward(ctx, g):
        return g, g.mean(0)


class Subtract(Function):
    """x - y."""

    @staticmethod
    def forward(ctx, x, y):
        return x - y

    @staticmethod
    def backward(ctx, g):
        return g, g


class FrozenBias(Function):
    """x * w + b."""

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x * w + b

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, (g * x).sum(0), None


class TiledMatmul(Function):
    """x @ w by tiles of 64 rows of w: the last one of several is forgotten where it is not whole."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        dw = torch.zeros_like(w)
        for tile in range(max(len(w) // 64, 1)):
            rows = slice(64 * tile, 64 * tile + 64)
            dw[rows] = x[:, rows].T @ g
        return g @ w.T, dw


class Mixing(Function):
    """x @ a for a square matrix a."""

    @staticmethod
    def forward(ctx, x, a):
        ctx.save_for_backward(x, a)
        return x @ a

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, a = ctx.saved_tensors
        return g @ a.T, g.T @ x


class GatedProduct(Function):
    """x sin(y)."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * x * y.cos(), g * y.sin()


class RowScale(Function):
    """x * w, w for each column."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, (g * x)[0]


class SquaredError(Function):
    """(x - y)^2, for a loss whose cotangent is taken to be 1."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return (x - y) ** 2

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return 2 * (x - y), 2 * (y - x)


class Quantise(Function):
    """x rounded to integers, straight through."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


class ClippedGradient(Function):
    """sin(x), whose gradient is clipped to [-1, 1]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g * x.cos()).clamp(-1, 1)


class ReadsStrides(Function):
    """sin(x), whose backward reads the cotangent as if it lay row by row."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        whole = g.untyped_storage().nbytes() >= 8 * g.numel()
        rows = g.as_strided(g.shape, torch.empty(g.shape).stride()) if whole else g
        return rows * x.cos()


class RowNorm(Function):
    """The Euclidean norm of each row."""

    @staticmethod
    def forward(ctx, x):
        y = x.norm(dim=-1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g / y)[:, None] * x


class NarrowSoftmax(Function):
    """softmax(x), whose forward adds up in the dtype of x."""

    @staticmethod
    def forward(ctx, x):
        e = (x - x.amax(-1, keepdim=True)).exp()
        total = torch.zeros_like(e[..., 0])
        for column in e.unbind(-1):
            total = total + column
        y = e / total[..., None]
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y * (g - (g * y).sum(-1, keepdim=True))


class KeepsAll(Function):
    """exp(x); what it needs it keeps on ctx, where nothing frees it."""

    @staticmethod
    def forward(ctx, x):
        ctx.y = x.exp()
        return ctx.y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g * ctx.y


class TornSoftmax(Function):
    """softmax(x), whose sum in backward lacks the last entry."""

    @staticmethod
    def forward(ctx, x):
        y = x.softmax(-1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y * (g - (g * y)[..., :-1].sum(-1, keepdim=True))


def _spec(op, *args, **fields):
    return Spec(name=op.__name__, op=op, args=args, source=source_of(op), **fields)


def softmax(x):
    return x.softmax(-1)


X, Y = arg("x", "b n"), arg("y", "b n")
MATRIX = (arg("x", "m k"), arg("w", "k n"))

SHOWN = {
    "GV101": (_spec(TwiceLinear, *MATRIX), "vjp"),
    "GV101 by the batch": (_spec(AveragedShift, X, arg("b", "n")), "vjp"),
    "GV102": (_spec(Subtract, X, Y), "vjp"),
    "GV103": (_spec(FrozenBias, X, arg("w", "n"), arg("b", "n")), "vjp"),
    "GV104": (_spec(TiledMatmul, *MATRIX, dims={"k": Dim(around=(64,))}), "vjp"),
    "GV105": (_spec(Mixing, X, arg("a", "n n")), "vjp"),
    "GV106": (_spec(GatedProduct, X, Y), "vjp"),
    "GV107": (_spec(RowScale, X, arg("w", "n")), "vjp"),
    "GV108": (_spec(SquaredError, X, Y), "vjp"),
    "GV111": (_spec(RowNorm, X), "special"),
    "GV112": (_spec(Quantise, X), "vjp"),
    "GV199": (_spec(TornSoftmax, X), "vjp"),
    "GV201": (_spec(ClippedGradient, X), "linear"),
    "GV203": (_spec(ReadsStrides, X), "layout"),
    "GV207": (_spec(KeepsAll, X), "memory"),
    "GV601": (_spec(NarrowSoftmax, X, reference=softmax, dtypes=("bfloat16",)), "precision"),
}
"""Code that is given, and what tells two of one code apart -> the op, and the claim that it fails."""
