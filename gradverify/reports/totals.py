"""The end of a report: what was not covered and why, and the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gradverify.records.run import OpRun, Run
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.style import Style, wrapped
from gradverify.reports.words import count, duration


def not_covered_lines(run: Run, *, style: Style) -> list[str]:
    """`  - jvp, vmap: not implemented by the op`, one line a reason; with several ops, how many it concerns."""
    ops = [op for op in run.ops if not op.error]
    gaps = Counter(gap for op in ops for gap in gaps_of(op))
    reasons: dict[tuple[str, int], list[str]] = {}
    for (what, why), times in gaps.items():
        reasons.setdefault((why, times), []).append(what)
    texts = [
        f"{', '.join(what)}: {why}" + (f" ({times} of {len(ops)} ops)" if len(ops) > 1 else "")
        for (why, times), what in reasons.items()
    ]
    lines = [line for text in texts for line in wrapped(style.plain(text), first="  - ", rest="    ")]
    return [style.paint("  not covered", "dim"), *lines] if lines else []


def gaps_of(op: OpRun) -> list[tuple[str, str]]:
    """What was not verified and why, once each: the skipped results, then what the engine lists."""
    skipped = [r for r in op.checks if r.outcome is Outcome.SKIP and not r.xfailed]
    named = [(_skipped_name(op, r), r.reason or "skipped") for r in skipped]
    known = {r.claim for r in skipped} | {name for name, _ in named}
    listed = [(n.what, n.why) for n in op.not_covered if n.what not in known]
    return list(dict.fromkeys([*named, *listed]))


_SEVERITY = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.SKIP)


def worst_of(results: Iterable[Result]) -> Result | None:
    """What stands for several results: the worst, an expected failure after what was not expected."""
    return min(results, key=lambda r: (bool(r.xfailed), _SEVERITY.index(r.outcome), not r.code), default=None)


def total_line(run: Run, *, style: Style) -> str:
    """`PASS  8 checks, 382 cases, 1.4 s`, `FAIL  1 of 8 checks, ...`: the worst outcome leads."""
    tried = [r for r in run.results if r.outcome is not Outcome.SKIP or r.xfailed]
    bad = [r for r in tried if r.outcome in (Outcome.FAIL, Outcome.ERROR) and not r.xfailed]
    unsure = [r for r in tried if r.outcome is Outcome.INCONCLUSIVE and not r.xfailed]
    unusable = [op for op in run.ops if op.error]
    word, colour, counted = _leading(run, bad, unsure, tried)
    checks = count(len(tried), "check")
    words = [
        *([f"{counted} of {checks}" if counted else checks] if tried else []),
        *([f"{len(unsure)} inconclusive"] if unsure and word != "INCONCLUSIVE" else []),
        *([f"{count(len(unusable), 'target')} unusable"] if unusable else []),
        *_warnings(tried),
        *([_cases(tried)] if tried else []),
        duration(run.run.duration_s),
    ]
    first, *more = wrapped(f"{word}  {', '.join(words)}", rest=" " * (len(word) + 2))
    return "\n".join([style.paint(word, colour) + first[len(word) :], *more])


def _cases(tried: list[Result]) -> str:
    """`382 cases (14 redrawn, 3 draws left out)`."""
    redrawn, left_out = sum(r.cases.redrawn for r in tried), sum(r.cases.invalid for r in tried)
    words = [
        *([f"{redrawn} redrawn"] if redrawn else []),
        *([f"{count(left_out, 'draw')} left out"] if left_out else []),
    ]
    return count(sum(r.cases.run for r in tried), "case") + (f" ({', '.join(words)})" if words else "")


def total_notes(run: Run, *, style: Style) -> list[str]:
    """What the reader must know before the totals: that it was cut short."""
    note = style.paint("interrupted: this is what was verified until then", "yellow")
    return [note] if run.run.interrupted else []


def _leading(run: Run, bad: list[Result], unsure: list[Result], tried: list[Result]) -> tuple[str, str, int]:
    """The word of the worst outcome, its colour, and how many checks have it (0: all, or none at all)."""
    if bad:
        return "FAIL", "red", len(bad)
    if run.run.interrupted:
        return "INTERRUPTED", "yellow", 0
    if any(op.error for op in run.ops):
        return "ERROR", "red", 0
    if unsure:
        return "INCONCLUSIVE", "yellow", len(unsure)
    return ("PASS", "green", 0) if tried else ("NOTHING VERIFIED", "yellow", 0)


def _warnings(tried: list[Result]) -> list[str]:
    imprecise = sum(r.outcome is Outcome.PASS and r.code == "GV602" for r in tried)
    expected = sum(bool(r.xfailed) for r in tried)
    return [
        *([f"{imprecise} imprecise"] if imprecise else []),
        *([f"{expected} expected to fail"] if expected else []),
    ]


def _skipped_name(op: OpRun, result: Result) -> str:
    """The claim; or the device, where nothing at all ran on it."""
    same = [r for r in op.checks if r.device == result.device]
    if result.device != "cpu" and all(r.outcome is Outcome.SKIP and r.reason == result.reason for r in same):
        return result.device
    usual = (result.device, result.dtype) == ("cpu", "float64")
    return result.claim if usual else f"{result.claim}[{result.device}-{result.dtype}]"
