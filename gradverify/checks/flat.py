"""Tensors as one flat float64 vector and back: the form in which numerics sees an op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradverify.numerics.problem import Part

Array = npt.NDArray[np.float64]


def array(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Array:
    """The tensors one after the other, [n] float64; a missing one is zeros of its like."""
    pieces = [np.zeros(t.numel()) if g is None else flat(g) for g, t in zip(tensors, like, strict=True)]
    if len(pieces) == 1:
        return np.array(pieces[0])
    return np.concatenate(pieces) if pieces else np.zeros(0)


def flat(t: Tensor) -> Array:
    """One tensor, [n] float64."""
    return np.asarray(t.detach().to("cpu", torch.float64).reshape(-1).numpy())


def tensors(vector: Array, like: Sequence[Tensor]) -> list[Tensor]:
    """The inverse of `array`: contiguous tensors like `like` in shape, dtype and device; views where they can be."""
    out, start = [], 0
    for t in like:
        piece = torch.from_numpy(vector[start : start + t.numel()])
        out.append(piece.reshape(t.shape).to(device=t.device, dtype=t.dtype))
        start += t.numel()
    return out


def parts(named: Mapping[str, Tensor]) -> tuple[Part, ...]:
    """Where each tensor lies in the flat vector."""
    out, start = [], 0
    for name, t in named.items():
        out.append(Part(name=name, start=start, stop=start + t.numel(), shape=tuple(t.shape)))
        start += t.numel()
    return tuple(out)
