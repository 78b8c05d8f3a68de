"""Right in plain eager, and wrong under vmap, torch.func, a checkpoint, saved-tensor hooks, and the like."""

from __future__ import annotations

from functools import partial

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tests.faults.record import NONEMPTY, POSITIVE, SMALL, AutocastRule, Rule, arg, backward_of, pair

fault = partial(pair, cls="transforms")


# vmap.


def gated(x, w):
    return torch.tanh(x) * w


class Gated(Function):
    """tanh(x) w, [b n] and [n], batched by a rule of its own."""

    @staticmethod
    def forward(x, w):
        return gated(x, w)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        t = torch.tanh(x)
        return g * w * (1 - t * t), (g * t).sum(0)

    @staticmethod
    def vmap(info, in_dims, x, w):
        """One call a sample: w has no axis for the batch that backward would sum to."""
        xs, ws = (_samples(t, d, info.batch_size) for t, d in zip((x, w), in_dims, strict=True))
        return torch.stack([Gated.apply(*pair) for pair in zip(xs, ws, strict=True)]), 0


def _samples(t, dim, size):
    return [t] * size if dim is None else t.unbind(dim)


class GatedBatchInFront(Gated):
    """Takes the batch of each argument for its first axis, wherever it is."""

    @staticmethod
    def vmap(info, in_dims, x, w):
        front = [None if d is None else 0 for d in in_dims]
        xs, ws = (_samples(t, d, info.batch_size) for t, d in zip((x, w), front, strict=True))
        size = min(len(xs), len(ws))
        return torch.stack([Gated.apply(*pair) for pair in zip(xs[:size], ws[:size], strict=True)]), 0


class GatedSharedWeight(Gated):
    """Takes the first sample's weight for all: weights are not batched, its author thought."""

    @staticmethod
    def vmap(info, in_dims, x, w):
        w = w if in_dims[1] is None else w.select(in_dims[1], 0)
        return Gated.vmap(info, (in_dims[0], None), x, w)


class GatedBatchBehind(Gated):
    """Says that the batch of the output is in front, and leaves it behind."""

    @staticmethod
    def vmap(info, in_dims, x, w):
        y, _ = Gated.vmap(info, in_dims, x, w)
        return y.movedim(0, -1), 0


def shares(x):
    return torch.softmax(x, 0)


