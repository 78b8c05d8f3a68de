"""Right gradients made wrong in known ways: what a diagnosis must name, and must not take for something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import Function

from gradverify.records.spec import Dim, Spec
from tests.faults.record import arg


@dataclass(frozen=True, kw_only=True, eq=False)
class Op:
    """A right op; the gradient of the argument `spoilt` is made wrong."""

    name: str
    function: Callable[..., torch.Tensor]
    shapes: dict[str, str]
    spoilt: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Injection:
    """A way to be wrong: what becomes of the cotangent, or of the gradient; and the code that names it.

    `where`: whether it makes sense for an op. `spoil(gradient, by_name, inputs)` returns the wrong gradient.
    """

    name: str
    code: str
    said: str
    cotangent: Callable[[Any], Any] = lambda u: u
    spoil: Callable[..., Any] = lambda g, every, x: g
    where: Callable[[Op], bool] = lambda op: True


OPS = (
    Op(name="product", function=lambda x, y: x * y.sin(), shapes={"x": "b n", "y": "b n"}, spoilt="y"),
    Op(name="affine", function=lambda x, w, c: x * w + c, shapes={"x": "b n", "w": "n", "c": "n"}, spoilt="w"),
    Op(name="matmul", function=lambda x, w: x @ w, shapes={"x": "b k", "w": "k n"}, spoilt="w"),
    Op(name="softmax", function=lambda x, w: (x * w).softmax(-1), shapes={"x": "b n", "w": "n"}, spoilt="x"),
    Op(
        name="rms norm",
        function=lambda x, w: w * x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt(),
        shapes={"x": "b n", "w": "n"},
        spoilt="x",
    ),
    Op(name="form", function=lambda x, a: (x @ a).tanh(), shapes={"x": "b n", "a": "n n"}, spoilt="a"),
)


def _row(g, start, stop, factor):
    out = g.clone()
    out[start:stop] = factor * out[start:stop]
    return out


def _pushed(g):
    out = g.roll(1, 0)
    out[0] = 0
    return out


def _first(u):
    out = torch.zeros_like(u)
    out[0] = u[0]
    return out


def _without_last(u):
    out = u.clone()
    out[-1] = 0
    return out


def _is_summed(op):
    """Elsewhere a part of the cotangents is the same part of the gradient, and either may be named."""
    return not _shape_of_output(op)


def _shape_of_output(op):
    return op.name in ("product", "softmax", "rms norm")


INJECTIONS = (
    Injection(name="twice", code="GV101", said="2 x the true", spoil=lambda g, *_: 2 * g),
    Injection(name="half", code="GV101", said="0.5 x the true", spoil=lambda g, *_: g / 2),
    Injection(name="log 2", code="GV101", said="(log 2)", spoil=lambda g, *_: 0.6931471805599453 * g),
    Injection(name="off by 1e-4", code="GV101", said="1.0001 x the true", spoil=lambda g, *_: 1.0001 * g),
    Injection(name="by the batch", code="GV101", said="(1/b)", spoil=lambda g, e, x: g / len(x[0])),
    Injection(name="by root n", code="GV101", said="x the true", spoil=lambda g, e, x: g * x[0].shape[-1] ** 0.5),
    Injection(name="sign", code="GV102", said="-1 x the true", spoil=lambda g, *_: -g),
    Injection(name="none", code="GV103", said="returns None", spoil=lambda g, *_: None),
    Injection(name="zeros", code="GV103", said="returns zeros", spoil=lambda g, *_: 0 * g),
    Injection(name="last dropped", code="GV104", said="zeros; all else", spoil=lambda g, *_: _row(g, -1, None, 0)),
    Injection(name="first twice", code="GV104", said="2 x the truth", spoil=lambda g, *_: _row(g, 0, 1, 2)),
    Injection(name="tail dropped", code="GV104", said="zeros; all else", spoil=lambda g, *_: _row(g, 2, None, 0)),
    Injection(
        name="transposed", code="GV105", said="transposed",
        spoil=lambda g, *_: g.T if g.shape == g.T.shape else g, where=lambda op: op.name == "form",
    ),
    Injection(name="flipped", code="GV105", said="flipped along axis 0", spoil=lambda g, *_: g.flip(0)),
    Injection(name="rolled", code="GV105", said="shifted by one", spoil=lambda g, *_: g.roll(1, 0)),
    Injection(name="pushed", code="GV105", said="and zero at the end", spoil=lambda g, *_: _pushed(g)),
    Injection(
        name="another's", code="GV106", said="the gradient of `x` for `y`", spoil=lambda g, e, x: e[0],
        where=lambda op: op.name == "product",
    ),
    Injection(name="first row alone", code="GV107", said="only the first index", cotangent=_first, where=_is_summed),
    Injection(name="ones", code="GV108", said="is ignored", cotangent=torch.ones_like),
    Injection(name="squared", code="GV108", said="applied twice", cotangent=torch.square),
    Injection(name="absolute", code="GV108", said="loses its sign", cotangent=torch.abs),
    Injection(name="sign of it", code="GV108", said="by its sign alone", cotangent=torch.sign),
    Injection(name="clipped", code="GV108", said="is clipped", cotangent=lambda u: u.clamp(-1, 1)),
    Injection(name="mean", code="GV108", said="its mean", cotangent=lambda u: u.mean().expand_as(u)),
    Injection(name="last row left out", code="GV104", said="left out", cotangent=_without_last, where=_is_summed),
    Injection(
        name="u added", code="GV199", said="has u too much", spoil=lambda g, e, x: g + x[-1], where=_shape_of_output,
    ),
    Injection(name="decay added", code="GV199", said="too much", spoil=lambda g, e, x: g + 0.125 * e[-1]),
    Injection(
        name="bfloat16", code="GV199", said="is a bfloat16 number", spoil=lambda g, *_: g.bfloat16().double(),
    ),
    Injection(name="garbage", code="", said="", spoil=lambda g, *_: g + 0.1 * (g.cumsum(0) * 7).sin()),
    Injection(name="cubed", code="", said="", spoil=lambda g, *_: g + g**3),
)  # fmt: skip
"""The last ones have no name: nothing may be said of them."""


def spec_of(op: Op, injection: Injection) -> Spec:
    """The op with its gradient made wrong."""

    class Wrong(Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return op.function(*inputs)

        @staticmethod
        def backward(ctx, u):
            names = list(op.shapes)
            at = names.index(op.spoilt)
            inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            with torch.enable_grad():
                y = op.function(*inputs)
            right = list(torch.autograd.grad(y, inputs, u, retain_graph=True))
            other = torch.autograd.grad(y, inputs[at], injection.cotangent(u))[0]
            saved = [*(t.detach() for t in inputs), u]
            extra = [*right[:at], *right[at + 1 :], inputs[at].detach()]
            right[at] = injection.spoil(other, extra, saved)
            return tuple(right)

    letters = {c for s in op.shapes.values() for c in s.split()}
    return Spec(
        name=f"{op.name} {injection.name}",
        op=Wrong,
        args=tuple(arg(n, s) for n, s in op.shapes.items()),
        dims={c: Dim(lo=2) for c in letters},
    )
