"""needs_input_grad, undefined cotangents, unused outputs, frozen arguments that get a gradient."""

from __future__ import annotations

from functools import partial

import torch

from tests.faults.record import NONEMPTY, POSITIVE, SMALL, AutocastRule, Rule, arg, index, pair

fault = partial(pair, cls="partial-grad", primary="partial")


def biased_scores(s, mask):
    """log softmax(s + mask): [n m], [n m] -> [n m]."""
    return torch.log_softmax(s + mask, -1)


class BiasedScores(Rule):
    @staticmethod
    def forward(ctx, s, mask):
        y = biased_scores(s, mask)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        grad = g - y.exp() * g.sum(-1, keepdim=True)
        return tuple(grad if needed else None for needed in ctx.needs_input_grad)


class BiasedScoresMaskOnly(BiasedScores):
    """What backward needs is computed only if the scores require grad, and not if the mask alone does."""

    @staticmethod
    def forward(ctx, s, mask):
        y = biased_scores(s, mask)
        ctx.save_for_backward(y if ctx.needs_input_grad[0] else torch.zeros_like(y))
        return y


def scaled_norm(x, w):
    """w x / sqrt(mean x^2 + 0.01): [b n], [n] -> [b n]."""
    return w * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.01)


class ScaledNorm(Rule):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return scaled_norm(x, w)

    @staticmethod
    def backward(ctx, g):
        gx, gw = _scaled_norm_backward(ctx, g)
        return gx if ctx.needs_input_grad[0] else None, gw if ctx.needs_input_grad[1] else None


class ScaledNormFrozenWeight(ScaledNorm):
    """With a frozen weight the test for None skips the projection as well."""

    @staticmethod
    def backward(ctx, g):
        gx, gw = _scaled_norm_backward(ctx, g)
        if ctx.needs_input_grad[1]:
            return gx, gw
        x, w = ctx.saved_tensors
        return g * w * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.01), None


class ScaledNormSwappedMask(ScaledNorm):
    """needs_input_grad is read in the wrong order."""

    @staticmethod
    def backward(ctx, g):
        gx, gw = _scaled_norm_backward(ctx, g)
        return gx if ctx.needs_input_grad[1] else None, gw if ctx.needs_input_grad[0] else None


def _scaled_norm_backward(ctx, g):
    x, w = ctx.saved_tensors
    r = torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.01)
    gx = r * g * w - x * r**3 * (g * w * x).mean(-1, keepdim=True)
    return gx, (g * x * r).sum(0)


def value_and_energy(x):
    """sin(x) and the rows' energy: [b n] -> [b n], [b]."""
    return torch.sin(x), x.square().sum(-1) / 2


