"""Every operation of torch that runs in a block, in the order in which it runs: in a backward too, and in any dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class EachOp(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `tell(result)` after each operation of this thread. Kernels that torch does not know go unseen."""

    def __init__(self, tell: Callable[[Any], object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tell = tell

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch shall import its compiler, which takes a second, to keep it away from this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The operation itself, then the call."""
        out = func(*args, **(kwargs or {}))
        self.tell(out)
        return out


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors that an operation returned."""
    several = result if isinstance(result, tuple | list) else (result,)
    return [t for t in several if isinstance(t, Tensor)]
