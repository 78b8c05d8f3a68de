"""`check --events FILE`: every case as a line of NDJSON, as soon as its claim is judged."""

from __future__ import annotations

import time
from pathlib import Path

from gradverify.cli.output import save
from gradverify.records.run import OpRun, Run
from gradverify.records.verdict import Result
from gradverify.reports.events import line_of, lines_of, skipped
from gradverify.reports.json_ import output_file


class Events:
    """A file that grows by the cases of each result, and at the end by what was not covered.

    `note`: why it has stopped to grow, where it has; that changes no verdict.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = time.time()
        self.note = ""

    def result(self, op: OpRun, result: Result) -> None:
        """The cases of a result, or why it has none."""
        self._append(lines_of(op, result, start=self._start) + skipped(op, result, start=self._start))

    def finish(self, run: Run) -> None:
        """What was not covered of each op, or why it is unusable."""
        self._append("".join(line_of(op, start=self._start) for op in run.ops))

    def _append(self, text: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self.note = f"--events {self._path}: {(error.strerror or str(error)).lower()}; it is not complete."


def emptied(path: Path) -> None:
    """Make sure, before anything is run, that the file can be written, and empty it. Raises UsageError."""
    save("", output_file(path, "--events"))
