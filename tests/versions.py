"""What differs between the versions of torch and triton that are supported: tried are the oldest and the newest."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch


def numbers(text: str) -> tuple[int, ...]:
    """Major and minor: "2.13.0+cpu" is (2, 13)."""
    return tuple(int(part) for part in text.split(".")[:2])


def _triton() -> tuple[int, ...]:
    try:
        return numbers(version("triton"))
    except PackageNotFoundError:
        return ()


OLD_TORCH = numbers(torch.__version__) < (2, 13)
"""Tried with 2.11.0."""

NO_LOOPS = bool(_triton()) and _triton() < (3, 7) and numbers(np.__version__) >= (2, 4)
"""Whether triton's own interpreter stops at every loop whose end is known at run time: it takes int() of an array."""
