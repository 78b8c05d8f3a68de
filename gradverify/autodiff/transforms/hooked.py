"""Gradients of an op whose saved tensors pass through hooks; and the tensors that it keeps where no hook sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from gradverify.autodiff.calling import clone_exactly, is_inexact
from gradverify.autodiff.products import Tape

FLOAT32 = 2.0**-24
"""Unit roundoff of float32."""

FEW_NUMBERS = 8
"""An integer tensor of so many elements or fewer is metadata, a shape say, and worth no hook."""


def as_copies() -> AbstractContextManager[None]:
    """Hooks that keep a copy in memory of its own and hand out a fresh copy of that, in the order of the original."""
    return torch.autograd.graph.saved_tensors_hooks(_copy, clone_exactly)


def as_contiguous() -> AbstractContextManager[None]:
    """Hooks that hand out contiguous tensors, as save_on_cpu(pin_memory=True) does on a machine with a GPU."""
    return torch.autograd.graph.saved_tensors_hooks(_copy, _contiguous)


def as_float32() -> AbstractContextManager[None]:
    """Hooks that keep float32, and hand that out as it is: half of the memory, and half of the digits."""
    return torch.autograd.graph.saved_tensors_hooks(_narrow, clone_exactly)


def as_spoilt() -> AbstractContextManager[None]:
    """Hooks that hand out NaN, the other truth values, or zeros."""
    return torch.autograd.graph.saved_tensors_hooks(_copy, _spoilt)


def of_python(tape: Tape) -> bool:
    """Whether a Function written in Python recorded anything."""
    return any(True for _ in _own(tape))


def keeps_numbers(tape: Tape) -> bool:
    """Whether a context holds numbers of its own, which no hook is meant to see."""
    return any(
        isinstance(v, float) or any(not _counts(t) for t in _tensors(v)) for n in _own(tape) for v in vars(n).values()
    )


def _narrow(t: Tensor) -> Tensor:
    return t.detach().to(torch.complex64 if t.is_complex() else torch.float32) if is_inexact(t) else _copy(t)


def _copy(t: Tensor) -> Tensor:
    return t.detach().clone(memory_format=torch.preserve_format)


def _contiguous(t: Tensor) -> Tensor:
    return t.clone(memory_format=torch.contiguous_format)


def kept(tape: Tape) -> dict[str, int]:
    """Attribute -> number of elements in the tensors that the op's own Functions keep there, past saved tensors."""
    found: dict[str, int] = {}
    for node in _own(tape):
        for name, value in vars(node).items():
            size = sum(t.numel() for t in _tensors(value) if _counts(t))
            if size:
                found[name] = found.get(name, 0) + size
    return found


def spoil(tape: Tape, name: str) -> None:
    """Put other tensors of the same shapes into that attribute; what depends on it then shows."""
    for node in _own(tape):
        if name in vars(node):
            setattr(node, name, _mapped(vars(node)[name], _spoilt))


def _own(tape: Tape) -> Iterator[Any]:
    return (n for n in tape.nodes() if isinstance(n, torch.autograd.function.BackwardCFunction))


def _counts(t: Tensor) -> bool:
    if t.dtype is torch.uint8 and t.shape == torch.default_generator.get_state().shape:
        return False  # the state of a generator, which has one size whatever the inputs
    return t.numel() > (1 if is_inexact(t) or t.dtype is torch.bool else FEW_NUMBERS)


def _spoilt(t: Tensor) -> Tensor:
    """NaN, the other truth values, or zeros, which are safe as indices."""
    if is_inexact(t):
        return torch.full_like(t, float("nan"))
    return ~t if t.dtype is torch.bool else torch.zeros_like(t)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: _mapped(v, change) for k, v in value.items()}
    return type(value)(_mapped(v, change) for v in value) if type(value) in (list, tuple) else value
