"""`gradverify explain CODE`: what a code means, how it is detected, a wrong and a right line, how to silence it."""

from __future__ import annotations

import sys

import click
import msgspec

from gradverify.cli import output
from gradverify.errors import UsageError
from gradverify.records.codes import TITLES, matches
from gradverify.records.explained import Page, pages
from gradverify.records.names import did_you_mean
from gradverify.reports.style import Style, wrapped


@click.command("explain")
@click.argument("code", required=False, metavar="[CODE]")
@click.option("--json", "as_json", is_flag=True, help="The page, or all of them, as JSON.")
def command(*, code: str | None, as_json: bool) -> None:
    """Explain a code.

    CODE is GV104, or a family such as GV1xx, whose codes are listed. Without one, all codes are.
    """
    chosen = _chosen(code)
    style = output.style_of(sys.stdout)
    if as_json:
        output.emit(msgspec.json.format(msgspec.json.encode(chosen), indent=2).decode() + "\n")
    elif len(chosen) == 1 and code:
        output.emit(style.plain("\n".join(_lines(chosen[0], style))) + "\n")
    else:
        output.emit("".join(f"{p.code}  {style.plain(p.title)}\n" for p in chosen))


def _chosen(code: str | None) -> list[Page]:
    """The pages that are asked for. Raises UsageError where there are none."""
    wanted = (code or "GVxx").upper().replace("X", "x")
    wanted = wanted if wanted.startswith("GV") else f"GV{wanted}"
    found = [p for p in pages().values() if matches(p.code, wanted)]
    if not found:
        raise UsageError(f"{code!r} is no code{_near(wanted)}; `gradverify explain` lists them all.")
    return found


def _lines(page: Page, style: Style) -> list[str]:
    """Paragraphs wrapped, the code as it is, wrong lines red and right ones green."""
    code = [_painted(f"    {line}", style) for line in page.pair.splitlines()]
    parts = [[style.paint(f"{page.code} {page.title}", "bold")], *map(_wrapped, page.before), code]
    return [line for part in [*parts, *map(_wrapped, page.after)] if part for line in ["", *part]][1:]


def _wrapped(paragraph: str) -> list[str]:
    return wrapped(paragraph)


def _painted(line: str, style: Style) -> str:
    colour = "red" if line.endswith("# bad") else "green" if line.endswith("# good") else ""
    return style.paint(line, colour) if colour else line


def _near(code: str) -> str:
    return did_you_mean(code, [c.lower() for c in TITLES]).replace("gv", "GV")
