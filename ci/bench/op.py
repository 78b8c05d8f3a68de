"""An op of the benchmark: a callable on float64 tensors, one fixed point, and wrong backwards with known faults."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Fn = Callable[..., Any]
Tamper = Callable[[list[Tensor], Tensors, Tensors], Sequence[Tensor]]
"""(the right gradients, the inputs, the cotangents) -> the wrong gradients."""

# A planted bug must differ from the right gradient by more than what the judge may call imprecise.
LEAST_FAULT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Bug:
    """A fault of backward: gradients spoilt afterwards (`tamper`), or those of another function (`instead`)."""

    name: str
    tamper: Tamper | None = None
    instead: Fn | None = None


@dataclass(frozen=True, kw_only=True)
class Op:
    """A right op at one point, and its wrong twins."""

    name: str
    kind: str
    fn: Fn
    inputs: Tensors
    bugs: tuple[Bug, ...] = field(default=())

    @property
    def size(self) -> int:
        """The number n of input elements."""
        return sum(x.numel() for x in self.inputs)

    def point(self) -> Tensors:
        """Fresh leaves at the point."""
        return tuple(x.detach().clone().requires_grad_() for x in self.inputs)


def generator(*names: object) -> torch.Generator:
    """A generator seeded by a hash of its name: the same numbers in every run and on every machine."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def as_tuple(out: Any) -> Tensors:
    """An op's outputs as a tuple."""
    return (out,) if isinstance(out, Tensor) else tuple(out)


def gradients(fn: Fn, inputs: Tensors, cotangents: Tensors) -> list[Tensor]:
    """The gradients of `fn` by autograd; zeros for an input that it does not use."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = as_tuple(fn(*leaves))
    pairs = [(y, v) for y, v in zip(outputs, cotangents, strict=True) if y.requires_grad]
    got = torch.autograd.grad([y for y, _ in pairs], leaves, [v for _, v in pairs], allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(got, inputs, strict=True)]


def faulty(fn: Fn, bug: Bug) -> Fn:
    """`fn` with the same forward and the backward that `bug` says."""

    class Faulty(torch.autograd.Function):
        @staticmethod
        def forward(*inputs: Tensor) -> Any:
            return fn(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: Tensors, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *cotangents: Tensor) -> Any:
            inputs = ctx.saved_tensors
            grads = gradients(bug.instead or fn, inputs, cotangents)
            return tuple(grads if bug.tamper is None else bug.tamper(grads, inputs, cotangents))

    return Faulty.apply


def fault_size(op: Op, bug: Bug) -> float:
    """The largest relative difference of an entry of the wrong gradient, one output at a time, random cotangents."""
    outputs = as_tuple(op.fn(*op.inputs))
    rng = generator(op.name, "cotangent")
    full = tuple(torch.randn(y.shape, generator=rng, dtype=torch.float64) for y in outputs)
    return max(_difference(op, bug, tuple(v * (i == j) for j, v in enumerate(full))) for i in range(len(outputs)))


def _difference(op: Op, bug: Bug, cotangents: Tensors) -> float:
    right, point = gradients(op.fn, op.inputs, cotangents), op.point()
    wrong = torch.autograd.grad(as_tuple(faulty(op.fn, bug)(*point)), point, cotangents)
    return max(_relative(a, b) for a, b in zip(right, wrong, strict=True))


def _relative(a: Tensor, b: Tensor) -> float:
    size = torch.maximum(a.abs(), b.abs())
    return float(((a - b).abs() / size.clamp(min=1e-300)).max()) if a.numel() else 0.0


def complex_step_gap(op: Op) -> float | None:
    """Hold autograd against the complex step Im f(x + i h v) / h at h = 1e-100, exact to rounding for analytic `fn`.

    Returns the largest relative gap over all outputs along one random direction; None where `fn` does not take
    complex numbers (a kink, a cast, an op without a complex kernel).
    """
    rng = generator(op.name, "direction")
    v = [torch.randn(x.shape, generator=rng, dtype=torch.float64) * x.abs().clamp(min=1e-300) for x in op.inputs]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shifted = as_tuple(op.fn(*(torch.complex(x, 1e-100 * d) for x, d in zip(op.inputs, v, strict=True))))
    except (RuntimeError, TypeError, NotImplementedError, Warning):
        return None
    if not all(y.is_complex() for y in shifted):
        return None
    _, ours = torch.autograd.functional.jvp(lambda *x: as_tuple(op.fn(*x)), op.inputs, tuple(v))
    gaps = [
        ((y.imag / 1e-100 - j).abs() / j.abs().max().clamp(min=1e-300)).max()
        for y, j in zip(shifted, ours, strict=False)
    ]
    return float(max(gaps))
