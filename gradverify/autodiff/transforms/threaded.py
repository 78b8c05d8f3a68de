"""Steps in threads of their own: one after the other, one in the midst of the other, and at once."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from gradverify.autodiff.transforms.dispatched import EachOp
from gradverify.errors import CannotJudgeError

T = TypeVar("T")

Step = Callable[[], T]

LONGEST = 60.0
"""Seconds after which a thread is taken to be stuck."""

PATIENCE = 0.1
"""Seconds for which a step waits at least for one that it has let pass, which may itself wait for a lock."""

SHORT = 1e-6
"""Seconds after which Python lets another thread run, where they run at once."""


class _Thread(threading.Thread, Generic[T]):
    """A thread that keeps what its step returned, or raised. One that is stuck does not keep the process alive."""

    def __init__(self, step: Step[T]) -> None:
        super().__init__(daemon=True)
        self.step = step
        self.returned: list[T] = []
        self.error: Exception | None = None

    def run(self) -> None:
        """Take the step."""
        try:
            self.returned.append(self.step())
        except Exception as error:  # noqa: BLE001 it is raised again where the result is asked for
            self.error = error

    def result(self) -> T:
        """What the step returned. Raises what it raised, and CannotJudgeError where it does not come to an end."""
        self.join(LONGEST)
        if self.is_alive():
            raise CannotJudgeError(f"two threads did not come to an end in {LONGEST:g} seconds")
        if self.error is not None:
            raise self.error
        return self.returned[0]


def in_turn(*steps: Step[T]) -> list[T]:
    """Each step in a thread of its own, after the one before has ended."""
    return [_together([step])[0] for step in steps]


def operations(step: Step[T]) -> tuple[int, float]:
    """The number of torch's operations in a step, and the seconds that it takes."""
    seen: list[None] = []
    began = time.perf_counter()
    with EachOp(lambda _: seen.append(None)):
        step()
    return len(seen), time.perf_counter() - began


def in_the_midst(first: Step[T], second: Step[T], *, after: int, seconds: float) -> tuple[list[T], bool]:
    """The second step whole in another thread, once the first has done so many of torch's operations.

    Also: whether the second came to an end there. If it takes many times the `seconds` that it should, it waits for
    what the first one holds, and both go on at once.
    """
    other = _Thread(second)
    done: list[bool] = []

    def let_pass(_: Any) -> None:
        done.append(False)
        if len(done) == after:
            other.start()
            other.join(PATIENCE + 10 * seconds)
            done[-1] = not other.is_alive()

    def run() -> T:
        with EachOp(let_pass):
            return first()

    found = _together([run])
    if other.ident is None:
        other.start()
    return [*found, other.result()], any(done)


def at_once(first: Step[T], second: Step[T]) -> list[T]:
    """Both at once, Python changing between them as often as it can."""
    gate = threading.Barrier(2)

    def after_gate(step: Step[T]) -> Step[T]:
        def run() -> T:
            gate.wait(LONGEST)
            return step()

        return run

    with _changing_often():
        return _together([after_gate(first), after_gate(second)])


def _together(steps: Sequence[Step[T]]) -> list[T]:
    threads = [_Thread(step) for step in steps]
    for thread in threads:
        thread.start()
    return [thread.result() for thread in threads]


@contextmanager
def _changing_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SHORT)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
