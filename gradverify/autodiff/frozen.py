"""gv.frozen: what carries no gradient inside a surrogate, held still while its inputs are shifted.

A plain detach() does not help: finite differences see through it. At the base point each frozen value is recorded; at
every shifted point the recorded values are replayed, in call order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

from gradverify.errors import SpecError


class Recorder:
    """The frozen values of one function at one base point."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._next = 0
        self._recording = True

    def visit(self, t: Tensor) -> Tensor:
        """Record `t` at the base point; at a shifted point return what was recorded at this call."""
        if self._recording:
            self._values.append(t.detach().clone())
            return t.detach()
        if self._next >= len(self._values) or self._values[self._next].shape != t.shape:
            raise SpecError("gv.frozen: the surrogate calls it differently near the point; call it unconditionally.")
        value = self._values[self._next]
        self._next += 1
        return value

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` under this recorder: its first call records, every later one replays."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._next = 0
            with _active(self):
                out = function(*args, **kwargs)
            self._recording = False
            return out

        return call


_current: ContextVar[Recorder | None] = ContextVar("gradverify_frozen", default=None)


@contextmanager
def _active(recorder: Recorder) -> Iterator[None]:
    token = _current.set(recorder)
    try:
        yield
    finally:
        _current.reset(token)


def frozen(t: Tensor) -> Tensor:
    """`t` without gradient, for use inside `backward_of=g`: the same value at x + h d as at x.

    Example: the straight-through rounding is `lambda x: x + gv.frozen(round(x) - x)`. Outside of a verification it is
    `t.detach()`. Raises SpecError where g calls it a different number of times, or with other shapes, near the point.
    """
    recorder = _current.get()
    return t.detach() if recorder is None else recorder.visit(t)
