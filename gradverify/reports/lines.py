"""One result as lines of text: the claim's line, then, where something is wrong, the finding."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gradverify.records.claims import CLAIMS, FAMILIES, family_of
from gradverify.records.codes import TITLES
from gradverify.records.finding import Finding, Location
from gradverify.records.verdict import Cases, Outcome, Result, Verdict
from gradverify.reports.style import WIDTH, Style, wrapped
from gradverify.reports.words import count, duration, number, resolution, size, sizes_of

_CLAIM_COLUMN = max(len(family_of(claim)) for claim in CLAIMS)
_CASES_COLUMN = 10
_BLOCK_LINES = 30
_ROOM = WIDTH - 6
_LABEL = len("smallest case  ")


def result_lines(result: Result, *, style: Style, verbose: bool = False) -> list[str]:
    """The block of one result; empty for a SKIP, which the list of what is not covered names."""
    if result.outcome is Outcome.SKIP and not result.xfailed:
        return []
    lines = (
        _passed(result, _what_held(result), style=style)
        if result.outcome is Outcome.PASS
        else _failed(result, style=style)
    )
    return lines + (_details(result, style=style) if verbose else [])


def gathers(result: Result) -> bool:
    """Whether a result is shown in one line with others of its family: a child that passes, with nothing to add."""
    quiet = not result.code and not _breaks(result)
    return family_of(result.claim) in FAMILIES and result.outcome is Outcome.PASS and quiet


def gathered_lines(results: Sequence[Result], *, style: Style) -> list[str]:
    """`✓ transforms  checkpoint, hooks: as in plain eager`: the passing children, one line a device and dtype."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(claim_name(family_result(result)), []).append(result)
    return [line for same in groups.values() for line in _gathered(same, style)]


def family_result(result: Result) -> Result:
    """The result under the name of its family."""
    return msgspec.structs.replace(result, claim=family_of(result.claim))


def _gathered(same: Sequence[Result], style: Style) -> list[str]:
    children = ", ".join(r.claim.partition(".")[2] for r in same)
    cases = Cases(run=sum(r.cases.run for r in same))
    whole = msgspec.structs.replace(family_result(same[0]), cases=cases, truth="")
    return _passed(whole, f"{children}: {FAMILIES[whole.claim]}", style=style)


def claim_name(result: Result) -> str:
    """`vjp`, and `vjp[cuda-bfloat16]` away from the CPU and float64."""
    usual = (result.device, result.dtype) == ("cpu", "float64")
    return result.claim if usual else f"{result.claim}[{result.device}-{result.dtype}]"


def headline(result: Result) -> str:
    """Code and summary of what is wrong, or the reason why it could not be judged, in one line."""
    text = result.finding.summary if result.finding else result.reason or TITLES.get(result.code, "")
    text = " ".join(text.split())
    expected = f" (expected: {result.reason.removeprefix('xfail ') or result.xfailed})" if result.xfailed else ""
    return f"{result.code} {text}".strip() + expected


def place(location: Location) -> str:
    """`src/ops.py:41:9`, relative to the current directory where the file lies below it."""
    return relative(f"{location.file}:{location.line}") + (f":{location.col}" if location.col else "")


def relative(text: str) -> str:
    """A text that names files, with those below the current directory named from there."""
    return text.replace(f"{Path.cwd()}{os.sep}", "")


def _passed(result: Result, said: str, *, style: Style) -> list[str]:
    cases = count(result.cases.run, "case")
    column = len(_head(result, Style(unicode=style.unicode))) + _CASES_COLUMN + 1
    lines = wrapped(style.plain(said), first=" " * column, rest=" " * column)
    return [f"{_head(result, style)}{cases:<{_CASES_COLUMN}} {lines[0].strip()}".rstrip(), *lines[1:]]


def _head(result: Result, style: Style) -> str:
    name = claim_name(result)
    # The claims of one dtype have one column, whatever stands behind their names.
    return f"  {style.mark(result)} {name:<{_CLAIM_COLUMN + len(name) - len(result.claim)}}  "


