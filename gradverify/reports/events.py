"""NDJSON in the schema of Hypothesis' observations, which Tyche and others read: a line a case."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from gradverify.records.case import Case
from gradverify.records.codes import TITLES
from gradverify.records.run import OpRun, Run
from gradverify.records.verdict import Judged, Outcome, Result
from gradverify.reports.lines import headline

_STATUS = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.ERROR: "failed"}
_ARGUMENTS = ("dims", "layouts", "kwargs", "values", "differentiate", "cotangents", "seed")


def events(run: Run) -> str:
    """A `test_case` for each case where the run has kept them, else for the worst of each result.

    What was skipped and what was not covered are `info`, an op that is unusable is an `alert`.
    """
    start = datetime.fromisoformat(run.run.started).timestamp() if run.run.started else 0.0
    cases = [
        lines_of(op, result, start=start) + skipped(op, result, start=start) for op in run.ops for result in op.checks
    ]
    return "".join([*cases, *(line_of(op, start=start) for op in run.ops)])


def lines_of(op: OpRun, result: Result, *, start: float) -> str:
    """The cases of a result; `start` is the time at which its run began, which tells runs apart."""
    return "".join(map(_line, _cases(op, result, start)))


def skipped(op: OpRun, result: Result, *, start: float) -> str:
    """Why a result has no case, where it has none."""
    if any(True for _ in _cases(op, result, start)):
        return ""
    return _line(_said("info", "no case", headline(result), property=_property(op, result), run_start=start))


def line_of(op: OpRun, *, start: float) -> str:
    """What was not covered of an op, or why it is unusable."""
    gaps = "\n".join(f"- {gap.what}: {gap.why}" for gap in op.not_covered)
    kind, title, text = ("alert", "unusable", op.error) if op.error else ("info", "not covered", gaps or "nothing")
    return _line(_said(kind, title, text, property=op.spec or op.target, run_start=start))


def _cases(op: OpRun, result: Result, start: float) -> Iterator[dict[str, Any]]:
    for judged in result.trail or _worst(result):
        yield {
            "type": "test_case",
            "status": "gave_up" if judged.outcome is None or judged.moot else _STATUS.get(judged.outcome, "gave_up"),
            "status_reason": _reason(judged),
            "representation": _representation(op, result, judged.case),
            "arguments": _arguments(judged.case),
            "how_generated": judged.how,
            "features": _features(judged),
            "coverage": None,
            "timing": {"execute:test": judged.seconds},
            "metadata": {"case": judged.case.id, "target": op.target, "truth": result.truth},
            "property": _property(op, result),
            "run_start": start,
        }


def _worst(result: Result) -> tuple[Judged, ...]:
    """The one case that every report has: the smallest that fails, else that which came nearest to it."""
    minimal = result.finding.minimal if result.finding else None
    case = minimal or (result.worst.evidence.case if result.worst else None)
    if case is None:
        return ()
    outcome = result.worst.outcome if result.worst else result.outcome
    how = "shrunk" if outcome is Outcome.FAIL else "the worst of the cases"
    return (Judged(case=case, how=how, outcome=outcome, code=result.code, seconds=sum(result.seconds.values())),)


def _reason(judged: Judged) -> str:
    if judged.outcome is None:
        return "refused by where=, the reference or the op, or it holds nothing to judge"
    said = f"{judged.code} {TITLES.get(judged.code, '')}".strip()
    return f"nothing can be judged here: {said}".removesuffix(": ") if judged.moot else said


def _representation(op: OpRun, result: Result, case: Case) -> str:
    """One for each case: a reader takes equal ones for duplicates."""
    words = [f"{name}={value!r}" for name, value in _arguments(case).items()]
    return f"{_property(op, result)}({', '.join(words)})"


def _arguments(case: Case) -> dict[str, Any]:
    known = msgspec.to_builtins(case)
    return {name: _named(known[name]) for name in _ARGUMENTS if known[name] not in ((), [])}


def _named(value: Any) -> Any:
    """Pairs as a mapping, and no number that JSON has no word for."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
        return {name: _named(v) for name, v in value}
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _features(judged: Judged) -> dict[str, Any]:
    """Numbers and words, of which a reader draws a chart each."""
    case = judged.case
    sizes = {f"size {k}": math.prod(v) if isinstance(v, tuple) else v for k, v in case.dims}
    words = {f"layout {k}": word for k, word in case.layouts} | {f"values {k}": word for k, word in case.values}
    words |= {f"keyword {k}": value if isinstance(value, str) else repr(value) for k, value in case.kwargs}
    words |= {f"cotangent {k}": word for k, word in enumerate(case.cotangents)}
    outcome = "refused" if judged.outcome is None else "moot" if judged.moot else judged.outcome.value
    found = {"outcome": outcome, "code": judged.code, "how": judged.how}
    return {**sizes, **words, **found, "device": case.device, "dtype": case.dtype}


def _said(kind: str, title: str, content: str, *, property: str, run_start: float) -> dict[str, Any]:  # noqa: A002
    return {"type": kind, "title": title, "content": content, "property": property, "run_start": run_start}


def _property(op: OpRun, result: Result) -> str:
    return f"{op.spec}::{result.claim}[{result.device}-{result.dtype}]"


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
