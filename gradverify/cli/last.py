"""What the last run said of each spec, kept in `.gradverify/last.json` for `list`."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from gradverify.errors import GradverifyError
from gradverify.records.run import OpRun, Run
from gradverify.records.verdict import Outcome
from gradverify.reports.json_ import write

_SCHEMA = "gradverify/last/1"
_WORST_FIRST = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.SKIP)


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """The worst outcome of a spec, its code, how many of its checks passed, and when (seconds since 1970)."""

    outcome: str
    code: str = ""
    passed: int = 0
    checks: int = 0
    when: float = 0.0


class _File(msgspec.Struct, kw_only=True):
    schema: str = _SCHEMA
    specs: dict[str, Last] = {}


def read(root: Path) -> dict[str, Last]:
    """The last outcome of each spec by name; empty where no run has been kept, or the file is not ours."""
    try:
        kept = msgspec.json.decode((root / ".gradverify" / "last.json").read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError):
        return {}
    return kept.specs if kept.schema == _SCHEMA else {}


def keep(run: Run, root: Path) -> str:
    """Merge the run into the file, spec by spec. Returns why that failed, or an empty text."""
    fresh = {op.spec: summary for op in run.ops if (summary := _summary(op))}
    if not fresh:
        return ""
    folder = root / ".gradverify"
    try:
        folder.mkdir(exist_ok=True)
        # The folder keeps itself out of the user's repository.
        ignore = folder / ".gitignore"
        ignore.exists() or ignore.write_text("*\n", encoding="utf-8")
        write(msgspec.json.encode(_File(specs={**read(root), **fresh})).decode() + "\n", folder / "last.json")
    except (OSError, GradverifyError) as error:
        return f"the result was not kept for `gradverify list`: {error}"
    return ""


def _summary(op: OpRun) -> Last | None:
    tried = [r for r in op.checks if r.outcome is not Outcome.SKIP or r.xfailed]
    if not tried:
        return None
    worst = min(tried, key=lambda r: (bool(r.xfailed), _WORST_FIRST.index(r.outcome)))
    passed = sum(r.outcome is Outcome.PASS for r in tried)
    return Last(outcome=worst.outcome.value, code=worst.code, passed=passed, checks=len(tried), when=time.time())
