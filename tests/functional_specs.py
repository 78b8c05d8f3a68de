"""Some functions of `tests.torch_specs`, of each kind: for a quick look, and to be spoilt on purpose."""

from __future__ import annotations

from tests.torch_specs import TORCH_FUNCTIONS

KINDS = frozenset(
    {
        "relu6",
        "elu",
        "silu",
        "gelu",
        "softplus",
        "hardshrink",
        "softshrink",
        "hardswish",
        "log_softmax",
        "softmax",
        "layer_norm",
        "batch_norm",
        "cross_entropy",
        "cosine_embedding_loss",
        "margin_ranking_loss",
        "multi_margin_loss",
        "conv3d",
        "adaptive_avg_pool2d",
        "fold",
        "attention",
        "matmul",
        "logsumexp",
        "gather",
        "scatter_add",
        "cumprod",
    }
)

FUNCTIONAL = tuple(s for s in TORCH_FUNCTIONS if s.name in KINDS)
