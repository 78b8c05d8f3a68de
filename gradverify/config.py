"""`[tool.gradverify]` of the pyproject.toml found upwards from the current directory, profiles, and what may be named.

Precedence: command line, environment (GRADVERIFY_*), override table, profile, spec, defaults. No torch.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import msgspec

from gradverify.errors import UsageError
from gradverify.records.claims import CLAIMS, FAMILIES
from gradverify.records.names import DEVICES, DTYPES, did_you_mean

_TOML = "tomllib" if sys.version_info >= (3, 11) else "tomli"

SCHEMA = "gradverify/config/1"

_FALSE = {"", "0", "false", "no", "off"}


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """How much is tried: cases a claim, and a time limit for the whole run (`20m`)."""

    examples: int | None = None
    max_time: str | None = None


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """What differs for the specs whose name or target matches a glob; the last match wins."""

    match: str
    checks: dict[str, bool] = {}
    dtypes: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    digits: float | None = None
    examples: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Where every run writes its report, and in which formats beside the JSON; `events` keeps every case."""

    dir: str | None = None
    formats: tuple[Literal["json", "html", "junit", "sarif", "md", "events"], ...] = ("json",)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The whole table. `root` is the directory of the pyproject.toml; the globs of `specs` start there."""

    specs: tuple[str, ...] = ("specs/*.py", "tests/**/*_spec.py")
    devices: tuple[str, ...] | Literal["auto"] = "auto"
    dtypes: tuple[str, ...] | Literal["auto"] = "auto"
    require: tuple[str, ...] = ()
    profile: str | None = None
    seed: int | None = None
    report: Report = Report()
    profiles: dict[str, Profile] = {}
    override: tuple[Override, ...] = ()
    root: str = "."

    def profile_named(self, name: str | None) -> tuple[str, Profile]:
        """The profile of that name, with what it leaves open taken from the built-in one. None: the usual one."""
        chosen = name or self.profile or ("ci" if on_ci(os.environ) else "dev")
        known = {**BUILT_IN, **self.profiles}
        require_known("profile", [chosen], known)
        base = BUILT_IN.get(chosen, BUILT_IN["dev"])
        mine = known[chosen]
        examples = base.examples if mine.examples is None else mine.examples
        return chosen, Profile(examples=examples, max_time=mine.max_time or base.max_time)

    def override_for(self, *names: str) -> Override | None:
        """The last override whose glob matches one of the names."""
        hits = [o for o in self.override if any(fnmatch.fnmatchcase(n, o.match) for n in names)]
        return hits[-1] if hits else None


BUILT_IN: Mapping[str, Profile] = {
    "dev": Profile(examples=20),
    "ci": Profile(examples=100),
    "nightly": Profile(examples=2000),
}


def load(start: Path | None = None) -> Config:
    """The configuration that holds in a directory. Raises UsageError naming the file, the key and the remedy."""
    start = (start or Path.cwd()).resolve()
    file = next((d / "pyproject.toml" for d in (start, *start.parents) if (d / "pyproject.toml").is_file()), None)
    if file is None:
        return Config(root=str(start))
    return parse(_table(file), file=file)


def parse(table: dict[str, Any], *, file: Path) -> Config:
    """A `[tool.gradverify]` table as a Config."""
    _refuse_unknown_keys(table, file)
    try:
        config = msgspec.convert({**table, "root": str(file.parent)}, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"{file}: [tool.gradverify] {_located(str(error))}.") from error
    return _validated(config, file)


def on_ci(environ: Mapping[str, str]) -> bool:
    """Whether the variable CI is set to something that is not false."""
    return environ.get("CI", "").strip().lower() not in _FALSE


def schema() -> dict[str, Any]:
    """The JSON Schema of the table, for editors; what may be named is listed."""
    _, parts = msgspec.json.schema_components([Config], ref_template="#/$defs/{name}")
    root = parts.pop("Config")
    root["properties"].pop("root")
    claims = {"propertyNames": {"enum": [*CLAIMS, *FAMILIES]}}
    parts["Override"]["properties"]["checks"] |= claims
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **root, "$defs": parts}


def schema_text() -> str:
    """The text of specs/config.schema.json."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def seconds(text: str) -> float:
    """`90`, `30s`, `20m`, `1h`, `1h30m` in seconds. Raises UsageError for anything else, and for no time at all."""
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    total = sum(float(p) * unit for p, unit in zip(parts.groups(), (3600, 60, 1), strict=True) if p) if parts else 0.0
    if total <= 0:
        raise UsageError(f"{text!r} is not a time limit; write for example 30s, 20m or 1h.")
    return total


