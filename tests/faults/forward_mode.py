"""Forward mode is the transpose of backward for one tangent pattern, one output, one term only; or of another function.

Where the forward works in float32, differences cannot tell a slip of a few parts in a million: the transpose can.
"""

from __future__ import annotations

import math
from functools import partial

import torch

from gradverify.records.spec import Arg, Dim, Domain
from tests.faults.record import NONEMPTY, POSITIVE, Rule, arg, backward_of, pair

fault = partial(pair, cls="forward-mode")

AWAY = Domain(lo=0.5, hi=4.0)
"""Away from where an epsilon counts."""


def ratio(x, w):
    return x / w


class Ratio(Rule):
    """x / w, w [n] broadcast to x [b n]; undefined tangents arrive as None."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.set_materialize_grads(False)
        y = ratio(x, w)
        ctx.save_for_backward(w, y)
        ctx.save_for_forward(w, y)
        return y

    @staticmethod
    def backward(ctx, g):
        if g is None:
            return None, None
        w, y = ctx.saved_tensors
        return g / w, -(g * y / w).sum(0)

    @staticmethod
    def jvp(ctx, x_t, w_t):
        w, y = ctx.saved_tensors
        out = torch.zeros_like(y)
        if x_t is not None:
            out = out + x_t / w
        if w_t is not None:
            out = out - y * w_t / w
        return out


class RatioOfTwoTangents(Ratio):
    """Takes it that both inputs have a tangent."""

    @staticmethod
    def jvp(ctx, x_t, w_t):
        w, y = ctx.saved_tensors
        return (x_t - y * w_t) / w


class RatioOfTheNumerator(Ratio):
    """Without a tangent of x there is nothing to do, it thinks."""

    @staticmethod
    def jvp(ctx, x_t, w_t):
        return torch.zeros_like(ctx.saved_tensors[1]) if x_t is None else Ratio.jvp(ctx, x_t, w_t)


class RatioSignTurned(Ratio):
    """d(1/w) without its sign."""

    @staticmethod
    def jvp(ctx, x_t, w_t):
        return Ratio.jvp(ctx, x_t, None if w_t is None else -w_t)


def shifted(x, b):
    return x + b


class Shifted(Rule):
    """x [b n] + b [n]."""

    @staticmethod
    def forward(ctx, x, b):
        ctx.set_materialize_grads(False)
        ctx.rows = x.shape[0]
        return shifted(x, b)

    @staticmethod
    def backward(ctx, g):
        return (None, None) if g is None else (g, g.sum(0))

    @staticmethod
    def jvp(ctx, x_t, b_t):
        if x_t is None:
            return b_t.expand(ctx.rows, -1).clone()
        return x_t if b_t is None else x_t + b_t


class ShiftedNotExpanded(Shifted):
    """A tangent of b alone is returned as it is."""

    @staticmethod
    def jvp(ctx, x_t, b_t):
        return b_t if x_t is None else Shifted.jvp(ctx, x_t, b_t)


def contraction(q, k, v=None):
    """(q k) v, row by row; without v it is q k: [n], [n], [n] -> [n]."""
    return q * k if v is None else q * k * v


class Contraction(Rule):
    """A product of three factors, the last of which is optional."""

    @staticmethod
    def forward(ctx, q, k, v=None):
        ctx.save_for_backward(q, k, v)
        ctx.save_for_forward(q, k, v)
        return contraction(q, k, v)

    @staticmethod
    def backward(ctx, g):
        q, k, v = ctx.saved_tensors
        w = g if v is None else g * v
        return w * k, w * q, None if v is None else g * q * k

    @staticmethod
    def jvp(ctx, q_t, k_t, v_t=None):
        q, k, v = ctx.saved_tensors
        pair_t = q_t * k + q * k_t
        return pair_t if v is None else pair_t * v + q * k * v_t


class ContractionOneTermLost(Contraction):
    """The product rule without its last term."""

    @staticmethod
    def jvp(ctx, q_t, k_t, v_t=None):
        return Contraction.jvp(ctx, q_t, k_t, None if v_t is None else torch.zeros_like(v_t))


def spread_and_mean(x):
    """Variance and mean of rows: [b n] -> [b], [b]."""
    return torch.var_mean(x, -1, unbiased=False)


class SpreadAndMean(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return spread_and_mean(x)

    @staticmethod
    def backward(ctx, g_var, g_mean):
        (x,) = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        return (2 * g_var[:, None] * centred + g_mean[:, None]) / x.shape[-1]

    @staticmethod
    def jvp(ctx, x_t):
        (x,) = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        return 2 * (centred * x_t).mean(-1), x_t.mean(-1)


class SpreadAndNoMean(SpreadAndMean):
    """The second output is taken for a by-product."""

    @staticmethod
    def jvp(ctx, x_t):
        var_t, mean_t = SpreadAndMean.jvp(ctx, x_t)
        return var_t, torch.zeros_like(mean_t)


class SpreadAndNothing(SpreadAndMean):
    """The second output has no tangent at all, which torch meets with an assertion."""

    @staticmethod
    def jvp(ctx, x_t):
        return SpreadAndMean.jvp(ctx, x_t)[0], None


def huber(x):
    """Half a square within [-1, 1], linear beyond: two kinks of the slope, none of the value."""
    return torch.where(x.abs() <= 1, x.square() / 2, x.abs() - 0.5)


class Huber(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return huber(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.clamp(-1, 1)

    @staticmethod
    def jvp(ctx, x_t):
        (x,) = ctx.saved_tensors
        return x.clamp(-1, 1) * x_t


class HuberOfUnitTangents(Huber):
    """Takes the tangent for a direction, and makes it one of length 1."""

    @staticmethod
    def jvp(ctx, x_t):
        length = x_t.square().sum().sqrt()
        return Huber.jvp(ctx, x_t / torch.where(length > 0, length, torch.ones_like(length)))


class HuberInPlace(Huber):
    """Multiplies the tangent that it was handed: the values are right."""

    @staticmethod
    def jvp(ctx, x_t):
        (x,) = ctx.saved_tensors
        return x_t.mul_(x.clamp(-1, 1))


class HuberNarrow(Huber):
    """Returns the tangent of a float64 output in float32."""

    @staticmethod
    def jvp(ctx, x_t):
        return Huber.jvp(ctx, x_t).to(torch.float32)


class Reversal(Rule):
    """The identity; minus the derivative."""

    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, g):
        return -g

    @staticmethod
    def jvp(_ctx, x_t):
        return -x_t


class ReversalOfAView(Reversal):
    """Returns a view: torch then asks for a tangent that is one, too."""

    @staticmethod
    def forward(_ctx, x):
        return x.view_as(x)


class ReversalOfItself(Reversal):
    """Forward mode follows the forward, and not what backward is the derivative of."""

    @staticmethod
    def jvp(_ctx, x_t):
        return x_t.clone()


# Forwards in float32: the noise of differences is 1e-7, and their best resolution 1e-4.


def narrowed(f):
    """`f` computed in float32, returned in the dtype of its argument."""
    return lambda x: f(x.to(torch.float32)).to(x.dtype)


LN2 = math.log(2)


class Log2(Rule):
    """log2 on the fast path of a kernel, in float32; its derivative in full."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return narrowed(torch.log2)(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / (x * LN2)

    @staticmethod
    def jvp(ctx, x_t):
        (x,) = ctx.saved_tensors
        return x_t / (x * LN2)


