"""What a run tries: options and configuration, made into a Plan. What is unknown is refused before anything is run."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Literal

from gradverify.config import Config, Override, claims_named, devices_tried, dtypes_named, examples_given, seconds
from gradverify.errors import UsageError
from gradverify.records.claims import selected
from gradverify.records.policy import Plan, Policy

NARROWING = ("examples", "device", "dtype", "checks", "skip")
"""Options that no override changes, where the user gave them by name."""


def plan_of(
    config: Config,
    *,
    profile: str | None = None,
    checks: Iterable[str] = (),
    skip: Iterable[str] = (),
    device: Iterable[str] = (),
    dtype: Iterable[str] = (),
    examples: int | None = None,
    seed: int | None = None,
    max_time: str | None = None,
    max_failures: int | None = None,
    trail: bool = False,
) -> Plan:
    """The plan that options and configuration make together; names may be given as `a,b`.

    Raises UsageError for whatever is unknown or unusable, or leaves no claim.
    """
    name, chosen = config.profile_named(profile)
    claims, skipped = claims_named(split(checks)), claims_named(split(skip))
    if not selected(claims, skipped):
        raise UsageError(
            f"--checks {','.join(claims)} --skip {','.join(skipped)} leave no claim; ask for one at least."
        )
    limit = max_time or chosen.max_time
    return Plan(
        claims=claims,
        skip=skipped,
        devices=devices_tried(split(device) or _listed(config.devices)),
        dtypes=dtypes_named(split(dtype) or _listed(config.dtypes)),
        examples=examples_given(examples) or chosen.examples or 20,
        seed=_seed(seed, config, name),
        max_seconds=seconds(limit) if limit else None,
        max_failures=max_failures,
        profile=name,
        trail=trail,
    )


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


def split(values: Iterable[str]) -> tuple[str, ...]:
    """`a,b` and repeated options alike."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _seed(given: int | None, config: Config, profile: str) -> int:
    """Same command, same cases; only `nightly` explores, with a seed that the report names."""
    if given is not None:
        return given
    if config.seed is not None:
        return config.seed
    return secrets.randbelow(10**6) if profile == "nightly" else 0


def _listed(value: tuple[str, ...] | Literal["auto"]) -> tuple[str, ...]:
    return () if value == "auto" else value
