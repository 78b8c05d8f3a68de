"""GitHub's workflow commands: annotations at the lines of a pull request."""

from __future__ import annotations

from gradverify.records.run import Run
from gradverify.records.verdict import Outcome
from gradverify.reports.findings import Entry, findings, uri

MOST = 10
"""GitHub shows so many a step, and drops the rest without a word."""


def workflow_commands(run: Run, *, most: int = MOST) -> str:
    """A line a finding, the failures first, at most `most` of them; then how many more there are."""
    found = sorted(findings(run), key=lambda e: e.result.outcome is Outcome.INCONCLUSIVE)
    unusable = [f"::error title=unusable::{_data(op.error)}" for op in run.ops if op.error]
    lines = [*map(_annotation, found), *unusable]
    more = len(lines) - most
    said = [f"::notice title=gradverify::{more} more findings are in the log and in the report"] if more > 0 else []
    return "".join(f"{line}\n" for line in [*lines[:most], *said])


def _annotation(entry: Entry) -> str:
    kind = "warning" if entry.result.outcome is Outcome.INCONCLUSIVE else "error"
    fields = {"title": f"{entry.result.code} {entry.name}"}
    place = entry.location
    if place is not None:
        fields |= {"file": uri(place.file), "line": str(place.line)}
        fields |= {"col": str(place.col)} if place.col else {}
        fields |= {"endColumn": str(place.end_col)} if place.end_col else {}
    given = ",".join(f"{name}={_property(value)}" for name, value in fields.items())
    message = "\n".join((entry.headline, entry.block))
    return f"::{kind} {given}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