class Log2FiveDigits(Log2):
    """1 / log 2 to five digits."""

    @staticmethod
    def jvp(ctx, x_t):
        (x,) = ctx.saved_tensors
        return 1.4427 * x_t / x


def root_mean_square(x):
    """x / sqrt(mean x^2 + 1e-6) over rows."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class RootMeanSquare(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return narrowed(root_mean_square)(x)

    @staticmethod
    def derivative(x, v, eps):
        """J is symmetric: the same for a cotangent and a tangent."""
        r = (x.square().mean(-1, keepdim=True) + eps).rsqrt()
        return r * (v - x * r.square() * (x * v).mean(-1, keepdim=True))

    @staticmethod
    def backward(ctx, g):
        return RootMeanSquare.derivative(*ctx.saved_tensors, g, 1e-6)

    @staticmethod
    def jvp(ctx, x_t):
        return RootMeanSquare.derivative(*ctx.saved_tensors, x_t, 1e-6)


class RootMeanSquareOtherEps(RootMeanSquare):
    """Forward mode was written for the default epsilon."""

    @staticmethod
    def jvp(ctx, x_t):
        return RootMeanSquare.derivative(*ctx.saved_tensors, x_t, 1e-5)


def gelu(x):
    return torch.nn.functional.gelu(x, approximate="tanh")


class Gelu(Rule):
    """GELU in its tanh form, in float32."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return narrowed(gelu)(x)

    @staticmethod
    def slope(x, cubic):
        k = math.sqrt(2 / math.pi)
        t = torch.tanh(k * (x + cubic * x**3))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * cubic * x * x)

    @staticmethod
    def backward(ctx, g):
        return g * Gelu.slope(*ctx.saved_tensors, 0.044715)

    @staticmethod
    def jvp(ctx, x_t):
        return x_t * Gelu.slope(*ctx.saved_tensors, 0.044715)


