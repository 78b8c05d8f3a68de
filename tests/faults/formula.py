"""A term, factor, sign or index of the derivative is wrong: any varied values show it."""

from __future__ import annotations

import math
from functools import partial

import torch

from tests.faults.record import NONEMPTY, SMALL, AutocastRule, Rule, arg, pair

fault = partial(pair, cls="formula")


def softmax(x):
    return torch.softmax(x, -1)


class Softmax(Rule):
    @staticmethod
    def forward(ctx, x):
        y = softmax(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y * (g - (g * y).sum(-1, keepdim=True))


class SoftmaxDiagonal(Softmax):
    """Only the diagonal of the Jacobian."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y * (1 - y)


def normalised_attention(q, k, v):
    """Causal linear attention, exp feature map, divided by q . cumsum(k): [n d], [n d], [n e] -> [n e]."""
    fq, fk = q.exp(), k.exp()
    numerator = torch.tril(fq @ fk.T) @ v
    return numerator / (fq * fk.cumsum(0)).sum(-1, keepdim=True)


class NormalisedAttention(AutocastRule):
    cut = False

    @staticmethod
    def forward(ctx, q, k, v):
        fq, fk = q.exp(), k.exp()
        z = (fq * fk.cumsum(0)).sum(-1, keepdim=True)
        y = torch.tril(fq @ fk.T) @ v / z
        ctx.save_for_backward(fq, fk, v, y, z)
        return y

    @staticmethod
    def backward(ctx, g):
        saved = fq, fk, _, _, _ = ctx.saved_tensors
        gq, gk, gv, gz = _attention_numerator(saved, g)
        gk = gk + (gz * fq).flip(0).cumsum(0).flip(0)
        return (gq + gz * fk.cumsum(0)) * fq, gk * fk, gv


class NormalisedAttentionCut(NormalisedAttention):
    """The way k -> cumsum -> denominator is cut out of the graph; dq and dv are right."""

    @staticmethod
    def backward(ctx, g):
        saved = fq, fk, _, _, _ = ctx.saved_tensors
        gq, gk, gv, gz = _attention_numerator(saved, g)
        return (gq + gz * fk.cumsum(0)) * fq, gk * fk, gv


def _attention_numerator(saved, g):
    fq, fk, v, y, z = saved
    gs = torch.tril((g / z) @ v.T)
    gz = -(g * y).sum(-1, keepdim=True) / z
    return gs @ fk, gs.T @ fq, torch.tril(fq @ fk.T).T @ (g / z), gz


def splat(d, conic):
    """exp(-(a dx^2 + c dy^2) / 2 - b dx dy) for offsets d [n 2] and packed conics (a, b, c) [n 3]."""
    (dx, dy), (a, b, c) = d.unbind(-1), conic.unbind(-1)
    return torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)


class Splat(Rule):
    @staticmethod
    def forward(ctx, d, conic):
        y = splat(d, conic)
        ctx.save_for_backward(d, conic, y)
        return y

    @staticmethod
    def backward(ctx, g):
        return _splat_backward(ctx, g, off_diagonal=-1.0)


class SplatHalf(Splat):
    """The off-diagonal coefficient, which stands for two entries, counts once."""

    @staticmethod
    def backward(ctx, g):
        return _splat_backward(ctx, g, off_diagonal=-0.5)


def _splat_backward(ctx, g, *, off_diagonal):
    d, conic, y = ctx.saved_tensors
    (dx, dy), (a, b, c) = d.unbind(-1), conic.unbind(-1)
    p = g * y
    gd = torch.stack((-p * (a * dx + b * dy), -p * (c * dy + b * dx)), -1)
    return gd, torch.stack((-0.5 * p * dx * dx, off_diagonal * p * dx * dy, -0.5 * p * dy * dy), -1)


def rms_norm(x, w):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3) * w


class RMSNorm(Rule):
    @staticmethod
    def forward(ctx, x, w):
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3)
        ctx.save_for_backward(x, w, r)
        return x * r * w

    @staticmethod
    def backward(ctx, g):
        x, w, r = ctx.saved_tensors
        gw = (g * x * r).flatten(0, -2).sum(0)
        return r * g * w - x * r**3 * (g * w * x).mean(-1, keepdim=True), gw


class RMSNormNoProjection(RMSNorm):
    """The scale is taken for a constant."""

    @staticmethod
    def backward(ctx, g):
        x, w, r = ctx.saved_tensors
        return r * g * w, (g * x * r).flatten(0, -2).sum(0)


def layer_norm(x):
    return (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-2)


class LayerNorm(Rule):
    @staticmethod
    def forward(ctx, x):
        r = torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-2)
        y = (x - x.mean(-1, keepdim=True)) * r
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    def backward(ctx, g):
        y, r = ctx.saved_tensors
        return r * (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True))


class LayerNormNoEps(LayerNorm):
    """The backward forgets eps: it assumes that y has variance exactly 1."""

    @staticmethod
    def backward(ctx, g):
        y, r = ctx.saved_tensors
        unit = y.square().mean(-1, keepdim=True).clamp_min(1e-30)
        return r * (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True) / unit)


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class GeluTanh(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return gelu_tanh(x)

    @staticmethod
    def backward(ctx, g):
        return _gelu_backward(ctx, g, cubic=3 * 0.044715)


class GeluTanhCubic(GeluTanh):
    """The derivative of x^3 lacks its 3."""

    @staticmethod
    def backward(ctx, g):
        return _gelu_backward(ctx, g, cubic=0.044715)


def _gelu_backward(ctx, g, *, cubic):
    (x,) = ctx.saved_tensors
    c = math.sqrt(2 / math.pi)
    t = torch.tanh(c * (x + 0.044715 * x**3))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + cubic * x * x))


def bilinear(x, a, y):
    """x^T A y, row by row: [b n], [n n], [b n] -> [b]."""
    return torch.einsum("bi,ij,bj->b", x, a, y)


class Bilinear(AutocastRule):
    @staticmethod
    def forward(ctx, x, a, y):
        ctx.save_for_backward(x, a, y)
        return bilinear(x, a, y)

    @staticmethod
    def backward(ctx, g):
        x, a, y = ctx.saved_tensors
        gx = g[:, None] * x
        return g[:, None] * (y @ a.T), gx.T @ y, gx @ a


class BilinearTransposed(Bilinear):
    """The gradient of A is transposed, which a square A hides from the shape check."""

    @staticmethod
    def backward(ctx, g):
        x, a, y = ctx.saved_tensors
        gx = g[:, None] * x
        return g[:, None] * (y @ a.T), y.T @ gx, gx @ a


def unit_lower(a):
    return torch.tril(a, -1) / max(a.shape[-1], 1) + torch.eye(a.shape[-1], dtype=a.dtype)


def solve(a, b):
    """L y = b with L = I + tril(A, -1) / n: [n n], [n k] -> [n k]."""
    return torch.linalg.solve_triangular(unit_lower(a), b, upper=False)


class Solve(AutocastRule):
    @staticmethod
    def forward(ctx, a, b):
        y = solve(a, b)
        ctx.save_for_backward(a, y)
        return y

    @staticmethod
    def backward(ctx, g):
        a, y = ctx.saved_tensors
        gb = torch.linalg.solve_triangular(unit_lower(a).T, g, upper=True)
        return -torch.tril(gb @ y.T, -1) / max(a.shape[-1], 1), gb


class SolveNotTransposed(Solve):
    """Solves with L instead of its transpose."""

    @staticmethod
    def backward(ctx, g):
        a, y = ctx.saved_tensors
        gb = torch.linalg.solve_triangular(unit_lower(a), g, upper=False)
        return -torch.tril(gb @ y.T, -1) / max(a.shape[-1], 1), gb


FAULTS = (
    fault(
        "softmax_diagonal",
        wrong=SoftmaxDiagonal,
        right=Softmax,
        args=[arg("x", "*b n")],
        reference=softmax,
        source="pocketpy/cTensor#31",
    ),
    fault(
        "denominator_cut",
        wrong=NormalisedAttentionCut,
        right=NormalisedAttention,
        args=[arg("q", "n d", SMALL), arg("k", "n d", SMALL), arg("v", "n e")],
        dims={"d": NONEMPTY},
        reference=normalised_attention,
        source="fla-org/flash-linear-attention#875",
    ),
    fault(
        "conic_off_diagonal_halved",
        wrong=SplatHalf,
        right=Splat,
        args=[arg("d", "n 2", SMALL), arg("conic", "n 3", SMALL)],
        reference=splat,
        source="graphdeco-inria/diff-gaussian-rasterization#68",
    ),
    fault(
        "rms_norm_no_projection",
        wrong=RMSNormNoProjection,
        right=RMSNorm,
        args=[arg("x", "b n"), arg("w", "n")],
        dims={"n": NONEMPTY},
        reference=rms_norm,
    ),
    fault(
        "layer_norm_no_eps",
        wrong=LayerNormNoEps,
        right=LayerNorm,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=layer_norm,
    ),
    fault("gelu_cubic_factor", wrong=GeluTanhCubic, right=GeluTanh, args=[arg("x", "*b")], reference=gelu_tanh),
    fault(
        "bilinear_transposed",
        wrong=BilinearTransposed,
        right=Bilinear,
        args=[arg("x", "b n"), arg("a", "n n"), arg("y", "b n")],
        reference=bilinear,
    ),
    fault(
        "solve_not_transposed",
        wrong=SolveNotTransposed,
        right=Solve,
        args=[arg("a", "n n", SMALL), arg("b", "n k")],
        reference=solve,
    ),
)
