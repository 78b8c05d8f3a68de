"""Cross entropy under weights without gradient, one of which (the focal factor) depends on the logits.

The value is differentiated as if the weights were constants: `gv.frozen` marks them, in the value and in the mean's
denominator alike. Without it the claim is another one: that of the focal loss whose factor is differentiated.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

import gradverify as gv
from gradverify.catalogue import reweighted_cross_entropy as ops


def held_weights(
    logits: Tensor,
    target: Tensor,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    *,
    gamma: float,
    ignore_index: int,
    reduction: str,
    mean_by: str,
) -> Tensor:
    """The loss, and with constant weights what backward is the derivative of."""
    valid = target != ignore_index
    target = target.where(valid, 0)
    log_p = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    weight = valid * (-log_p.expm1()) ** gamma
    for factor in (row_weight, None if class_weight is None else class_weight[target]):
        weight = weight if factor is None else weight * factor
    weight = gv.frozen(weight)
    losses = -weight * log_p
    if reduction == "none":
        return losses
    total = {"weight": weight.sum(), "count": valid.sum()}[mean_by] if reduction == "mean" else 1
    return losses.sum() / total if total else 0 * losses.sum()


@gv.spec(
    ops.reweighted_cross_entropy,
    backward_of=held_weights,
    dims={"c": gv.dim(1)},
    examples=[
        gv.example(b=(0,), c=3),  # no rows: the mean is 0, not NaN
        gv.example(b=(4,), c=1, ignore_index=0),  # every row ignored
        gv.example(b=(2, 3), c=65, gamma=2.0, mean_by="count"),
    ],
)
def reweighted_cross_entropy(
    logits: Annotated[Tensor, "*b c"],
    target: Annotated[Tensor, "*b", gv.index("c")],
    row_weight: Annotated[Tensor, "*b", gv.positive, gv.no_grad] | None = None,
    class_weight: Annotated[Tensor, "c", gv.positive, gv.no_grad] | None = None,
    *,
    gamma: Annotated[float, gv.domain(0, 3)] = 0.0,
    ignore_index: Literal[-100, 0] = -100,  # 0 ignores what is drawn as class 0
    reduction: Literal["mean", "none", "sum"] = "mean",
    mean_by: Literal["weight", "count"] = "weight",
) -> Tensor:
    """-w log softmax(logits)[t], w = row_weight * class_weight[t] * (1 - p[t])^gamma, reduced over the rows."""
    return held_weights(
        logits,
        target,
        row_weight,
        class_weight,
        gamma=gamma,
        ignore_index=ignore_index,
        reduction=reduction,
        mean_by=mean_by,
    )
