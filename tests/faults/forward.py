"""The forward is not the reference, and the backward is the true derivative of that wrong forward."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional

from tests.faults.record import NONEMPTY, arg, pair

fault = partial(pair, cls="forward", primary="forward", code="GV208")


def eps_inside(x):
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-3)


def eps_outside(x):
    """Adds eps to the root: differs where rows are small."""
    return x / (torch.sqrt(x.square().mean(-1, keepdim=True)) + 1e-3)


def eps_fused(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3)


def gelu(x):
    return functional.gelu(x)


def gelu_by_erf(x):
    return 0.5 * x * torch.special.erfc(-x * 0.5**0.5)


def gelu_by_tanh(x):
    """The tanh approximation where the exact one is promised: 1e-4."""
    return functional.gelu(x, approximate="tanh")


def causal_mean(x):
    """Mean of each prefix: [n d] -> [n d]."""
    return x.cumsum(0) / torch.arange(1, len(x) + 1, dtype=x.dtype)[:, None]


def causal_mean_by_mask(x):
    keep = torch.ones(len(x), len(x), dtype=x.dtype).tril()
    return keep @ x / keep.sum(-1, keepdim=True)


def causal_mean_looks_ahead(x):
    """The mask is one diagonal too wide."""
    keep = torch.ones(len(x), len(x), dtype=x.dtype).tril(1)
    return keep @ x / keep.sum(-1, keepdim=True)


FAULTS = (
    fault(
        "eps_outside_the_root",
        wrong=eps_outside,
        right=eps_fused,
        args=[arg("x", "b n")],
        dims={"n": NONEMPTY},
        reference=eps_inside,
    ),
    fault("approximate_for_exact", wrong=gelu_by_tanh, right=gelu_by_erf, args=[arg("x", "*b")], reference=gelu),
    fault(
        "mask_one_too_wide",
        wrong=causal_mean_looks_ahead,
        right=causal_mean_by_mask,
        args=[arg("x", "n d")],
        reference=causal_mean,
    ),
)
