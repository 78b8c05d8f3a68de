"""Failing cases are kept as readable files below `.gradverify/failures/`, to be replayed until they are fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gradverify.errors import UsageError
from gradverify.records.case import Case, Datum
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.json_ import write

if TYPE_CHECKING:
    from gradverify.records.policy import Policy

SCHEMA = "gradverify/failure/1"
FOLDER = Path(".gradverify") / "failures"

READABLE = 64
"""Tensors of so many elements are written as decimals, too."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A case that failed: how to find the op again, what was seen, the recipe of the case, and its exact inputs.

    Attributes:
        target: what `gradverify check` takes; `shapes` are its `--arg`.
        inputs: small tensors in decimals, for people; `data` is what is replayed.
        versions: of python, torch and gradverify when it was found.
    """

    schema: str = SCHEMA
    id: str
    target: str
    shapes: dict[str, str] = {}
    spec: str
    claim: str
    outcome: str
    code: str
    summary: str
    seen: tuple[str, ...] = ()
    found: str = ""
    versions: dict[str, str] = {}
    inputs: dict[str, Any] = {}
    case: Case
    data: tuple[tuple[str, Datum | None], ...] | None = None


def kept(spec: Spec, result: Result, *, target: str, shapes: Mapping[str, str], root: Path) -> Result:
    """Keep the smallest case of a failing result in a file; the result with its id in the finding.

    Anything else is returned as it is. Raises UsageError where the file cannot be written.
    """
    failure = failure_of(spec, result, target=target, shapes=shapes, root=root)
    if failure is None or result.finding is None:
        return result
    folder = root / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder.parent / ".gitignore"
        ignore.exists() or ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: {(error.strerror or str(error)).lower()}; make it writable.") from error
    write(msgspec.json.format(msgspec.json.encode(failure), indent=2).decode() + "\n", folder / f"{failure.id}.json")
    return replace(result, finding=replace(result.finding, replay_id=failure.id))


def failure_of(spec: Spec, result: Result, *, target: str, shapes: Mapping[str, str], root: Path) -> Failure | None:
    """What is kept of a result; None where nothing failed, or without a case."""
    if result.outcome not in (Outcome.FAIL, Outcome.ERROR) or result.finding is None or result.finding.minimal is None:
        return None
    from gradverify.engine.replay import data_of

    case = result.finding.minimal
    data = data_of(spec, case)
    return Failure(
        id=case.id,
        target=_below(target, root),
        shapes=dict(shapes),
        spec=spec.name,
        claim=result.claim,
        outcome=result.outcome.value,
        code=result.code,
        summary=result.finding.summary,
        seen=tuple(line.strip() for line in result.finding.lines),
        found=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=_versions(),
        inputs={n: _decimals(d) for n, d in data or () if d is not None and len(d.values) <= READABLE},
        case=case,
        data=data,
    )


def _below(target: str, root: Path) -> str:
    """A target that names a file, as seen from the root of the project."""
    path, mark, name = target.partition("::")
    file = Path(path).absolute()
    inside = mark and file.is_relative_to(root.absolute())
    return f"{file.relative_to(root.absolute())}::{name}" if inside else target


def from_root(target: str, root: str) -> str:
    """The target of a failure that was kept, as it is named from the current directory."""
    path, mark, name = target.partition("::")
    return f"{Path(root, path)}::{name}" if mark else target


def _versions() -> dict[str, str]:
    import platform

    import torch

    from gradverify import __version__

    return {"gradverify": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _decimals(datum: Datum) -> Any:
    """The values nested like the tensor; a complex one is [real, imaginary]."""
    numbers: list[Any] = [
        float.fromhex(v) if "0x" in v or not v.lstrip("-").isdigit() else int(v) for v in datum.values
    ]
    shape = (*datum.shape, 2) if datum.dtype.startswith("complex") else datum.shape
    numbers = [n if not isinstance(n, float) or abs(n) < float("inf") else repr(n) for n in numbers]
    for size in reversed(shape[1:]):
        numbers = [numbers[i : i + size] for i in range(0, len(numbers), size)] if size else []
    return numbers if shape else numbers[0]


def files(root: Path) -> list[Path]:
    """The files of all failures that are kept, the oldest first."""
    found = (root / FOLDER).glob("*.json")
    return sorted(found, key=lambda f: (f.stat().st_mtime, f.name))


def named(words: Sequence[str], root: Path) -> list[Path]:
    """The files of failures by id, by the beginning of one, or by path; all of them without a word.

    Raises UsageError for a word that names none, or several.
    """
    return [_named(word, root) for word in words] if words else files(root)


def _named(word: str, root: Path) -> Path:
    path = Path(word)
    if path.is_file():
        return path
    hits = [f for f in files(root) if f.stem.startswith(word)] if word else []
    if len(hits) != 1:
        known = ", ".join(f.stem for f in (hits or files(root))[-10:]) or "none"
        what = "several failures begin so" if hits else "no failure of this id is kept, and no such file"
        raise UsageError(f"{word}: {what}; those in {FOLDER} are: {known}.")
    return hits[0]


def read(path: Path) -> Failure:
    """A failure that was kept. Raises UsageError with the path of what does not fit."""
    try:
        failure = msgspec.json.decode(path.read_bytes(), type=Failure)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: is no failure that gradverify kept ({error}); remove it.") from error
    if failure.schema != SCHEMA:
        raise UsageError(f"{path}: its schema is {failure.schema!r}, this version reads {SCHEMA!r}; find it again.")
    return failure


def replayed(spec: Spec, failure: Failure, policy: Policy) -> Result:
    """What the claim says of the kept case now. Raises UsageError where spec and case no longer fit."""
    from gradverify.engine.replay import replayed as again

    return again(spec, failure.case, failure.data, policy)


def example(failure: Failure) -> str:
    """The line that pins the sizes and keywords of a case in a spec.

    Raises UsageError where it has neither: its inputs come from the spec's own code.
    """
    dims = [f"{k}={v!r}" for k, v in failure.case.dims if k.isidentifier()]
    kwargs = [f"{k}={v!r}" for k, v in failure.case.kwargs]
    if not dims and not kwargs:
        raise UsageError(
            f"{failure.id}: the case has no sizes and no keywords, its inputs are given by the spec; replay it instead."
        )
    return f"examples=[gv.example({', '.join(dims + kwargs)})],"
