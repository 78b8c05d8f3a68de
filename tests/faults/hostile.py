"""Ops that are no ops: they raise, return no tensor, NaN everywhere, the wrong number or shape of gradients.

Each lists the claim that meets it first, the outcomes that are right there, and the codes that say why.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.autograd import Function

from gradverify.records.spec import Spec
from tests.faults.record import NONEMPTY, arg


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """An op that cannot be verified, and what has to be said about it."""

    name: str
    spec: Spec
    claim: str = "vjp"
    outcomes: tuple[str, ...]
    codes: tuple[str, ...]


def raises(x):
    raise ValueError("no kernel for this size")


class RaisesInBackward(Function):
    @staticmethod
    def forward(ctx, x):
        return torch.sin(x)

    @staticmethod
    def backward(ctx, g):
        raise NotImplementedError("backward is not written")


def returns_a_number(x):
    return float(x.sum())


def returns_nothing(x):
    x.sin()


def returns_a_dict_of_numbers(x):
    return {"y": float(x.sum()), "why": None}


class DictOfAFunction(Function):
    @staticmethod
    def forward(ctx, x):
        return {"y": torch.sin(x)}

    @staticmethod
    def backward(ctx, g):
        return g


class OneGradientForTwo(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx, g):
        _, y = ctx.saved_tensors
        return g * y


class ElevenGradientsForThree(Function):
    @staticmethod
    def forward(ctx, x, y, z):
        return x + y + z

    @staticmethod
    def backward(ctx, g):
        return (g,) * 11


class GradientOfTheWrongShape(Function):
    """The gradient of a row sum keeps the shape of the sum: [b n] -> [b]."""

    @staticmethod
    def forward(ctx, x):
        return x.sum(-1)

    @staticmethod
    def backward(ctx, g):
        return g


class GradientIsNoTensor(Function):
    @staticmethod
    def forward(ctx, x):
        return torch.sin(x)

    @staticmethod
    def backward(ctx, g):
        return 1.0


class GradientNaN(Function):
    @staticmethod
    def forward(ctx, x):
        return torch.sin(x)

    @staticmethod
    def backward(ctx, g):
        return g * torch.nan


def forward_nan(x):
    return x * torch.nan


class Float32Only(Function):
    """A kernel compiled for float32 alone."""

    @staticmethod
    def forward(ctx, x):
        if x.dtype != torch.float32:
            raise RuntimeError(f"expected scalar type Float but found {x.dtype}")
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.cos(x)


class WantsContiguous(Function):
    """Demands a contiguous cotangent with `view`, and raises otherwise (pytorch/pytorch#175084)."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g.view(-1).view(g.shape)


def detached(x):
    return torch.sin(x.detach())


def only_integers(x):
    return x.sign().long()


def _spec(op, *shapes, **fields):
    names = ("x", "y", "z")[: len(shapes)]
    args = tuple(arg(n, s) for n, s in zip(names, shapes, strict=True))
    dims = {letter: NONEMPTY for s in shapes for letter in s.split()}
    return Spec(name=f"hostile_{getattr(op, '__name__', 'op')}", op=op, args=args, dims=dims, **fields)


def _hostile(name, spec, *codes, outcomes=("ERROR",), claim="vjp"):
    return Hostile(name=name, spec=spec, claim=claim, outcomes=outcomes, codes=codes)


WRONG = ("ERROR", "FAIL")

HOSTILE = (
    _hostile("raises", _spec(raises, "n"), "GV902"),
    _hostile("raises_in_backward", _spec(RaisesInBackward, "n"), "GV902"),
    _hostile("returns_a_number", _spec(returns_a_number, "n"), "GV903"),
    _hostile("returns_nothing", _spec(returns_nothing, "n"), "GV903"),
    _hostile("returns_a_dict_of_numbers", _spec(returns_a_dict_of_numbers, "n"), "GV903"),
    _hostile("dict_of_a_function", _spec(DictOfAFunction, "n"), "GV903"),
    _hostile("only_integers", _spec(only_integers, "n"), "GV903", outcomes=("ERROR", "INCONCLUSIVE")),
    _hostile("one_gradient_for_two", _spec(OneGradientForTwo, "n", "n"), "GV109", "GV902", outcomes=WRONG),
    _hostile("eleven_for_three", _spec(ElevenGradientsForThree, "n", "n", "n"), "GV109", "GV902", outcomes=WRONG),
    _hostile("wrong_shape", _spec(GradientOfTheWrongShape, "b n"), "GV109", outcomes=WRONG),
    _hostile("no_tensor", _spec(GradientIsNoTensor, "n"), "GV109", "GV902", outcomes=WRONG),
    _hostile("gradient_nan", _spec(GradientNaN, "n"), "GV111", outcomes=("FAIL",)),
    _hostile("forward_nan", _spec(forward_nan, "n"), outcomes=("FAIL", "INCONCLUSIVE")),
    _hostile("float32_only", _spec(Float32Only, "n"), "GV904", outcomes=("ERROR", "INCONCLUSIVE", "SKIP")),
    _hostile("wants_contiguous", _spec(WantsContiguous, "b n"), "GV203", "GV902", outcomes=WRONG, claim="layout"),
    _hostile("detached", _spec(detached, "n"), "GV103", "GV199", "GV505", outcomes=("FAIL",)),
)
