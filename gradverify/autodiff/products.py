"""Vector-Jacobian products of an op, through torch's own engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradverify.autodiff.calling import Called, Clock, copies, raised
from gradverify.errors import OpError
from gradverify.records.case import Point
from gradverify.records.spec import Spec


class Passes:
    """Backward passes through the tapes of this process."""

    backwards = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """One recorded call of an op.

    Attributes:
        leaves: name -> the primal that requires grad.
        given: every tensor that the op was handed, by name.
        outputs: all output tensors.
    """

    spec: Spec
    leaves: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    outputs: tuple[Tensor, ...]

    @property
    def active(self) -> tuple[int, ...]:
        """Positions of the outputs that carry a gradient: floating, and not declared `nondiff`."""
        declared = set(self.spec.nondiff)
        return tuple(
            i for i, y in enumerate(self.outputs) if i not in declared and (y.is_floating_point() or y.is_complex())
        )

    def vjp(self, cotangents: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
        """Gradients of sum_j <u_j, y_j>, one a leaf; None where none came back. The graph is kept.

        An output whose cotangent is None is not used at all.
        """
        used = [(y, u) for y, u in zip(self.outputs, cotangents, strict=True) if u is not None and y.requires_grad]
        if not used or not self.leaves:
            return dict.fromkeys(self.leaves)
        Passes.backwards += 1
        began = time.perf_counter()
        try:
            grads = torch.autograd.grad(
                [y for y, _ in used],
                list(self.leaves.values()),
                [u for _, u in used],
                retain_graph=True,
                allow_unused=True,
            )
        except Exception as error:
            raise _of_backward(self.spec, error) from error
        finally:
            Clock.seconds += time.perf_counter() - began
        return dict(zip(self.leaves, grads, strict=True))

    def nodes(self) -> Iterator[Any]:
        """The autograd nodes of this call, from the outputs to the leaves."""
        todo = [y.grad_fn for y in self.outputs if y.grad_fn is not None]
        seen: set[Any] = set()
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            yield node
            todo += [n for n, _ in node.next_functions if n is not None]

    def saved(self) -> tuple[Tensor, ...]:
        """The tensors that the op's own Functions saved for backward."""
        out: list[Tensor] = []
        for node in self.nodes():
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                out += list(filter(torch.is_tensor, node.saved_tensors))
        return tuple(out)


def _of_backward(spec: Spec, error: Exception) -> OpError:
    """Torch refuses gradients of the wrong number, shape or kind: say so by code."""
    text = str(error)
    shape = any(w in text for w in ("invalid gradient", "incorrect number of gradients", "expected Variable"))
    return raised(spec, error, code="GV109" if shape else "GV902")


def record(spec: Spec, called: Called, point: Point, *, primals: Mapping[str, Tensor | None] | None = None) -> Tape:
    """Call the op with gradients on, on exact copies of the primals (or on `primals` themselves)."""
    given = copies(point.primals) if primals is None else dict(primals)
    leaves = {n: given[n].detach().requires_grad_() for n in point.differentiate}  # type: ignore[union-attr]
    with torch.enable_grad():
        outputs = called({**given, **leaves}, point.kwargs)
    tensors = {n: t for n, t in {**given, **leaves}.items() if t is not None}
    return Tape(spec=spec, leaves=leaves, given=tensors, outputs=outputs)


def values(called: Called, primals: Mapping[str, Tensor | None], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The outputs without gradients."""
    with torch.no_grad():
        return called(primals, kwargs)
