"""The op as a function of some of its tensors alone, which is what torch's transforms take; and what they refuse."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor

from gradverify.autodiff.calling import bare
from gradverify.autodiff.products import dense
from gradverify.errors import OpError
from gradverify.records.case import Point
from gradverify.records.spec import Spec

Outputs = tuple[Tensor, ...]
Pure = Callable[..., Outputs]
Gradients = Mapping[str, Tensor | None]

NO_SETUP = "the op has no setup_context, which torch.func needs"
NO_RULE = "the op has neither a vmap of its own nor generate_vmap_rule"

UNSUPPORTED = MappingProxyType(
    {
        "it must override the setup_context staticmethod": NO_SETUP,
        "does not have vmap support": NO_RULE,
        "You must implement the jvp function": "the op has no jvp",
        "Trying to use forward AD with": "",
        "This is unsupported": "",
        "Cannot access data pointer of Tensor": "",
        "Cannot access storage of": "",
        "Batching rule not implemented": "",
        "to be real but received complex": "torch.func's Jacobians take no complex numbers",
        "vmap:": "",
    }
)
"""What torch 2.11 to 2.13 says where it cannot transform a function, however right; and in our words, if it is long."""


def lacking(op: object) -> dict[str, str]:
    """Claims about transforms that a Function has not what torch needs for -> what that is."""
    function = torch.autograd.Function
    if not (isinstance(op, type) and issubclass(op, function)):
        return {}
    if op.setup_context is function.setup_context:
        return {"transforms.vmap": NO_SETUP, "transforms.func": NO_SETUP}
    return {} if op.generate_vmap_rule or op.vmap is not function.vmap else {"transforms.vmap": NO_RULE}


class TransformError(Exception):
    """The op, or torch on its way through the op, raised under a transform: the first line of what was said, or why.

    `refused`: torch says that it cannot transform the op, which is no statement about the op's derivatives.
    """

    def __init__(self, said: str, *, refused: bool) -> None:
        super().__init__(said)
        self.refused = refused


@contextmanager
def transforming() -> Iterator[None]:
    """Turns whatever is raised into TransformError; silences torch's hints on speed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            said = first_line(error)
            reasons = [reason or said for words, reason in UNSUPPORTED.items() if words in said]
            raise TransformError(reasons[0] if reasons else said, refused=bool(reasons)) from error


def function_of(spec: Spec, point: Point, names: Sequence[str], keep: Sequence[int] | None = None) -> Pure:
    """The op as a function of the tensors `names`, the others as in `point`; only the outputs `keep`, or all."""
    called = bare(spec)

    def function(*tensors: Tensor) -> Outputs:
        outputs = called({**point.primals, **dict(zip(names, tensors, strict=True))}, point.kwargs)
        return tuple(outputs) if keep is None else tuple(outputs[i] for i in keep)

    return function


def pulled(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], us: Sequence[Tensor] | None = None, **how: bool
) -> tuple[Tensor | None, ...]:
    """torch.autograd.grad; None where nothing flows."""
    return tuple(map(dense, torch.autograd.grad(outputs, inputs, us, allow_unused=True, **how)))


def first_line(error: BaseException) -> str:
    """`RuntimeError: the first line of what was said`, of what the op raised where it came wrapped."""
    cause = error.__cause__ if isinstance(error, OpError) and error.__cause__ is not None else error
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0]}".rstrip(": ")
