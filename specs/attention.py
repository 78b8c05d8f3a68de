"""Attention by tiles, held against attention with all scores: four specs, by what is said of the mask, and one of dq in
any order of summation.

The sizes straddle tiles of 8 and 16, so that the same specs serve the kernels in Triton's interpreter. Masks that hide
all keys of a row, and windows that lie outside the keys, make dead rows: they give 0, and gradients 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

import gradverify as gv
from gradverify.catalogue import attention as ops

DIMS = {
    "b": gv.dim(0, 3),
    "h": gv.dim(1, 3),
    "g": gv.dim(1, 3),  # heads of q to one of k and v
    "m": gv.dim(0, around=(8, 16)),
    "n": gv.dim(0, around=(8, 16)),
    "d": gv.dim(1, 33, around=(8, 16)),
    "e": gv.dim(1, 33, around=(8, 16)),
}
# Scores of 1e12 make a step of the softmax, where differences say nothing: `attention` sees such, masks need not.
MODEST = gv.domain(-8, 8)
TAILS = gv.example(b=1, h=1, g=1, m=17, n=33, d=5, e=3)
GROUPS = gv.example(b=2, h=2, g=3, m=5, n=7, d=4, e=4)
MORE_ROWS = gv.example(b=1, h=1, g=2, m=19, n=6, d=3, e=3, causal=True)


def softmax(scores: Tensor) -> Tensor:
    """softmax over the last axis; 0 in rows of -inf only."""
    dead = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(dead, 0).softmax(-1).masked_fill(dead, 0)


def all_scores(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    align: str = "lower_right",
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """The textbook: every score, one boolean for what is seen."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = (q.shape[-1] ** -0.5 if scale is None else scale) * torch.einsum("bhmd,bhnd->bhmn", q, k)
    rows, columns = torch.arange(q.shape[2]), torch.arange(k.shape[2])
    if align == "lower_right":
        rows = rows + (k.shape[2] - q.shape[2])
    ahead = columns - rows.unsqueeze(-1)
    hidden = torch.zeros_like(ahead, dtype=torch.bool)
    if causal:
        hidden = hidden | (ahead > 0)
    if window is not None:
        hidden = hidden | (ahead.abs() > window)
    if mask is not None and mask.dtype == torch.bool:
        hidden = hidden | ~mask
    elif mask is not None:
        scores = scores + mask
    return softmax(scores.masked_fill(hidden, -torch.inf)) @ v


@gv.spec(
    ops.attention,
    dims=DIMS,
    examples=[
        TAILS,
        GROUPS,
        MORE_ROWS,
        gv.example(b=1, h=1, g=1, m=16, n=9, d=8, e=8, causal=True, align="upper_left", window=3),
        gv.example(b=1, h=1, g=1, m=3, n=0, d=2, e=2),  # no keys: all rows are dead
    ],
)
def attention(
    q: Annotated[Tensor, "b h*g m d"],
    k: Annotated[Tensor, "b h n d"],
    v: Annotated[Tensor, "b h n e"],
    *,
    causal: bool = False,
    align: Literal["lower_right", "upper_left"] = "lower_right",
    window: Literal[None, 0, 3] = None,
    scale: Literal[None, 0.3, -1.0, 4.0] = None,
) -> Tensor:
    """softmax(scale q kᵀ) v, over the keys that causality and the window leave."""
    return all_scores(q, k, v, causal=causal, align=align, window=window, scale=scale)


@gv.spec(ops.attention, dims=DIMS, examples=[TAILS, GROUPS, MORE_ROWS])
def attention_bias(
    q: Annotated[Tensor, "b h*g m d"],
    k: Annotated[Tensor, "b h n d"],
    v: Annotated[Tensor, "b h n e"],
    mask: Annotated[Tensor, "#b #h*g #m #n"],
    *,
    causal: bool = False,
    window: Literal[None, 5] = None,
) -> Tensor:
    """A mask that is added and learned: a bias; it broadcasts, and its gradient is summed."""
    return all_scores(q, k, v, mask, causal=causal, window=window)


@gv.spec(ops.attention, dims=DIMS, examples=[TAILS, GROUPS, MORE_ROWS])
def attention_additive_mask(
    q: Annotated[Tensor, "b h*g m d", MODEST],
    k: Annotated[Tensor, "b h n d", MODEST],
    v: Annotated[Tensor, "b h n e"],
    mask: Annotated[Tensor, "#b 1 m n", gv.additive_mask],
    *,
    causal: bool = False,
) -> Tensor:
    """A mask of 0 and -inf; whole rows may be hidden."""
    return all_scores(q, k, v, mask, causal=causal)


@gv.spec(ops.attention, dims=DIMS, examples=[TAILS, GROUPS, MORE_ROWS])
def attention_boolean_mask(
    q: Annotated[Tensor, "b h*g m d", MODEST],
    k: Annotated[Tensor, "b h n d", MODEST],
    v: Annotated[Tensor, "b h n e"],
    mask: Annotated[Tensor, "#b #h*g #m #n", gv.boolean],
    *,
    causal: bool = False,
    window: Literal[None, 5] = None,
) -> Tensor:
    """A mask of what may be seen; whole rows may be hidden."""
    return all_scores(q, k, v, mask, causal=causal, window=window)


@gv.spec(
    ops.attention,
    dims=DIMS,
    # Of one key the weight is 1, however far below zero its logit is; where others follow, such scores make a step.
    where=lambda n, scale: scale != 1000.0 or n == 1,
    examples=[
        gv.example(b=1, h=2, g=1, m=9, n=1, d=3, e=2, scale=1000.0),
        TAILS,
        GROUPS,
        MORE_ROWS,
        gv.example(b=1, h=2, g=2, m=9, n=17, d=5, e=4, causal=True, window=3),
    ],
    nondeterministic=True,
)
def attention_atomic(
    q: Annotated[Tensor, "b h*g m d"],
    k: Annotated[Tensor, "b h n d"],
    v: Annotated[Tensor, "b h n e"],
    mask: Annotated[Tensor, "#b #h*g m n"] | None,
    *,
    causal: bool = False,
    window: Literal[None, 3] = None,
    scale: Literal[None, -1.0, 1000.0] = None,
    deterministic: Literal[False] = False,
) -> Tensor:
    """The gradient of q by atomic additions; in any order they give the same sum."""
    del deterministic
    return all_scores(q, k, v, mask, causal=causal, window=window, scale=scale)
