"""Ops of torch.library that are right in plain eager, and registered wrongly."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.autograd import Function

from tests.faults.record import NONEMPTY, arg, pair
from tests.versions import OLD_TORCH

fault = partial(
    pair,
    cls="transforms",
    primary="transforms.opcheck",
    code="GV504",
    args=[arg("x", "b n")],
    dims={"b": NONEMPTY, "n": NONEMPTY},
)


def squares(x: Tensor) -> Tensor:
    return x * x


def doubled(ctx, g):
    return 2 * g * ctx.saved_tensors[0]


def keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def registered(name, kernel, fake, backward=doubled):
    """A custom op with this fake, and the derivative of a square."""
    op = torch.library.custom_op(f"gradverify_faults::{name}", kernel, mutates_args=())
    if fake is not None:
        op.register_fake(fake)
    op.register_autograd(backward, setup_context=keep)
    return op


def by_columns(x: Tensor) -> Tensor:
    """Its result lies column by column in memory."""
    return x.T.contiguous().square().T


class Squares(Function):
    @staticmethod
    def forward(ctx, x):
        keep(ctx, (x,), None)
        return squares(x)

    backward = staticmethod(doubled)


FRAGMENT = torch.library.Library("gradverify_faults", "FRAGMENT")
FRAGMENT.define("squares_with_graph(Tensor x) -> Tensor")
FRAGMENT.impl("squares_with_graph", lambda x: Squares.apply(x), "CompositeExplicitAutograd")

SQUARES = registered("squares", squares, torch.empty_like)

FAULTS = (
    fault("no_fake", wrong=registered("squares_without_fake", squares, None), right=SQUARES),
    fault(
        "fake_of_another_shape",
        wrong=registered("squares_flattened", squares, lambda x: x.new_empty(x.numel())),
        right=SQUARES,
    ),
    fault(
        "autograd_below_autograd",
        wrong=torch.ops.gradverify_faults.squares_with_graph.default,
        right=SQUARES,
        note="the graph is made where the dispatcher has left autograd behind",
    ),
)

# torch 2.11.0 does not hold strides against those of the fake.
FAULTS += (
    ()
    if OLD_TORCH
    else (
        fault(
            "fake_of_other_strides",
            wrong=registered("squares_by_columns_said_by_rows", by_columns, torch.empty_like),
            right=registered("squares_by_columns", by_columns, lambda x: x.new_empty(x.shape[::-1]).T),
        ),
    )
)
