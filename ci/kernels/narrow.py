"""bfloat16 in Triton's interpreter: numbers instead of their raw bits.

The interpreter keeps a bfloat16 as 16 bits and computes on those bits as if they were integers. Here every operation
widens to float32, computes there and rounds once, to nearest even, which is what the compiled kernel does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl

HALF = np.uint32(0x7FFF)
QUIET = np.uint16(0x7FC0)


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrowed(values: np.ndarray) -> np.ndarray:
    """Numbers rounded to bfloat16, to nearest even; its bits."""
    with np.errstate(all="ignore"):
        bits = np.atleast_1d(_odd(np.asarray(values))).view(np.uint32)
        rounded = (bits + (HALF + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    out = np.where(np.isnan(np.atleast_1d(values).astype(np.float64)), QUIET, rounded.astype(np.uint16))
    return np.asarray(out.reshape(np.shape(values)), dtype=np.uint16)


def _odd(values: np.ndarray) -> np.ndarray:
    """float32 by rounding to odd, so that a second rounding, to fewer digits, is as good as a single one."""
    near = values.astype(np.float32)
    if values.dtype.itemsize <= 4 and values.dtype.kind == "f":
        return near
    wide = values.astype(np.float64)
    inexact = np.isfinite(near) & (near.astype(np.float64) != wide)
    beyond = inexact & (np.abs(near.astype(np.float64)) > np.abs(wide))
    cut = np.where(beyond, np.nextafter(near, np.float32(0)), near)
    return np.where(inexact, (cut.view(np.uint32) | np.uint32(1)).view(np.float32), near)


def is_narrow(handle: Any) -> bool:
    """Whether a handle holds bfloat16 bits. What a comparison returns has its operands' type but holds booleans."""
    return handle.dtype.scalar == tl.bfloat16 and handle.data.dtype == np.uint16
