"""Errors of narrow dtypes, which float64 hides: accumulators, casts, scales, ranges; small errors of every entry."""

from __future__ import annotations

from functools import partial

import torch

from gradverify.records.spec import Dim
from tests.faults.record import NONEMPTY, SMALL, AutocastRule, Domain, Rule, arg, index, pair

fault = partial(pair, cls="narrow", primary="precision")
BF16, FP16, FP32 = {"dtypes": ("bfloat16",)}, {"dtypes": ("float16",)}, {"dtypes": ("float32",)}


def rounded(t, bits):
    """To nearest, with so many bits of float32's significand left: 7 is bfloat16, 10 is tf32."""
    low = 1 << (23 - bits)
    return ((t.float().view(torch.int32) + low // 2) & -low).view(torch.float32)


def truncated(t, bits):
    """Towards zero, as a cast that drops the low bits does."""
    return (t.float().view(torch.int32) & -(1 << (23 - bits))).view(torch.float32)


# Narrow accumulators.


def shifted(x, b):
    return torch.atan(x.float() + b.float()).to(x.dtype)


class Shifted(Rule):
    """atan(x + b): [m n], [n] -> [m n]."""

    @staticmethod
    def forward(ctx, x, b):
        ctx.save_for_backward(x, b)
        return shifted(x, b)

    @staticmethod
    def terms(ctx, g):
        x, b = (t.float() for t in ctx.saved_tensors)
        return g.float() / (1 + (x + b).square())

    @staticmethod
    def backward(ctx, g):
        terms = Shifted.terms(ctx, g)
        return terms.to(g.dtype), terms.sum(0).to(g.dtype)


class ShiftedNarrowSum(Shifted):
    """The gradient of the bias is added up row by row in its own dtype."""

    @staticmethod
    def backward(ctx, g):
        terms = Shifted.terms(ctx, g).to(g.dtype)
        total = torch.zeros_like(terms[0])
        for row in terms:
            total = total + row
        return terms, total


def embedded(w, i):
    return torch.nn.functional.one_hot(i, w.shape[0]).to(w.dtype) @ w


class Embedded(Rule):
    """Rows of a table: [v d], [n] -> [n d]."""

    @staticmethod
    def forward(ctx, w, i):
        ctx.save_for_backward(i)
        ctx.rows = w.shape[0]
        return w[i]

    @staticmethod
    def backward(ctx, g):
        (i,) = ctx.saved_tensors
        total = torch.zeros(ctx.rows, g.shape[1], device=g.device)
        return total.index_add(0, i, g.float()).to(g.dtype), None


class EmbeddedNarrowSum(Embedded):
    """Each use of a row adds to a gradient in bfloat16: late ones are lost."""

    @staticmethod
    def backward(ctx, g):
        (i,) = ctx.saved_tensors
        total = torch.zeros(ctx.rows, g.shape[1], dtype=g.dtype, device=g.device)
        for row, place in zip(g, i.tolist(), strict=True):
            total[place] += row
        return total, None


def product(a, b):
    return a @ b


class Product(AutocastRule):
    """[m k], [k n] -> [m n], added up in float32."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return (a.float() @ b.float()).to(a.dtype)

    @staticmethod
    def backward(ctx, g):
        a, b = (t.float() for t in ctx.saved_tensors)
        return (g.float() @ b.T).to(g.dtype), (a.T @ g.float()).to(g.dtype)


class ProductNarrowTiles(Product):
    """Tiles of eight terms are added to an accumulator in the dtype of the inputs."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        total = torch.zeros(a.shape[0], b.shape[1], dtype=a.dtype, device=a.device)
        for k in range(0, a.shape[1], 8):
            total = total + (a[:, k : k + 8].float() @ b[k : k + 8].float()).to(a.dtype)
        return total


# Rounded to another dtype on the way; tf32 left on.


class ProductThroughBfloat16(Product):
    @staticmethod
    def backward(ctx, g):
        return tuple(grad.bfloat16().to(g.dtype) for grad in Product.backward(ctx, g))


class ProductOfRounded(Product):
    """The inputs are kept for backward in a narrower dtype."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a.bfloat16().to(a.dtype), b.bfloat16().to(b.dtype))
        return product(a, b)


class ProductCotangentRounded(Product):
    @staticmethod
    def backward(ctx, g):
        return Product.backward(ctx, g.half().to(g.dtype))


class ProductTf32(Product):
    """The gradients of a float32 product in tf32: ten bits."""

    @staticmethod
    def backward(ctx, g):
        a, b = (rounded(t, 10) for t in ctx.saved_tensors)
        g = rounded(g, 10)
        return g @ b.T, a.T @ g


class ProductTf32Forward(Product):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return rounded(a, 10) @ rounded(b, 10)


class ProductTf32OneSide(Product):
    """tf32 was switched off for one of two products."""

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g @ b.T, rounded(a, 10).T @ rounded(g, 10)


# Cancellation.


def whiten(x):
    """Rows divided by their spread: [b n] -> [b n]."""
    centred = x.float() - x.float().mean(-1, keepdim=True)
    return (centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-3)).to(x.dtype)


class Whiten(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return whiten(x)

    @staticmethod
    def variance(x):
        return (x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)

    @classmethod
    def pulled(cls, ctx, g):
        x = ctx.saved_tensors[0].float()
        r = torch.rsqrt(cls.variance(x) + 1e-3)
        y, u = (x - x.mean(-1, keepdim=True)) * r, g.float()
        return (r * (u - u.mean(-1, keepdim=True) - y * (u * y).mean(-1, keepdim=True))).to(g.dtype)

    @staticmethod
    def backward(ctx, g):
        return Whiten.pulled(ctx, g)


class WhitenCancels(Whiten):
    """Variance as the mean of squares minus the square of the mean."""

    @staticmethod
    def variance(x):
        return (x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square()).clamp_min(0)

    @staticmethod
    def backward(ctx, g):
        return WhitenCancels.pulled(ctx, g)


def softplus(x):
    return torch.logaddexp(x.float(), torch.zeros_like(x, dtype=torch.float32)).to(x.dtype)


class Softplus(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g.float() * torch.sigmoid(x.float())).to(g.dtype)


class SoftplusFromOutput(Softplus):
    """1 - exp(-y) from the saved, rounded output: next to nothing is left of it where y is small."""

    @staticmethod
    def forward(ctx, x):
        y = softplus(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - torch.exp(-y))


def squared_distance(x, y):
    return (x.float() - y.float()).square().sum(-1).to(x.dtype)


class SquaredDistance(Rule):
    """[b d], [b d] -> [b], of points far from the origin."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return squared_distance(x, y)

    @staticmethod
    def backward(ctx, g):
        x, y = (t.float() for t in ctx.saved_tensors)
        grad = 2 * g.float()[:, None] * (x - y)
        return grad.to(g.dtype), (-grad).to(g.dtype)


class SquaredDistanceExpanded(SquaredDistance):
    """|x|^2 + |y|^2 - 2 <x, y>, as a product of matrices would have it."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return (x.square().sum(-1) + y.square().sum(-1) - 2 * (x * y).sum(-1)).to(x.dtype)


# Scales.


def scaled_tanh(x):
    return (3 * torch.tanh(x.float() / 3)).to(x.dtype)


class ScaledTanh(Rule):
    """Its gradient is kept in 8 bits: steps of the largest entry / 127, found anew in each call."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return scaled_tanh(x)

    @staticmethod
    def exact(ctx, g):
        (x,) = ctx.saved_tensors
        return g.float() / torch.cosh(x.float() / 3).square()

    @staticmethod
    def backward(ctx, g):
        return ScaledTanh.exact(ctx, g).to(g.dtype)


class StaleScale(ScaledTanh):
    """The cotangent is divided by the largest entry of the call before, and cut off at 1."""

    largest = 1.0

    @staticmethod
    def backward(ctx, g):
        scale, top = StaleScale.largest, float(g.abs().max()) if g.numel() else 0.0
        StaleScale.largest = top or 1.0
        return ScaledTanh.exact(ctx, (g.float() / scale).clamp(-1, 1) * scale).to(g.dtype)


class UnscaledTooLate(ScaledTanh):
    """A loss scale of 2^-14 is taken out again only after the gradient was rounded."""

    @staticmethod
    def backward(ctx, g):
        return ((ScaledTanh.exact(ctx, g) * 2.0**-14).to(g.dtype).float() * 2.0**14).to(g.dtype)


class ScaleOfTwoPowers(ScaledTanh):
    """A scale that is rounded up to a power of two in one place, and not in the other."""

    @staticmethod
    def backward(ctx, g):
        return (ScaledTanh.exact(ctx, g) * (1024.0 / 1000.0)).to(g.dtype)


# A small error of every entry.


class SoftplusOneInThousand(Softplus):
    """All gradients are too large by 1e-3, a quarter of bfloat16's rounding."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g.float() * torch.sigmoid(x.float()) * 1.001).to(g.dtype)


class SoftplusTruncated(Softplus):
    """A cast that drops the low bits: half a rounding too small on average, and never more than two."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return truncated(g.float() * torch.sigmoid(x.float()), 7).to(g.dtype)


class ShiftedMeanTooSmall(Shifted):
    """The sum of the bias is divided by n + 1 instead of n, for an n of a thousand."""

    @staticmethod
    def backward(ctx, g):
        gx, _ = Shifted.backward(ctx, g)
        return gx, (Shifted.terms(ctx, g).sum(0) * 1000 / 1001).to(g.dtype)


# Early casts.


def rotated(x, p):
    """Pairs turned by the angles p / 100^(2k/n): [b 2n], [b] -> [b 2n]."""
    one, other = x.float().chunk(2, -1)
    c, s = _turn(p.float(), one.shape[-1])
    return torch.cat([one * c - other * s, one * s + other * c], -1).to(x.dtype)


def _turn(p, n):
    angle = p[:, None] * 100.0 ** (-torch.arange(n, device=p.device) / max(n, 1)).to(p.dtype)
    return torch.cos(angle.float()), torch.sin(angle.float())


class Rotated(Rule):
    dtype = torch.float32

    @classmethod
    def turn(cls, p, n):
        return _turn(p.to(cls.dtype), n)

    @staticmethod
    def forward(ctx, x, p):
        ctx.save_for_backward(p)
        return rotated(x, p)

    @classmethod
    def pulled(cls, ctx, g):
        one, other = g.float().chunk(2, -1)
        c, s = cls.turn(ctx.saved_tensors[0], one.shape[-1])
        return torch.cat([one * c + other * s, other * c - one * s], -1).to(g.dtype), None

    @staticmethod
    def backward(ctx, g):
        return Rotated.pulled(ctx, g)


class RotatedEarlyCast(Rotated):
    """Angles of hundreds of radians in bfloat16."""

    dtype = torch.bfloat16

    @staticmethod
    def backward(ctx, g):
        return RotatedEarlyCast.pulled(ctx, g)


def softmax(x):
    return torch.softmax(x.float() * 4, -1).to(x.dtype)


class Softmax(Rule):
    """Of scores four times x: [b n] -> [b n]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return softmax(x)

    @staticmethod
    def pulled(p, g):
        return (4 * p * (g.float() - (p * g.float()).sum(-1, keepdim=True))).to(g.dtype)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return Softmax.pulled(torch.softmax(x.float() * 4, -1), g)


class SoftmaxEarlyCast(Softmax):
    """What the exponential is taken of is rounded first."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return Softmax.pulled(torch.softmax(rounded(x.float() * 4, 6), -1), g)


class SoftmaxProbabilitiesEarlyCast(Softmax):
    """The probabilities are kept in fp8's three bits."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return Softmax.pulled(rounded(torch.softmax(x.float() * 4, -1), 3), g)


# Out of range.


def rms_norm(x):
    return (x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True))).to(x.dtype)


class RmsNorm(Rule):
    """Of rows of some hundreds: [b n] -> [b n]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return rms_norm(x)

    @staticmethod
    def squares(x):
        return x.float().square().mean(-1, keepdim=True)

    @classmethod
    def pulled(cls, ctx, g):
        (x,) = ctx.saved_tensors
        r = torch.rsqrt(cls.squares(x).float())
        y, u = x.float() * r, g.float()
        return (r * (u - y * (u * y).mean(-1, keepdim=True))).to(g.dtype)

    @staticmethod
    def backward(ctx, g):
        return RmsNorm.pulled(ctx, g)


class RmsNormOverflows(RmsNorm):
    """The square of 256 is no fp16."""

    @staticmethod
    def squares(x):
        return x.square().mean(-1, keepdim=True)

    @staticmethod
    def backward(ctx, g):
        return RmsNormOverflows.pulled(ctx, g)


class ScaledTanhOverflows(ScaledTanh):
    """cosh^2 overflows in fp16 where x / 3 exceeds 6."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - torch.tanh(x / 3).square()) * (torch.cosh(x * 4) / torch.cosh(x * 4))


class ScaledTanhUnderflows(ScaledTanh):
    """Multiplied by 2^-16 and back."""

    @staticmethod
    def backward(ctx, g):
        return ((ScaledTanh.exact(ctx, g) * 2.0**-20).to(g.dtype) * 2.0**10) * 2.0**10


# Out of range at small or large cotangents only.


class ScaledTanhSmallOnTheWay(ScaledTanh):
    """A mean over 1024 that is multiplied by 1024 again: right at cotangents of 1, zero at those of a small loss."""

    @staticmethod
    def backward(ctx, g):
        return ((ScaledTanh.exact(ctx, g) / 1024).to(g.dtype).float() * 1024).to(g.dtype)


class ScaledTanhLargeOnTheWay(ScaledTanh):
    """Times 32 in fp16 before it is divided again: infinite where a loss scale has made the cotangents large."""

    @staticmethod
    def backward(ctx, g):
        return (ScaledTanh.exact(ctx, g).to(g.dtype) * 32 / 32).to(g.dtype)


class ScaledTanhByTwoPowers(ScaledTanh):
    """Multiplied in float32 and rounded once: no scale in between shows."""

    @staticmethod
    def backward(ctx, g):
        return (ScaledTanh.exact(ctx, g) / 1024 * 1024 * 32 / 32).to(g.dtype)


class RmsNormSquaredCotangent(RmsNorm):
    """The size of a row of cotangents by the sum of their squares: finite in float32 up to 1e19 only."""

    @staticmethod
    def backward(ctx, g):
        size = g.float().square().sum(-1, keepdim=True).sqrt()
        return RmsNorm.pulled(ctx, torch.where(size > 0, g / size, g)) * size.to(g.dtype)


class RmsNormSizedCotangent(RmsNorm):
    """The same by its largest entry, a power of two."""

    @staticmethod
    def backward(ctx, g):
        top = g.abs().amax(-1, keepdim=True)
        size = torch.where(top > 0, torch.exp2(torch.floor(torch.log2(top))), torch.ones_like(top))
        return RmsNorm.pulled(ctx, g / size) * size


# Wrong in one dtype.


class SoftplusHalfOnly(Softplus):
    """The path for bfloat16 has the factor of another function."""

    @staticmethod
    def backward(ctx, g):
        grad = Softplus.backward(ctx, g)
        return grad * 0.9 if g.dtype == torch.bfloat16 else grad


class ProductBfloat16Tail(Product):
    """Vectors of eight two-byte numbers: the rest of a row is left out."""

    @staticmethod
    def backward(ctx, g):
        ga, gb = Product.backward(ctx, g)
        if g.dtype == torch.bfloat16 and gb.shape[1] % 8:
            gb[:, gb.shape[1] // 8 * 8 :] = 0
        return ga, gb


class WhitenBfloat16Eps(Whiten):
    """eps is below what the dtype adds to 1 in that path, and was dropped."""

    @staticmethod
    def variance(x):
        return Whiten.variance(x) - 1e-3 * (1 - 2.0**-7)

    @staticmethod
    def backward(ctx, g):
        return (WhitenBfloat16Eps if g.dtype == torch.bfloat16 else Whiten).pulled(ctx, g)


class SoftplusOtherDtype(Softplus):
    """A gradient in fp16 for an input in bfloat16."""

    @staticmethod
    def backward(ctx, g):
        return Softplus.backward(ctx, g).half()


MATRICES = [arg("a", "m k", SMALL), arg("b", "k n", SMALL)]
ROWS = [arg("x", "b n", SMALL)]
WIDE = {"b": NONEMPTY, "n": Dim(lo=2)}
HUNDREDS = Domain(lo=100.0, hi=400.0)

FAULTS = (
    fault(
        "bias_summed_in_its_own_dtype",
        wrong=ShiftedNarrowSum,
        right=Shifted,
        args=[arg("x", "m n", SMALL), arg("b", "n", SMALL)],
        dims={"m": NONEMPTY},
        reference=shifted,
        source="pytorch/pytorch#68048",
        **BF16,
    ),
    fault(
        "embedding_loses_increments",
        wrong=EmbeddedNarrowSum,
        right=Embedded,
        args=[arg("w", "v d", SMALL), index("i", "n", "v")],
        dims={"v": NONEMPTY},
        reference=embedded,
        source="tenstorrent/tt-metal#53386",
        **BF16,
    ),
    fault("tiles_added_in_fp16", wrong=ProductNarrowTiles, right=Product, args=MATRICES, reference=product, **FP16),
    fault(
        "fp16_rounded_through_bfloat16",
        wrong=ProductThroughBfloat16,
        right=Product,
        args=MATRICES,
        reference=product,
        source="linkedin/Liger-Kernel#1253",
        **FP16,
    ),
    fault("saved_in_bfloat16", wrong=ProductOfRounded, right=Product, args=MATRICES, reference=product, **FP16),
    fault("cotangent_in_fp16", wrong=ProductCotangentRounded, right=Product, args=MATRICES, reference=product, **FP32),
    fault("tf32_left_on", wrong=ProductTf32, right=Product, args=MATRICES, reference=product, **FP32),
    fault("tf32_in_the_forward", wrong=ProductTf32Forward, right=Product, args=MATRICES, reference=product, **FP32),
    fault("tf32_for_one_product", wrong=ProductTf32OneSide, right=Product, args=MATRICES, reference=product, **FP32),
    fault(
        "variance_cancels_in_float32",
        wrong=WhitenCancels,
        right=Whiten,
        args=[arg("x", "b n", Domain(lo=10.0, hi=11.0))],
        dims={"b": NONEMPTY, "n": Dim(lo=3)},
        reference=whiten,
        unresolved="differences of a float32 forward, whose own noise hides the gradient of some cases",
        **FP32,
    ),
    fault(
        "sigmoid_from_a_rounded_output",
        wrong=SoftplusFromOutput,
        right=Softplus,
        args=[arg("x", "n", Domain(lo=-9.0, hi=3.0))],
        reference=softplus,
        **BF16,
    ),
    fault(
        "distance_expanded",
        wrong=SquaredDistanceExpanded,
        right=SquaredDistance,
        args=[arg("x", "b d", Domain(lo=10.0, hi=11.0)), arg("y", "b d", Domain(lo=10.0, hi=11.0))],
        reference=squared_distance,
        **FP16,
    ),
    pair(
        "scale_of_the_last_call",
        cls="narrow",
        # What is kept between calls says more than the digits that it costs.
        primary="repeat",
        must_fail=("repeat", "precision"),
        wrong=StaleScale,
        right=ScaledTanh,
        args=ROWS,
        reference=scaled_tanh,
        **BF16,
    ),
    fault("unscaled_too_late", wrong=UnscaledTooLate, right=ScaledTanh, args=ROWS, reference=scaled_tanh, **FP16),
    fault("scale_rounded_once", wrong=ScaleOfTwoPowers, right=ScaledTanh, args=ROWS, reference=scaled_tanh, **BF16),
    fault(
        "all_off_by_1e-3",
        wrong=SoftplusOneInThousand,
        right=Softplus,
        args=[arg("x", "*b", SMALL)],
        reference=softplus,
        code="GV603",
        **BF16,
    ),
    fault(
        "truncated_instead_of_rounded",
        wrong=SoftplusTruncated,
        right=Softplus,
        args=[arg("x", "*b", SMALL)],
        reference=softplus,
        code="GV603",
        **BF16,
    ),
    fault(
        "mean_over_one_too_many",
        wrong=ShiftedMeanTooSmall,
        right=Shifted,
        args=[arg("x", "m n", SMALL), arg("b", "n", SMALL)],
        dims={"m": NONEMPTY},
        reference=shifted,
        code="GV603",
        **BF16,
    ),
    fault(
        "angles_cast_early",
        wrong=RotatedEarlyCast,
        right=Rotated,
        args=[
            arg("x", "b 2*n", SMALL),
            arg("p", "b", Domain(kind="integers", lo=0, hi=1000), role="integer", dtype="int64"),
        ],
        reference=rotated,
        **BF16,
    ),
    fault("scores_cast_early", wrong=SoftmaxEarlyCast, right=Softmax, args=ROWS, dims=WIDE, reference=softmax, **BF16),
    fault(
        "probabilities_cast_early",
        wrong=SoftmaxProbabilitiesEarlyCast,
        right=Softmax,
        args=ROWS,
        dims=WIDE,
        reference=softmax,
        **FP16,
    ),
    fault(
        "squares_overflow",
        wrong=RmsNormOverflows,
        right=RmsNorm,
        args=[arg("x", "b n", HUNDREDS)],
        dims=WIDE,
        reference=rms_norm,
        **FP16,
    ),
    fault(
        "quotient_of_infinities",
        wrong=ScaledTanhOverflows,
        right=ScaledTanh,
        args=[arg("x", "b n", Domain(lo=-4.0, hi=4.0))],
        reference=scaled_tanh,
        **FP16,
    ),
    fault(
        "underflows_on_the_way", wrong=ScaledTanhUnderflows, right=ScaledTanh, args=ROWS, reference=scaled_tanh, **FP16
    ),
    fault(
        "small_cotangents_underflow",
        wrong=ScaledTanhSmallOnTheWay,
        right=ScaledTanhByTwoPowers,
        args=ROWS,
        reference=scaled_tanh,
        code="GV604",
        **FP16,
    ),
    fault(
        "large_cotangents_overflow",
        wrong=ScaledTanhLargeOnTheWay,
        right=ScaledTanhByTwoPowers,
        args=ROWS,
        reference=scaled_tanh,
        code="GV604",
        **FP16,
    ),
    fault(
        "squares_of_cotangents",
        wrong=RmsNormSquaredCotangent,
        right=RmsNormSizedCotangent,
        args=ROWS,
        dims=WIDE,
        reference=rms_norm,
        code="GV604",
        **FP32,
    ),
    fault("wrong_in_bfloat16_only", wrong=SoftplusHalfOnly, right=Softplus, args=ROWS, reference=softplus, **BF16),
    fault(
        "tail_of_two_byte_vectors", wrong=ProductBfloat16Tail, right=Product, args=MATRICES, reference=product, **BF16
    ),
    fault(
        "eps_dropped_in_bfloat16", wrong=WhitenBfloat16Eps, right=Whiten, args=ROWS, dims=WIDE, reference=whiten, **BF16
    ),
    pair(
        "gradient_in_another_half",
        cls="convention",
        primary="convention",
        wrong=SoftplusOtherDtype,
        right=Softplus,
        args=ROWS,
        reference=softplus,
        **BF16,
    ),
)