def require_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError with the nearest known name, and all of them, for the first name that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}.")


def claims_named(names: Iterable[str]) -> tuple[str, ...]:
    """The names of claims or families, all known."""
    names = tuple(names)
    require_known("claim", names, [*CLAIMS, *FAMILIES])
    return names


def dtypes_named(names: Iterable[str]) -> tuple[str, ...]:
    """The names of dtypes, with or without `torch.`, all known."""
    names = tuple(name.removeprefix("torch.") for name in names)
    require_known("dtype", names, DTYPES)
    return names


def devices_named(names: Iterable[str]) -> tuple[str, ...]:
    """The names of devices, with an index or none (`cuda`, `cuda:1`), all known."""
    names = tuple(names)
    require_known("device", [re.sub(r":\d+$", "", name) for name in names], DEVICES)
    return names


def devices_tried(names: Iterable[str]) -> tuple[str, ...]:
    """The same of devices to try, empty for every one that is present, which is what `auto` says."""
    names = tuple(names)
    return () if names == ("auto",) else devices_named(names)


def _table(file: Path) -> dict[str, Any]:
    tomllib = import_module(_TOML)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("gradverify", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}. Mend the file, or run in another directory.") from error
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.gradverify] must be a table, got {table!r}.")
    return table


def _refuse_unknown_keys(table: dict[str, Any], file: Path) -> None:
    """Name the nearest known key too, which msgspec does not."""
    levels: list[tuple[str, Any, type[msgspec.Struct]]] = [("", table, Config), ("report", table.get("report"), Report)]
    profiles, overrides = table.get("profiles"), table.get("override")
    levels += [(f"profiles.{n}", t, Profile) for n, t in (profiles.items() if isinstance(profiles, dict) else ())]
    levels += [(f"override[{i}]", t, Override) for i, t in enumerate(overrides if isinstance(overrides, list) else ())]
    for where, level, struct in levels:
        known = [f.encode_name for f in msgspec.structs.fields(struct) if f.encode_name != "root"]
        if isinstance(level, dict):
            _refuse(level, known, f"{file}: [tool.gradverify{'.' + where if where else ''}]")


def _refuse(level: dict[str, Any], known: list[str], prefix: str) -> None:
    for key in level:
        if key not in known:
            raise UsageError(f"{prefix} unknown key {key!r}{did_you_mean(key, known)}; known: {', '.join(known)}.")


def _located(message: str) -> str:
    """Turn msgspec's `Expected `int`, got `str` - at `$.seed`` into `seed: expected int, got str`."""
    said, _, path = message.replace("`", "").partition(" - at $")
    return f"{path.lstrip('.')}: {said[:1].lower()}{said[1:]}" if path else said


def _validated(config: Config, file: Path) -> Config:
    try:
        _check_names(config)
    except UsageError as error:
        raise UsageError(f"{file}: [tool.gradverify] {error}") from error
    return config


def _check_names(config: Config) -> None:
    devices_named([*(() if config.devices == "auto" else config.devices), *config.require])
    dtypes_named(() if config.dtypes == "auto" else config.dtypes)
    for override in config.override:
        claims_named(override.checks)
        devices_named(override.devices or ())
        dtypes_named(override.dtypes or ())
    if config.profile:
        config.profile_named(config.profile)
    for profile in config.profiles.values():
        seconds(profile.max_time) if profile.max_time else None
        examples_given(profile.examples)


def examples_given(number: int | None) -> int | None:
    """A number of cases a claim that can be run, or None. Raises UsageError below 1 and above a million."""
    if number is not None and not 1 <= number <= 1_000_000:
        raise UsageError(f"examples must lie between 1 and 1,000,000, got {number}; dev runs 20, nightly 2,000.")
    return number
