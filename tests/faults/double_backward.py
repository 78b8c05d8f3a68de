"""Backward is right, and what torch makes of it by differentiating it once more is not; or it breaks its word."""

from __future__ import annotations

from functools import partial

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tests.faults.record import NONEMPTY, SMALL, arg, pair

fault = partial(pair, cls="double-backward", primary="double_backward")


def rms_norm(x, w):
    return x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * w


class RmsNorm(Function):
    """Keeps its inputs: everything that backward computes from them has a history."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return rms_norm(x, w)

    @staticmethod
    def gradients(x, w, r, g):
        u = g * w
        dx = r * (u - x * r.square() * (u * x).mean(-1, keepdim=True))
        return dx, (g * x * r).sum_to_size(w.shape)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return RmsNorm.gradients(x, w, (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt(), g)


class RmsNormRootSaved(RmsNorm):
    """Saves 1/rms, computed in forward: a constant to whoever differentiates backward."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w, (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt())
        return rms_norm(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w, r = ctx.saved_tensors
        return RmsNorm.gradients(x, w, r, g)


def bell(x):
    return x * (-x.square()).exp()


class Bell(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return bell(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - 2 * x.square()) * (-x.square()).exp()


class BellOnContext(Bell):
    """Half of the second derivative is there: x has a history, exp(-x^2) on ctx has none."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.gate = (-x.square()).exp()
        return x * ctx.gate

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - 2 * x.square()) * ctx.gate


def log_cosh(a, b):
    """Of the difference, b broadcast to a."""
    return (a - b).cosh().log()


class LogCosh(Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return log_cosh(a, b)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        da = g * (a - b).tanh()
        return da, (-da).sum_to_size(b.shape) if ctx.needs_input_grad[1] else None


class LogCoshDetached(LogCosh):
    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        da = g * (a - b).tanh().detach()
        return da, (-da).sum_to_size(b.shape)


def running(x):
    """Sums along rows, and their last entry: two outputs, linear in x."""
    y = x.cumsum(-1)
    return y, y[..., -1]


class Running(Function):
    """Linear: what depends on x is nothing, what depends on the cotangents is the Jacobian."""

    @staticmethod
    def forward(ctx, x):
        return running(x)

    @staticmethod
    def backward(ctx, g, last):
        return g.flip(-1).cumsum(-1).flip(-1) + last[..., None]


class RunningInNumpy(Running):
    """Without @once_differentiable nobody hears that numpy keeps no history."""

    @staticmethod
    def backward(ctx, g, last):
        g, last = g.detach().numpy(), last.detach().numpy()
        return torch.from_numpy(g[..., ::-1].cumsum(-1)[..., ::-1] + last[..., None])


class RunningByAccident(Running):
    """Raises what numpy says of tensors that require grad."""

    @staticmethod
    def backward(ctx, g, last):
        return torch.from_numpy(g.numpy()[..., ::-1].cumsum(-1)[..., ::-1] + last.numpy()[..., None])


class RunningRefused(Running):
    @staticmethod
    @once_differentiable
    def backward(ctx, g, last):
        return RunningInNumpy.backward(ctx, g, last)


def soft_sign(x):
    return x / (1 + x.abs())


class SoftSignSlope(Function):
    """The gradient of softsign, with a derivative of its own; f'' has a jump at 0."""

    @staticmethod
    def forward(ctx, x, g):
        ctx.save_for_backward(x, g)
        return g / (1 + x.abs()).square()

    @staticmethod
    def second(x):
        return -2 * x.sign() / (1 + x.abs()).pow(3)

    @classmethod
    def derivatives(cls, ctx, w):
        x, g = ctx.saved_tensors
        return w * g * cls.second(x), w / (1 + x.abs()).square()

    @staticmethod
    @once_differentiable
    def backward(ctx, w):
        return SoftSignSlope.derivatives(ctx, w)


class SoftSignSlopeUnsigned(SoftSignSlope):
    @staticmethod
    def second(x):
        return -2 / (1 + x.abs()).pow(3)

    @staticmethod
    @once_differentiable
    def backward(ctx, w):
        return SoftSignSlopeUnsigned.derivatives(ctx, w)


class SoftSign(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return soft_sign(x)

    @staticmethod
    def backward(ctx, g):
        return SoftSignSlope.apply(*ctx.saved_tensors, g)


class SoftSignUnsigned(SoftSign):
    @staticmethod
    def backward(ctx, g):
        return SoftSignSlopeUnsigned.apply(*ctx.saved_tensors, g)


def drag(x, v):
    """x v^2: f_xx = 0, f_xv = 2 v, f_vv = 2 x."""
    return x * v.square()


class DragSlopes(Function):
    @staticmethod
    def forward(ctx, x, v, g):
        ctx.save_for_backward(x, v, g)
        return g * v.square(), 2 * g * x * v

    @staticmethod
    def derivatives(ctx, wx, wv, sign):
        x, v, g = ctx.saved_tensors
        return 2 * wv * g * v, sign * 2 * wx * g * v + 2 * wv * g * x, wx * v.square() + 2 * wv * x * v

    @staticmethod
    @once_differentiable
    def backward(ctx, wx, wv):
        return DragSlopes.derivatives(ctx, wx, wv, 1)


class DragSlopesCrossed(DragSlopes):
    @staticmethod
    @once_differentiable
    def backward(ctx, wx, wv):
        return DragSlopes.derivatives(ctx, wx, wv, -1)


class Drag(Function):
    @staticmethod
    def forward(ctx, x, v):
        ctx.save_for_backward(x, v)
        return drag(x, v)

    @staticmethod
    def backward(ctx, g):
        return DragSlopes.apply(*ctx.saved_tensors, g)


class DragCrossed(Drag):
    """The cross term has the wrong sign in one of the two places where it stands."""

    @staticmethod
    def backward(ctx, g):
        return DragSlopesCrossed.apply(*ctx.saved_tensors, g)


def hinge(x):
    """max(x, 0)^3/2 above 0, 0 below."""
    return x.clamp_min(0).pow(1.5)


class Hinge(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return hinge(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, 1.5 * torch.where(x > 0, x, 1).sqrt(), 0) * g


class HingeOfNan(Hinge):
    """The branch not taken is NaN: hidden by where in the gradient, and not in its derivative."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, 1.5 * x.sqrt(), 0) * g


class BellBothWays(Bell):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_forward(x)
        return Bell.forward(ctx, x)

    @staticmethod
    def jvp(ctx, v):
        (x,) = ctx.saved_tensors
        return v * (1 - 2 * x.square()) * (-x.square()).exp()


class BellSlopeForForward(BellBothWays):
    """The right tangent, from a slope that forward computed: no second derivative flows back through it."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = (1 - 2 * x.square()) * (-x.square()).exp()
        return Bell.forward(ctx, x)

    @staticmethod
    def jvp(ctx, v):
        return v * ctx.slope


class BellDetachedTangent(BellBothWays):
    """The right tangent, and no history by the one that it was given."""

    @staticmethod
    def jvp(ctx, v):
        return BellBothWays.jvp(ctx, v.detach())


class BellRefused(Bell):
    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return Bell.backward(ctx, g)


def moment(x):
    """x mean(x^2): [b n] -> [b n]."""
    return x * x.square().mean()


class Moment(Function):
    """Keeps numbers, too: a count, and how large the inputs are, which chooses between two ways to the same sum."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.count = float(x.numel())
        return moment(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        large = x.detach().abs().max().item() > 1e100
        inner = (g * (x / ctx.count)).sum() if large else (g * x).sum() / ctx.count
        return g * x.square().mean() + 2 * x * inner


class MomentKeptAsNumber(Moment):
    """The mean square is a float on ctx: no history leads to it, and nothing shows that there should be one."""

    @staticmethod
    def forward(ctx, x):
        ctx.mean = float(x.square().mean())
        return Moment.forward(ctx, x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * ctx.mean + 2 * x * (g * x).sum() / ctx.count


class MomentByItem(Moment):
    """The mean square becomes a number in backward."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.square().mean().item() + 2 * x * (g * x).sum() / ctx.count


class MomentByAutograd(Moment):
    """Backward differentiates a second forward by autograd, without create_graph."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            y = moment(again)
        return torch.autograd.grad(y, again, g)[0]


X = [arg("x", "b n", SMALL)]
SIZES = {"b": NONEMPTY, "n": NONEMPTY}
WORKS = {"supports": {"double_backward": True}}
WORKS_NOT = {"supports": {"double_backward": False}}

FAULTS = (
    fault(
        "intermediate_saved",
        code="GV505",
        wrong=RmsNormRootSaved,
        right=RmsNorm,
        args=[arg("x", "*b n"), arg("w", "n")],
        dims={"n": NONEMPTY},
        reference=rms_norm,
        source="pytorch/pytorch#76185",
    ),
    fault(
        "intermediate_on_context",
        code="GV505",
        wrong=BellOnContext,
        right=Bell,
        args=X,
        dims=SIZES,
        reference=bell,
        source="pytorch/pytorch#104040",
    ),
    fault(
        "detached_in_backward",
        code="GV505",
        wrong=LogCoshDetached,
        right=LogCosh,
        args=[arg("a", "b n", SMALL), arg("b", "#b n", SMALL)],
        dims=SIZES,
        reference=log_cosh,
        source="pytorch/pytorch#58509",
    ),
    fault(
        "numpy_in_backward",
        code="GV505",
        wrong=RunningInNumpy,
        right=Running,
        args=X,
        dims=SIZES,
        reference=running,
        note="linear: only the derivative by the cotangents is lost",
    ),
    fault(
        "raises_by_accident",
        code="GV501",
        wrong=RunningByAccident,
        right=RunningRefused,
        args=X,
        dims=SIZES,
        reference=running,
        source="pytorch/pytorch#92348",
    ),
    fault(
        "second_derivative_unsigned",
        code="GV501",
        wrong=SoftSignUnsigned,
        right=SoftSign,
        args=X,
        dims=SIZES,
        reference=soft_sign,
        source="pytorch/pytorch#80926",
    ),
    fault(
        "cross_term_of_the_wrong_sign",
        code="GV501",
        wrong=DragCrossed,
        right=Drag,
        args=[arg("x", "b n", SMALL), arg("v", "b n", SMALL)],
        dims=SIZES,
        reference=drag,
    ),
    fault(
        "second_derivative_not_finite",
        code="GV111",
        wrong=HingeOfNan,
        right=Hinge,
        args=X,
        dims=SIZES,
        reference=hinge,
        source="pytorch/functorch#1097",
    ),
    fault(
        "slope_kept_for_forward_mode",
        code="GV501",
        wrong=BellSlopeForForward,
        right=BellBothWays,
        args=X,
        dims=SIZES,
        reference=bell,
        note="reverse over forward: torch's own layer_norm does it",
    ),
    fault(
        "tangent_detached_in_jvp",
        wrong=BellDetachedTangent,
        right=BellBothWays,
        args=X,
        dims=SIZES,
        reference=bell,
        note="reverse over forward: the gradient by the tangent",
    ),
    fault(
        "mean_square_kept_as_a_number",
        code="GV505",
        wrong=MomentKeptAsNumber,
        right=Moment,
        args=X,
        dims=SIZES,
        reference=moment,
        note="a float on ctx that follows the values of the input",
    ),
    fault(
        "mean_square_by_item",
        code="GV505",
        wrong=MomentByItem,
        right=Moment,
        args=X,
        dims=SIZES,
        reference=moment,
        note="the twin calls item, too, of what has no history",
    ),
    fault(
        "recomputed_without_create_graph",
        code="GV505",
        wrong=MomentByAutograd,
        right=Moment,
        args=X,
        dims=SIZES,
        reference=moment,
        source="pytorch/pytorch#51978",
    ),
    fault(
        "promised_and_refused",
        code="GV508",
        wrong=BellRefused,
        right=Bell,
        args=X,
        dims=SIZES,
        reference=bell,
        **WORKS,
    ),
    fault(
        "promised_and_silently_detached",
        code="GV505",
        wrong=BellOnContext,
        right=Bell,
        args=X,
        dims=SIZES,
        reference=bell,
        **WORKS,
    ),
    fault(
        "denied_and_there",
        code="GV508",
        wrong=Bell,
        right=BellRefused,
        args=X,
        dims=SIZES,
        reference=bell,
        **WORKS_NOT,
    ),
    fault(
        "denied_and_silently_detached",
        code="GV505",
        wrong=BellOnContext,
        right=BellRefused,
        args=X,
        dims=SIZES,
        reference=bell,
        **WORKS_NOT,
    ),
)