class Shares(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return shares(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y * (g - (g * y).sum(0))


class SharesOfTheBatch(Shares):
    """Its rule passes the batch through, and so takes the shares among the samples."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info, in_dims, x):
        return SharesOfTheBatch.apply(x), in_dims[0]


class Weighted(Function):
    """The identity whose gradient is weighted; y does not depend on w."""

    @staticmethod
    def forward(x, w):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, g):
        (w,) = ctx.saved_tensors
        return g * w, None

    @staticmethod
    def vmap(info, in_dims, x, w):
        xs, ws = (_samples(t, d, info.batch_size) for t, d in zip((x, w), in_dims, strict=True))
        return torch.stack([Weighted.apply(*pair) for pair in zip(xs, ws, strict=True)]), 0


class WeightedByRule(Weighted):
    """Leaves it to torch's rule, which takes y for one sample where w alone is batched, and sums the cotangents."""

    generate_vmap_rule = True
    vmap = Function.vmap


# torch.func.


def cubed(x):
    return x * x * x


class Cubed(Function):
    @staticmethod
    def forward(x):
        return cubed(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


class CubedByGradMode(Cubed):
    """Takes another path where gradients of the gradient are recorded, as torch.func always does; it lacks the 3."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return x * x * g if torch.is_grad_enabled() else 3 * x * x * g


class CubedNoted(Cubed):
    """Notes a number on the input itself, where the wrapped tensors of torch.func do not have it."""

    @staticmethod
    def forward(x):
        x.times = 3.0
        return cubed(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        Cubed.setup_context(ctx, inputs, output)
        ctx.times = getattr(inputs[0], "times", 1.0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return ctx.times * x * x * g


class CubedNotedOnOutput(CubedNoted):
    """Notes it on the output."""

    @staticmethod
    def forward(x):
        y = cubed(x)
        y.times = 3.0
        return y

    @staticmethod
    def setup_context(ctx, inputs, output):
        Cubed.setup_context(ctx, inputs, output)
        ctx.times = getattr(output, "times", 1.0)


class Root(Function):
    """sqrt(x), whose slope is handed to backward as a second output that carries no gradient."""

    @staticmethod
    def forward(x):
        y = torch.sqrt(x)
        return y, 0.5 / y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, g, _):
        (slope,) = ctx.saved_tensors
        return g * slope


class RootInTraining(Root):
    """Computes the slope only where the input requires grad, which no tensor does in the forward of torch.func."""

    @staticmethod
    def forward(x):
        y = torch.sqrt(x)
        return y, 0.5 / y if x.requires_grad else torch.zeros_like(y)


class Relaxed(Function):
    """x where it is positive, x / 4 elsewhere; the mask is worked out again for backward."""

    @staticmethod
    def forward(x):
        return torch.where(x > 0, x, x / 4)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0] > 0)

    @staticmethod
    def backward(ctx, g):
        (positive,) = ctx.saved_tensors
        return torch.where(positive, g, g / 4)


class RelaxedHandedOver(Relaxed):
    """Hands the mask from forward to setup_context by the class, once; under torch.func that is called twice."""

    mask = None

    @staticmethod
    def forward(x):
        RelaxedHandedOver.mask = x > 0
        return torch.where(x > 0, x, x / 4)

    @staticmethod
    def setup_context(ctx, inputs, output):
        mask, RelaxedHandedOver.mask = RelaxedHandedOver.mask, None
        ctx.plain = mask is None
        ctx.save_for_backward(*(() if ctx.plain else (mask,)))

    @staticmethod
    def backward(ctx, g):
        return g if ctx.plain else Relaxed.backward(ctx, g)


# Checkpoints.


class _Reversed(Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return -g


def reversal(x):
    """tanh(x), its gradient reversed."""
    return torch.tanh(_Reversed.apply(x))


def reversal_by_hook(x):
    """Reverses by a hook on its input: called twice, as a checkpoint does, the two cancel."""
    if x.requires_grad:
        x.register_hook(torch.neg)
    return torch.tanh(x)


class Sine(Rule):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        ctx.save_for_backward(x)
        return scale * torch.sin(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * ctx.scale * torch.cos(x), None


_DEPTH = [0]


def sine_by_depth(x):
    """Halves what is nested in itself. A recomputation stops as soon as all is saved, and never leaves the depth."""
    _DEPTH[0] += 1
    y = Sine.apply(x, 0.5 ** (_DEPTH[0] - 1))
    _DEPTH[0] -= 1
    return y


def sine_nested(x):
    _DEPTH[0] += 1
    try:
        return Sine.apply(x, 1.0)
    finally:
        _DEPTH[0] -= 1


class Logistic(Rule):
    @staticmethod
    def forward(ctx, x):
        y = torch.sigmoid(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y * (1 - y)


class LogisticUnpacksTwice(Logistic):
    """Reads ctx.saved_tensors once for each factor; a checkpoint hands them out once."""

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0] * (1 - ctx.saved_tensors[0])


def logistic(x):
    return Logistic.apply(x)


def logistic_fast_without_grad(x):
    """Takes a piecewise approximation where no gradient is recorded: in the first pass of a checkpoint, too."""
    if torch.is_grad_enabled():
        return Logistic.apply(x)
    return torch.sigmoid(x) if not x.requires_grad else (x / 4 + 0.5).clamp(0, 1)


# Saved-tensor hooks.


def clipped(x):
    return x.clamp(-1, 1)


class Clipped(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.abs() <= 1)
        return clipped(x)

    @staticmethod
    def backward(ctx, g):
        (inside,) = ctx.saved_tensors
        return g * inside


class ClippedOnCtx(Clipped):
    """Keeps the mask as an attribute of ctx: no hook sees it, nothing offloads it."""

    @staticmethod
    def forward(ctx, x):
        ctx.inside = x.abs() <= 1
        return clipped(x)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.inside


class ClippedInAList(Clipped):
    """The same, in a list: saved tensors may be None, its author had heard."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = {"masks": [x.abs() <= 1]}
        return clipped(x)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.kept["masks"][0]


def arctan(x):
    return torch.atan(x)


def as_doubles(t):
    """The numbers that a kernel finds who takes the memory of a tensor for doubles; zeros behind its end."""
    memory = t.contiguous().numpy().tobytes().ljust(8 * t.numel(), b"\0")
    return torch.frombuffer(bytearray(memory), dtype=torch.float64)[: t.numel()].reshape(t.shape)


class Arctan(Rule):
    """A kernel for doubles, which is handed doubles."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return arctan(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        wide = g.dtype is torch.float64 and x.numel()
        return g / (1 + (as_doubles(x.double()) if wide else x).square())


class ArctanRawMemory(Arctan):
    """Takes what it saved for doubles, which hooks may have packed to float32."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        wide = g.dtype is torch.float64 and x.numel()
        return g / (1 + (as_doubles(x) if wide else x).square())


def swish(a, b):
    return a * torch.sigmoid(a) * b


class Swish(Rule):
    """Saves both inputs, packed into one tensor."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(torch.stack([a, b]))
        return swish(a, b)

    @staticmethod
    def backward(ctx, g):
        (both,) = ctx.saved_tensors
        return _swish_backward(both[0], both[1], g)


def _swish_backward(a, b, g):
    p = torch.sigmoid(a)
    return g * b * (p + a * p * (1 - p)), g * a * p


class SwishBesideView(Swish):
    """Saves a view of the first half, and reads the second from the memory behind it."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(torch.stack([a, b])[0])
        return swish(a, b)

    @staticmethod
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        beyond = a.untyped_storage().nbytes() // a.element_size() - a.numel()
        b = a.as_strided(a.shape, a.stride(), a.numel()) if beyond else torch.zeros_like(a)
        return _swish_backward(a, b, g)


class Mixed(AutocastRule):
    """x^T w from x [n b] and w [n]."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x.T, w)
        return x.T @ w

    @staticmethod
    def backward(ctx, g):
        xt, w = ctx.saved_tensors
        return w[:, None] * g, xt.T @ g


class MixedByStrides(Mixed):
    """Saves the strides beside the transposed view, and reads the memory by them: a copy may have others."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.strides = x.T.stride()
        return Mixed.forward(ctx, x, w)

    @staticmethod
    def backward(ctx, g):
        xt, w = ctx.saved_tensors
        by_strides = xt.as_strided(xt.shape, ctx.strides, xt.storage_offset())
        return w[:, None] * g, by_strides.T @ g


X = [arg("x", "n", SMALL)]
SOME = {"n": NONEMPTY}
TWO = {"b": NONEMPTY, "n": NONEMPTY}

vmap = partial(fault, primary="transforms.vmap")
func = partial(fault, primary="transforms.func", args=X, dims=SOME)
checkpoint = partial(fault, primary="transforms.checkpoint", args=X, dims=SOME)
hooks = partial(fault, primary="transforms.hooks")

GATED = {"right": Gated, "args": [arg("x", "b n"), arg("w", "n")], "dims": TWO, "reference": gated}

FAULTS = (
    vmap("vmap_batch_taken_for_first_axis", wrong=GatedBatchInFront, **GATED),
    vmap("vmap_ignores_one_batch", wrong=GatedSharedWeight, **GATED),
    vmap("vmap_output_batch_elsewhere", wrong=GatedBatchBehind, **GATED),
    vmap("vmap_reduces_over_the_batch", wrong=SharesOfTheBatch, right=Shares, args=X, dims=SOME, reference=shares),
    vmap(
        "vmap_batch_that_the_output_never_sees",
        wrong=WeightedByRule,
        right=Weighted,
        args=[arg("x", "n"), arg("w", "n", role="frozen")],
        dims=SOME,
        contract=backward_of(lambda x, w: x * w),
    ),
    func(
        "other_backward_where_gradients_are_recorded",
        wrong=CubedByGradMode,
        right=Cubed,
        primary="double_backward",
        must_fail=("double_backward", "transforms.func"),
        source="pytorch/functorch#207",
    ),
    func(
        "slope_only_in_training",
        wrong=RootInTraining,
        right=Root,
        primary="lifetime",
        must_fail=("lifetime", "transforms.func"),
        code="GV213",
        args=[arg("x", "n", POSITIVE)],
        nondiff=(1,),
        note="a static forward sees no tensor that requires grad",
    ),
    func("number_noted_on_the_input", wrong=CubedNoted, right=Cubed),
    func("number_noted_on_the_output", wrong=CubedNotedOnOutput, right=Cubed),
    func("mask_by_way_of_the_class", wrong=RelaxedHandedOver, right=Relaxed, note="setup_context is called twice"),
    checkpoint(
        "gradient_reversed_by_hook",
        wrong=reversal_by_hook,
        right=reversal,
        primary="partial",
        must_fail=("partial", "transforms.checkpoint"),
        contract=backward_of(lambda x: -torch.tanh(x)),
    ),
    checkpoint("depth_never_left", wrong=sine_by_depth, right=sine_nested, note="the recomputation stops early"),
    checkpoint("saved_tensors_read_twice", wrong=LogisticUnpacksTwice, right=Logistic),
    checkpoint("other_forward_without_grad", wrong=logistic_fast_without_grad, right=logistic),
    hooks("mask_on_ctx", wrong=ClippedOnCtx, right=Clipped, args=X, dims=SOME, source="pytorch/pytorch#102600"),
    hooks("mask_in_a_list_on_ctx", wrong=ClippedInAList, right=Clipped, args=X, dims=SOME),
    hooks("saved_memory_taken_for_doubles", wrong=ArctanRawMemory, right=Arctan, args=X, dims=SOME),
    hooks("memory_beside_a_saved_view", wrong=SwishBesideView, right=Swish, args=[arg("a", "b n"), arg("b", "b n")]),
    hooks(
        "strides_kept_beside_saved_tensor",
        wrong=MixedByStrides,
        right=Mixed,
        args=[arg("x", "n b"), arg("w", "n")],
        dims=TWO,
    ),
)
