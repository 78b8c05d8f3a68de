"""`gradverify report RUN.json...`: merge what runs have kept, and write it in the formats that others read."""

from __future__ import annotations

import json
import sys
import tempfile
import webbrowser
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import click

from gradverify.cli import output
from gradverify.cli.exit_codes import exit_code
from gradverify.config import load
from gradverify.errors import UsageError
from gradverify.records.run import Run
from gradverify.reports import formats, json_
from gradverify.reports.console import View, render
from gradverify.reports.findings import Entry, baselined, expected, findings, timeless
from gradverify.reports.merge import merged
from gradverify.reports.words import count

_STDOUT = Path("-")
_FILE: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE"}


@click.command("report")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN.json]...")
@click.option("--html", **_FILE, help="One HTML file, for people.")
@click.option("--json", "json", **_FILE, help="All of them as one report.")
@click.option("--junit", **_FILE, help="JUnit XML, for Jenkins, GitLab and others.")
@click.option("--sarif", **_FILE, help="SARIF 2.1.0, for code scanning.")
@click.option("--md", **_FILE, help="Markdown, for the summary of a step.")
@click.option("--events", **_FILE, help="NDJSON in the schema of Hypothesis' observations.")
@click.option("--github", is_flag=True, help="Annotations for GitHub; the summary where GITHUB_STEP_SUMMARY says.")
@click.option("--baseline", **_FILE, help="A SARIF or JSON report: what it has is known, only what is new fails.")
@click.option("--exit-code", is_flag=True, help="Exit as the run did: 1 FAIL, 2 unusable, 3 not verified.")
@click.option("--allow-inconclusive", is_flag=True, help="A claim that cannot be judged is skipped, and fails nothing.")
@click.option(
    "--open", "opened", is_flag=True, help="Show the HTML in a browser; without --html, in a file of its own."
)
@click.option("--no-times", is_flag=True, help="Leave out dates, durations and the command: same seed, same bytes.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Write reports of runs.

    RUN.json are reports that `check --report` or `pytest --gv-report` wrote, or directories that hold one; `-` is
    standard input; without any, the directory that [tool.gradverify] names for reports. Several (shards, devices)
    become one: each op once, of two results of the same claim the worse. FILE `-` is standard output. Without any
    format, what `check` prints is printed. Under --baseline the exit code is that of what is new.
    """
    outputs = _outputs(given)
    known = _known(given["baseline"]) if given["baseline"] else None
    run = merged([_read(path) for path in given["runs"] or [_usual()]])
    run = timeless(run) if given["no_times"] else run
    seen = {e.fingerprint for e in findings(run)}
    run = run if known is None else baselined(run, known)
    for option, path in outputs.items():
        _write(_made(run, option, given), path)
    if given["github"]:
        _github(run, given)
    if given["opened"]:
        webbrowser.open(outputs["html"].absolute().as_uri())
    if not outputs and not given["github"]:
        output.emit(render(run, _view(run)))
    if known is not None:
        _tell(run, gone=len(known - seen))
    judged = given["exit_code"] or known is not None
    ctx.exit(exit_code(run, strict=not given["allow_inconclusive"]) if judged else 0)


def _made(run: Run, name: str, given: Mapping[str, Any]) -> str:
    strict, compared = not given["allow_inconclusive"], given["baseline"] is not None
    return formats.made(run, name, strict=strict, compared=compared)


def _outputs(given: Mapping[str, Any]) -> dict[str, Path]:
    """Where each format goes, made sure of before anything is read. Raises UsageError."""
    outputs: dict[str, Path] = {option: given[option] for option in formats.FILES if given[option]}
    streamed = [f"--{option} -" for option, path in outputs.items() if path == _STDOUT]
    streamed += ["--github"] if given["github"] else []
    if len(streamed) > 1:
        raise UsageError(f"{' and '.join(streamed)} would be mixed on standard output; write one of them to a file.")
    if given["opened"] and outputs.get("html") == _STDOUT:
        raise UsageError(
            "--html - and --open contradict each other: a browser shows a file; name one, or leave --html out."
        )
    if given["opened"] and "html" not in outputs:
        outputs["html"] = Path(tempfile.mkdtemp(prefix="gradverify-"), formats.FILES["html"])
    for option, path in outputs.items():
        if path != _STDOUT:
            json_.output_file(path, f"--{option}")
    return outputs


def _usual() -> Path:
    """The directory in which the project keeps its reports. Raises UsageError where it names none."""
    config = load()
    if config.report.dir is None:
        raise UsageError(
            "name a report, for example one that `gradverify check --report out` wrote into out, or set "
            '`report = { dir = "out" }` in [tool.gradverify].'
        )
    return Path(config.root, config.report.dir)


def _read(path: Path) -> Run:
    """A report from a file, a directory or standard input. Raises UsageError with the path of what is none."""
    file = path / json_.NAME if path.is_dir() else path
    try:
        data = sys.stdin.buffer.read() if path == _STDOUT else file.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{file}: {reason}; `gradverify check --report DIR` writes DIR/{json_.NAME}.") from error
    try:
        return json_.loads(data)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def _known(path: Path) -> Set[str]:
    """The fingerprints of a baseline: a SARIF document or a report of ours. Raises UsageError where it is neither."""
    from gradverify.reports.sarif import fingerprints

    try:
        data = path.read_bytes()
        document = json.loads(data)
        if isinstance(document, dict) and "runs" in document:
            return fingerprints(document)
        run = json_.loads(data)
    except (OSError, ValueError, UsageError) as error:
        raise UsageError(
            f"--baseline {path}: {error}; write one with `gradverify report RUN.json --sarif FILE`."
        ) from error
    return {entry.fingerprint for entry in [*findings(run), *expected(run)]}


def _write(text: str, path: Path) -> None:
    if path == _STDOUT:
        output.emit(text)
    else:
        output.save(text, path)


def _github(run: Run, given: Mapping[str, Any]) -> None:
    """Annotations on standard output, and the summary where GitHub wants it, unless `--md` has it already."""
    output.emit(_made(run, "github", given))
    trouble = "" if given["md"] else output.summarise(_made(run, "md", given))
    if trouble:
        raise UsageError(trouble)


def _view(run: Run) -> View:
    return View(form="full" if len(run.ops) < 4 else "table", style=output.style_of(sys.stdout))


def _tell(run: Run, *, gone: int) -> None:
    """What is new and what is known, each known finding in a line; on standard error, beside any report."""
    new, known = findings(run), [entry for entry in expected(run) if entry.known]
    lines = [f"baseline: {count(len(new), 'new finding')}, {len(known)} known"]
    lines[0] += f", {gone} of it gone: write it anew" if gone else ""
    lines += [*_rows("new", new), *_rows("known", known)]
    click.echo("\n".join(lines), err=True)


def _rows(word: str, entries: Sequence[Entry]) -> list[str]:
    return [f"  {word:<5}  {entry.name} {entry.headline}" for entry in entries]
