"""Markdown for the summary of a step in CI: a table of ops and claims, then the findings; below GitHub's 1 MiB."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from gradverify.records.claims import CLAIMS, family_of
from gradverify.records.run import Run
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.findings import Entry, expected, findings
from gradverify.reports.lines import place
from gradverify.reports.totals import gaps_of, worst_of
from gradverify.reports.words import count, duration

MOST_BYTES = 1024 * 1024 - 1024
"""GitHub refuses a summary of more than 1 MiB; other tools may have put something before ours."""

_SHOWN = 50
_SIGNS = {
    Outcome.PASS: "✅",
    Outcome.FAIL: "❌",
    Outcome.ERROR: "❌",
    Outcome.INCONCLUSIVE: "❔",
    Outcome.SKIP: "–",
}


def markdown(run: Run, *, most: int = MOST_BYTES) -> str:
    """The run as Markdown of at most so many bytes; what is left out is counted."""
    found = findings(run)
    head = "\n".join([f"### gradverify: {_title(run)}", "", _where(run), ""])
    rest = "\n".join([*_expected(run), *_unusable(run), *_gaps(run)])
    room = most - len(head.encode()) - 200
    rest = rest if len(rest.encode()) < room // 2 else f"{_cut(rest, room // 4)}\n"
    room -= len(rest.encode())
    table, left = _fitted(list(_table(run)), room // 2, "rows")
    room -= len(table.encode())
    details, more = _fitted(list(map(_details, found[:_SHOWN])), room, "findings", left_out=len(found[_SHOWN:]))
    return "\n".join(part for part in (head, table, left, details, more, rest) if part) + "\n"


def _title(run: Run) -> str:
    """`1 FAIL, 5 PASS, 2 not covered`; the worst first."""
    results = [r for r in run.results if r.outcome is not Outcome.SKIP]
    counts = [
        (sum(r.outcome is o for r in results), o.value) for o in (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE)
    ]
    passed = sum(r.outcome is Outcome.PASS for r in results)
    gaps = {gap for op in run.ops for gap in gaps_of(op)}
    words = [f"{n} {word}" for n, word in counts if n]
    words += [f"{sum(bool(op.error) for op in run.ops)} unusable"] if any(op.error for op in run.ops) else []
    words += [f"{passed} PASS"] if passed or not words else []
    return ", ".join([*words, *([f"{len(gaps)} not covered"] if gaps else [])])


def _where(run: Run) -> str:
    e = run.environment
    words = [
        f"torch {e.torch}" if e.torch else "",
        ", ".join(e.devices),
        f"profile {run.run.profile}",
        f"seed {run.run.seed}",
    ]
    words += [duration(run.run.duration_s) if run.run.duration_s else "", "interrupted" if run.run.interrupted else ""]
    return _plain(" · ".join(w for w in words if w))


def _table(run: Run) -> Iterator[str]:
    """A row an op, a column a family of claims that anything was tried of."""
    ops = [op for op in run.ops if op.checks]
    families = dict.fromkeys(family_of(c) for c in CLAIMS)
    tried = {family_of(r.claim) for op in ops for r in op.checks if r.outcome is not Outcome.SKIP or r.xfailed}
    columns = [f for f in families if f in tried]
    if ops:
        yield "| op | " + " | ".join(columns) + " |"
        yield "|---|" + "---|" * len(columns)
    for op in ops:
        cells = [_cell([r for r in op.checks if family_of(r.claim) == family]) for family in columns]
        yield f"| {_code(op.spec)} | " + " | ".join(cells) + " |"


def _cell(results: Sequence[Result]) -> str:
    worst = worst_of(results)
    if worst is None:
        return ""
    if worst.xfailed:
        return f"⚠️ {worst.xfailed}"
    sign = "⚠️" if worst.outcome is Outcome.PASS and worst.code else _SIGNS[worst.outcome]
    return f"{sign} {worst.code}".strip()


def _details(entry: Entry) -> str:
    where = f" {_code(place(entry.location))}" if entry.location else ""
    title = f"{_code(entry.name)} {_plain(entry.headline)}{where}"
    return f"<details><summary>{title}</summary>\n\n{_fenced(entry.block)}\n\n</details>\n"


def _fenced(text: str) -> str:
    """The text in a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _expected(run: Run) -> list[str]:
    found = expected(run)
    lines = [f"- {_code(e.name)} {_plain(e.headline)}" for e in found[:_SHOWN]]
    more = [f"- and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ["", f"{count(len(found), 'finding')} expected:", "", *lines, *more] if found else []


def _unusable(run: Run) -> list[str]:
    bad = [op for op in run.ops if op.error]
    return ["", "Unusable:", "", *(f"- {_code(op.target or op.spec)} {_plain(op.error)}" for op in bad)] if bad else []


def _gaps(run: Run) -> list[str]:
    reasons: dict[str, dict[str, None]] = {}
    for op in run.ops:
        for what, why in gaps_of(op):
            reasons.setdefault(why, {})[what] = None
    lines = [f"- {_plain(', '.join(what))}: {_plain(why)}" for why, what in reasons.items()]
    inside = "\n".join(lines)
    return [f"\n<details><summary>Not covered</summary>\n\n{inside}\n\n</details>"] if lines else []


def _fitted(parts: list[str], room: int, noun: str, *, left_out: int = 0) -> tuple[str, str]:
    """As many parts as fit, one a line, and what is said of the others."""
    kept, used = 0, 0
    for part in parts:
        used += len(part.encode()) + 1
        if used > room:
            break
        kept += 1
    missing = len(parts) - kept + left_out
    return "".join(f"{part}\n" for part in parts[:kept]), f"and {missing} more {noun}, in the JSON\n" if missing else ""


def _cut(text: str, room: int) -> str:
    return text.encode()[:room].decode(errors="ignore").rpartition("\n")[0] + "\n- and more, in the JSON"


def _code(text: str) -> str:
    return f"<code>{_plain(text)}</code>"


def _plain(text: str) -> str:
    """The text in one line, with nothing that Markdown, a table or HTML would take for its own."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~!#@])", lambda m: f"&#{ord(m[1])};", escaped)
