"""A Run is all that a report is made from. Its JSON is the report, see specs/report.schema.json."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from gradverify.records.finding import Location
from gradverify.records.lead import led
from gradverify.records.verdict import Outcome, Result

SCHEMA = "gradverify/report/1"


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """Which gradverify made the report."""

    name: str = "gradverify"
    version: str = ""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran: versions, devices that are present, flags that change numerics, commit of the user's checkout."""

    python: str = ""
    torch: str = ""
    platform: str = ""
    devices: tuple[str, ...] = ()
    flags: dict[str, str] = {}
    git: str | None = None


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """How it was run. `started` is ISO 8601 in UTC."""

    argv: tuple[str, ...] = ()
    seed: int = 0
    profile: str = "dev"
    started: str = ""
    duration_s: float = 0.0
    interrupted: bool = False


class NotCovered(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was not verified, and why."""

    what: str
    why: str


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """An argument of the spec, as it is printed: `x Float[*b k]`, its domain and its role."""

    name: str
    shape: str
    domain: str = ""
    role: str = "differentiable"


class OpRun(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one spec.

    `note`: how the op was called, where not as it is. `error`: why nothing could be verified (exit 2), else empty.
    """

    target: str
    spec: str
    kind: str = ""
    source: Location | None = None
    inputs: tuple[Input, ...] = ()
    inputs_from: str = ""
    contract: str = "exact"
    note: str = ""
    checks: tuple[Result, ...] = ()
    not_covered: tuple[NotCovered, ...] = ()
    error: str = ""


class Unusable(msgspec.Struct, frozen=True, kw_only=True):
    """A target that no spec can be made of, and why."""

    target: str
    error: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of gradverify over any number of ops."""

    schema: str = SCHEMA
    tool: Tool = Tool()
    environment: Environment = Environment()
    run: Invocation = Invocation()
    ops: tuple[OpRun, ...] = ()
    totals: dict[str, int] = {}

    @property
    def results(self) -> tuple[Result, ...]:
        """All results of all ops, in order."""
        return tuple(result for op in self.ops for result in op.checks)

    def raise_for_failures(self) -> None:
        """Raise GradcheckError unless everything that was asked for is verified."""
        from gradverify.errors import GradcheckError

        wrong = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE)
        bad = [r for op in self.ops for r in led(op.checks) if r.outcome in wrong]
        errors = [op.error for op in self.ops if op.error]
        if errors or bad:
            raise GradcheckError("\n".join([*errors, *map(describe, bad)]))


def describe(result: Result) -> str:
    """The finding of one result as plain text: outcome, claim, code, summary, then the measured facts."""
    head = f"{result.outcome.value} {result.claim}[{result.device}-{result.dtype}] {result.code}".rstrip()
    if result.finding is None:
        return f"{head} {result.reason}".rstrip()
    remedy = [f"  try: {result.finding.remedy}"] if result.finding.remedy else []
    return "\n".join([f"{head} {result.finding.summary}", *(f"  {x}" for x in result.finding.lines), *remedy])


def to_json(run: Run) -> bytes:
    """Canonical JSON of a run. JSON has no NaN or infinity: they are the strings "nan", "inf" and "-inf"."""
    return msgspec.json.encode(_finite(msgspec.to_builtins(run, order="deterministic", enc_hook=_base)))


def from_json(data: bytes) -> Run:
    """The inverse of `to_json`. Raises msgspec.ValidationError with the path of what does not fit the schema."""
    return msgspec.convert(msgspec.json.decode(data), Run, strict=False)


def _base(value: Any) -> Any:
    """A text or number of a subclass (torch's version, numpy's float64) as the plain one."""
    for plain in (str, float, int):
        if isinstance(value, plain):
            return plain(value)
    raise NotImplementedError


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def totals(ops: Sequence[OpRun]) -> dict[str, int]:
    """How many results of each outcome; warned passes apart."""
    results = [r for op in ops for r in op.checks]
    counted = Counter(r.outcome.value for r in results)
    warned = sum(r.outcome is Outcome.PASS and bool(r.code) for r in results)
    cases = sum(r.cases.run for r in results)
    return {o.value: counted.get(o.value, 0) for o in Outcome} | {
        "warned": warned,
        "unusable": sum(bool(op.error) for op in ops),
        "cases": cases,
    }


def absent(run: Run, required: Sequence[str]) -> list[str]:
    """The required devices on which nothing ran."""
    ran = {r.device for r in run.results if r.outcome is not Outcome.SKIP or r.xfailed}
    return [d for d in required if not any(r == d or r.partition(":")[0] == d for r in ran)]
