"""`gradverify replay [ID|PATH]...`: failing cases that were kept, tried again; what is fixed is removed."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from gradverify import failures
from gradverify.cli import output
from gradverify.config import Config, load
from gradverify.errors import UsageError
from gradverify.failures import Failure
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import result_lines
from gradverify.reports.style import Style, wrapped
from gradverify.reports.words import count

State = Literal["FIXED", "FAILED", "ERROR"]
_SIGNS = {"FIXED": "pass", "FAILED": "fail", "ERROR": "warn"}


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a failure. `said`: what is found now, or why nothing is; `removed`: its file is gone."""

    id: str
    state: State
    what: str
    said: str
    removed: bool = False
    result: Result | None = None


@click.command("replay")
@click.argument("which", nargs=-1, metavar="[ID|PATH]...")
@click.option(
    "--as", "form", type=click.Choice(["example", "repro"]), help="Print what pins it in its spec, or plain torch."
)
@click.option("--keep", is_flag=True, help="Keep the files of what is fixed.")
@click.option("--json", "as_json", is_flag=True, help="The outcomes as JSON.")
@click.option("--no-color", is_flag=True, help="No colours; NO_COLOR and FORCE_COLOR work too.")
def command(*, which: tuple[str, ...], form: str | None, keep: bool, as_json: bool, no_color: bool) -> int:
    """Try failing cases again.

    ID is the one that a report names, or its beginning; PATH a file of a failure. Without either, every failure that
    is kept below .gradverify/failures is tried. What is FIXED is removed from there. Exit 1 where one FAILED, 2 where
    one could not be tried (ERROR), else 0.
    """
    config = load()
    root = Path(config.root)
    paths = failures.named(which, root)
    if form is not None:
        output.emit("".join(_as(form, failures.read(p), config) for p in paths))
        return 0
    if not paths:
        click.echo(f"No failure is kept in {root / failures.FOLDER}.", err=True)
        return 0
    with output.only_ours() if as_json else contextlib.nullcontext():
        done = [_replayed(p, config, keep=keep) for p in paths]
    if as_json:
        output.emit(msgspec.json.format(msgspec.json.encode([_row(r) for r in done]), indent=2).decode() + "\n")
    else:
        style = output.style_of(sys.stdout, no_colour=no_color)
        output.emit("\n".join([*_lines(done, style, shown=bool(which)), _total(done)]) + "\n")
    states = {r.state for r in done}
    return 1 if "FAILED" in states else 2 if "ERROR" in states else 0


def _as(form: str, failure: Failure, config: Config) -> str:
    """The line of a spec, or the snippet. Raises UsageError where the case has none."""
    if form == "example":
        return f"{failures.example(failure)}\n"
    result = failures.replayed(_spec(failure, config), failure, _policy())
    snippet = result.finding.repro if result.finding else ""
    if not snippet:
        raise UsageError(f"{failure.id}: there is no plain snippet for this case, or it is fixed; replay it instead.")
    return f"{snippet}\n"


def _replayed(path: Path, config: Config, *, keep: bool) -> Replayed:
    """Try one failure again; whatever is wrong with it, the others are still tried."""
    try:
        failure = failures.read(path)
    except UsageError as error:
        return Replayed(id=path.stem, state="ERROR", what=path.name, said=str(error))
    what = f"{failure.claim} of {failure.target}"
    try:
        state, said, result = _state(failure, failures.replayed(_spec(failure, config), failure, _policy()))
    except UsageError as error:
        return Replayed(id=failure.id, state="ERROR", what=what, said=" ".join(str(error).split()))
    removed = state == "FIXED" and not keep and path.resolve().parent == (Path(config.root) / failures.FOLDER).resolve()
    if removed:
        path.unlink(missing_ok=True)
    return Replayed(id=failure.id, state=state, what=what, said=said, removed=removed, result=result)


def _policy() -> Any:
    from gradverify.records.policy import Policy

    return Policy()


def _spec(failure: Failure, config: Config) -> Spec:
    """The spec of a failure. Raises UsageError where its target is gone, or has become something else."""
    from gradverify.discovery.targets import resolve

    found = resolve([failures.from_root(failure.target, config.root)], shapes=failure.shapes, config=config)
    specs = [s for s in found if isinstance(s, Spec) and s.name == failure.spec]
    if not specs:
        why = (s.error for s in found if not isinstance(s, Spec))
        raise UsageError(next(why, f"{failure.target}: no spec {failure.spec!r} in it."))
    return specs[0]


def _state(failure: Failure, result: Result) -> tuple[State, str, Result | None]:
    if result.outcome is Outcome.PASS:
        return "FIXED", f"was {failure.code} {failure.summary.removeprefix(failure.code).strip()}", None
    if result.outcome is Outcome.SKIP:
        return "FIXED", f"the claim does not apply any more: {result.reason}", None
    summary = " ".join((result.finding.summary if result.finding else result.reason).split())
    if result.outcome is Outcome.INCONCLUSIVE:
        return "ERROR", f"cannot be judged any more: {summary}", result
    return "FAILED", f"{result.code} {summary}", result


def _row(done: Replayed) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(done, result=None))
    return {k: v for k, v in row.items() if k != "result"}


def _lines(done: list[Replayed], style: Style, *, shown: bool) -> list[str]:
    """A line or two for each; where failures were named, what is wrong with them, too."""
    return [line for r in done for line in _lines_of(r, style, shown=shown)]


def _lines_of(done: Replayed, style: Style, *, shown: bool) -> list[str]:
    block = result_lines(done.result, style=style) if shown and done.result and done.state == "FAILED" else []
    said = f"{done.state:<6} {done.id}  {done.what}" + ("" if block else f": {done.said}")
    rows = wrapped(style.plain(said), rest=" " * 9)
    return [f"{style.sign(_SIGNS[done.state])} {rows[0]}", *(f"  {row}" for row in rows[1:]), *block]


def _total(done: list[Replayed]) -> str:
    removed = sum(r.removed for r in done)
    return f"{count(len(done), 'failure')}: {len(done) - removed} kept, {removed} removed"
