"""Functions of torch are as good as float32, bfloat16 and float16 allow; and some of them, once spoilt, are told.

Left out are those that torch does not have in a narrow dtype, and those that lose digits there in earnest: `cdist`
expands squares; `embedding`, `take`, `bilinear`, the weight of `conv_transpose1d` and the bias of `layer_norm` add up
in the narrow dtype, and `batch_norm` and `instance_norm` round the mean to it; `glu` cancels 1 - sigmoid, and `gelu`
1 + erf (of -5 it is 17 % off in float32); the gradient of `matrix_exp` overflows, and `soft_margin_loss` itself (of 89
in float32, of 12 in float16); `grid_sample` rounds its coordinates; `rms_norm` takes the eps of the dtype.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.verdict import Outcome
from tests.torch_specs import TORCH_FUNCTIONS

KNOWN = {s.name: s for s in TORCH_FUNCTIONS}
NAMES = (
    "relu",
    "relu6",
    "elu",
    "selu",
    "celu",
    "leaky_relu",
    "silu",
    "mish",
    "softplus",
    "softsign",
    "tanhshrink",
    "hardswish",
    "hardtanh",
    "hardsigmoid",
    "hardshrink",
    "softshrink",
    "softmax",
    "log_softmax",
    "softmin",
    "group_norm",
    "normalize",
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "avg_pool1d",
    "max_pool1d",
    "max_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "l1_loss",
    "mse_loss",
    "smooth_l1_loss",
    "huber_loss",
    "cross_entropy",
    "nll_loss",
    "kl_div",
    "binary_cross_entropy_with_logits",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "cosine_embedding_loss",
    "triplet_margin_loss",
    "cosine_similarity",
    "pairwise_distance",
    "pixel_shuffle",
    "pad",
    "fold",
    "unfold",
    "prelu",
    "threshold",
    "attention",
)
DTYPES = ("float32", "bfloat16", "float16")
FUNCTIONS = tuple(KNOWN[n] for n in NAMES)


def result(spec, dtype):
    (found,) = verify(spec, Plan(examples=2, claims=("precision",), dtypes=(dtype,)), Policy())
    return found


def test_there_are_forty_of_them():
    assert len(FUNCTIONS) >= 40


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [pytest.param(s, d, id=f"{s.name}-{d}") for s, d in zip(FUNCTIONS, itertools.cycle(DTYPES), strict=False)],
)
def test_a_right_function_raises_no_alarm(spec, dtype):
    """Each in one of the dtypes; ci.bench.narrow takes more of them."""
    found = result(spec, dtype)
    assert (found.outcome, found.code) == (Outcome.PASS, ""), describe(found)


@pytest.mark.parametrize("name", ["softmax", "cross_entropy"])
def test_what_rounding_leaves_of_a_saturated_softmax_is_no_fault(name):
    (found,) = verify(KNOWN[name], Plan(examples=30, claims=("precision",), dtypes=("float32",)), Policy())
    assert (found.outcome, found.code) == (Outcome.PASS, ""), describe(found)


def spoilt(op):
    """The same forward; every gradient is multiplied by 1.05."""

    def run(*args, **kwargs):
        out = op(*args, **kwargs)
        return out.detach() + 1.05 * (out - out.detach()) if torch.is_grad_enabled() and out.requires_grad else out

    return run


@pytest.mark.parametrize("name", ["silu", "softmax", "linear", "mse_loss"])
def test_the_same_function_five_percent_off_fails(name):
    spec = KNOWN[name].with_(reference=KNOWN[name].op)
    found = result(spec.with_(op=spoilt(spec.op), order=spec.order), "float16")
    assert found.outcome is Outcome.FAIL