def _what_held(result: Result) -> str:
    """`any error above 2e-9 would have been seen (central differences, float64)`, and what was not plain sailing."""
    power = resolution(result.resolution) if result.claim == "vjp" else ""
    said = _apart(result) or _budget(result) or power or CLAIMS.get(result.claim, "")
    truth = f" ({result.truth}, {result.dtype})" if power and result.truth else ""
    return "; ".join(
        [
            *_imprecision(result),
            said + truth,
            *_saved(result),
            *_marked(result),
            *_breaks(result),
            *_of_dtype(result),
            *_counts(result),
        ]
    )


def _budget(result: Result) -> str:
    """`within 3e-2 of the reference in float64 (... is off by ...), all alike within 5e-4`, and what was loosened."""
    b = result.budget
    if b is None:
        return ""
    alike = f", all entries alike within {size(b.common)}" if math.isfinite(b.common) else ""
    loosened = f"; loosened to {b.loosened}" if b.loosened else ""
    return f"within {size(b.value)} of {result.truth}{alike} ({b.derived_from}){loosened}"


def _apart(result: Result) -> str:
    """How far equal calls lie apart where their bits differ: that is apart from whether they are right."""
    if result.claim != "repeat":
        return ""
    if "apart" in result.measured:
        return f"{result.measured['apart']}, which rounding explains{'' if result.code else ', as declared'}"
    if not result.code:
        return ""
    far = f"{10**-result.digits:.0e}" if math.isfinite(result.digits) else "less than can be told"
    return f"equal calls lie apart by {far} of an entry at most, which rounding explains"


def _saved(result: Result) -> list[str]:
    """What the op keeps for backward, as a function of its sizes."""
    saves = result.measured.get("saves")
    return [f"it saves {saves} for backward" + (" beside its inputs" if "bytes" in str(saves) else "")] if saves else []


def _marked(result: Result) -> list[str]:
    """Outputs that the op says carry no gradient: nothing was held against them."""
    marked = result.measured.get("marked")
    return [f"output {marked} is marked as non-differentiable"] if marked and result.claim == "vjp" else []


def _breaks(result: Result) -> list[str]:
    """How often the compiler gave a part of the op back to Python: a note, and no fault."""
    breaks = result.measured.get("graph breaks")
    return [count(int(breaks), "graph break")] if isinstance(breaks, int | float) and breaks else []


def _of_dtype(result: Result) -> list[str]:
    """What the dtype, or the machine, loses of gradients that are right."""
    return [str(result.measured[k]) for k in ("tf32", "lost", "subnormals") if k in result.measured]


def _imprecision(result: Result) -> list[str]:
    if not result.code:
        return []
    digits = f": agrees to {math.floor(result.digits)} digits" if math.isfinite(result.digits) else ""
    return [result.finding.summary if result.finding else f"{result.code} {TITLES.get(result.code, '')}{digits}"]


def _counts(result: Result) -> list[str]:
    """What a reader must know of the cases: that most were of no use, or that there were to be more."""
    cases = result.cases
    return [
        *([_left_out(cases)] if 2 * cases.invalid > cases.run + cases.invalid else []),
        *([_redrawn(cases)] if 2 * cases.redrawn > cases.run else []),
        *([f"stopped early: {cases.stopped_because}"] if cases.stopped_because != "examples" else []),
    ]


def _left_out(cases: Cases) -> str:
    return f"{cases.invalid} of {cases.run + cases.invalid} draws left out: where= refused them, or they hold nothing"


def _redrawn(cases: Cases) -> str:
    return f"{cases.redrawn} of {cases.run} cases redrawn: nothing could be judged there"


def _failed(result: Result, *, style: Style) -> list[str]:
    """The claim's line and the finding below it, at most _BLOCK_LINES lines."""
    indent = " " * 6
    column = len(_head(result, Style(unicode=style.unicode)))
    first, *rest = wrapped(style.plain(headline(result)), first=" " * column, rest=" " * column)
    lines = [_head(result, style) + style.paint(first.strip(), "bold"), *rest, *body_lines(result, style=style)]
    if len(lines) <= _BLOCK_LINES:
        return lines
    return [*lines[: _BLOCK_LINES - 1], f"{indent}{len(lines) - _BLOCK_LINES + 1} more lines in the JSON (--json)"]


def body_lines(result: Result, *, style: Style) -> list[str]:
    """What stands below the line of a claim that does not hold: the finding, or what was measured."""
    return _finding(result.finding, style) if result.finding else _evidence(result.worst, style)


