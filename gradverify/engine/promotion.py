"""A callable and its inputs in float64, where it accepts that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradverify.cases.modules import copied, differs
from gradverify.engine.verify import FINE


def promoted(
    func: Callable[..., Any], given: tuple[Any, ...], free: Sequence[int]
) -> tuple[Callable[..., Any], tuple[Any, ...], list[str]]:
    """The function and its inputs in float64 where it accepts that, and what to say about it.

    A module is copied: the user's own keeps its dtype and its buffers.
    """
    low = [i for i in free if given[i].dtype not in (torch.float64, torch.complex128)]
    own = copied(func, FINE)
    dtype = str(given[low[0]].dtype).removeprefix("torch.") if low else ""
    wide = "complex128" if dtype.startswith("complex") else FINE
    notes = [f"inputs are {dtype}, judged in {wide}"] if low else []
    notes += ["the module, as a float64 copy"] if differs(func, FINE) else []
    if not low:
        return own, given, notes
    point = tuple(_double(t) if isinstance(t, Tensor) else t for t in given)
    try:
        with torch.no_grad():
            own(*point)
    except Exception as error:  # noqa: BLE001 whatever an op raises on float64 means that it refuses it
        if not _runs(func, given):
            return func, given, []
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return func, given, [f"judged in {dtype}, at lower resolution: the op refuses float64 ({said})"]
    return own, point, notes


def _runs(func: Callable[..., Any], given: tuple[Any, ...]) -> bool:
    """Whether the op takes the inputs as they are: one that raises on them too does not refuse float64."""
    try:
        with torch.no_grad():
            func(*given)
    except Exception:  # noqa: BLE001 what it raises is reported where it is judged
        return False
    return True


def narrowed(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs with each float64 tensor in float32, and each complex128 one in complex64."""
    narrow = {torch.float64: torch.float32, torch.complex128: torch.complex64}
    return tuple(_cast(t, narrow.get(t.dtype, t.dtype)) if isinstance(t, Tensor) else t for t in given)


def _double(tensor: Tensor) -> Tensor:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return _cast(tensor, wide)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)