class ValueAndEnergy(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return value_and_energy(x)

    @staticmethod
    def backward(ctx, g, energy):
        (x,) = ctx.saved_tensors
        wave = torch.zeros_like(x) if g is None else g * torch.cos(x)
        return wave if energy is None else wave + energy[:, None] * x


class ValueAndEnergyUnused(ValueAndEnergy):
    """No gradient for the second output is read as no gradient at all."""

    @staticmethod
    def backward(ctx, g, energy):
        return None if energy is None else ValueAndEnergy.backward(ctx, g, energy)


def weighted_hinge(x, w):
    """w max(0, 1 - x), the weights being data: [n], [n] -> [n]."""
    return w * (1 - x).clamp_min(0)


class WeightedHinge(Rule):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return weighted_hinge(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return -g * w * (x < 1), None


class WeightedHingeLeaks(WeightedHinge):
    """Returns a gradient for the weights, which are declared to carry none."""

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return -g * w * (x < 1), g * (1 - x).clamp_min(0)


class ValueAndEnergyNoNone(ValueAndEnergy):
    """Asks for None in place of zeros, and then calculates with it."""

    @staticmethod
    def backward(ctx, g, energy):
        (x,) = ctx.saved_tensors
        return g * torch.cos(x) + energy[:, None] * x


def blend(a, b):
    """sin(a) b + a: two tensors of one shape."""
    return torch.sin(a) * b + a


class Blend(Rule):
    @staticmethod
    def forward(ctx, a, b):
        ctx.same = a.data_ptr() == b.data_ptr()
        ctx.save_for_backward(a, b)
        return blend(a, b)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        ga, gb = g * (torch.cos(a) * b + 1), g * torch.sin(a)
        # One tensor: the whole gradient goes by the first place, none by the second.
        return (ga + gb, None) if ctx.same else (ga, gb)


class BlendSameTwice(Blend):
    """The whole gradient goes by both places, where it is added up once more."""

    @staticmethod
    def backward(ctx, g):
        ga, gb = Blend.backward(ctx, g)
        return (ga, ga) if gb is None else (ga, gb)


def residual(x):
    """The stream itself, and what a block adds to it: [b n] -> [b n], [b n]."""
    return x, torch.tanh(x) * x.mean(-1, keepdim=True)


class Residual(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return residual(x)

    @staticmethod
    def backward(ctx, g, gh):
        (x,) = ctx.saved_tensors
        if gh is None:
            return g
        t = torch.tanh(x)
        inner = gh * (1 - t * t) * x.mean(-1, keepdim=True) + (gh * t).sum(-1, keepdim=True) / max(x.shape[-1], 1)
        return inner if g is None else g + inner


class ResidualIdentity(Residual):
    """What is returned as it came is taken to need no gradient of its own, unless the block does."""

    @staticmethod
    def backward(ctx, g, gh):
        return None if gh is None else Residual.backward(ctx, g, gh)


def rows_and_sums(x):
    """A view of the columns and the sums of the rows: [b n] -> [n b], [b]."""
    return x.t(), x.square().sum(-1)


class RowsAndSums(Rule):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return rows_and_sums(x)

    @staticmethod
    def backward(ctx, g, gs):
        (x,) = ctx.saved_tensors
        grad = torch.zeros_like(x) if g is None else g.t().clone()
        return grad if gs is None else grad + 2 * x * gs[:, None]


class RowsAndSumsViewed(RowsAndSums):
    """The view's gradient is transposed back only on the way that adds the other one."""

    @staticmethod
    def backward(ctx, g, gs):
        if gs is None and g is not None:
            return g.reshape(g.shape[1], g.shape[0])
        return RowsAndSums.backward(ctx, g, gs)


def scaled_in_place(x, w):
    """w x, written over x: [b n], [n]."""
    return x.mul_(w)


class ScaledInPlace(Rule):
    """Keeps what x was, which is gone after the forward, for the gradient of w."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(w, x.clone() if ctx.needs_input_grad[1] else None)
        ctx.mark_dirty(x)
        return scaled_in_place(x, w)

    @staticmethod
    def backward(ctx, g):
        w, kept = ctx.saved_tensors
        return g * w, None if kept is None else (g * kept).sum(0)


class ScaledInPlaceAfter(ScaledInPlace):
    """Keeps what x was only where x requires grad, which does not need it; else what x has become."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.kept = x.clone() if ctx.needs_input_grad[0] else x
        ctx.save_for_backward(w)
        ctx.mark_dirty(x)
        return scaled_in_place(x, w)

    @staticmethod
    def backward(ctx, g):
        (w,) = ctx.saved_tensors
        return g * w, (g * ctx.kept).sum(0)


def scaled_in_place_reference(x, w):
    return x * w


def gathered(x, i, w, b):
    """w x[i] + b: [v n], indices [m], [n], [n] -> [m n]."""
    return x[i] * w + b


class Gathered(Rule):
    @staticmethod
    def forward(ctx, x, i, w, b):
        ctx.save_for_backward(x, i, w)
        return gathered(x, i, w, b)

    @staticmethod
    def backward(ctx, g):
        need = ctx.needs_input_grad
        return Gathered.gradients(ctx, g, (need[0], need[2], need[3]))

    @staticmethod
    def gradients(ctx, g, need):
        x, i, w = ctx.saved_tensors
        gx = torch.zeros_like(x).index_add(0, i, g * w) if need[0] else None
        return gx, None, (g * x[i]).sum(0) if need[1] else None, g.sum(0) if need[2] else None


class GatheredShifted(Gathered):
    """Which inputs need a gradient is counted without the index between them."""

    @staticmethod
    def backward(ctx, g):
        need = ctx.needs_input_grad
        return Gathered.gradients(ctx, g, (need[0], need[2], need[2]))


def affine(x, w, b):
    """x w + b: [b n], [n m], [m] -> [b m]."""
    return x @ w + b


class Affine(AutocastRule):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return affine(x, w, b)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            g @ w.t() if needs[0] else None,
            x.t() @ g if needs[1] else None,
            g.sum(0) if needs[2] else None,
        )


class AffineForgetsBias(Affine):
    """A frozen weight is taken for a frozen layer: the bias gets nothing."""

    @staticmethod
    def backward(ctx, g):
        gx, gw, gb = Affine.backward(ctx, g)
        return gx, gw, gb if ctx.needs_input_grad[1] else None


def joined(xs):
    """The tensors of a list, one after the other, squared: [n], [m], [k] -> [n + m + k]."""
    return torch.cat([x.square() for x in xs])


class Joined(Rule):
    @staticmethod
    def forward(ctx, *xs):
        ctx.save_for_backward(*xs)
        return joined(xs)

    @staticmethod
    def backward(ctx, g):
        out, start = [], 0
        for x in ctx.saved_tensors:
            out.append(2 * x * g[start : start + x.numel()])
            start += x.numel()
        return tuple(out)


class JoinedSkips(Joined):
    """The place in the result moves on only past what requires grad."""

    @staticmethod
    def backward(ctx, g):
        out, start = [], 0
        for x, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=True):
            out.append(2 * x * g[start : start + x.numel()] if needed else None)
            start += x.numel() if needed else 0
        return tuple(out)


def joins(rule):
    return lambda xs: rule.apply(*xs)


def normalised(x, eps=0.1):
    """x over its root mean square, and that number, which is data: [b n] -> [b n], [b]."""
    r = (x.square().mean(-1) + eps).sqrt()
    return x / r[:, None], r


class Normalised(Rule):
    """Ignores the gradient of the number, and does not say so to autograd."""

    @staticmethod
    def forward(ctx, x):
        y, r = normalised(x)
        ctx.save_for_backward(y, r)
        return y, r

    @staticmethod
    def backward(ctx, g, gr):
        y, r = ctx.saved_tensors
        return (g - y * (g * y).mean(-1, keepdim=True)) / r[:, None]


class NormalisedLeaks(Normalised):
    """Passes the gradient of the number on."""

    @staticmethod
    def backward(ctx, g, gr):
        y, _ = ctx.saved_tensors
        return Normalised.backward(ctx, g, gr) + gr[:, None] * y / max(y.shape[-1], 1)


FAULTS = (
    fault(
        "only_the_mask_requires_grad",
        wrong=BiasedScoresMaskOnly,
        right=BiasedScores,
        args=[arg("s", "n m"), arg("mask", "n m")],
        reference=biased_scores,
        source="pytorch/pytorch#188302",
    ),
    fault(
        "frozen_weight_skips_too_much",
        wrong=ScaledNormFrozenWeight,
        right=ScaledNorm,
        args=[arg("x", "b n"), arg("w", "n")],
        dims={"n": NONEMPTY},
        reference=scaled_norm,
        source="linkedin/Liger-Kernel#1068",
    ),
    fault(
        "needs_input_grad_swapped",
        wrong=ScaledNormSwappedMask,
        right=ScaledNorm,
        args=[arg("x", "b n"), arg("w", "n")],
        dims={"n": NONEMPTY},
        reference=scaled_norm,
    ),
    fault(
        "unused_output_stops_all",
        wrong=ValueAndEnergyUnused,
        right=ValueAndEnergy,
        args=[arg("x", "b n", SMALL)],
        reference=value_and_energy,
    ),
    fault(
        "gradient_for_frozen_weights",
        wrong=WeightedHingeLeaks,
        right=WeightedHinge,
        args=[arg("x", "n", SMALL), arg("w", "n", POSITIVE, role="frozen")],
        dims={"n": NONEMPTY},
        reference=weighted_hinge,
    ),
    fault(
        "no_none_expected",
        wrong=ValueAndEnergyNoNone,
        right=ValueAndEnergy,
        args=[arg("x", "b n", SMALL)],
        reference=value_and_energy,
        source="pytorch/pytorch#106391",
        note="an output unused",
    ),
    fault(
        "same_tensor_counted_twice",
        wrong=BlendSameTwice,
        right=Blend,
        args=[arg("a", "*b"), arg("b", "*b")],
        reference=blend,
        note="one tensor given as both arguments",
    ),
    fault(
        "identity_output_taken_for_free",
        wrong=ResidualIdentity,
        right=Residual,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=residual,
        note="an output that is the input itself, used alone",
    ),
    fault(
        "view_output_not_viewed_back",
        wrong=RowsAndSumsViewed,
        right=RowsAndSums,
        args=[arg("x", "b n")],
        reference=rows_and_sums,
        note="an output that is a view of the input, used alone",
    ),
    fault(
        "in_place_keeps_the_image",
        wrong=ScaledInPlaceAfter,
        right=ScaledInPlace,
        args=[arg("x", "b n"), arg("w", "n")],
        reference=scaled_in_place_reference,
        note="mark_dirty; only the weight requires grad",
    ),
    fault(
        "needs_input_grad_shifted_by_an_index",
        wrong=GatheredShifted,
        right=Gathered,
        args=[arg("x", "v n"), index("i", "m", "v"), arg("w", "n"), arg("b", "n")],
        dims={"v": NONEMPTY},
        reference=gathered,
    ),
    fault(
        "frozen_weight_takes_the_bias_along",
        wrong=AffineForgetsBias,
        right=Affine,
        args=[arg("x", "b n"), arg("w", "n m"), arg("b", "m")],
        reference=affine,
    ),
    fault(
        "list_offsets_skip_what_is_frozen",
        wrong=joins(JoinedSkips),
        right=joins(Joined),
        args=[arg("xs[0]", "n"), arg("xs[1]", "m"), arg("xs[2]", "k")],
        reference=joined,
        note="a list of tensors, one of which requires no grad",
    ),
    fault(
        "undeclared_gradient_of_a_statistic",
        wrong=NormalisedLeaks,
        right=Normalised,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=normalised,
        nondiff=(1,),
        note="an output that is declared to carry none",
    ),
)
