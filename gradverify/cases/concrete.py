"""A spec at tensors that the user holds: shapes and values as they are, nothing drawn but the cotangents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gradverify.cases.annotations import op_parameters
from gradverify.cases.parameters import with_parameters
from gradverify.errors import UsageError
from gradverify.records.described import kind_of
from gradverify.records.nested import Slot, leaves, mapped
from gradverify.records.spec import Arg, Role, Spec, source_of


def spec_at(
    op: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    name: str,
    names: Sequence[str] = (),
    parameters: bool = True,
) -> Spec:
    """The spec of an op at these positional inputs and keywords; tensors may stand in lists, tuples and dicts.

    Differentiated: the floating and complex tensors that require grad, or all of them where none does; with
    `parameters` those of a module, too. The rest is held fixed. `names`: of the inputs, where the op itself does not
    tell them.
    Raises UsageError where no floating tensor is given, and for a Function that is given one in a container.
    """
    names = tuple(names) or names_of(op, len(inputs))
    given = dict(zip(names, inputs, strict=True))
    found = {n: leaf for key, value in given.items() for n, leaf in leaves(value, key)}
    chosen = differentiated(found)
    if parameters and isinstance(op, Module) and _is_whole_call(found, chosen, kwargs) and set(found) == set(names):
        return _of_module(op, found, kwargs, name=name)
    if not chosen:
        raise UsageError(f"{name}: no floating-point tensor among the inputs; give one to differentiate.")
    refuse_containers(op, given, chosen, name=name)
    tensors = {n: t.detach().clone() for n, t in found.items() if isinstance(t, Tensor)}
    whole = len(tensors) == len(inputs) and len(chosen) == _floating(tensors) and set(tensors) == set(names)
    free = tuple(tensors) if whole and not kwargs else chosen
    args = tuple(_arg(n, tensors[n]) for n in free)
    return Spec(
        name=name,
        op=Fixed(op, kwargs) if kwargs else op,
        args=args,
        nested={n: _template(n, value, free) for n, value in given.items() if n not in free},
        order=names,
        inputs=lambda _: {n: tensors[n].clone() for n in free},
        source=source_of(op),
        described_by="from the given tensors",
    )


def _is_whole_call(found: Mapping[str, Any], chosen: Sequence[str], kwargs: Mapping[str, Any]) -> bool:
    """Whether nothing but tensors, all of them drawn from, and scalar keywords is given."""
    tensors = {n: t for n, t in found.items() if isinstance(t, Tensor)}
    scalars = all(v is None or isinstance(v, bool | int | float | str) for v in kwargs.values())
    return scalars and len(tensors) == len(found) and len(chosen) == _floating(tensors)


def _of_module(op: Module, tensors: Mapping[str, Tensor], kwargs: Mapping[str, Any], *, name: str) -> Spec:
    """The spec of a module at its inputs: its parameters are arguments with the values that they have."""
    return with_parameters(
        Spec(
            name=name,
            op=op,
            args=tuple(_arg(n, t) for n, t in tensors.items()),
            kwargs={n: (v,) for n, v in kwargs.items()},
            inputs=lambda _: {n: t.detach().clone() for n, t in tensors.items()},
            source=source_of(type(op)),
            described_by="from the given tensors",
        )
    )


class Fixed:
    """An op as a function of its positional inputs, whose keywords stay as given.

    Floating and complex tensors among them take the precision of the inputs, so that an op can be judged in float64.
    """

    def __init__(self, op: Any, kwargs: Mapping[str, Any]) -> None:
        self.call: Callable[..., Any] = getattr(op, "apply", op) if isinstance(op, type) else op
        self.held = {n: _fixed(v) for n, v in kwargs.items()}

    def around(self, op: Any) -> Fixed:
        """The same held keywords around another op."""
        return Fixed(op, self.held)

    def __call__(self, *given: Any) -> Any:
        """The op at the given inputs."""
        like = next(t for _, t in leaves(given, "") if _is_inexact(t))
        return self.call(*given, **{n: _in_precision(v, like) if _is_inexact(v) else v for n, v in self.held.items()})


def _is_inexact(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _in_precision(t: Tensor, like: Tensor) -> Tensor:
    """A floating or complex tensor in the precision of another, staying real or complex."""
    return t.to(like.dtype.to_complex() if t.is_complex() else like.dtype.to_real())


def _template(name: str, value: Any, free: Sequence[str]) -> Any:
    """What a parameter is given, with a slot for each tensor that is free; fixed floating ones follow its dtype."""
    return mapped(value, name, lambda n, leaf: Slot(n) if n in free else _fixed(leaf))


def _fixed(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def refuse_containers(op: Any, given: Mapping[str, Any], chosen: Sequence[str], *, name: str) -> None:
    """Raise UsageError for a Function that is given a tensor in a container, where autograd does not track it."""
    inside = [n for n in chosen if n not in given]
    if inside and kind_of(getattr(op, "__self__", op)) == "autograd.Function":
        raise UsageError(
            f"{name}: {inside[0]} is a tensor in a container, which autograd.Function does not track: its gradient "
            "would be lost; give every tensor as an argument of its own."
        )


def differentiated(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The floating and complex tensors that require grad, or all of them where none does."""
    floating = {n: t for n, t in found.items() if _is_inexact(t)}
    return tuple(n for n, t in floating.items() if t.requires_grad) or tuple(floating)


def names_of(op: Any, count: int) -> tuple[str, ...]:
    """The names of the op's first `count` parameters; `input0`, `input1`, ... where they cannot be told."""
    owner = getattr(op, "__self__", None)
    whole = owner if isinstance(owner, type) and kind_of(owner) == "autograd.Function" else op
    known = [p.name for p in (op_parameters(whole) or ())][:count]
    return tuple(known) if len(known) == count else tuple(f"input{i}" for i in range(count))


def _floating(tensors: Mapping[str, Tensor]) -> int:
    return sum(map(_is_inexact, tensors.values()))


def _arg(name: str, tensor: Tensor) -> Arg:
    role: Role = "differentiable"
    if not _is_inexact(tensor):
        role = "mask" if tensor.dtype is torch.bool else "integer"
    dtype = None if _is_inexact(tensor) else str(tensor.dtype).removeprefix("torch.")
    return Arg(name=name, shape=" ".join(map(str, tensor.shape)), role=role, dtype=dtype, complex=tensor.is_complex())
