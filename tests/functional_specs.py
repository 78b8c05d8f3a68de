"""Twenty functions of `torch.nn.functional` as specs: name, callable, shapes, domain."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from gradverify.records.spec import Arg, Dim, Domain, Spec

BOOLEAN = Domain(kind="boolean")
NONEMPTY = Dim(lo=1)


def signs(flags):
    """True is +1, False is -1."""
    return torch.where(flags, 1.0, -1.0)


def batch_norm(x, weight, bias):
    return functional.batch_norm(x, None, None, weight, bias, training=True)


def layer_norm(x, weight, bias):
    return functional.layer_norm(x, x.shape[-1:], weight, bias)


def cosine_embedding_loss(x, y, same, margin=0.2):
    return functional.cosine_embedding_loss(x, y, signs(same), margin=margin)


def margin_ranking_loss(x, y, first, margin=0.3):
    return functional.margin_ranking_loss(x, y, signs(first), margin=margin)


def cross_entropy(x, target, label_smoothing=0.0):
    return functional.cross_entropy(x, target, label_smoothing=label_smoothing)


def adaptive_avg_pool2d(x):
    return functional.adaptive_avg_pool2d(x, (2, 3))


def fold(x):
    return functional.fold(x, (4, 4), 2)


def spec(name: str, op: Any, *args: Arg, **fields: Any) -> Spec:
    """A spec whose letters all start at size 1."""
    letters = {w.strip("*") for a in args for w in a.shape.split() if w.strip("*").isalpha()}
    dims = dict.fromkeys(letters, NONEMPTY) | fields.pop("dims", {})
    return Spec(name=name, op=op, args=args, dims=dims, **fields)


def x(shape: str, name: str = "x") -> Arg:
    """A floating argument."""
    return Arg(name=name, shape=shape)


def flag(name: str, shape: str) -> Arg:
    """A boolean argument."""
    return Arg(name=name, shape=shape, domain=BOOLEAN, role="mask", dtype="bool")


def label(shape: str, of: str) -> Arg:
    """A class label."""
    return Arg(name="target", shape=shape, domain=Domain(kind="index", of=of), role="integer", dtype="int64")


FUNCTIONAL = (
    spec("relu6", functional.relu6, x("*b n", "input")),
    spec("elu", functional.elu, x("*b n", "input"), kwargs={"alpha": (1.0, 0.3)}),
    spec("silu", functional.silu, x("*b n", "input")),
    spec("gelu", functional.gelu, x("*b n", "input"), kwargs={"approximate": ("none", "tanh")}),
    spec("softplus", functional.softplus, x("*b n", "input"), kwargs={"beta": (1.0, 2.0)}),
    spec("hardshrink", functional.hardshrink, x("*b n", "input"), kwargs={"lambd": (0.5, 0.1)}),
    spec("softshrink", functional.softshrink, x("*b n", "input"), kwargs={"lambd": (0.5, 0.1)}),
    spec("hardsigmoid", functional.hardsigmoid, x("*b n", "input")),
    spec("log_softmax", functional.log_softmax, x("*b n", "input"), kwargs={"dim": (-1,)}),
    spec("softmax", functional.softmax, Arg(name="input", shape="b n"), kwargs={"dim": (0, 1)}),
    # torch 2.13.0: the jvp of both norms takes mean and 1/std for constants, so reverse over forward loses their terms:
    # 4.64 where differences, reverse over reverse and forward over reverse say 0.75. group_norm is right.
    # torch 2.13.0: hessian's block of weight and x is off (-0.53 for -0.21 at n = 4); jvp or jacrev of its gradient is
    # right, so it is the batching of the second derivative. Likewise batch_norm.
    spec(
        "layer_norm",
        layer_norm,
        x("*b n"),
        x("n", "weight"),
        x("n", "bias"),
        xfail={
            "GV501": "torch's reverse over forward loses the terms of mean and variance",
            "GV509": "torch.func.hessian of a weighted normalisation is wrong",
        },
    ),
    # torch 2.13.0 on the CPU: the gradient of x takes a strided weight for a contiguous one. With every second element
    # of a buffer as the weight, and 99 between, it is off by 189 where the forward agrees to the last bit.
    spec(
        "batch_norm",
        batch_norm,
        x("b c"),
        x("c", "weight"),
        x("c", "bias"),
        dims={"b": Dim(lo=2)},
        xfail={
            "GV203": "torch's backward reads the memory beside a strided weight",
            "GV501": "torch's reverse over forward loses the terms of mean and variance",
            "GV509": "torch.func.hessian of a weighted normalisation is wrong",
        },
    ),
    spec(
        "cross_entropy",
        cross_entropy,
        x("b c"),
        label("b", "c"),
        kwargs={"label_smoothing": (0.0, 0.1)},
    ),
    spec(
        "cosine_embedding_loss",
        cosine_embedding_loss,
        x("b d"),
        x("b d", "y"),
        flag("same", "b"),
        kwargs={"margin": (0.2,)},
    ),
    spec(
        "margin_ranking_loss", margin_ranking_loss, x("b"), x("b", "y"), flag("first", "b"), kwargs={"margin": (0.3,)}
    ),
    spec("multi_margin_loss", functional.multi_margin_loss, x("b c", "input"), label("b", "c"), dims={"c": Dim(lo=2)}),
    spec("conv3d", functional.conv3d, x("b i 3 3 4", "input"), x("o i 2 2 2", "weight")),
    spec("adaptive_avg_pool2d", adaptive_avg_pool2d, x("b c h w")),
    spec("fold", fold, x("b 8 9")),
    spec(
        "attention",
        functional.scaled_dot_product_attention,
        x("b n d", "query"),
        x("b m d", "key"),
        x("b m e", "value"),
    ),
)
