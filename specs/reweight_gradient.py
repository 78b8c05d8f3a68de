"""The identity with a weighted gradient: the contract is a function whose value is not even the op's.

`backward_of` speaks of the derivative alone. The value of w x is not what the op returns; its derivative by x, with w
marked `gv.no_grad`, is what backward must be.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

import gradverify as gv
from gradverify.catalogue import reweight_gradient as ops


@gv.spec(
    ops.reweight_gradient,
    backward_of=lambda x, weight: weight * x,
    examples=[gv.example(b=()), gv.example(b=(0, 2)), gv.example(b=(65,))],
)
def reweight_gradient(x: Annotated[Tensor, "*b"], weight: Annotated[Tensor, "#*b", gv.no_grad]) -> Tensor:
    """x itself; the weight broadcasts to it, and acts on the gradient only."""
    return x
