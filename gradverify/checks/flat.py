"""Tensors as one flat float64 vector and back: the form in which numerics sees an op.

A complex tensor is the pair of its real and imaginary parts, one after the other, which are two parts of the vector:
`Re z` and `Im z`. Torch's gradient of a real L by z is dL/dRe z + i dL/dIm z, so the parts of the gradient are the
gradients of the parts, and Re <u, y> = <Re u, Re y> + <Im u, Im y> is the inner product of the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradverify.numerics.problem import Part

Array = npt.NDArray[np.float64]

PARTS = ("Re", "Im")


def array(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Array:
    """The tensors one after the other, [n] float64; a missing one is zeros of its like."""
    pieces = [zeros(t) if g is None else _as(flat(g), g, t) for g, t in zip(tensors, like, strict=True)]
    if len(pieces) == 1:
        return np.array(pieces[0])
    return np.concatenate(pieces) if pieces else np.zeros(0)


def _as(values: Array, found: Tensor, like: Tensor) -> Array:
    """The values as those of a complex tensor where `like` is one: a real one has no imaginary part."""
    if found.is_complex() or not like.is_complex():
        return values
    return np.concatenate([values, np.zeros_like(values)])


def flat(t: Tensor) -> Array:
    """One tensor, [n] float64; a complex one has 2n, the real parts first."""
    t = t.detach()
    t = t if t.layout == torch.strided else t.to_dense()
    if t.is_complex():
        t = t.resolve_conj().resolve_neg().cpu()
        return np.concatenate([_real(t.real), _real(t.imag)])
    return _real(t)


def _real(t: Tensor) -> Array:
    # force: what forward mode knows to be zero is a tensor without memory, which numpy refuses otherwise.
    whole: Array = t.to(torch.float64).numpy(force=True)
    return whole.reshape(-1)


def size(t: Tensor) -> int:
    """How many real numbers a tensor holds."""
    return t.numel() * (1 + t.is_complex())


def zeros(t: Tensor) -> Array:
    """As many zeros."""
    return np.zeros(size(t))


def tensors(vector: Array, like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `array`: contiguous tensors like `like` in shape, dtype and device; views where they can be."""
    out, start = [], 0
    for t in like:
        piece = torch.from_numpy(vector[start : start + size(t)])
        whole = torch.complex(*piece.reshape(2, -1)) if t.is_complex() else piece
        out.append(whole.reshape(t.shape).to(device=t.device, dtype=t.dtype))
        start += size(t)
    return out


def names(name: str, t: Tensor) -> tuple[str, ...]:
    """What the parts of a tensor are called: `z`, or `Re z` and `Im z`; output 1 of a plain tuple is `y1` there."""
    if not t.is_complex():
        return (name,)
    word = f"y{name if name != '0' else ''}" if name.isdigit() else name
    return tuple(f"{part} {word}" for part in PARTS)


def parts(named: Mapping[str, Tensor]) -> tuple[Part, ...]:
    """Where each tensor lies in the flat vector, and each part of a complex one."""
    out, start = [], 0
    for name, t in named.items():
        for word in names(name, t):
            out.append(Part(name=word, start=start, stop=start + t.numel(), shape=tuple(t.shape)))
            start += t.numel()
    return tuple(out)
