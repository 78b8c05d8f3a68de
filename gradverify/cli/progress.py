"""A line on standard error that says what is being verified; only where a person watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gradverify.reports.words import count

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    """Shows one transient line; silent unless standard error is a terminal."""

    def __init__(self, *, silent: bool, total: int) -> None:
        self._total = total
        self._done = -1
        self._claims = 0
        self._name = ""
        self._status = None if silent or not sys.stderr.isatty() else _status()

    def started(self, name: str) -> None:
        """The next op begins."""
        self._done, self._claims, self._name = self._done + 1, 0, name
        self._show()

    def advanced(self) -> None:
        """Another claim of the op is done."""
        self._claims += 1
        self._show()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the line away while something else is written to the terminal."""
        if self._status is None:
            yield
            return
        self._status.stop()
        yield
        self._status.start()

    def close(self) -> None:
        """Take the line away for good."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show(self) -> None:
        if self._status is not None:
            of = f"  {self._done + 1} of {self._total}" if self._total > 1 else ""
            self._status.update(f"{self._name}: {count(self._claims, 'check')} done{of}")
            self._status.start()


def _status() -> Status:
    from rich.console import Console
    from rich.status import Status

    return Status("starting", console=Console(stderr=True))
