"""An op under torch.autocast: what it computes in a narrow dtype, and whether backward keeps the state of forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.autodiff.returned import functions, watched
from gradverify.autodiff.transforms.dispatched import EachOp, tensors_in
from gradverify.autodiff.transforms.pure import TransformError, transforming

NARROW = torch.bfloat16
"""The dtype that autocast computes in here: it has the range of float32, so that nothing overflows that did not."""

MARK = "_fwd_used_autocast"
"""What torch.amp.custom_fwd leaves on ctx, and custom_bwd reads."""


def autocast(device: str, *, enabled: bool = True) -> torch.autocast:
    """Autocast to NARROW on the device."""
    return torch.autocast(torch.device(device).type, dtype=NARROW, enabled=enabled)


@contextmanager
def narrowed() -> Iterator[list[int]]:
    """The numbers of elements of the tensors that were made in NARROW within, filled as they are made."""
    seen: list[int] = []
    with EachOp(lambda out: seen.extend(t.numel() for t in tensors_in(out) if t.dtype is NARROW)):
        yield seen


def minded(tape: Tape) -> bool:
    """Whether a Function of the call is marked to run its backward under autocast, as its forward did."""
    return any(getattr(node, MARK, False) for node in functions(tape))


@dataclass(frozen=True, slots=True, kw_only=True)
class InBothStates:
    """The backward of one Function, run twice on the same cotangents: outside of autocast, and inside.

    Attributes:
        name: of the Function.
        declared: whether its forward is marked `custom_fwd`, which says that it minds autocast.
        differ: elements of its gradients that are not the same.
        error: what it raised inside alone.
    """

    name: str
    declared: bool
    differ: int = 0
    error: TransformError | None = None


def in_both_states(tape: Tape, us: Sequence[Tensor | None], device: str) -> list[InBothStates]:
    """The backward of each Function of a call. Raises what it raises outside of autocast."""
    found: list[InBothStates] = []

    def twice(node: Any, own: Callable[..., Any], cotangents: Sequence[Any]) -> Any:
        name, declared = type(node).__name__.removesuffix("Backward"), hasattr(node, MARK)
        out = own(*cotangents)
        try:
            with transforming(), autocast(device):
                differ = _differ(out, own(*cotangents))
        except TransformError as error:
            found.append(InBothStates(name=name, declared=declared, error=error))
        else:
            found.append(InBothStates(name=name, declared=declared, differ=differ))
        return out

    with watched(tape, twice):
        tape.vjp(us)
    return found


def _differ(a: Any, b: Any) -> int:
    """Elements that are not equal, NaN being itself, in value or in dtype."""
    pairs = zip(_several(a), _several(b), strict=True)
    return sum(_unequal(x, y) for x, y in pairs)


def _several(out: Any) -> Sequence[Any]:
    return out if isinstance(out, tuple) else (out,)


def _unequal(a: Any, b: Any) -> int:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return int(isinstance(a, Tensor) or isinstance(b, Tensor))
    if a.shape != b.shape or a.dtype != b.dtype:
        return max(a.numel(), b.numel())
    return int(((a != b) & ~((a != a) & (b != b))).sum())
