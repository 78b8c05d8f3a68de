"""A computation in float64 throughout, also where it asks for less; or with each step rounded to a narrower dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


class _Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Casts to a narrower dtype and tensors made in one are float64: `x.float()` says float32, and means "enough"."""

    def __init__(self, rounded_to: torch.dtype | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rounded_to = rounded_to

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {k: _WIDE.get(v, v) if k == "dtype" else v for k, v in (kwargs or {}).items()}
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
        if self.rounded_to is None or exact.dtype != torch.float64:
            return exact
        rounded = exact.to(self.rounded_to).to(exact.dtype)
        return rounded if alias is None else t.copy_(rounded)


@contextmanager
def in_float64(*, rounded_to: torch.dtype | None = None) -> Iterator[None]:
    """Within it, torch's operations give float64 where they would give less, forward and backward.

    `rounded_to`: each of their results has only the digits of that dtype; what one operation does inside (a sum, a
    product of matrices) is exact. Other code (numpy, a kernel) is not seen.
    """
    with _Widened(rounded_to):
        yield
