"""A computation in float64 throughout, also where it asks for less; or with each step rounded to a narrower dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_WIDE = {
    torch.float32: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float16: torch.float64,
    torch.complex64: torch.complex128,
    torch.complex32: torch.complex128,
}


def _softmax(x: Tensor, dim: int, _: bool) -> Tensor:  # noqa: FBT001 (torch's own signature, as below)
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)


def _log_softmax(x: Tensor, dim: int, _: bool) -> Tensor:  # noqa: FBT001
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def _vjp_of_softmax(u: Tensor, y: Tensor, dim: int, _: torch.dtype) -> Tensor:
    terms = u * y
    return terms - y * terms.sum(dim, keepdim=True)


def _vjp_of_log_softmax(u: Tensor, y: Tensor, dim: int, _: torch.dtype) -> Tensor:
    return u - y.exp() * u.sum(dim, keepdim=True)


def _vjp_of_silu(u: Tensor, x: Tensor) -> Tensor:
    s = x.sigmoid()
    return u * s * (1 + x * (1 - s))


_STEPS: Mapping[str, Callable[..., Tensor]] = {
    "aten::_softmax": _softmax,
    "aten::_log_softmax": _log_softmax,
    "aten::_softmax_backward_data": _vjp_of_softmax,
    "aten::_log_softmax_backward_data": _vjp_of_log_softmax,
    "aten::silu_backward": _vjp_of_silu,
}
"""Operations of torch that round between steps which cancel at saturation: that rounding is then all that is left."""


class _Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Casts to a narrower dtype and tensors made in one are float64: `x.float()` says float32, and means "enough"."""

    def __init__(self, rounded_to: torch.dtype | None, generator: torch.Generator | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rounded_to, self.generator = rounded_to, generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {k: _WIDE.get(v, v) if k == "dtype" else v for k, v in (kwargs or {}).items()}
        steps = None if self.rounded_to is None else _STEPS.get(func.name())
        if steps is not None and args[0].numel():
            # Kernels of narrow dtypes compute in float32 inside.
            with _Widened(torch.float32, self.generator):
                out = steps(*args)
        else:
            out = func(*args, **given)
        if isinstance(out, Tensor):
            return self._step(out, func, 0)
        if isinstance(out, tuple | list):
            return type(out)(self._step(t, func, k) for k, t in enumerate(out))
        return out

    def _step(self, t: Any, func: Any, k: int) -> Any:
        if not isinstance(t, Tensor) or not (t.is_floating_point() or t.is_complex()):
            return t
        returns = func._schema.returns  # noqa: SLF001 what torch.library prints, too
        alias = returns[min(k, len(returns) - 1)].alias_info
        if alias is not None and not alias.is_write:
            return t
        exact = t if alias is not None or t.dtype not in _WIDE else t.to(_WIDE[t.dtype])
        known = exact._is_zerotensor()  # noqa: SLF001 zeros without memory, as backward has them; nothing to round
        if self.rounded_to is None or known or exact.dtype not in (torch.float64, torch.complex128):
            return exact
        rounded = self._rounded(exact, self.rounded_to)
        return rounded if alias is None else t.copy_(rounded)

    def _rounded(self, exact: Tensor, dtype: torch.dtype) -> Tensor:
        if exact.is_complex():
            parts = torch.view_as_real(exact.resolve_conj())
            return torch.view_as_complex(self._rounded(parts, dtype).contiguous())
        nearest = exact.to(dtype)
        if self.generator is None or dtype != torch.float32 or exact.device.type != "cpu":
            return nearest.to(exact.dtype)
        toward = torch.where(exact > nearest, torch.inf, -torch.inf).to(dtype)
        low, other = nearest.to(exact.dtype), torch.nextafter(nearest, toward).to(exact.dtype)
        chance = torch.rand(exact.shape, generator=self.generator, dtype=exact.dtype)
        return torch.where((exact != low) & (chance * (other - low).abs() < (exact - low).abs()), other, low)


@contextmanager
def in_float64(*, rounded_to: torch.dtype | None = None, generator: torch.Generator | None = None) -> Iterator[None]:
    """Within it, torch's operations give float64 where they would give less, forward and backward.

    `rounded_to`: each of their results has only the digits of that dtype; what one operation does inside (a sum, a
    product of matrices) is exact, but for softmax, whose steps are rounded to float32. Other code (numpy, a kernel) is
    not seen. `generator`: to float32 it is rounded up or down at random, in the mean exactly (stochastic rounding): a
    result that a slight change of the inputs leaves between the same two floats errs otherwise each time.
    """
    with _Widened(rounded_to, generator):
        yield
