from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

import gradverify as gv
from tests.kernels import scale_add as ops


@gv.spec(ops.scale_add)
def scale_add(x: Annotated[Tensor, "m n"], b: Annotated[Tensor, "n"], *, a: Literal[2, -3] = 2) -> Tensor:
    """a x + b."""
    return a * x + b
