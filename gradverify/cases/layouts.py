"""Memory layouts: the same values, elsewhere in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from gradverify.errors import UsageError

DECOY = 3.25
"""Stands in the gaps between the elements of a sliced tensor: an op that ignores strides reads it."""

LAZY = "lazy"
"""A view that torch has not resolved: of conjugates for complex numbers, of negatives for real ones."""

STRIDE_ZERO = "stride0"
"""All strides are 0, as in the cotangent of `sum().backward()`; for cotangents only."""


def with_layout(tensor: Tensor, name: str) -> Tensor:
    """The same values in another memory layout; always fresh memory.

    `expanded` needs values that are constant along `repeated_axis`, `stride0` values that are all equal; where they
    are not, and where a layout means nothing for the shape (a scalar has no axes), the result is contiguous.
    Raises UsageError for a name that is no layout.
    """
    if name not in _LAYOUTS:
        raise UsageError(f"layout {name!r} is unknown; the layouts are {', '.join(_LAYOUTS)}.")
    return _LAYOUTS[name](tensor.detach())


def possible(shape: tuple[int, ...], name: str) -> bool:
    """Whether a layout differs from the contiguous one for a tensor of this shape."""
    if math.prod(shape) == 0:
        return name == "contiguous"
    match name:
        case "transposed":
            return len(shape) > 1 and min(shape[-2:]) > 1
        case "permuted":
            return len(shape) > 2 and sum(n > 1 for n in shape) > 1
        case "channels_last":
            return len(shape) in (4, 5) and shape[1] > 1 and max(shape[2:]) > 1
        case "expanded":
            return max(shape, default=1) > 1
        case _:
            return name != STRIDE_ZERO


def repeated_axis(shape: tuple[int, ...]) -> int | None:
    """The axis that `expanded` gives stride 0: the first with two elements or more; None where there is none."""
    return next((i for i, n in enumerate(shape) if n > 1), None)


def repeat(tensor: Tensor, axis: int | None) -> Tensor:
    """Its first slice along the axis, in every place of the axis; contiguous."""
    if axis is None or tensor.numel() == 0:
        return tensor
    return tensor.narrow(axis, 0, 1).expand(tensor.shape).contiguous()


def _contiguous(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.mT.clone(memory_format=torch.contiguous_format).mT if tensor.ndim > 1 else _contiguous(tensor)


def _permuted(tensor: Tensor) -> Tensor:
    axes = tuple(reversed(range(tensor.ndim)))
    return tensor.permute(axes).clone(memory_format=torch.contiguous_format).permute(axes)


def _sliced(tensor: Tensor) -> Tensor:
    if tensor.ndim == 0:
        return _offset(tensor)
    room = _filled(tensor, (*tensor.shape[:-1], 2 * tensor.shape[-1] + 1))
    view = room[..., 1::2]
    view.copy_(tensor)
    return view


def _offset(tensor: Tensor) -> Tensor:
    room = _filled(tensor, (tensor.numel() + 1,))
    room[1:].copy_(tensor.reshape(-1))
    return room[1:].view(tensor.shape)


def _filled(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    # An integer may be an index, where a decoy would read outside the memory of another tensor.
    decoy = DECOY if tensor.is_floating_point() or tensor.is_complex() else 0
    return torch.full(shape, decoy, dtype=tensor.dtype, device=tensor.device)


def _expanded(tensor: Tensor) -> Tensor:
    axis = repeated_axis(tuple(tensor.shape))
    if axis is None or tensor.numel() == 0 or not _equal(repeat(tensor, axis), tensor):
        return _contiguous(tensor)
    return _contiguous(tensor.narrow(axis, 0, 1)).expand(tensor.shape)


def _stride_zero(tensor: Tensor) -> Tensor:
    if tensor.numel() == 0:
        return _contiguous(tensor)
    first = tensor[(0,) * tensor.ndim].clone().expand(tensor.shape)
    return first if _equal(first, tensor) else _contiguous(tensor)


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _lazy(tensor: Tensor) -> Tensor:
    plain = _contiguous(tensor.resolve_conj().resolve_neg())
    if tensor.is_complex():
        return plain.conj_physical().conj()
    # What torch makes of the imaginary part of conjugates, but for the gaps that this would leave.
    return torch._neg_view(-plain) if tensor.is_floating_point() else plain  # noqa: SLF001


def _channels_last(tensor: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.clone(memory_format=formats.get(tensor.ndim, torch.contiguous_format))


_LAYOUTS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "contiguous": _contiguous,
        "transposed": _transposed,
        "permuted": _permuted,
        "sliced": _sliced,
        "offset": _offset,
        "expanded": _expanded,
        "channels_last": _channels_last,
        STRIDE_ZERO: _stride_zero,
        LAZY: _lazy,
    }
)
