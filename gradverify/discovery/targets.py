"""From what the user names to specs: `pkg.mod:Attr`, spec files, `file.py::name`, directories, names, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from gradverify.config import Config
from gradverify.discovery.files import listed, make_importable, project_files, shown, spec_files
from gradverify.errors import UsageError
from gradverify.records.names import did_you_mean
from gradverify.records.run import Unusable
from gradverify.records.spec import Spec


def resolve(targets: Sequence[str], *, shapes: Mapping[str, str], config: Config) -> list[Spec | Unusable]:
    """The specs of all targets in order, once each; a target that is unusable stands there with its error.

    `shapes` describe the arguments of bare ops. No target: all specs of the project, or, without any, none.
    """
    return [spec for _, spec in located(targets, shapes=shapes, config=config)]


def located(targets: Sequence[str], *, shapes: Mapping[str, str], config: Config) -> list[tuple[str, Spec | Unusable]]:
    """As `resolve`, each with a target that names it alone."""
    for directory in (Path(config.root), Path.cwd()):
        make_importable(directory)
    found: list[tuple[str, Spec | Unusable]] = []
    for target in _files_of(targets) if targets else [shown(f) for f in project_files(config)]:
        specs = _or_error(partial(_of_target, target, shapes=shapes, config=config))
        fresh = [Unusable(target=target, error=specs)] if isinstance(specs, str) else specs
        found += [(_alone(s, target), s) for s in fresh if not any(s is f for _, f in found)]
    return found


def _files_of(targets: Sequence[str]) -> Iterator[str]:
    """The targets, with each directory as its spec files: one that is broken leaves the others."""
    for target in targets:
        yield from ([shown(f) for f in spec_files(Path(target))] if Path(target).is_dir() else []) or [target]


def _alone(spec: Spec | Unusable, target: str) -> str:
    """`file.py::name` for a spec of a file, which may hold several; the target as it is for anything else."""
    path = Path(target.partition("::")[0])
    if isinstance(spec, Spec) and spec.source is not None and (path.suffix == ".py" or path.is_dir()):
        return f"{shown(Path(spec.source.file))}::{spec.name}"
    return target


def _or_error(specs: Callable[[], list[Spec]]) -> list[Spec] | str:
    try:
        return specs()
    except UsageError as error:
        return str(error)


def _of_target(target: str, *, shapes: Mapping[str, str], config: Config) -> list[Spec]:
    from gradverify.discovery.loading import bare, from_file, from_module

    path, _, name = target.partition("::")
    if path.endswith(".py") or Path(path).is_file():
        return _without_shapes(from_file(_existing(Path(path)), name=name or None), target, shapes)
    if Path(target).is_dir():
        raise UsageError(f"{target}: no file below it declares a spec; write one with `@gradverify.spec(op)`.")
    if target.startswith("torch.ops."):
        return [bare(target, shapes=shapes)]
    if ":" in target:
        return from_module(target, shapes=shapes)
    return _without_shapes(_named(target, config), target, shapes)


def _existing(path: Path) -> Path:
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else [])
        raise UsageError(f"{path}: no such spec file{near}; `gradverify list` shows the specs that are found.")
    return path


def _named(name: str, config: Config) -> list[Spec]:
    """The spec of that name, of the project or, where the project has none, of the catalogue."""
    from gradverify.discovery.loading import from_file

    entries, _ = listed(config)
    hits = list(dict.fromkeys(e.file for e in entries if e.outline.name == name))
    if len(hits) > 1:
        choices = ", ".join(f"{file}::{name}" for file in hits)
        raise UsageError(f"{name}: several specs have this name; choose one of {choices}.")
    if hits:
        return from_file(Path(hits[0]), name=name)
    raise UsageError(_unknown_name(name, [e.outline.name for e in entries]))


def _unknown_name(name: str, known: list[str]) -> str:
    module, _, attribute = name.rpartition(".")
    if _is_module(name):
        return f"{name}: is a module; name an op in it: {name}:attribute."
    if module and attribute:
        return f"{name}: no spec has this name. An op is named as module:attribute: `{module}:{attribute}`."
    if "/" in name or "\\" in name:
        return f"{name}: no such file or directory."
    return (
        f"{name}: no spec has this name{did_you_mean(name, known)}; `gradverify list` shows those that are found. "
        "An op is named as module:attribute, a file with its .py."
    )


def _is_module(name: str) -> bool:
    """Whether a dotted name is a module below the current directory or its src, told from the files alone."""
    paths = [folder.joinpath(*name.split(".")) for folder in (Path.cwd(), Path.cwd() / "src")]
    return any(p.with_suffix(".py").is_file() or (p / "__init__.py").is_file() for p in paths)


def _without_shapes(specs: list[Spec], target: str, shapes: Mapping[str, str]) -> list[Spec]:
    """Raises UsageError where --arg would contradict a spec, which has its own shapes."""
    if shapes:
        first = next(iter(shapes))
        raise UsageError(
            f"{target}: --arg {first}=... describes a bare op (module:attribute); a spec has its own shapes. "
            "Leave --arg out, or edit the spec."
        )
    return specs
