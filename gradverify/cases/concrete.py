"""A spec at tensors that the user holds: shapes and values as they are, nothing drawn but the cotangents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradverify.cases.annotations import op_parameters
from gradverify.errors import UsageError
from gradverify.records.spec import Arg, Role, Spec, source_of


def spec_at(op: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any], *, name: str) -> Spec:
    """The spec of an op at these positional inputs and keywords.

    Differentiated: the floating tensors that require grad, or all of them where none does. The rest is held fixed.
    Raises UsageError where no floating tensor is given.
    """
    names = names_of(op, len(inputs))
    chosen = differentiated(inputs)
    if not chosen:
        raise UsageError(f"{name}: no floating-point tensor among the inputs; give one to differentiate.")
    tensors = {names[i]: t.detach().clone() for i, t in enumerate(inputs) if isinstance(t, Tensor)}
    call = Fixed(op, inputs, kwargs, chosen)
    whole = len(tensors) == len(inputs) and len(chosen) == _floating(inputs) and not kwargs
    args = tuple(_arg(n, t) for n, t in tensors.items() if whole or n in {names[i] for i in chosen})
    return Spec(
        name=name,
        op=op if whole else call,
        args=args,
        inputs=lambda _: {a.name: tensors[a.name].clone() for a in args},
        source=source_of(op),
        described_by="from the given tensors",
    )


class Fixed:
    """An op as a function of some of its positional inputs, in order; the others, and the keywords, stay as given.

    Fixed floating tensors take the dtype of the inputs, so that an op can be judged in float64.
    """

    def __init__(self, op: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any], free: Sequence[int]) -> None:
        self.call: Callable[..., Any] = getattr(op, "apply", op) if isinstance(op, type) else op
        self.held = tuple(i.detach().clone() if isinstance(i, Tensor) else i for i in inputs)
        self._kwargs = dict(kwargs)
        self._free = tuple(free)

    def around(self, op: Any) -> Fixed:
        """The same held inputs around another op."""
        return Fixed(op, self.held, self._kwargs, self._free)

    def __call__(self, *given: Tensor) -> Any:
        """The op at the given tensors."""
        dtype = given[0].dtype
        values = [_cast(v, dtype) for v in self.held]
        for position, tensor in zip(self._free, given, strict=True):
            values[position] = tensor
        return self.call(*values, **{n: _cast(v, dtype) for n, v in self._kwargs.items()})


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def differentiated(inputs: Sequence[Any]) -> tuple[int, ...]:
    """Positions of the floating tensors that require grad, or of all floating tensors where none does."""
    floating = [i for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.is_floating_point()]
    marked = [i for i in floating if inputs[i].requires_grad]
    return tuple(marked or floating)


def names_of(op: Any, count: int) -> tuple[str, ...]:
    """The names of the op's first `count` parameters; `input0`, `input1`, ... where they cannot be told."""
    known = [p.name for p in (op_parameters(op) or ())][:count]
    return tuple(known) if len(known) == count else tuple(f"input{i}" for i in range(count))


def _floating(inputs: Sequence[Any]) -> int:
    return sum(isinstance(t, Tensor) and t.is_floating_point() for t in inputs)


def _arg(name: str, tensor: Tensor) -> Arg:
    role: Role = "differentiable"
    if not tensor.is_floating_point():
        role = "mask" if tensor.dtype is torch.bool else "integer"
    dtype = None if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return Arg(name=name, shape=" ".join(map(str, tensor.shape)), role=role, dtype=dtype)
