"""The formats of a report by name, and the files of a directory of reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from gradverify.errors import UsageError
from gradverify.records.run import Run
from gradverify.reports import json_

FILES = {
    "json": json_.NAME,
    "html": "index.html",
    "junit": "junit.xml",
    "sarif": "gradverify.sarif",
    "md": "summary.md",
    "events": "events.ndjson",
}
"""What each format is called in a directory of reports."""

_MAKERS = {
    "html": "html.html",
    "md": "markdown.markdown",
    "events": "events.events",
    "junit": "junit.junit",
    "github": "github.workflow_commands",
}


def made(run: Run, name: str, *, strict: bool = True, compared: bool = False) -> str:
    """The run in a format. `strict`: what cannot be judged fails JUnit; `compared`: SARIF tells new from known."""
    if name == "json":
        return json_.dumps(run)
    if name == "sarif":
        from gradverify.reports.sarif import sarif

        return sarif(run, compared=compared)
    module, _, function = _MAKERS[name].partition(".")
    make: Callable[..., str] = getattr(import_module(f"gradverify.reports.{module}"), function)
    return make(run, strict=strict) if name == "junit" else make(run)


def prepare(directory: Path, formats: Iterable[str]) -> Path:
    """The JSON file of a directory of reports, made sure of before a long run.

    Raises UsageError where the directory cannot be written, or holds a file of one of these names that is not ours.
    """
    target = json_.prepare(directory)
    taken = [FILES[name] for name in formats if (directory / FILES[name]).exists() and not target.exists()]
    if taken:
        raise UsageError(f"--report {directory}: its {taken[0]} was not written by gradverify; name another directory.")
    return target


def write(run: Run, directory: Path, formats: Iterable[str], *, strict: bool = True) -> list[Path]:
    """Write the JSON and each further format into a directory; the files. Raises UsageError where one cannot be."""
    files = []
    for name in dict.fromkeys(("json", *formats)):
        json_.write(made(run, name, strict=strict), directory / FILES[name])
        files.append(directory / FILES[name])
    return files
