"""Cross entropy whose rows carry weights: focal, class-balanced, given by the caller, or all of them.

This file needs torch and nothing else: copy it as it is. torch.compile breaks its graph at a Function that has a jvp
(torch 2.13): delete `jvp` where one graph matters more than forward mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor


class WeightedNll(torch.autograd.Function):
    """The weighted negative log-likelihood of each row; the weights carry no gradient.

    With p = softmax(z) over the last axis, t the target and w the weight of a row:

        forward    l  = -w log p[t]
        backward   dz = u w (p - onehot(t))
        jvp        l' = w (<p, z'> - z'[t])

    log p is computed as log_softmax, so no logit overflows. A row of weight 0 contributes exactly 0 to everything,
    whatever its logits (infinities and NaN included). Backward is written in differentiable terms of z: derivatives of
    second order are those of l with w held constant.

    Shapes: z [*b, c], t [*b] int64 in 0 ... c - 1, w [*b]; l [*b] in w's dtype, in which all is computed; dz in z's.
    Backward keeps z, t and w.

    Source: the usual cross entropy; see `reweighted_cross_entropy` for the weights.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return l = -w log p[t]."""
        log_p = _clean(logits, weight).log_softmax(-1)
        return -weight * _pick(log_p, target)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        """Keep z, t and w."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, None, None]:
        """Return dz = u w (p - onehot(t)). An undefined cotangent arrives as zeros."""
        (u,), (logits, target, weight) = cotangents, ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, None, None
        p = _clean(logits, weight).softmax(-1)
        hit = target.unsqueeze(-1) == torch.arange(p.shape[-1], device=p.device)  # [*b, c]
        return ((u * weight.detach()).unsqueeze(-1) * (p - hit.to(p.dtype))).to(logits.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Return l' = w (<p, z'> - z'[t]), whatever the tangent of w."""
        logits, target, weight = ctx.saved_tensors
        z_tangent = _clean(tangents[0], weight)
        p = _clean(logits, weight).softmax(-1)
        return cast("Tensor", weight.detach() * ((p * z_tangent).sum(-1) - _pick(z_tangent, target)))


def reweighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    row_weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    *,
    gamma: float = 0.0,
    ignore_index: int = -100,
    reduction: Literal["none", "mean", "sum"] = "mean",
    mean_by: Literal["weight", "count"] = "weight",
) -> Tensor:
    """Cross entropy of rows weighted by w = row_weight * class_weight[t] * (1 - p[t])^gamma, w without gradient.

    The weights say how much a row counts, and nothing flows back through them; with p the softmax of the logits,

        none   l = -w log p[t], and 0 where t is ignore_index       sum   the sum of l
        mean   sum of l / sum of w  (mean_by "weight")  or  / the number of rows not ignored  (mean_by "count")

    Also the denominator carries no gradient. Where it is 0 (every row ignored, every weight 0, no rows) the mean is 0
    with gradient 0, where torch returns NaN. Take "count" for weights that may be negative, as advantages are.
    Unlike the focal loss of Lin et al., whose factor (1 - p)^gamma is differentiated, here it is a weight.

    Args:
        logits: z [*b, c], floating, classes last: for [n, c, h, w] pass logits.movedim(1, -1). c >= 1.
        target: t [*b], int64, each in 0 ... c - 1 or ignore_index.
        row_weight: [*b], any floating dtype, or None for 1.
        class_weight: [c], or None for 1; `class_balanced_weights` makes them from counts.
        gamma: focal exponent, at least 0; 0 switches it off, 2 is usual.
        ignore_index: rows with this target contribute 0 to value, gradient and denominator.
        reduction: none, mean or sum.
        mean_by: what the mean divides by.

    Returns:
        [*b] for none, else []: float32 for half-precision logits, else the logits' dtype.

    Raises:
        TypeError: a dtype is not as said.
        ValueError: a shape does not fit, an option is unknown, gamma is negative.
        IndexError: a target is no class. To see this on a GPU waits for the device; under torch.compile and vmap, where
            values cannot be looked at, it is left to torch.

    Source: Lin et al. 2017, arXiv:1708.02002 (focal factor); Cui et al. 2019, arXiv:1901.05555 (class balance).
    """
    _check_arguments(logits, target, row_weight, class_weight)
    _check_options(gamma, reduction, mean_by)
    valid = target != ignore_index
    _check_target(target, valid, classes=logits.shape[-1])
    target = torch.where(valid, target, 0)
    weight = _weights(logits.detach(), target, valid, row_weight, class_weight, gamma)
    losses = cast("Tensor", WeightedNll.apply(logits, target, weight))  # type: ignore[no-untyped-call]
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    total = weight.sum() if mean_by == "weight" else valid.sum().to(weight.dtype)
    return torch.where(total == 0, 0, losses.sum() / torch.where(total == 0, 1, total))


