"""Many ops at a glance: a row an op, what is wrong with it by claim, and how many claims hold; in 88 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradverify.records.run import OpRun
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.style import WIDTH, Style, mark_of

# Worst first: what stands for a claim where several devices and dtypes share it.
_SEVERITY = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.SKIP)
_NAME = 26
_GAP = "  "
# Of more claims with one code, the first is named.
_NAMED = 3


def heading(*, style: Style) -> str:
    """The names of the columns."""
    return style.paint(f"{'OP':<{_NAME}}CLAIMS", "bold")


def rows(op: OpRun, claims: Sequence[str], *, style: Style) -> list[str]:
    """The op's name; what does not plainly hold, each code once; how many claims hold and how many were skipped."""
    name = style.plain(op.spec)
    if len(name) > _NAME - len(_GAP):
        name = name[: _NAME - len(_GAP) - len(style.plain("…"))] + style.plain("…")
    lines, used = [f"{name:<{_NAME}}"], _NAME
    for text, mark in _cells(op, claims, style):
        wide = len(Style(unicode=style.unicode).sign(mark)) + 1 + len(text)
        if used > _NAME and used + wide > WIDTH:
            lines.append(" " * _NAME)
            used = _NAME
        lines[-1] += f"{style.sign(mark)} {text}{_GAP}"
        used += wide + len(_GAP)
    return [line.rstrip() for line in lines]


def _cells(op: OpRun, claims: Sequence[str], style: Style) -> Iterator[tuple[str, str]]:
    """What is said of each claim or of several, with its mark."""
    worst = [w for claim in claims if (w := _worst(op, claim)) is not None]
    wrong: dict[tuple[str, str], list[str]] = {}
    for result in worst:
        if mark_of(result) not in ("pass", "skip"):
            wrong.setdefault((mark_of(result), result.code), []).append(result.claim)
    for (mark, code), names in wrong.items():
        said = ", ".join(names) if len(names) <= _NAMED else f"{names[0]} +{len(names) - 1}"
        yield style.plain(f"{said} {code}".rstrip()), mark
    for mark in ("pass", "skip"):
        count = sum(mark_of(result) == mark for result in worst)
        if count:
            yield str(count), mark


def _worst(op: OpRun, claim: str) -> Result | None:
    found = [r for r in op.checks if r.claim == claim]
    return min(found, key=lambda r: (bool(r.xfailed), _SEVERITY.index(r.outcome)), default=None)
