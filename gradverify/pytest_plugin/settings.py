"""What the options of pytest, the environment, markers and `[tool.gradverify]` say together."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from gradverify import failures
from gradverify.config import Config, devices_named, load, require_known
from gradverify.discovery.files import project_files
from gradverify.errors import UsageError
from gradverify.failures import Failure
from gradverify.planning import NARROWING, overridden, plan_of, replace, split
from gradverify.records.described import described
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Spec
from gradverify.reports import formats
from gradverify.reports.json_ import output_file

_NAMES = ("profile", "checks", "skip", "device", "dtype", "seed", "max_time", "examples")
_NUMBERS = ("seed", "examples")
_MARKER = (*_NAMES, "digits", "allow_inconclusive")
_SEVERAL = ("checks", "skip", "device", "dtype", "require")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of a pytest run. `given`: options of the command line or GRADVERIFY_*; they beat markers."""

    config: Config
    given: Mapping[str, Any]
    strict: bool
    report: Path | None
    events: Path | None = None
    require: tuple[str, ...] = ()
    replays: tuple[Failure, ...] = ()
    worker: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def files(self) -> frozenset[Path]:
        """The files that the project's globs name."""
        return frozenset(project_files(self.config))

    @property
    def trail(self) -> bool:
        """Whether results are to keep every case."""
        return self.events is not None or "events" in self.config.report.formats

    @cached_property
    def began(self) -> float:
        """When the first item was run: a time limit counts from here."""
        return time.monotonic()

    def plan(self, spec: Spec, marked: Mapping[str, Any]) -> tuple[Plan, Policy]:
        """What is tried of a spec under the options of its markers. Raises UsageError for an option that is unknown."""
        require_known("option of the marker gradverify:", marked, _MARKER)
        named: dict[str, Any] = {n: _words(v) if n in _SEVERAL else v for n, v in marked.items() if n in _NAMES}
        named |= self.given
        policy = Policy(strict=self.strict and not marked.get("allow_inconclusive"), digits=marked.get("digits"))
        override = self.config.override_for(spec.name, described(spec).target)
        fixed = frozenset(n for n in NARROWING if n in named)
        whole = plan_of(self.config, **named, trail=self.trail)
        plan, policy = overridden(whole, policy, override, fixed)
        return self._same_everywhere(plan, named), policy

    def deadline(self, plan: Plan) -> float | None:
        """The time.monotonic() at which no more cases are drawn."""
        return None if plan.max_seconds is None else self.began + plan.max_seconds

    def _same_everywhere(self, plan: Plan, named: Mapping[str, Any]) -> Plan:
        """The workers of one run draw one seed, where it is drawn at all."""
        drawn = plan.profile == "nightly" and "seed" not in named and self.config.seed is None
        run = self.worker.get("testrunuid")
        changed: Plan = replace(plan, seed=int(str(run), 16) % 10**6) if drawn and run else plan
        return changed


_KEPT: pytest.StashKey[Settings] = pytest.StashKey()


def settings(config: pytest.Config) -> Settings:
    """The settings of this run, read once. Raises UsageError for what is unknown or unusable."""
    if _KEPT not in config.stash:
        config.stash[_KEPT] = _read(config)
    return config.stash[_KEPT]


def _read(config: pytest.Config) -> Settings:
    own = load(config.rootpath)
    globs = tuple(config.getini("gradverify_specs"))
    if globs:
        own = replace(own, specs=globs, root=str(config.rootpath))
    given = {n: v for n in _NAMES if (v := _given(config, n)) not in (None, [])}
    plan_of(own, **given)
    worker = getattr(config, "workerinput", None)
    events = config.getoption("gv_events")
    return Settings(
        config=own,
        given=given,
        strict=not config.getoption("gv_allow_inconclusive"),
        report=_report(config, own) if worker is None else None,
        events=output_file(Path(events), "--gv-events") if events else None,
        require=devices_named(split(_given(config, "require") or own.require)),
        replays=tuple(_replays(config, own)),
        worker=worker or {},
    )


def _report(config: pytest.Config, own: Config) -> Path | None:
    """The file of the report, made sure of. What is tried again leaves that of the whole run alone."""
    asked = config.getoption("gv_report")
    usual = Path(own.root, own.report.dir) if own.report.dir and not config.getoption("gv_replay") else None
    directory = Path(asked) if asked else usual
    return formats.prepare(directory, own.report.formats) if directory else None


def _replays(config: pytest.Config, own: Config) -> list[Failure]:
    """The failures that `--gv-replay` names. Raises UsageError for an id that none has."""
    words = split(config.getoption("gv_replay"))
    return [failures.read(p) for p in dict.fromkeys(failures.named(words, Path(own.root)))] if words else []


def _given(config: pytest.Config, name: str) -> Any:
    """An option of the command line, else of the environment."""
    value = config.getoption(f"gv_{name}")
    text = os.environ.get(f"GRADVERIFY_{name.upper()}")
    if value not in (None, []) or not text:
        return value
    if name not in _NUMBERS:
        return [text] if name in _SEVERAL else text
    if not text.isdecimal():
        raise UsageError(f"GRADVERIFY_{name.upper()}={text!r} is no number; set a whole number, or unset it.")
    return int(text)


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(str, (value,) if isinstance(value, str) or not hasattr(value, "__iter__") else value))
