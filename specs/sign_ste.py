"""Binary sign with a hard-tanh window: the shortest spec of a surrogate gradient."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

import gradverify as gv
from gradverify.catalogue import sign_ste as ops


@gv.spec(
    ops.sign_ste,
    backward_of=lambda x, *, window: x.clamp(-window, window),
    examples=[gv.example(b=()), gv.example(b=(0,)), gv.example(b=(65,), window=1.0)],
)
def sign_ste(x: Annotated[Tensor, "*b"], *, window: Annotated[float, gv.domain(0.1, 10)] = 1.0) -> Tensor:
    """-1 below 0, +1 from 0 on."""
    return 2.0 * (x >= 0).to(x.dtype) - 1.0
