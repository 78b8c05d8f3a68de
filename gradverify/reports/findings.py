"""What is wrong in a run: each finding with its op, its text, and a fingerprint by which it is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from pathlib import Path, PurePath
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from gradverify.records.evidence import TIMED, Fact
from gradverify.records.finding import Location
from gradverify.records.lead import led
from gradverify.records.run import OpRun, Run, totals
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import headline, relative, result_lines
from gradverify.reports.style import Style

_BAD = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE)
KNOWN = "known: it is in the baseline"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A result that is not plainly right, and the op that it is about."""

    op: OpRun
    result: Result

    @property
    def name(self) -> str:
        """`scale vjp[cpu-float64]`."""
        return f"{self.op.spec} {self.result.claim}[{self.result.device}-{self.result.dtype}]"

    @property
    def headline(self) -> str:
        """Code and summary in one line."""
        return headline(self.result)

    @property
    def block(self) -> str:
        """What the console prints, without its margin."""
        return "\n".join(line[2:] for line in result_lines(self.result, style=Style()))

    @property
    def location(self) -> Location | None:
        """Where it is wrong, or where the op is promised to be right."""
        own = self.result.finding.location if self.result.finding else None
        return own or self.op.source

    @property
    def fingerprint(self) -> str:
        """The same for the same fault: target, claim, input and code count; place, numbers, device and dtype do not."""
        worst = self.result.worst.evidence.worst if self.result.worst else None
        argument = worst.argument if worst else ""
        code = self.result.xfailed or self.result.code
        named = "/".join((relative(self.op.target), self.op.spec, self.result.claim, argument, code))
        return hashlib.sha256(named.encode()).hexdigest()

    @property
    def known(self) -> bool:
        """Whether a baseline has it."""
        return self.result.reason == KNOWN


def findings(run: Run) -> list[Entry]:
    """What is wrong or could not be judged, op by op, the cause first."""
    return [Entry(op=op, result=r) for op in run.ops for r in led(op.checks) if is_bad(r)]


def expected(run: Run) -> list[Entry]:
    """What was declared to fail, by `xfail` or by a baseline, and does."""
    return [Entry(op=op, result=r) for op in run.ops for r in op.checks if r.xfailed]


def warned(run: Run) -> list[Entry]:
    """What holds, but with something to know: imprecise, bits that differ, sizes that the op refuses."""
    return [Entry(op=op, result=r) for op in run.ops for r in op.checks if r.outcome is Outcome.PASS and r.code]


def is_bad(result: Result) -> bool:
    """Whether a result is wrong, or could not be judged, and nobody expected that."""
    return result.outcome in _BAD and not result.xfailed


def baselined(run: Run, fingerprints: Set[str]) -> Run:
    """The run with the findings that are known expected to fail: they are listed, and fail nothing."""
    ops = tuple(replace(op, checks=tuple(_unless_known(op, r, fingerprints) for r in op.checks)) for op in run.ops)
    return replace(run, ops=ops, totals=totals(ops))


def _unless_known(op: OpRun, result: Result, fingerprints: Set[str]) -> Result:
    if not is_bad(result) or Entry(op=op, result=result).fingerprint not in fingerprints:
        return result
    return replace(result, outcome=Outcome.SKIP, xfailed=result.code, reason=KNOWN)


def timeless(run: Run) -> Run:
    """The run without what differs between two runs of the same: dates, durations, the command."""
    ops = tuple(replace(op, checks=tuple(map(_timeless, op.checks))) for op in run.ops)
    return replace(run, ops=ops, run=replace(run.run, started="", duration_s=0.0, argv=()))


def _timeless(result: Result) -> Result:
    worst = result.worst
    if worst is not None:
        worst = replace(worst, evidence=replace(worst.evidence, facts=_untimed(worst.evidence.facts)))
    trail = tuple(replace(judged, seconds=0.0) for judged in result.trail)
    return replace(result, seconds={}, measured=_untimed(result.measured), worst=worst, trail=trail)


def _untimed(facts: dict[str, Fact]) -> dict[str, Fact]:
    return {name: fact for name, fact in facts.items() if name not in TIMED}


def uri(file: str) -> str:
    """A path as a relative URI below the current directory, else as an absolute one."""
    shown = PurePath(relative(file))
    return Path(file).as_uri() if shown.is_absolute() else quote(shown.as_posix())
