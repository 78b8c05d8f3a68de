"""Which files hold specs, and what they declare: nothing is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import msgspec

from gradverify.cases.outline import Outline, outlines
from gradverify.config import Config
from gradverify.errors import UsageError

GROUP = "gradverify.specs"
"""Entry points of installed packages that name where their specs are."""

# Folders that hold no spec of the user's.
_SKIPPED = {".venv", "venv", "node_modules", "__pycache__", "build", "dist", "site-packages"}


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A spec that was found without being imported.

    `kind`: `project`, `installed` (of a package that names its specs), or `catalogue` (shipped with gradverify).
    """

    file: str
    kind: str
    outline: Outline

    @property
    def target(self) -> str:
        """How the command line names it."""
        return f"{self.file}::{self.outline.name}"


def make_importable(directory: Path) -> None:
    """Put the directory and its `src` at the front of sys.path, as `python` itself would."""
    for path in (directory / "src", directory):
        if path.is_dir() and str(path) not in sys.path:
            sys.path.insert(0, str(path))


def shipped() -> Path | None:
    """The folder of the catalogue's specs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "specs"
    return next((d for d in (package / "specs", checkout) if (d / "report.schema.json").is_file()), None)


def shipped_files() -> list[Path]:
    """The spec files of the catalogue."""
    folder = shipped()
    return [f for f in python_files(folder) if not _marks_package(f)] if folder else []


def installed_files() -> list[Path]:
    """The spec files of installed packages: modules or folders that an entry point of GROUP names, as `pkg.specs`."""
    found: dict[Path, None] = {}
    for point in entry_points(group=GROUP):
        top, *inner = point.value.partition(":")[0].strip().split(".")
        where = _found(top)
        for folder in (where.submodule_search_locations or ()) if where else ():
            place = Path(folder, *inner)
            module = place.with_suffix(".py")
            found |= dict.fromkeys(python_files(place) if place.is_dir() else [module] if module.is_file() else [])
        if where and where.origin and not where.submodule_search_locations:
            found[Path(where.origin)] = None
    return [f for f in found if not _marks_package(f)]


def _found(top: str) -> ModuleSpec | None:
    """Where a top-level module is; it is not imported. None where the name is no module's."""
    try:
        return find_spec(top)
    except (ImportError, ValueError):
        return None


def project_files(config: Config) -> list[Path]:
    """The spec files that the project's globs find. Raises UsageError for a glob that is no glob."""
    found: dict[Path, None] = {}
    for pattern in config.specs:
        try:
            hits = sorted(Path(config.root).glob(pattern))
        except (ValueError, NotImplementedError) as error:
            raise UsageError(
                f"[tool.gradverify] specs: {pattern!r} is not usable ({error}); write a glob relative to {config.root}."
            ) from error
        files = (h for h in hits if h.suffix == ".py" and not _SKIPPED & set(h.parts[:-1]))
        found |= dict.fromkeys(f for f in files if not _marks_package(f))
    return list(found)


def listed(config: Config) -> tuple[list[Listed], list[str]]:
    """All specs of the project and of the catalogue, unimported, and the errors of files that cannot be read."""
    mine = project_files(config)
    theirs = [f for f in installed_files() if f not in mine]
    files = [(f, "project") for f in mine] + [(f, "installed") for f in theirs]
    files += [(f, "catalogue") for f in shipped_files() if f not in mine and f not in theirs]
    ours = shipped()
    entries, errors = [], []
    for file, kind in files:
        origin = "catalogue" if ours and file.resolve().is_relative_to(ours) else kind
        try:
            entries += [Listed(file=shown(file), kind=origin, outline=o) for o in outlined(file)]
        except UsageError as error:
            errors.append(str(error))
    return entries, errors


def outlined(file: Path) -> tuple[Outline, ...]:
    """Raises UsageError where a file cannot be read, with the line."""
    try:
        return outlines(file.read_text(encoding="utf-8"), file=str(file))
    except SyntaxError as error:
        raise UsageError(syntax_error(error, file)) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(file)}: cannot be read: {error}.") from error


def syntax_error(error: SyntaxError, file: Path | None = None) -> str:
    """Where the syntax error is, the line itself, and a caret under it."""
    where = f"{shown(Path(error.filename or file or '?'))}:{error.lineno or 0}"
    line = (error.text or "").rstrip()
    lead = len(line) - len(line.lstrip())
    caret = " " * max((error.offset or 1) - 1 - lead, 0) + "^"
    return f"{where}: syntax error: {error.msg}" + (f"\n    {line.strip()}\n    {caret}" if line else "")


def python_files(directory: Path) -> list[Path]:
    """The Python files below a directory, without those of environments, builds and hidden folders."""
    files = sorted(directory.rglob("*.py"))
    return [f for f in files if not _hidden(f.relative_to(directory).parts[:-1])]


def spec_files(directory: Path) -> list[Path]:
    """The files below a directory that declare specs; one that cannot be read but speaks of gradverify is kept."""
    return [f for f in python_files(directory) if _declares(f)]


def _declares(file: Path) -> bool:
    try:
        return bool(outlined(file))
    except UsageError:
        return "gradverify" in file.read_bytes().decode("utf-8", "replace")


def _marks_package(file: Path) -> bool:
    """Whether a file is there for its name alone: an `__init__.py` without a spec."""
    return file.name == "__init__.py" and not _declares(file)


def shown(file: Path) -> str:
    """The path as the user would type it."""
    file = file.absolute()
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _hidden(folders: Sequence[str]) -> bool:
    return any(f in _SKIPPED or f.startswith(".") for f in folders)