def _finding(finding: Finding, style: Style) -> list[str]:
    arrow = [f"    --> {style.plain(place(finding.location))}"] if finding.location else []
    # An op that raised has no numbers to show, but the sizes it raised at.
    sizes = _labelled(f"case  {sizes_of(finding.minimal)}", style) if finding.minimal and not finding.lines else []
    remedy = _labelled(f"try            {finding.remedy}", style) if finding.remedy else []
    arrow += [f"      {style.plain(line)}" for line in finding.caret]
    body = [line for text in finding.lines for line in _labelled(text, style)]
    whole = [*arrow, *sizes, *body, *remedy]
    return [*whole, *_repro(finding, style, room=_BLOCK_LINES - len(whole) - 3), *_onward(finding, style)]


def _repro(finding: Finding, style: Style, *, room: int) -> list[str]:
    """The snippet, where it fits; else how to print it."""
    rows = [f"        {style.plain(line)}".rstrip() for line in finding.repro.splitlines() if line]
    if not rows:
        return []
    if len(rows) <= room and max(map(len, rows)) <= WIDTH:
        return ["      reproduce without gradverify:", *rows]
    return [f"      as plain torch: gradverify replay {finding.replay_id} --as repro"] if finding.replay_id else []


def _onward(finding: Finding, style: Style) -> list[str]:
    """How to see a failure again, and what its code means."""
    if not finding.replay_id:
        return []
    said = f"gradverify replay {finding.replay_id} {style.dot} gradverify explain {finding.code}"
    return [style.paint(line, "dim") for line in _labelled(said, style)]


def _labelled(text: str, style: Style) -> list[str]:
    """A line of a finding, indented; broken where it is too long, and left alone where it is not."""
    lead = len(text) - len(text.lstrip())
    return [
        line
        for row in style.plain(text).splitlines()
        for line in (_broken(row.strip(), lead) if len(row) > _ROOM else [f"      {row}"])
    ]


def _broken(row: str, lead: int) -> list[str]:
    """A line that is too long: before what stands apart in it, where that is enough; else between any words."""
    hang = _LABEL if row[:_LABEL].endswith("  ") else lead + 2
    before, apart, behind = row.rpartition("   ")
    fits = len(before) > _LABEL and max(lead + len(before.rstrip()), hang + len(behind)) <= _ROOM
    rows = [before.rstrip(), " " * (hang - lead) + behind] if apart and fits else [row]
    return [line for part in rows for line in wrapped(part, first=" " * (6 + lead), rest=" " * (6 + hang))]


def _evidence(worst: Verdict | None, style: Style) -> list[str]:
    """What was measured, where nothing has explained it: both numbers, the error bar and the place."""
    if worst is None:
        return []
    evidence = worst.evidence
    lines = [
        f"{evidence.quantity}, case {evidence.case.id}",
        f"  the op     {number(evidence.analytic)}",
        f"  numerical  {number(evidence.numeric.value)} +- {size(evidence.numeric.error)}",
    ]
    return [line for text in lines for line in _labelled(text, style)]


def _details(result: Result, *, style: Style) -> list[str]:
    """What -v adds: power, truth, time by phase, and everything measured in the worst case."""
    rows = {
        "resolution": resolution(result.resolution),
        "digits": f"{result.digits:.1f}" if math.isfinite(result.digits) else "",
        "truth": result.truth,
        "left out": _left_out(result.cases) if result.cases.invalid else "",
        "redrawn": _redrawn(result.cases) if result.cases.redrawn else "",
        **{name: str(fact) for name, fact in result.measured.items()},
        "time": ", ".join(f"{phase} {duration(s)}" for phase, s in sorted(result.seconds.items())),
        **_worst(result.worst),
    }
    text = (f"{name:<13} {value}" for name, value in rows.items() if value)
    return [style.paint(line, "dim") for row in text for line in _labelled(row, style)]


def _worst(worst: Verdict | None) -> dict[str, str]:
    if worst is None:
        return {}
    evidence = worst.evidence
    bar = f"{number(evidence.analytic)} against {number(evidence.numeric.value)} +- {size(evidence.numeric.error)}"
    return {
        "worst case": f"{evidence.case.id} {msgspec.json.encode(evidence.case).decode()}",
        "measured": f"{evidence.quantity}: {bar}",
        "around it": evidence.neighbourhood,
        **{name: str(fact) for name, fact in sorted(evidence.facts.items())},
    }
