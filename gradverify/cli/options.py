"""What the flags of `check` ask for, checked against what exists before anything slow is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gradverify.config import Config, devices_named
from gradverify.errors import UsageError
from gradverify.planning import NARROWING, plan_of, split
from gradverify.records.policy import Plan, Policy

Form = Literal["full", "concise"]
Document = Literal["json", "junit", "sarif", "github"]

FORMS: tuple[str, ...] = get_args(Form)
"""For people, shown as the run goes on."""

DOCUMENTS: tuple[str, ...] = get_args(Document)
"""For other programs, written when the run is over; standard output then holds nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of `check`, resolved: what is verified, how, and where its report goes."""

    targets: tuple[str, ...]
    shapes: Mapping[str, str]
    keyword: str
    plan: Plan
    policy: Policy
    require: tuple[str, ...]
    form: Form | None
    document: Document | None
    output_file: Path | None
    report: Path | None
    events: Path | None
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
    chosen: Any = "json" if given["as_json"] else given["format"]
    report = given["report"] or (Path(config.root, config.report.dir) if config.report.dir else None)
    return Request(
        targets=given["targets"],
        shapes=shapes(given["arg"]),
        keyword=given["keyword"] or "",
        plan=plan_of(
            config,
            **{n: given[n] for n in ("profile", "checks", "skip", "device", "dtype", "examples", "seed", "max_time")},
            max_failures=1 if given["fail_fast"] else given["max_fail"],
            trail=bool(given["events"] or (report and "events" in config.report.formats)),
        ),
        policy=Policy(strict=not given["allow_inconclusive"]),
        require=devices_named(split(given["require"]) or config.require),
        form=chosen if chosen in FORMS else None,
        document=chosen if chosen in DOCUMENTS else None,
        output_file=given["output_file"],
        report=report,
        events=given["events"],
        quiet=given["quiet"],
        verbose=given["verbose"],
        no_colour=given["no_color"],
        exit_zero=given["exit_zero"],
        config=config,
        fixed=frozenset(n for n in NARROWING if given[n]),
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
