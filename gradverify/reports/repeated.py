"""What an earlier result of an op has shown already is not shown again: the other claims are listed under it."""

from __future__ import annotations

from collections.abc import Sequence

from gradverify.records.run import OpRun
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import claim_name, headline
from gradverify.reports.style import Style, wrapped

_WITH_TRUTH = {"edges": "GV206", "special": "GV215", "complex": "GV216"}
"""Claims that hold a gradient against the same truth as vjp does, elsewhere, and what they say of a wrong one."""
_OFF = {"backward() is off": ("vjp", *_WITH_TRUTH), "jvp() is off": ("jvp",), "both are off": ("vjp", "jvp")}
"""What adjoint says of two modes that disagree -> the claims that show the same fault."""


def shown_by(result: Result, earlier: Sequence[Result]) -> Result | None:
    """The first of the earlier results of an op that says the same, or whose fault explains this one."""
    if result.outcome is Outcome.PASS or (result.outcome is Outcome.SKIP and not result.xfailed):
        return None
    return next((r for r in earlier if _alike(r, result) or _explains(r, result)), None)


def repeated_lines(pairs: Sequence[tuple[Result, Result]], *, style: Style) -> list[str]:
    """`✗ edges GV206, special GV215: the same fault as vjp`, for pairs (result, the one that shows its fault)."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result, first in pairs:
        said = f"as for {claim_name(first)}" if _alike(first, result) else f"the same fault as {claim_name(first)}"
        groups.setdefault((style.mark(result), style.mark(first), said), []).append(result)
    return [line for (mark, _, said), same in groups.items() for line in _together(mark, said, same, style)]


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
    """Whether two results say the same in the same words."""
    same = (one.outcome, one.code, headline(one)) == (other.outcome, other.code, headline(other))
    return same and one.outcome is not Outcome.PASS


def _explains(one: Result, other: Result) -> bool:
    """Whether a wrong gradient or tangent that one claim has found is what another one has run into."""
    if not (one.outcome is other.outcome is Outcome.FAIL) or (one.device, one.dtype) != (other.device, other.dtype):
        return False
    if other.claim in _WITH_TRUTH:
        of_a_gradient = one.claim in ("vjp", *_WITH_TRUTH) and other.code == _WITH_TRUTH[other.claim]
        return of_a_gradient and bool(_quantity(one)) and _quantity(one) == _quantity(other)
    return other.claim == "adjoint" and one.claim in _OFF.get(_third(other), ()) and _argument(one) == _argument(other)


def _quantity(result: Result) -> str:
    return result.worst.evidence.quantity if result.worst else ""


def _argument(result: Result) -> str | None:
    place = result.worst.evidence.worst if result.worst else None
    return place.argument if place else None


def _third(result: Result) -> str:
    return str(result.worst.evidence.facts.get("third_said", "")) if result.worst else ""


def _together(mark: str, said: str, same: Sequence[Result], style: Style) -> list[str]:
    codes = {r.code for r in same}
    names = ", ".join(claim_name(r) if len(codes) == 1 else f"{claim_name(r)} {r.code}" for r in same)
    code = f"{same[0].code} " if len(codes) == 1 else ""
    column = len(Style(unicode=style.unicode).sign("fail")) + 3
    first, *rest = wrapped(style.plain(f"{names}: {code}{said}"), first=" " * column, rest=" " * (column + 2))
    return [f"  {mark} {first.strip()}", *rest]


def _one_line(op: OpRun, group: Sequence[Result], style: Style) -> str:
    first = group[0]
    label = f"{op.spec} {','.join(r.claim for r in group)}[{first.device}-{first.dtype}]"
    return style.plain(f"{first.outcome.value} {label} {headline(first)}".rstrip())
