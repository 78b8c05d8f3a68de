"""The end of a pytest run: one Run of all items, written as a report and shown as a section."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import pytest

from gradverify.errors import GradverifyError
from gradverify.planning import replace
from gradverify.pytest_plugin.settings import settings
from gradverify.records.run import OpRun, Run, absent, from_json
from gradverify.reports import formats, json_
from gradverify.reports.console import View, render
from gradverify.reports.lines import relative
from gradverify.reports.merge import merged
from gradverify.reports.style import Style
from gradverify.reports.words import listed


def whole(parts: Sequence[str], config: pytest.Config, *, began: float, interrupted: bool) -> Run:
    """One Run of the parts that the items have brought along, in the order of collection."""
    run = merged([from_json(part.encode()) for part in parts])
    invocation = replace(
        run.run,
        argv=tuple(map(str, config.invocation_params.args)),
        duration_s=time.perf_counter() - began,
        interrupted=interrupted,
    )
    made: Run = replace(run, run=invocation, ops=tuple(sorted(run.ops, key=_place)))
    return made


def write(run: Run, session: pytest.Session) -> list[str]:
    """Write what the options ask for; what is to be told of it. The run fails where that cannot be done."""
    own, files = settings(session.config), []
    try:
        if own.report is not None:
            files += formats.write(run, own.report.parent, own.config.report.formats, strict=own.strict)
        if own.events is not None:
            json_.write(formats.made(run, "events"), own.events)
            files.append(own.events)
    except GradverifyError as error:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        return [f"no report: {error}"]
    return [f"report: {', '.join(relative(str(f.absolute())) for f in files)}"] if files else []


def required(run: Run, session: pytest.Session) -> list[str]:
    """What is to be told of required devices on which nothing ran; the run fails then, unless it tried cases again."""
    own = settings(session.config)
    missing = [] if own.replays else absent(run, own.require)
    if missing and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return [f"required device absent: nothing ran on {listed(missing)}"] if missing else []


def summary(run: Run, *, colour: bool) -> list[str]:
    """A row an op, one line for what is wrong, what is not covered, the totals."""
    style = Style(colour=colour, unicode=_shows_unicode())
    return render(run, View(form="concise", style=style)).splitlines()


def _place(op: OpRun) -> tuple[object, ...]:
    """The order of collection, which that of arrival is not where several processes work."""
    return (op.source.file, op.source.line, op.spec) if op.source else ("", 0, op.spec)


def _shows_unicode() -> bool:
    try:
        "✓✗·…█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
