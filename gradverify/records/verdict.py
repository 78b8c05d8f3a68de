"""Verdicts of single cases, and the Result of a claim on one device and dtype."""

from __future__ import annotations

import enum

import msgspec

from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact
from gradverify.records.finding import Finding


class Outcome(enum.Enum):
    """PASS, FAIL, INCONCLUSIVE (a noisy estimate is never PASS), SKIP, ERROR (the op raised)."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIP = "SKIP"
    ERROR = "ERROR"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one piece of evidence says. `code` is empty for a plain PASS.

    `moot`: nothing can be judged at this point (a kink with the claim among the subgradients, a jump, the edge of the
    domain, saturation); it neither passes nor spoils the claim, and another case is drawn in its place.
    """

    outcome: Outcome
    code: str
    evidence: Evidence
    moot: bool = False


class Cases(msgspec.Struct, frozen=True, kw_only=True):
    """How many cases: judged, refused by `where` or by the reference, and redrawn as nothing can be judged there."""

    run: int = 0
    invalid: int = 0
    redrawn: int = 0
    stopped_because: str = "examples"


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The error that `precision` allows, relative to a tensor.

    `value`: of any of its entries; `common`: of all of them alike, on average. `derived_from`: what it was measured
    from. `loosened`: the raw tolerance that the user gave beside it, else empty.
    """

    value: float
    common: float = float("nan")
    derived_from: str = ""
    loosened: str = ""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a trail: the recipe without its data, how it came about, what became of it, and how long that took.

    `outcome` is None where `where`, the reference or the op refused the case. `moot`: nothing can be judged there.
    """

    case: Case
    how: str
    outcome: Outcome | None = None
    code: str = ""
    moot: bool = False
    seconds: float = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one claim on one device in one dtype: a line, a JSON row, a pytest item.

    `resolution` is the largest relative fault that could have hidden in a passing claim, in any case that was measured
    against a truth, in half of those that hold the op against itself; NaN where unknown.
    `seconds` holds the wall time by phase: `op`, `generation`, `judging`. `measured`: facts of the op beside the
    verdict, such as what it saves for backward. `tried`: what the cases were like, how often each. `budget`: of
    `precision` only. `trail`: every case, where a run was asked to keep them.
    """

    claim: str
    device: str
    dtype: str
    outcome: Outcome
    code: str = ""
    reason: str = ""
    cases: Cases = Cases()
    resolution: float = float("nan")
    digits: float = float("nan")
    truth: str = ""
    worst: Verdict | None = None
    finding: Finding | None = None
    seconds: dict[str, float] = {}
    measured: dict[str, Fact] = {}
    tried: dict[str, dict[str, int]] = {}
    xfailed: str = ""
    budget: Budget | None = None
    trail: tuple[Judged, ...] = ()
