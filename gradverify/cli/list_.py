"""`gradverify list`: every spec that is found, read without importing it, and what the last run said."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from gradverify.cli import last, output
from gradverify.config import load
from gradverify.discovery.files import Listed, listed
from gradverify.reports.style import WIDTH

_HEADINGS = ("NAME", "KIND", "INPUTS", "CONTRACT", "CHECKS", "LAST")
_INPUTS = _HEADINGS.index("INPUTS")
_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def command(*, as_json: bool) -> int:
    """List the specs of this project and of the catalogue, without importing them."""
    config = load()
    entries, errors = listed(config)
    results = last.read(Path(config.root))
    if as_json:
        output.emit(_json(entries, results))
    elif entries:
        output.emit(_table(entries, results, time.time()))
    for error in errors:
        click.echo(f"Error: {error}", err=True)
    if not entries and not errors:
        click.echo(f"No specs: nothing matches {', '.join(config.specs)} in {config.root}.", err=True)
    return 2 if errors else 0


def _json(entries: Sequence[Listed], results: dict[str, last.Last]) -> str:
    rows = [_row(e, results.get(e.outline.name)) for e in entries]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n"


def _row(entry: Listed, result: last.Last | None) -> dict[str, Any]:
    facts = msgspec.to_builtins(entry.outline)
    return {**facts, "kind": entry.kind, "file": entry.file, "target": entry.target, "last": result}


def _table(entries: Sequence[Listed], results: dict[str, last.Last], now: float) -> str:
    """Columns as wide as their widest cell, without empty ones; INPUTS gives way, so that a row fits the width."""
    cells = [_cells(e, results.get(e.outline.name), now) for e in entries]
    shown = [i for i in range(len(_HEADINGS)) if any(row[i] for row in cells)]
    rows = [tuple(row[i] for i in shown) for row in (_HEADINGS, *cells)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if _INPUTS in shown:
        at = shown.index(_INPUTS)
        over = max(sum(widths) + 2 * (len(widths) - 1) - WIDTH, 0)
        widths[at] = max(widths[at] - over, len(_HEADINGS[_INPUTS]))
    style = output.style_of(sys.stdout)
    lines = [_line([_cut(cell, w) for cell, w in zip(row, widths, strict=True)], widths) for row in rows]
    return style.plain("\n".join(lines)) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(entry: Listed, result: last.Last | None, now: float) -> tuple[str, ...]:
    inputs = " ".join(entry.outline.inputs)
    verdict = (f"{result.passed}/{result.checks}", _said(result, now)) if result else ("", "")
    return entry.outline.name, entry.kind, inputs, entry.outline.contract, *verdict


def _said(result: last.Last, now: float) -> str:
    """`FAIL now GV199`, `PASS 3 d ago`."""
    return f"{result.outcome} {_age(now - result.when)} {result.code}".rstrip()


def _age(seconds: float) -> str:
    for unit, name in _AGES:
        if seconds >= unit:
            return f"{int(seconds // unit)} {name} ago"
    return "now"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."
