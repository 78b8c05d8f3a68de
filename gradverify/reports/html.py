"""One HTML file that needs nothing else: the verdict, ops by claims, findings with figures, inputs, gaps, the JSON."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gradverify.records.claims import CLAIMS
from gradverify.records.finding import Finding, Gradient, Location
from gradverify.records.run import OpRun, Run, to_json
from gradverify.records.verdict import Outcome, Result
from gradverify.reports import plots
from gradverify.reports.curves import told
from gradverify.reports.findings import Entry, expected, findings, is_bad, warned
from gradverify.reports.lines import body_lines, headline, place, relative
from gradverify.reports.style import Style, mark_of
from gradverify.reports.totals import gaps_of
from gradverify.reports.words import count, duration, number, size

_SIGNS = {"pass": "✓", "fail": "✗", "unsure": "?", "skip": "–", "warn": "!"}
Links = dict[tuple[int, int], str]
"""Which finding a result of an op is."""

_LEGEND = (
    ("pass", "holds"),
    ("fail", "wrong"),
    ("unsure", "cannot be judged"),
    ("warn", "imprecise, or expected"),
    ("skip", "not verified"),
)
_OPEN, _TABLED, _TALLIED, _BARS, _SIDE = 10, 30, 50, 12, 32
"""Findings that are open and have figures; those that have tables; ops with
histograms; bars of one; rows and columns of a map."""
_MOST_JSON = 800_000
"""A run of more is not embedded: the file is to be mailed and opened on a phone."""
_SHADES = ((0.5, "█"), (1e-1, "▓"), (1e-2, "▒"), (1e-6, "░"))


def html(run: Run) -> str:
    """The run as one HTML file. Without matplotlib, tables stand in for its figures."""
    from markupsafe import Markup

    page = _page(run)
    embedded = to_json(run).decode().replace("<", "\\u003c") if page["embedded"] else "null"
    text: str = _template().render(page={**page, "json": Markup(embedded)})  # noqa: S704 `<` is escaped
    return text


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False, keep_trailing_newline=True)
    text = Path(__file__).with_name("templates") / "report.html"
    return environment.from_string(text.read_text(encoding="utf-8"))


def _page(run: Run) -> dict[str, Any]:
    found = findings(run)
    marks = Counter(mark_of(r) for r in run.results)
    verdict = _verdict(run)
    claims = [c for c in CLAIMS if any(r.claim == c for r in run.results)]
    noted = {"e": expected(run), "w": warned(run)}
    links = {
        (id(e.op), id(e.result)): f"{mark}{k}" for mark, es in {"f": found, **noted}.items() for k, e in enumerate(es)
    }
    return {
        "title": f"gradverify: {verdict['word']}",
        "verdict": verdict,
        "counts": _counts(run, marks),
        "bar": [
            {"mark": mark, "count": marks[mark]} for mark in ("fail", "unsure", "warn", "pass", "skip") if marks[mark]
        ],
        "about": _about(run),
        "interrupted": run.run.interrupted,
        "legend": _LEGEND,
        "signs": _SIGNS,
        "claims": claims,
        "rows": [row for op in run.ops for row in _rows(op, claims, links)],
        "findings": [_finding(entry, k) for k, entry in enumerate(found)],
        "expected": _listed("e", noted["e"]),
        "warned": _listed("w", noted["w"]),
        "unusable": [{"name": op.spec or op.target, "error": op.error} for op in run.ops if op.error],
        "inputs": [tried for op in run.ops[:_TALLIED] if (tried := _inputs(op))],
        "more_inputs": max(len(run.ops) - _TALLIED, 0),
        "embedded": len(to_json(run)) < _MOST_JSON,
        "gaps": list(_gaps(run)),
        "environment": list(_environment(run)),
    }


def _verdict(run: Run) -> dict[str, str]:
    outcomes = {r.outcome for r in run.results if is_bad(r)}
    if outcomes & {Outcome.FAIL, Outcome.ERROR}:
        return {"word": "FAIL", "mark": "fail"}
    if any(op.error for op in run.ops):
        return {"word": "unusable", "mark": "fail"}
    if Outcome.INCONCLUSIVE in outcomes:
        return {"word": "INCONCLUSIVE", "mark": "unsure"}
    tried = any(r.outcome is Outcome.PASS or r.xfailed for r in run.results)
    return {"word": "PASS", "mark": "pass"} if tried else {"word": "nothing verified", "mark": "unsure"}


def _counts(run: Run, marks: Counter[str]) -> list[str]:
    words = {
        "fail": "FAIL",
        "unsure": "INCONCLUSIVE",
        "warn": "imprecise or expected",
        "pass": "PASS",
        "skip": "not verified",
    }
    cases = sum(r.cases.run for r in run.results)
    said = [f"{marks[mark]} {word}" for mark, word in words.items() if marks[mark]]
    unusable = sum(bool(op.error) for op in run.ops)
    return [count(len(run.ops), "op"), *said, *([f"{unusable} unusable"] if unusable else []), count(cases, "case")]


def _about(run: Run) -> list[str]:
    e, i = run.environment, run.run
    words = [f"torch {e.torch}" if e.torch else "", ", ".join(e.devices), f"profile {i.profile}", f"seed {i.seed}"]
    return [w for w in (*words, i.started, duration(i.duration_s) if i.duration_s else "") if w]


def _rows(op: OpRun, claims: Sequence[str], links: Links) -> Iterator[dict[str, Any]]:
    """A row for each device and dtype of an op."""
    kinds = list(dict.fromkeys((r.device, r.dtype) for r in op.checks))
    for device, dtype in kinds:
        found = {r.claim: r for r in op.checks if (r.device, r.dtype) == (device, dtype)}
        name = op.spec if kinds == [("cpu", "float64")] else f"{op.spec} {device} {dtype}"
        yield {"name": name, "cells": [_cell(op, found.get(claim), links) for claim in claims]}


def _cell(op: OpRun, result: Result | None, links: Links) -> dict[str, str]:
    if result is None:
        return {"mark": "skip", "sign": "", "title": "", "link": ""}
    mark = mark_of(result)
    said = {"pass": CLAIMS.get(result.claim, ""), "skip": result.reason}.get(mark) or headline(result)
    title = f"{op.spec}, {result.claim}: {result.outcome.value} {said}"
    return {"mark": mark, "sign": _SIGNS[mark], "title": title, "link": links.get((id(op), id(result)), "")}


def _listed(mark: str, entries: Sequence[Entry]) -> list[dict[str, str]]:
    return [{"id": f"{mark}{k}", "name": e.name, "headline": e.headline} for k, e in enumerate(entries)]


def _finding(entry: Entry, k: int) -> dict[str, Any]:
    finding, here = entry.result.finding, entry.location
    frame = finding.frame if finding else ()
    return {
        "id": f"f{k}",
        "mark": "unsure" if entry.result.outcome is Outcome.INCONCLUSIVE else "fail",
        "open": k < _OPEN,
        "name": entry.name,
        "headline": entry.headline,
        "place": relative(place(here)) if here else "",
        "frame": [_framed(n, text, here) for n, text in frame],
        "block": _measured(entry.result),
        "figures": list(_figures(entry.result, f"f{k}", drawn=k < _OPEN)) if k < _TABLED else [],
        "copied": list(_copied(finding)) if finding else [],
    }


def _framed(number: int, text: str, here: Location | None) -> dict[str, Any]:
    """A line of source; of that which is meant, what stands before the place, the place, and what follows."""
    if here is None or number != here.line:
        return {"number": number, "here": False, "parts": (text, "", "")}
    start, end = (here.col - 1, here.end_col - 1) if 0 < here.col < here.end_col else (len(text), len(text))
    return {"number": number, "here": True, "parts": (text[:start], text[start:end], text[end:])}


def _measured(result: Result) -> str:
    """What the console prints below the claim, less what the page shows elsewhere."""
    finding = result.finding
    if finding is not None:
        finding = replace(
            finding, location=None, caret=() if finding.frame else finding.caret, repro="", replay_id=None
        )
    return textwrap.dedent("\n".join(body_lines(replace(result, finding=finding), style=Style())))


def _copied(finding: Finding) -> Iterator[dict[str, str]]:
    """What is there to be copied: plain torch that shows the fault, and commands."""
    if finding.repro:
        yield {"what": "the same without gradverify", "text": finding.repro.strip()}
    if finding.replay_id:
        yield {"what": "the same case again", "text": f"gradverify replay {finding.replay_id}"}


def _figures(result: Result, prefix: str, *, drawn: bool) -> Iterator[dict[str, Any]]:
    from markupsafe import Markup

    finding = result.finding
    drawn = drawn and plots.available()
    if finding and finding.gradient and finding.gradient.numeric:
        g = finding.gradient
        caption = f"gradient of {g.argument}: returned against true, slope {plots.slope(g):.4g}"
        svg = Markup(plots.scatter(g, prefix=f"{prefix}s")) if drawn and _finite(g) else ""  # noqa: S704 matplotlib escapes
        yield {
            "caption": caption,
            "svg": svg,
            "map": [],
            "heads": ("entry", "returned", "true", "+-"),
            "numbers": _entries(g),
        }
        legend = ", ".join(f"{sign} above {limit:g}" for limit, sign in reversed(_SHADES))
        yield {
            "caption": f"where it is wrong, shape {g.shape}",
            "svg": "",
            "map": _map(g),
            "legend": f"· none, {legend}",
        }
    if finding and finding.curve:
        steps = result.worst.evidence.numeric.steps if result.worst else ()
        caption = f"central differences at the worst entry: {told(finding.curve, steps)}"
        svg = Markup(plots.curve(finding.curve, steps, prefix=f"{prefix}v")) if drawn else ""  # noqa: S704 numbers alone
        rows = [(f"{h:.1e}", f"{e:.1e}") for h, e in finding.curve]
        yield {"caption": caption, "svg": svg, "map": [], "heads": ("step h", "error"), "numbers": rows}


def _finite(gradient: Gradient) -> bool:
    return all(map(math.isfinite, (*gradient.analytic, *gradient.numeric)))


def _entries(g: Gradient) -> list[tuple[str, ...]]:
    """The entries that are off the most, the worst first."""
    order = sorted(range(len(g.numeric)), key=lambda k: -_gap(g.analytic[k], g.numeric[k]))
    return [(_index(g, k), number(g.analytic[k]), number(g.numeric[k]), size(g.error[k])) for k in order[:20]]


def _map(g: Gradient) -> list[list[dict[str, str]]]:
    """Rows and columns of the error, relative to the largest entry; of a large gradient, the first of either."""
    scale = max((abs(n) for n in g.numeric if math.isfinite(n)), default=0.0) or 1.0
    wide = g.shape[-1] if g.shape else 1
    cells = [_shade(g, k, scale) for k in range(len(g.numeric))]
    return [cells[k : k + min(wide, _SIDE)] for k in range(0, len(cells), max(wide, 1))][:_SIDE]


def _shade(g: Gradient, k: int, scale: float) -> dict[str, str]:
    off = _gap(g.analytic[k], g.numeric[k]) / scale
    sign = next((sign for limit, sign in _SHADES if not off <= limit), "·")
    return {"sign": sign, "title": f"{_index(g, k)}: returned {number(g.analytic[k])}, true {number(g.numeric[k])}"}


def _gap(a: float, n: float) -> float:
    return abs(a - n) if math.isfinite(a - n) else math.inf


def _index(g: Gradient, k: int) -> str:
    index: list[int] = []
    for length in reversed(g.shape):
        k, i = divmod(k, max(length, 1))
        index.insert(0, i)
    return f"[{', '.join(map(str, index))}]"


def _inputs(op: OpRun) -> dict[str, Any] | None:
    """What the cases of all claims of an op were like, as histograms."""
    sums: dict[str, Counter[str]] = {}
    for result in op.checks:
        for kind, counts in result.tried.items():
            sums.setdefault(kind, Counter()).update(counts)
    dtypes = Counter({r.dtype: 0 for r in op.checks})
    for result in op.checks:
        dtypes[result.dtype] += result.cases.run
    if not sums:
        return None
    kinds = [_histogram(kind, found) for kind, found in [*sorted(sums.items()), ("dtype", dtypes)]]
    return {"name": op.spec, "cases": count(sum(dtypes.values()), "case"), "kinds": kinds}


def _histogram(kind: str, found: Counter[str]) -> dict[str, Any]:
    order = sorted(found, key=_size_order) if kind.startswith("size ") else [w for w, _ in found.most_common()]
    if len(order) > _BARS:
        kept = {w for w, _ in found.most_common(_BARS)}
        order = [w for w in order if w in kept]
    most = max(found.values(), default=0) or 1
    bars = [{"word": w, "count": found[w], "width": round(100 * found[w] / most)} for w in order]
    more = len(found) - len(order)
    return {"name": kind, "bars": bars, "more": f"and {more} more" if more else ""}


def _size_order(word: str) -> tuple[int, int, str]:
    sizes = [int(part) for part in word.split("x") if part.isdecimal()]
    return len(sizes), math.prod(sizes), word


def _gaps(run: Run) -> Iterator[dict[str, str]]:
    ops = [op for op in run.ops if not op.error]
    reasons: dict[tuple[str, int], list[str]] = {}
    for (what, why), times in Counter(gap for op in ops for gap in gaps_of(op)).items():
        reasons.setdefault((why, times), []).append(what)
    for (why, times), names in reasons.items():
        yield {"what": ", ".join(names), "why": why, "ops": f"{times} of {len(ops)} ops" if len(ops) > 1 else ""}


def _environment(run: Run) -> Iterator[tuple[str, str]]:
    e = run.environment
    named = {"gradverify": run.tool.version, "python": e.python, "torch": e.torch, "platform": e.platform}
    named |= {"devices": ", ".join(e.devices), "commit": e.git or "", "command": " ".join(run.run.argv), **e.flags}
    return ((name, value) for name, value in named.items() if value)
