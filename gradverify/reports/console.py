"""The report that people read, line by line as results arrive. Afterwards `render` makes the same text from a Run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from gradverify.records.claims import CLAIMS, family_of
from gradverify.records.lead import led
from gradverify.records.run import Environment, Input, Invocation, OpRun, Run
from gradverify.records.verdict import Outcome, Result
from gradverify.reports import table
from gradverify.reports.lines import gathered_lines, gathers, place, relative, result_lines
from gradverify.reports.repeated import repeated_lines, short_lines, shown_by
from gradverify.reports.style import WIDTH, Style, wrapped
from gradverify.reports.totals import not_covered_lines, total_line, total_notes

Form = Literal["full", "table", "concise", "quiet"]
"""`full`: a block an op; `table`: a row an op, then the findings; `concise`: rows and one line a failure; `quiet`:
only one line a failure."""

_BAD = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE)
# Beyond this many findings below a table nobody reads on; the JSON has them all.
_FINDINGS_SHOWN = 10
_INPUTS_SHOWN = 12
# Stands for a space at which no line is broken; ASCII, so that no alphabet changes it.
_TIED = "\x1f"
_WORDS = {"integer": "Int", "mask": "Bool"}


class View(msgspec.Struct, frozen=True, kw_only=True):
    """How much is shown, and in which alphabet."""

    form: Form = "full"
    verbose: bool = False
    style: Style = Style()
    claims: tuple[str, ...] = tuple(CLAIMS)


class Console:
    """Writes the report as results arrive: begin, then start and result for each op, then finish."""

    def __init__(self, write: Callable[[str], object], view: View) -> None:
        self._write = write
        self._view = view
        self._op: OpRun | None = None
        self._results: list[Result] = []
        self._held: list[Result] = []
        self._repeated: list[tuple[Result, Result]] = []

    def begin(self, environment: Environment, invocation: Invocation) -> None:
        """Say what runs where."""
        if self._view.form != "quiet":
            self._lines(header(environment, invocation, style=self._view.style))
        if self._view.form in ("table", "concise"):
            self._lines([table.heading(style=self._view.style)])

    def start(self, op: OpRun) -> None:
        """Announce an op."""
        self._end_row()
        self._op, self._results = op, []
        if self._view.form == "full":
            self._lines(op_lines(op, style=self._view.style))

    def result(self, result: Result) -> None:
        """Show a result of the op that was announced last; what is wrong waits for its end: the cause comes first."""
        view, first = self._view, shown_by(result, self._results)
        self._results.append(result)
        if view.form != "full" or _is_bad(result):
            return
        if view.verbose:
            self._lines(result_lines(result, style=view.style, verbose=True))
        elif first is not None:
            self._repeated.append((result, first))
        elif gathers(result):
            self._held.append(result)
        else:
            self._release(unless=result)
            self._lines(result_lines(result, style=view.style))

    def finish(self, run: Run) -> None:
        """Show what failed where it was not shown yet, what is not covered, and the totals."""
        self._end_row()
        style = self._view.style
        if self._view.form == "table":
            self._lines(_findings(run, self._view))
        if self._view.form == "concise":
            self._lines([line for op in run.ops for line in _short(op, op.checks, style)])
        self._lines([line for op in run.ops if op.error for line in _unusable(op, self._view)])
        if self._view.form != "quiet":
            self._lines([*not_covered_lines(run, style=style), *total_notes(run, style=style)])
            self._lines([total_line(run, style=style)])

    def _release(self, *, unless: Result | None = None) -> None:
        """Show the passing children of a family in one line, once none of that family is to come."""
        if self._held and (unless is None or family_of(unless.claim) != family_of(self._held[0].claim)):
            self._lines(gathered_lines(self._held, style=self._view.style))
            self._held = []

    def _end_row(self) -> None:
        self._release()
        self._lines(repeated_lines(self._repeated, style=self._view.style))
        self._repeated = []
        if self._view.form == "full":
            blocks, again = _blocks(self._results, self._view)
            self._lines([*(line for block in blocks for line in block), *again])
            self._results = []
        if self._op and self._view.form in ("table", "concise"):
            op = msgspec.structs.replace(self._op, checks=tuple(self._results))
            self._lines(table.rows(op, self._view.claims, style=self._view.style))
        if self._op and self._view.form == "quiet":
            self._lines(_short(self._op, self._results, self._view.style))
        self._op = None

    def _lines(self, lines: Sequence[str]) -> None:
        if lines:
            self._write("\n".join(lines) + "\n")


def render(run: Run, view: View) -> str:
    """The whole report as one text: what Console writes while the run goes on."""
    parts: list[str] = []
    console = Console(parts.append, view)
    console.begin(run.environment, run.run)
    for op in (op for op in run.ops if not op.error or op.checks):
        console.start(op)
        for result in op.checks:
            console.result(result)
    console.finish(run)
    return "".join(parts)


def header(environment: Environment, invocation: Invocation, *, style: Style) -> list[str]:
    """`gradverify 0.1.0 · torch 2.13.0+cpu · cpu · profile dev · seed 4127`."""
    from gradverify import __version__

    torch = f"torch {environment.torch}" if environment.torch else ""
    words = [f"gradverify {__version__}", torch, ", ".join(environment.devices)]
    words += [f"profile {invocation.profile}", f"seed {invocation.seed}"]
    return [style.paint(style.plain(" · ".join(w for w in words if w)), "dim")]


def op_lines(op: OpRun, *, style: Style) -> list[str]:
    """The target with kind and source, its inputs and where they come from, a contract that is not exact, the note."""
    name = op.target if op.spec == "" or op.target.endswith(op.spec) else f"{op.spec}  {op.target}"
    kind = [op.kind] if op.kind and op.kind != "lazy" else []
    source = [place(op.source)] if op.source else []
    head, *more = wrapped(style.plain("  ".join([relative(name), *kind, *source])), rest="    ")
    contract = [f"contract {relative(op.contract)}"] if op.contract != "exact" else []
    contract += [op.note] if op.note else []
    shown = [_input(i) for i in op.inputs[:_INPUTS_SHOWN]]
    hidden = len(op.inputs) - len(shown)
    inputs = "   ".join([*shown, *([f"and {hidden} more"] if hidden else [])])
    origin = f"from {op.inputs_from.removeprefix('from ')}" if op.inputs_from else ""
    spread = (
        [f"{inputs:<{WIDTH - 4 - len(origin)}}  {origin}"]
        if len(inputs) + len(origin) <= WIDTH - 4
        else [inputs, origin]
    )
    texts = (style.plain(text.strip()) for text in [*spread, *contract])
    rest = [line.replace(_TIED, " ") for text in texts for line in wrapped(text, first="  ", rest="    ")]
    return [style.paint(head, "bold"), *more, *(rest if op.inputs else [])]


def _input(item: Input) -> str:
    domain = f" in {item.domain}" if item.domain.startswith("[") else f" {item.domain}" if item.domain else ""
    frozen = " no gradient" if item.role == "frozen" else ""
    # An input is not broken in two where the line of inputs is.
    return f"{item.name} {_WORDS.get(item.role, 'Float')}[{item.shape}]{domain}{frozen}".replace(" ", _TIED)


def _short(op: OpRun, results: Sequence[Result], style: Style) -> list[str]:
    return short_lines(op, [r for r in led(results) if _is_bad(r)], style=style)


def _is_bad(result: Result) -> bool:
    return result.outcome in _BAD and not result.xfailed


def _findings(run: Run, view: View) -> list[str]:
    """The blocks of what is wrong, op by op, as many as are read."""
    lines, hidden, room = [], 0, _FINDINGS_SHOWN
    for op in run.ops:
        blocks, again = _blocks(op.checks, view)
        head = ["", view.style.paint(view.style.plain(op.spec), "bold")] if blocks[:room] else []
        lines += [*head, *(line for block in blocks[:room] for line in block), *(again if head else [])]
        hidden += len(blocks[room:])
        room -= len(blocks[:room])
    rest = [f"{hidden} more findings are in the JSON (--json)"] if hidden else []
    return [*lines, *rest, ""] if lines else []


def _blocks(results: Sequence[Result], view: View) -> tuple[list[list[str]], list[str]]:
    """A block for each finding of an op, the cause first, and what runs into one that is shown."""
    bad = [r for r in led(results) if _is_bad(r)]
    known = [(r, None if view.verbose else shown_by(r, bad[:number])) for number, r in enumerate(bad)]
    blocks = [result_lines(r, style=view.style, verbose=view.verbose) for r, first in known if first is None]
    return blocks, repeated_lines([(r, first) for r, first in known if first is not None], style=view.style)


def _unusable(op: OpRun, view: View) -> list[str]:
    """Why a target could not be verified: one line under `quiet`, else the whole message."""
    name = op.target or op.spec
    message = view.style.plain(op.error.removeprefix(f"{name}: ")).strip().splitlines() or [""]
    name = view.style.plain(name)
    if view.form in ("quiet", "concise"):
        return [f"ERROR {name} {message[0]}"]
    label = view.style.paint("ERROR", "red")
    return [f"{label} {name}", *(line for text in message for line in _kept(text))]


def _kept(text: str) -> list[str]:
    lead = "  " + " " * (len(text) - len(text.lstrip()))
    return wrapped(text.strip(), first=lead, rest=f"{lead}  ") if len(text) > WIDTH - 2 else [f"  {text}"]
