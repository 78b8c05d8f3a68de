"""Many ops at a glance: a row an op, a column a claim, in 88 columns."""

from __future__ import annotations

from collections.abc import Sequence

from gradverify.records.run import OpRun
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.style import WIDTH, Style, mark_of

# Worst first: what a cell shows where several devices and dtypes share it.
_SEVERITY = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.SKIP)
_CODE_WIDTH = len("GV199")


def heading(claims: Sequence[str], *, style: Style) -> str:
    """The names of the columns."""
    cells = "".join(f"{claim:<{_width(claim)}}" for claim in claims)
    return style.paint(f"{'OP':<{_name_width(claims)}}{cells}".rstrip(), "bold")


def row(op: OpRun, claims: Sequence[str], *, style: Style) -> str:
    """The op's name and the worst outcome of each claim: a sign, or the code of what is wrong."""
    width = _name_width(claims)
    name = style.plain(op.spec)
    if len(name) >= width:
        name = name[: width - 3] + style.plain("…")
    return (f"{name:<{width}}" + "".join(_cell(op, claim, style) for claim in claims)).rstrip()


def _cell(op: OpRun, claim: str, style: Style) -> str:
    found = [r for r in op.checks if r.claim == claim]
    if not found:
        return " " * _width(claim)
    worst = min(found, key=lambda r: (bool(r.xfailed), _SEVERITY.index(r.outcome)))
    shows_code = worst.code and worst.outcome not in (Outcome.PASS, Outcome.SKIP)
    return _painted(worst, style, claim) if shows_code else style.sign(mark_of(worst), wide=_width(claim))


def _painted(result: Result, style: Style, claim: str) -> str:
    colour = "yellow" if result.xfailed or result.outcome is Outcome.INCONCLUSIVE else "red"
    return style.paint(f"{result.code:<{_width(claim)}}", colour)


def _width(claim: str) -> int:
    return max(len(claim), _CODE_WIDTH) + 2


def _name_width(claims: Sequence[str]) -> int:
    return max(WIDTH - sum(_width(c) for c in claims), 12)
