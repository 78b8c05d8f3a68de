"""What a backward returned itself, before torch's engine casts it, sums it to size, or drops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradverify.autodiff.products import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What torch promises of a gradient: all that its input is."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    device: torch.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """One gradient as a Function's backward returned it.

    Attributes:
        argument: name of the leaf that it belongs to, or its position among the inputs of its Function.
        position: where it stood in what was returned.
        alone: whether its Function is the only one of the call.
        gradient: the tensor.
        wanted: what its input is; None where that takes no gradient.
    """

    argument: str
    position: int
    alone: bool
    gradient: Tensor
    wanted: Wanted | None


def functions(tape: Tape) -> tuple[Any, ...]:
    """The nodes of autograd Functions written in Python; torch's own and those in C++ cannot be looked into."""
    return tuple(n for n in tape.nodes() if isinstance(n, torch.autograd.function.BackwardCFunction))


def returned(tape: Tape, cotangents: Sequence[Tensor | None]) -> tuple[Returned, ...]:
    """The gradients that the Functions of a call return for these cotangents; those that are None are left out.

    Raises OpError where the backward raises, or torch refuses what it returned.
    """
    seen = list[tuple[Any, Any]]()

    def told(node: Any, own: Callable[..., Any], us: Sequence[Any]) -> Any:
        out = own(*us)
        seen.append((node, out))
        return out

    with watched(tape, told):
        tape.vjp(cotangents)
    names = {id(leaf): name for name, leaf in tape.leaves.items()}
    alone = len(functions(tape)) == 1
    return tuple(r for node, out in seen for r in _of(node, out, names, alone=alone))


@contextmanager
def watched(tape: Tape, around: Callable[[Any, Callable[..., Any], Sequence[Any]], Any]) -> Iterator[None]:
    """Calls `around(node, own, cotangents)` in the place of the backward `own` of each Function of a call.

    The engine asks a node for `apply`, and finds ours on the instance before its class's.
    """
    nodes = functions(tape)
    for node in nodes:
        node.apply = _instead(node, node.apply, around)
    try:
        yield
    finally:
        for node in nodes:
            del node.apply


def _instead(node: Any, own: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*cotangents: Any) -> Any:
        return around(node, own, cotangents)

    return apply


def _of(node: Any, out: Any, names: dict[int, str], *, alone: bool) -> Iterator[Returned]:
    for i, (gradient, (following, place)) in enumerate(
        zip(out if isinstance(out, tuple) else (out,), node.next_functions, strict=False)
    ):
        if isinstance(gradient, Tensor):
            leaf = getattr(following, "variable", None)
            yield Returned(
                argument=names.get(id(leaf), f"input {i} of {type(node).__name__.removesuffix('Backward')}"),
                position=i,
                alone=alone,
                gradient=gradient,
                wanted=None if following is None else _wanted(following._input_metadata[place]),  # noqa: SLF001 torch shows it nowhere else
            )


def _wanted(m: Any) -> Wanted:
    return Wanted(dtype=m.dtype, shape=tuple(m.shape), device=m.device)
