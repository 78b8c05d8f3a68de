"""What an earlier result of an op has shown already is not shown again: the other claims are listed under it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from gradverify.records.run import OpRun
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import claim_name, headline
from gradverify.reports.style import Style, wrapped

_WITH_TRUTH = {"edges": "GV206", "special": "GV215", "complex": "GV216"}
"""Claims that hold a gradient against the same truth as vjp does, elsewhere, and what they say of a wrong one."""
_OFF = {"backward() is off": ("vjp", *_WITH_TRUTH), "jvp() is off": ("jvp",), "both are off": ("vjp", "jvp")}
"""What adjoint says of two modes that disagree -> the claims that show the same fault."""


_NUMBER = re.compile(r"\d+")
_NAMED = 5
"""Of more claims that share a fault only so many are named."""


def shown_by(result: Result, earlier: Sequence[Result]) -> Result | None:
    """The first of the earlier results of an op that says the same, or whose fault explains this one."""
    if result.outcome is Outcome.PASS or (result.outcome is Outcome.SKIP and not result.xfailed):
        return None
    return next((r for r in earlier if _alike(r, result) or _explains(r, result)), None)


def repeated_lines(pairs: Sequence[tuple[Result, Result]], *, style: Style) -> list[str]:
    """`✗ edges GV206, special GV215: the same fault as vjp`, for pairs (result, the one that shows its fault)."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result, first in pairs:
        same = _alike(first, result) or result.outcome is Outcome.INCONCLUSIVE
        said = f"{'as for' if same else 'the same fault as'} {claim_name(first)}"
        groups.setdefault((style.mark(result), said), []).append(result)
    return [line for (mark, said), group in groups.items() for line in _together(mark, said, group, style)]


def short_lines(op: OpRun, results: Sequence[Result], *, style: Style) -> list[str]:
    """`FAIL op vjp,edges[cpu-float64] GV199 summary`: what `-q` and machines that read lines see.

    Claims whose fault stands there already share its line.
    """
    shared: list[list[Result]] = []
    for result in results:
        known = next((g for g in shared if _together_with(g, result)), None)
        if known is None:
            shared.append([result])
        else:
            known.append(result)
    return [_one_line(op, group, style) for group in shared]


def _together_with(group: Sequence[Result], result: Result) -> bool:
    first = group[0]
    return (first.device, first.dtype) == (result.device, result.dtype) and shown_by(result, group) is not None


def _alike(one: Result, other: Result) -> bool:
    """Whether two results say the same in the same words; an op that raises may name other sizes each time."""
    if one.outcome is Outcome.PASS or one.code != other.code:
        return False
    if one.outcome is Outcome.ERROR and _fact(other, "said"):
        return _NUMBER.sub("", _fact(one, "said")) == _NUMBER.sub("", _fact(other, "said"))
    return one.outcome is other.outcome and headline(one) == headline(other)


def _explains(one: Result, other: Result) -> bool:
    """Whether a wrong gradient or tangent that one claim has found is what another one has run into."""
    if (one.device, one.dtype) != (other.device, other.dtype):
        return False
    if other.outcome is Outcome.INCONCLUSIVE and _lost(other):
        return _lost(one) and (one.code == "GV111" or one.outcome is Outcome.INCONCLUSIVE)
    if not one.outcome is other.outcome is Outcome.FAIL:
        return False
    if other.claim in _WITH_TRUTH:
        of_a_gradient = one.claim in ("vjp", *_WITH_TRUTH) and other.code == _WITH_TRUTH[other.claim]
        return of_a_gradient and bool(_quantity(one)) and _quantity(one) == _quantity(other)
    return (
        other.claim == "adjoint"
        and one.claim in _OFF.get(_fact(other, "third_said"), ())
        and _argument(one) == _argument(other)
    )


def _quantity(result: Result) -> str:
    return result.worst.evidence.quantity if result.worst else ""


def _argument(result: Result) -> str | None:
    place = result.worst.evidence.worst if result.worst else None
    return place.argument if place else None


def _fact(result: Result, name: str) -> str:
    return str(result.worst.evidence.facts.get(name, "")) if result.worst else ""


def _lost(result: Result) -> bool:
    """Whether the op's own number is not finite."""
    return result.worst is not None and not math.isfinite(result.worst.evidence.analytic) and not _fact(result, "said")


def _together(mark: str, said: str, same: Sequence[Result], style: Style) -> list[str]:
    codes = {r.code for r in same}
    names = [claim_name(r) if len(codes) == 1 else f"{claim_name(r)} {r.code}" for r in same]
    code = f"{same[0].code} " if len(codes) == 1 else ""
    column = len(Style(unicode=style.unicode).sign("fail")) + 3
    text = f"{some_of(names)}: {code}{said}"
    first, *rest = wrapped(style.plain(text), first=" " * column, rest=" " * (column + 2))
    return [f"  {mark} {first.strip()}", *rest]


def some_of(names: Sequence[str]) -> str:
    """Names with commas; of many the first few, and how many more there are."""
    shown = names if len(names) <= _NAMED + 1 else names[:_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(shown) < len(names) else "")


def _one_line(op: OpRun, group: Sequence[Result], style: Style) -> str:
    first, *others = group
    more = "".join(f",{r.claim}" for r in others) if len(others) <= _NAMED else f"+{len(others)}"
    label = f"{op.spec} {first.claim}{more}[{first.device}-{first.dtype}]"
    return style.plain(f"{first.outcome.value} {label} {headline(first)}".rstrip())
