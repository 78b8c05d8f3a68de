"""The report that machines read: JSON of a Run, its schema, and writing it without harming anybody's files."""

from __future__ import annotations

import inspect
import json
import math
import os
from pathlib import Path
from typing import Any

import msgspec

from gradverify.errors import UsageError
from gradverify.records.names import did_you_mean
from gradverify.records.run import SCHEMA, Run, from_json, to_json

NAME = "report.json"


def dumps(run: Run) -> str:
    """The report as indented JSON, ending in a newline."""
    return msgspec.json.format(to_json(run), indent=2).decode() + "\n"


def loads(text: str | bytes) -> Run:
    """A report that was written earlier. Raises UsageError with the path of what does not fit the schema."""
    try:
        return from_json(text.encode() if isinstance(text, str) else text)
    except msgspec.DecodeError as error:
        raise UsageError(f"not a report of gradverify: {error}; give a {NAME} that `check --report` wrote.") from error


def prepare(directory: Path) -> Path:
    """The file that a report in `directory` will be written to; made sure of before a long run, not after it.

    Raises UsageError where the directory cannot be made or written, or holds a report.json that is not ours.
    """
    target = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {directory}: {_why(error)}; name a directory that can be made.") from error
    if not os.access(directory, os.W_OK | os.X_OK) or target.is_dir():
        raise UsageError(f"--report {directory}: {NAME} cannot be written there; name a directory of your own.")
    if target.exists() and not is_ours(target):
        raise UsageError(f"--report {directory}: its {NAME} was not written by gradverify; name another directory.")
    return target


def output_file(path: Path, option: str = "--output-file") -> Path:
    """A file that can be written when the run is over; made sure of before it. Raises UsageError.

    An existing Python file is refused: the option swallowed a target.
    """
    if path == Path("-"):
        raise UsageError(f"{option} -: standard output has the report; name a file.")
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a directory; name a file.")
    if path.suffix == ".py":
        raise UsageError(f"{option} {path}: is Python source; name a text or JSON file, and targets separately.")
    if not path.absolute().parent.is_dir():
        near = did_you_mean(path.parent.name, [p.name for p in path.parent.parent.glob("*/")])
        raise UsageError(f"{option} {path}: its directory does not exist{near}; make it first.")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(f"{option} {path}: cannot be written; name another file.")
    return path


def is_ours(path: Path) -> bool:
    """Whether a file is a report that gradverify wrote."""
    try:
        schema = json.loads(path.read_bytes()).get("schema", "")
    except (OSError, ValueError, AttributeError):
        return False
    return isinstance(schema, str) and schema.startswith("gradverify/")


def write(text: str, path: Path) -> None:
    """Replace `path` in one step, so that a reader never sees half a file. Raises UsageError where it cannot."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
        raise UsageError(f"{path}: {_why(error)}; name a file that can be written.") from error


def schema() -> dict[str, Any]:
    """The JSON Schema of the report: the records' own, with non-finite floats as the strings nan, inf and -inf."""
    _, components = msgspec.json.schema_components([Run], ref_template="#/$defs/{name}")
    root = components.pop("Run")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        **_tuned(root),
        "properties": {**_tuned(root["properties"]), "schema": {"const": SCHEMA}},
        "required": ["schema"],
        "$defs": {name: _tuned(part) for name, part in sorted(components.items())},
    }


def schema_text() -> str:
    """The text of specs/report.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


def _tuned(node: Any) -> Any:
    """The same schema with every number widened to the strings of non-finite floats, and no NaN among defaults."""
    if isinstance(node, list):
        return [_tuned(item) for item in node]
    if not isinstance(node, dict):
        return inspect.cleandoc(node) if isinstance(node, str) else _default(node)
    if node.get("type") == "number":
        rest = {key: _tuned(value) for key, value in node.items() if key != "type"}
        return {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}], **rest}
    return {key: _tuned(value) for key, value in node.items()}


def _default(value: Any) -> Any:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
