"""NDJSON in the schema of Hypothesis' observations, which Tyche and others read: a line a result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from gradverify.records.run import OpRun, Run
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import headline
from gradverify.reports.words import sizes_of

_STATUS = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.ERROR: "failed"}


def events(run: Run) -> str:
    """A `test_case` for the worst case of each result, and an `info` for each op with what was not covered."""
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in _events(run))


def _events(run: Run) -> Iterator[dict[str, Any]]:
    start = datetime.fromisoformat(run.run.started).timestamp() if run.run.started else 0.0
    for op in run.ops:
        for result in op.checks:
            yield _case(op, result, start)
        gaps = "\n".join(f"- {gap.what}: {gap.why}" for gap in op.not_covered)
        yield {
            "type": "error" if op.error else "info",
            "title": "unusable" if op.error else "not covered",
            "content": op.error or gaps or "everything",
            "property": op.spec or op.target,
            "run_start": start,
        }


def _case(op: OpRun, result: Result, start: float) -> dict[str, Any]:
    worst = result.worst.evidence if result.worst else None
    case = result.finding.minimal if result.finding and result.finding.minimal else worst.case if worst else None
    known = msgspec.to_builtins(case) if case else {}
    numbers = {"cases": result.cases.run, "invalid": result.cases.invalid, "redrawn": result.cases.redrawn}
    words = {"outcome": result.outcome.value, "code": result.xfailed or result.code, "claim": result.claim}
    return {
        "type": "test_case",
        "status": _STATUS.get(result.outcome, "gave_up"),
        "status_reason": "" if result.outcome is Outcome.PASS else headline(result),
        "representation": f"{op.spec}: {sizes_of(case)}" if case else op.spec,
        "arguments": {name: known[name] for name in ("dims", "layouts", "kwargs", "values") if name in known},
        "how_generated": "shrunk" if result.outcome is Outcome.FAIL else "the worst of the cases drawn",
        "features": {**numbers, **words, "device": result.device, "dtype": result.dtype},
        "coverage": None,
        "timing": dict(sorted(result.seconds.items())),
        "metadata": {"target": op.target, "truth": result.truth},
        "property": f"{op.spec}::{result.claim}[{result.device}-{result.dtype}]",
        "run_start": start,
    }
