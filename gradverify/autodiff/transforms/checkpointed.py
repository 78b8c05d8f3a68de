"""Gradients of an op under torch.utils.checkpoint, which calls the forward again during the backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gradverify.autodiff.calling import copies
from gradverify.autodiff.products import dense
from gradverify.autodiff.transforms.pure import Gradients, Outputs, function_of, transforming
from gradverify.records.case import Point
from gradverify.records.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """A recorded call under a checkpoint, its backward still to come."""

    leaves: dict[str, Tensor]
    outputs: Outputs

    def vjp(self, us: Sequence[Tensor | None]) -> Gradients:
        """Gradients by `.backward()`, which is all that the reentrant variant allows. The graph is freed."""
        used = [(y, u) for y, u in zip(self.outputs, us, strict=True) if u is not None and y.requires_grad]
        if used:
            with transforming():
                torch.autograd.backward([y for y, _ in used], [u for _, u in used])
        return {n: dense(t.grad) for n, t in self.leaves.items()}


def record(spec: Spec, point: Point, *, reentrant: bool) -> Checkpointed:
    """Call the op under a checkpoint on copies of the primals."""
    given = copies(point.primals)
    leaves = {n: given[n].detach().requires_grad_() for n in point.differentiate}  # type: ignore[union-attr]
    function = function_of(spec, Point(primals=given, kwargs=point.kwargs, differentiate=()), tuple(leaves))
    with torch.enable_grad(), transforming():
        outputs = checkpoint(function, *leaves.values(), use_reentrant=reentrant)
    return Checkpointed(leaves=leaves, outputs=outputs)
