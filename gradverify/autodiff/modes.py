"""Torch's global modes around a call: inference, and memory that is filled before it is handed out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradverify.autodiff.calling import Called, Primals


def inferred(called: Called, primals: Primals, kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The outputs under `torch.inference_mode`, as ordinary tensors."""
    with torch.inference_mode():
        outputs = called(primals, kwargs)
    return tuple(y.clone() for y in outputs)


@contextmanager
def deterministic(*, fill: bool) -> Iterator[None]:
    """Torch's deterministic algorithms; where `fill`, memory of its own `empty` holds NaN until it is written.

    Integers hold the largest one. Where there is no such algorithm torch would warn, and is not let to. All settings
    are put back, also after an exception. Buffers of other allocators (numpy, a kernel's own) are not filled.
    """
    mode = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # What use_deterministic_algorithms(True, warn_only=True) sets, less its import of torch's compiler.
            torch.set_deterministic_debug_mode("warn")
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


class Ones(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """For as long as it is entered, memory that Python code asks torch for holds ones: another fill, and a finite one.

    Without any it would hold what the call before left there.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an operator of torch's."""
        out = func(*args, **(kwargs or {}))
        return out.fill_(1) if func.overloadpacket in _FRESH else out


_FRESH = frozenset(
    (
        torch.ops.aten.empty,
        torch.ops.aten.empty_like,
        torch.ops.aten.empty_strided,
        torch.ops.aten.new_empty,
        torch.ops.aten.new_empty_strided,
    )
)


def overwrite(t: Tensor, values: Tensor) -> bool:
    """Change a tensor in place as an optimizer does, unseen by the graph. False where torch refuses, as for a view."""
    try:
        with torch.no_grad():
            t.copy_(values)
    except RuntimeError:
        return False
    return True