def class_balanced_weights(counts: Tensor | Sequence[int], *, beta: float = 0.999) -> Tensor:
    """Weights per class from the effective number of its examples, scaled to a mean of 1.

    w_i is proportional to (1 - beta) / (1 - beta^n_i): beta = 0 weighs all classes alike, beta -> 1 by 1 / n_i.

    Args:
        counts: n [c], examples of each class, at least 1.
        beta: in [0, 1).

    Returns:
        [c], float32, on the device of the counts.

    Raises:
        ValueError: beta is outside [0, 1), or a class has no examples.

    Source: Cui et al. 2019, arXiv:1901.05555, equations 2 and 4.
    """
    n = torch.as_tensor(counts).double()
    if not 0 <= beta < 1:
        raise ValueError(f"class_balanced_weights: beta must be in [0, 1), got {beta}; 0.9 to 0.9999 are usual.")
    if bool((n < 1).any()):
        raise ValueError(
            f"class_balanced_weights: every class needs a count of at least 1, got {n.min().item():g}; "
            "leave empty classes out, or count them once."
        )
    # 1 - beta^n as -expm1(n log beta): no cancellation for beta near 1.
    inverse = (1 - beta) / -torch.expm1(n * (math.log(beta) if beta > 0 else -math.inf))
    return (inverse / inverse.mean()).float()


def _weights(
    logits: Tensor, target: Tensor, valid: Tensor, row_weight: Tensor | None, class_weight: Tensor | None, gamma: float
) -> Tensor:
    """Return w [*b] in at least float32, 0 on ignored rows, without gradient or tangent."""
    weight = valid.to(torch.promote_types(logits.dtype, torch.float32))
    if row_weight is not None:
        weight = torch.where(valid, row_weight.detach().to(weight.dtype), 0)
    if class_weight is not None:
        weight = weight * class_weight.detach().to(weight.dtype)[target]
    if gamma > 0:
        log_p = _pick(_clean(logits, weight).log_softmax(-1), target)
        weight = weight * (-torch.expm1(log_p)).clamp(min=0) ** gamma  # 1 - p without cancellation
    return weight


def _clean(z: Tensor, weight: Tensor) -> Tensor:
    """Return z in w's dtype with 0 in the rows of weight 0, so that nothing in them can reach a result."""
    return torch.where((weight == 0).unsqueeze(-1), 0, z.to(weight.dtype))


def _pick(z: Tensor, target: Tensor) -> Tensor:
    """Return z[t] of each row, [*b]."""
    return z.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def _check_arguments(logits: Tensor, target: Tensor, row_weight: Tensor | None, class_weight: Tensor | None) -> None:
    name = "reweighted_cross_entropy"
    if not logits.is_floating_point():
        raise TypeError(f"{name}: logits must be floating, but their dtype is {logits.dtype}; pass logits.float().")
    if target.dtype != torch.int64:
        raise TypeError(f"{name}: target must be int64, but its dtype is {target.dtype}; pass target.long().")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{name}: logits must be [..., c] with c >= 1, got {tuple(logits.shape)}; add a class axis.")
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"{name}: target must be {tuple(logits.shape[:-1])} for logits {tuple(logits.shape)}, got "
            f"{tuple(target.shape)}; classes come last, move them there with logits.movedim(1, -1)."
        )
    for what, weight, shape in (
        ("row_weight", row_weight, target.shape),
        ("class_weight", class_weight, logits.shape[-1:]),
    ):
        if weight is not None and weight.shape != shape:
            raise ValueError(
                f"{name}: {what} must be {tuple(shape)} for logits {tuple(logits.shape)}, got {tuple(weight.shape)}; "
                "expand it to that shape."
            )
        if weight is not None and not weight.is_floating_point():
            raise TypeError(f"{name}: {what} must be floating, but its dtype is {weight.dtype}; pass {what}.float().")


def _check_options(gamma: float, reduction: str, mean_by: str) -> None:
    name = "reweighted_cross_entropy"
    if not 0 <= gamma < math.inf:
        raise ValueError(f"{name}: gamma must be finite and at least 0, got {gamma}; 0 is no focal factor, 2 is usual.")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be none, mean or sum, got {reduction!r}; choose one of them.")
    if mean_by not in ("weight", "count"):
        raise ValueError(f"{name}: mean_by must be weight or count, got {mean_by!r}; choose one of them.")


def _check_target(target: Tensor, valid: Tensor, *, classes: int) -> None:
    """Raise IndexError for a target that is no class, wherever the values can be looked at."""
    if torch.compiler.is_compiling():
        return
    wrong = valid & ((target < 0) | (target >= classes))
    try:
        found = bool(wrong.any())
    except RuntimeError:  # vmap, meta and fake tensors have no values to look at
        return
    if found:
        raise IndexError(
            f"reweighted_cross_entropy: targets must be 0 ... {classes - 1} or ignore_index, got "
            f"{target[wrong][0].item()}; correct the labels, or name their padding with ignore_index."
        )
