"""What the flags of `check` ask for, checked against what exists before anything slow is imported."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradverify.config import (
    Config,
    Override,
    claims_named,
    devices_named,
    dtypes_named,
    examples_given,
    seconds,
)
from gradverify.errors import UsageError
from gradverify.records.claims import selected
from gradverify.records.policy import Plan, Policy

Format = Literal["full", "concise", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of `check`, resolved: what is verified, how, and where its report goes."""

    targets: tuple[str, ...]
    shapes: Mapping[str, str]
    keyword: str
    plan: Plan
    policy: Policy
    require: tuple[str, ...]
    format: Format | None
    output_file: Path | None
    report: Path | None
    quiet: bool
    verbose: bool
    no_colour: bool
    exit_zero: bool
    config: Config
    # What the user asked for by name, and no override may change.
    fixed: frozenset[str]


def request(given: Mapping[str, Any], config: Config) -> Request:
    """The request that flags and configuration make together. Raises UsageError for whatever is unknown or unusable."""
    if given["quiet"] and given["verbose"]:
        raise UsageError("-q and -v contradict each other; give one of them.")
    if given["as_json"] and given["format"] not in (None, "json"):
        raise UsageError(f"--json and --format {given['format']} contradict each other; give one of them.")
    report = given["report"] or (Path(config.root, config.report.dir) if config.report.dir else None)
    return Request(
        targets=given["targets"],
        shapes=shapes(given["arg"]),
        keyword=given["keyword"] or "",
        plan=_plan(given, config),
        policy=Policy(strict=not given["allow_inconclusive"]),
        require=devices_named(_split(given["require"]) or config.require),
        format="json" if given["as_json"] else given["format"],
        output_file=given["output_file"],
        report=report,
        quiet=given["quiet"],
        verbose=given["verbose"],
        no_colour=given["no_color"],
        exit_zero=given["exit_zero"],
        config=config,
        fixed=frozenset(n for n in ("examples", "device", "dtype", "checks", "skip") if given[n]),
    )


def shapes(pairs: Iterable[str]) -> dict[str, str]:
    """`x=*b k` for each argument. Raises UsageError for what is no such pair, or gives an argument two shapes."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, shape = (part.strip() for part in pair.partition("="))
        if not equals or not name.isidentifier():
            raise UsageError(f"--arg {pair!r}: write NAME=SHAPE, for example --arg 'x=*b k'; a scalar is 'x='.")
        shape = shape.strip("[]\"'")
        if found.setdefault(name, shape) != shape:
            raise UsageError(f"--arg: {name!r} is given two shapes, {found[name]!r} and {shape!r}; keep one of them.")
    return found


def overridden(plan: Plan, policy: Policy, override: Override | None, fixed: frozenset[str]) -> tuple[Plan, Policy]:
    """The plan and policy for a spec that an override table matches; flags and environment stay as they are."""
    if override is None:
        return plan, policy
    off = tuple(name for name, on in override.checks.items() if not on)
    changes: dict[str, Any] = {"skip": plan.skip + claims_named(off)} if not fixed & {"checks", "skip"} else {}
    changes |= {"examples": override.examples} if override.examples and "examples" not in fixed else {}
    changes |= {"devices": override.devices} if override.devices and "device" not in fixed else {}
    changes |= {"dtypes": override.dtypes} if override.dtypes and "dtype" not in fixed else {}
    return replace(plan, **changes), replace(policy, digits=override.digits or policy.digits)


def replace(record: Any, **changes: Any) -> Any:
    """A copy of a record with some fields changed."""
    from msgspec.structs import replace as replaced

    return replaced(record, **changes)


def _plan(given: Mapping[str, Any], config: Config) -> Plan:
    name, profile = config.profile_named(given["profile"])
    claims, skip = claims_named(_split(given["checks"])), claims_named(_split(given["skip"]))
    if not selected(claims, skip):
        raise UsageError(f"--checks {','.join(claims)} --skip {','.join(skip)} leave no claim; ask for one at least.")
    limit = given["max_time"] or profile.max_time
    return Plan(
        claims=claims,
        skip=skip,
        devices=devices_named(_split(given["device"]) or _listed(config.devices)),
        dtypes=dtypes_named(_split(given["dtype"]) or _listed(config.dtypes)),
        examples=examples_given(given["examples"]) or profile.examples or 20,
        seed=_seed(given["seed"], config, name),
        max_seconds=seconds(limit) if limit else None,
        max_failures=1 if given["fail_fast"] else given["max_fail"],
        profile=name,
    )


def _seed(given: int | None, config: Config, profile: str) -> int:
    """Same command, same cases; only `nightly` explores, with a seed that the header prints."""
    if given is not None:
        return given
    if config.seed is not None:
        return config.seed
    return secrets.randbelow(10**6) if profile == "nightly" else 0


def _split(values: Iterable[str]) -> tuple[str, ...]:
    """`a,b` and repeated flags alike."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _listed(value: tuple[str, ...] | Literal["auto"]) -> tuple[str, ...]:
    return () if value == "auto" else value