class GeluRoundedConstant(Gelu):
    """0.044715 to four digits."""

    @staticmethod
    def jvp(ctx, x_t):
        return x_t * Gelu.slope(*ctx.saved_tensors, 0.04472)


BOTH = {"primary": "jvp", "must_fail": ("jvp", "adjoint")}
ALONE = {"primary": "jvp"}
TRANSPOSED = {"primary": "adjoint"}
RATIO = {"args": [arg("x", "b n"), arg("w", "n", POSITIVE)], "reference": ratio, "right": Ratio}
HUBER = {"args": [arg("x", "*b")], "reference": huber, "right": Huber}
ROWS = {"args": [arg("x", "b n")], "dims": {"n": NONEMPTY}, "reference": spread_and_mean, "right": SpreadAndMean}

FAULTS = (
    fault(
        "both_tangents_expected",
        wrong=RatioOfTwoTangents,
        note="raises where one input has no tangent",
        **ALONE,
        **RATIO,
    ),
    fault("tangent_of_one_input_only", wrong=RatioOfTheNumerator, note="a tangent of w alone", **ALONE, **RATIO),
    fault("tangent_sign_turned", wrong=RatioSignTurned, **BOTH, **RATIO),
    fault(
        "tangent_not_broadcast",
        wrong=ShiftedNotExpanded,
        right=Shifted,
        args=[arg("x", "b n"), arg("b", "n")],
        reference=shifted,
        note="a tangent of b alone",
        **ALONE,
    ),
    fault(
        "product_rule_one_term_lost",
        wrong=ContractionOneTermLost,
        right=Contraction,
        args=[arg("q", "n"), arg("k", "n"), Arg(name="v", shape="n", optional=True)],
        reference=contraction,
        note="with the optional factor",
        **BOTH,
    ),
    fault("tangent_of_second_output_zero", wrong=SpreadAndNoMean, **BOTH, **ROWS),
    fault("tangent_of_second_output_missing", wrong=SpreadAndNothing, **ALONE, **ROWS),
    fault("tangent_normalised", wrong=HuberOfUnitTangents, note="more than one element", **BOTH, **HUBER),
    fault("tangent_changed_in_place", wrong=HuberInPlace, **ALONE, **HUBER),
    fault("tangent_in_float32", wrong=HuberNarrow, **ALONE, **HUBER),
    fault(
        "tangent_of_a_view",
        wrong=ReversalOfAView,
        right=Reversal,
        args=[arg("x", "*b")],
        contract=backward_of(torch.neg),
        reference=torch.clone,
        **ALONE,
    ),
    fault(
        "tangent_of_the_forward",
        wrong=ReversalOfItself,
        right=Reversal,
        args=[arg("x", "*b")],
        contract=backward_of(torch.neg),
        reference=torch.clone,
        source="the surrogate of a straight-through estimator",
        **BOTH,
    ),
    fault(
        "tangent_with_a_constant_of_five_digits",
        wrong=Log2FiveDigits,
        right=Log2,
        args=[arg("x", "*b", AWAY)],
        note="a forward in float32",
        **TRANSPOSED,
    ),
    fault(
        "tangent_with_another_epsilon",
        wrong=RootMeanSquareOtherEps,
        right=RootMeanSquare,
        args=[arg("x", "b n", AWAY)],
        dims={"n": Dim(lo=2)},
        note="a forward in float32",
        **TRANSPOSED,
    ),
    fault(
        "tangent_with_a_rounded_constant",
        wrong=GeluRoundedConstant,
        right=Gelu,
        args=[arg("x", "*b", AWAY)],
        note="a forward in float32",
        **TRANSPOSED,
    ),
)
