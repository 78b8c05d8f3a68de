"""Torch's global modes around a call: inference, and memory that is filled before it is handed out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

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


def overwrite(t: Tensor, values: Tensor) -> bool:
    """Change a tensor in place as an optimizer does, unseen by the graph. False where torch refuses, as for a view."""
    try:
        with torch.no_grad():
            t.copy_(values)
    except RuntimeError:
        return False
    return True
