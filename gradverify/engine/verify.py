"""verify(spec): every claim on every device and dtype, each as one Result, in the order of the claims."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import NamedTuple

import msgspec
import torch

from gradverify.autodiff.calling import Clock
from gradverify.cases.modules import in_dtype
from gradverify.cases.pins import Pins
from gradverify.cases.signatures import resolved
from gradverify.cases.strategies import allowed, cases, pinned
from gradverify.cases.sweep import spread, sweep
from gradverify.checks import CHECKS
from gradverify.checks.entries import wrong_entries
from gradverify.checks.subject import at
from gradverify.diagnosis.explain import REMEDIES, explain, remedy_of_raised
from gradverify.diagnosis.figures import illustrated
from gradverify.diagnosis.repro import repro
from gradverify.engine.heap import set_aside
from gradverify.engine.refusals import refuses, told
from gradverify.engine.search import Found, search
from gradverify.engine.threads import largest, threads_for
from gradverify.errors import CannotJudgeError, NotApplicableError, OpError
from gradverify.judge import conclude, judge, of_case
from gradverify.numerics.culprits import Culprits
from gradverify.numerics.draws import careful
from gradverify.records.case import Case, tally
from gradverify.records.claims import CLAIMS, selected
from gradverify.records.codes import TITLES, matches
from gradverify.records.evidence import Estimate, Evidence
from gradverify.records.finding import Finding
from gradverify.records.policy import OFF, Plan, Policy
from gradverify.records.spec import Spec, Times, Tolerance
from gradverify.records.verdict import Cases, Judged, Outcome, Result, Verdict

FEW = {
    "purity": 10,
    "repeat": 10,
    "adjoint": 20,
    "double_backward": 10,
    "lifetime": 6,
    "memory": 4,
    "complex": 10,
    "convention": 10,
    "special": 10,
    "precision": 8,
} | {c: 1 if c in ("transforms.compile", "transforms.opcheck") else 2 for c in CLAIMS if c.startswith("transforms.")}
"""Claims whose answer hardly depends on the values: this many cases are as good as more."""

SHRINKS = {"transforms.compile": 6, "transforms.opcheck": 20, "precision": 40}
"""Cases to shrink a failure by, where each costs much."""

WHOLE = 20
"""From so many examples the sweep is run whole; with fewer, that share of it."""

FINE = "float64"

NARROW = ("bfloat16", "float16")
"""Dtypes whose forward moves in steps that no central difference sees through."""

BY_DIFFERENCES = ("forward", "vjp", "edges", "special", "jvp", "adjoint", "double_backward", "complex")
"""Claims that rest on differences, or on digits that a narrow dtype does not have: `precision` stands for them."""

AROUND = "around the failure"
"""How cases come about once one has failed: to shrink it, to be sure of it, to see what matters."""

OWN = ("forward", "backward")
"""Stages at which an exception is the op's own, not the reference's or the surrogate's."""


def verify(spec: Spec, plan: Plan, policy: Policy) -> Iterator[Result]:
    """Verify every selected claim of a spec; one Result per claim, device and dtype, as soon as it is known.

    Raises SpecError where the spec contradicts itself; a failing or raising op is a Result.
    """
    spec = resolved(spec)
    deadline = None if plan.max_seconds is None else time.monotonic() + plan.max_seconds
    for trial in trials(spec, plan):
        yield tried(spec, trial, plan, policy, deadline=deadline)


class Trial(NamedTuple):
    """A claim on a device in a dtype: what one Result is about."""

    device: str
    dtype: str
    claim: str


def trials(spec: Spec, plan: Plan) -> Iterator[Trial]:
    """What `verify` tries, in its order."""
    for device in plan.devices or spec.devices or present():
        for dtype in plan.dtypes or spec.dtypes or (FINE,):
            for claim in selected(plan.claims, plan.skip):
                yield Trial(device, dtype, claim)


def tried(spec: Spec, trial: Trial, plan: Plan, policy: Policy, *, deadline: float | None = None) -> Result:
    """The Result of one trial of a resolved spec. `deadline`: the time.monotonic() at which no more cases are drawn."""
    own = in_dtype(spec, trial.dtype, trial.device if available(trial.device) else "cpu")
    policy = _policy(spec, trial.dtype, policy)
    with set_aside():
        result = _Trial(own, trial.claim, trial.device, trial.dtype, plan, policy, deadline).result()
    return _expected(spec, result)


def at_case(spec: Spec, case: Case, policy: Policy) -> Result:
    """The Result of one case alone, under the claim that drew it. Raises SpecError where case and spec do not fit."""
    own = in_dtype(resolved(spec), case.dtype, case.device)
    trial = _Trial(own, case.claim, case.device, case.dtype, Plan(), _policy(spec, case.dtype, policy), None)
    return trial.alone(case)


def present() -> tuple[str, ...]:
    """The devices of this machine: cpu, and cuda where there is one."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def available(device: str) -> bool:
    """Whether a device is on this machine: `cuda` where there is any, `cuda:1` where there are two."""
    kind, _, index = device.partition(":")
    return kind in {d.partition(":")[0] for d in present()} and (kind != "cuda" or int(index or 0) < _count())


def _count() -> int:
    return torch.cuda.device_count()


def _policy(spec: Spec, dtype: str, policy: Policy) -> Policy:
    """The spec's own digits and tolerance, where it has any."""
    tolerance = spec.tol.get(dtype)
    changes: dict[str, float | None] = {}
    if spec.digits is not None:
        changes["digits"] = spec.digits
    if isinstance(tolerance, Times):
        changes["safety"] = policy.safety * tolerance.factor
    if isinstance(tolerance, Tolerance):
        changes |= {"loosened": tolerance.rtol, "loosened_absolute": tolerance.atol}
    return msgspec.structs.replace(policy, **changes)


def seed_of(*names: object) -> int:
    """A seed from (seed, spec, claim, device, dtype), so that no claim's cases depend on another's."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, names)).encode()).digest()[:8], "big")


class _Trial:
    """One claim on one device in one dtype."""

    def __init__(
        self, spec: Spec, claim: str, device: str, dtype: str, plan: Plan, policy: Policy, deadline: float | None
    ) -> None:
        self.spec, self.claim, self.device, self.dtype = spec, claim, device, dtype
        self.plan, self.policy, self.deadline = plan, policy, deadline
        self.judging = 0.0
        self.pinned = pinned(spec, claim, dtype=dtype, device=device)
        self.refused: tuple[Case, OpError] | None = None
        self.careful = False
        self.swept: frozenset[Case] = frozenset()
        self.trail: list[Judged] = []

    def result(self) -> Result:
        """The Result, with where the time went."""
        reason = self._not_applicable()
        if reason:
            return self._skip(reason)
        began, op = time.perf_counter(), Clock.seconds
        seed = seed_of(self.plan.seed, self.spec.name, self.claim, self.device, self.dtype)
        found = search(
            lambda pins: cases(self.spec, self.claim, dtype=self.dtype, device=self.device, pins=pins),
            self._judge,
            pinned=self.pinned,
            swept=self._swept(seed),
            examples=min(self.plan.examples, FEW.get(self.claim, self.plan.examples)),
            seed=seed,
            shrinks=SHRINKS.get(self.claim),
            deadline=self.deadline,
        )
        if found.not_applicable:
            return self._skip(found.not_applicable)
        result = self._concluded(found)
        total, op = time.perf_counter() - began, Clock.seconds - op
        seconds = {"op": op, "judging": max(self.judging - op, 0.0), "generation": max(total - self.judging, 0.0)}
        return msgspec.structs.replace(result, seconds=seconds, trail=tuple(self.trail))

    def alone(self, case: Case) -> Result:
        """The Result of one case, which is neither shrunk nor tried again."""
        try:
            verdict = self._judge(case)
        except NotApplicableError as why:
            return self._skip(str(why))
        found = Found(verdicts=[] if verdict is None else [verdict], invalid=int(verdict is None))
        return self._concluded(found)

    def _swept(self, seed: int) -> tuple[tuple[Case, Pins], ...]:
        every = sweep(self.spec, self.claim, dtype=self.dtype, device=self.device, seed=seed)
        swept = spread(every, max(math.ceil(len(every) * self.plan.examples / WHOLE), 1))
        if self.plan.trail:
            self.swept = frozenset(case for case, _ in swept)
        return swept

    def _not_applicable(self) -> str:
        if not available(self.device):
            return "no such device here"
        if self.claim in OFF.get(self.plan.profile, ()) and self.claim not in self.plan.claims:
            return f"off in profile {self.plan.profile}, unless it is asked for by name"
        if self.claim == "precision" and self.dtype == FINE:
            return "it is about narrower dtypes: --dtype bfloat16, or dtypes= in a spec"
        if self.dtype in NARROW and any(a.complex for a in self.spec.args):
            return f"torch has no complex numbers in {self.dtype}"
        if self.dtype in NARROW and self.claim in BY_DIFFERENCES:
            return f"a forward in {self.dtype} is too coarse for it: `precision` judges the op there"
        if self.claim == "forward" and self.spec.reference is None:
            return "no reference to compare with"
        if self.claim != "forward" and not self.spec.differentiable():
            return "no argument carries a gradient"
        if self.claim == "linear" and not self.spec.linear:
            return "declared: backward is not linear in the cotangent"
        if self.claim == "edges" and self.spec.inputs is not None:
            return "inputs= gives the shapes"
        if self.claim == "special" and (self.spec.inputs is not None or all(a.strategy for a in self.spec.args)):
            return "the spec gives the values itself"
        return ""

    def _skip(self, reason: str) -> Result:
        return Result(claim=self.claim, device=self.device, dtype=self.dtype, outcome=Outcome.SKIP, reason=reason)

    def _judge(self, case: Case) -> Verdict | None:
        """The first fault is judged once more, with its scatter measured at many points; what follows, only so."""
        began, verdict = time.perf_counter(), None
        try:
            verdict = self._judged(case)
            if verdict is not None and verdict.outcome is Outcome.FAIL and not self.careful:
                self.careful = True
                verdict = self._judged(case)
                self.careful = verdict is not None and verdict.outcome is Outcome.FAIL
            return verdict
        finally:
            seconds = time.perf_counter() - began
            self.judging += seconds
            if self.plan.trail:
                self.trail.append(self._noted(case, verdict, seconds))

    def _noted(self, case: Case, verdict: Verdict | None, seconds: float) -> Judged:
        last = self.trail[-1] if self.trail else None
        failed = last is not None and (last.how == AROUND or last.outcome in (Outcome.FAIL, Outcome.ERROR))
        known = "given by the spec" if case in self.pinned else "swept" if case in self.swept else "drawn"
        how = AROUND if failed else known
        bare = msgspec.structs.replace(case, data=None)
        if verdict is None:
            return Judged(case=bare, how=how, seconds=seconds)
        return Judged(
            case=bare, how=how, outcome=verdict.outcome, code=verdict.code, moot=verdict.moot, seconds=seconds
        )

    def _judged(self, case: Case) -> Verdict | None:
        if not allowed(self.spec, case):
            return None
        try:
            # A stochastic op is seeded before each call; the user's generator stays as it was.
            fork = torch.random.fork_rng(enabled=self.spec.stochastic)
            with fork, threads_for(largest(self.spec, case)), careful() if self.careful else nullcontext():
                evidence = list(CHECKS[self.claim](self.spec, case))
        except CannotJudgeError:
            return None
        except OpError as error:
            if case not in self.pinned and refuses(self.spec, case, error):
                self.refused = self.refused or (case, error)
                return None
            return self._raised(case, error)
        except SystemExit as stopped:
            said = f"{self.spec.name}: the op calls sys.exit({stopped.code!r})"
            return self._raised(case, OpError(said, code="GV902", stage="op"))
        return of_case([judge(e, self.policy) for e in evidence]) if evidence else None

    def _raised(self, case: Case, error: OpError) -> Verdict:
        code, message = error.code, str(error)
        if code == "GV902" and self.dtype == FINE and error.stage in OWN and self._runs_in(case, "float32"):
            code, message = "GV904", f"{TITLES['GV904']}: {message}"
        nan = float("nan")
        evidence = Evidence(
            claim=self.claim,
            case=case,
            quantity=f"the {error.stage}",
            analytic=nan,
            numeric=Estimate(value=nan, error=nan),
            scale=0.0,
            resolution=nan,
            facts={"kind": "raised", "said": message},
        )
        return Verdict(outcome=Outcome.ERROR, code=code, evidence=evidence)

    def _runs_in(self, case: Case, dtype: str) -> bool:
        try:
            list(CHECKS[self.claim](in_dtype(self.spec, dtype), msgspec.structs.replace(case, dtype=dtype)))
        except (CannotJudgeError, NotApplicableError):
            return True
        except Exception:  # noqa: BLE001 whatever it raises, it does not run
            return False
        return True

    def _concluded(self, found: Found) -> Result:
        verdicts = list(found.verdicts)
        if found.failing is not None:
            verdicts.append(self._replayed(found.failing))
            verdicts = [v for v in verdicts if v.outcome not in (Outcome.FAIL, Outcome.ERROR)] + verdicts[-1:]
        if not verdicts and self.refused:
            verdicts.append(self._raised(*self.refused))
        counts = Cases(
            run=len(found.verdicts), invalid=found.invalid, redrawn=found.redrawn, stopped_because=_why(found)
        )
        if not verdicts:
            return msgspec.structs.replace(self._nothing(found), cases=counts)
        result = conclude(verdicts, claim=self.claim, device=self.device, dtype=self.dtype, cases=counts)
        result = msgspec.structs.replace(result, tried=tally(v.evidence.case for v in found.verdicts))
        return self._with_refusal(illustrated(self.spec, self._explained(result, found)))

    def _with_refusal(self, result: Result) -> Result:
        """A claim about sizes that passes says which the op refuses; in others they are draws that were left out."""
        if self.claim != "edges" or self.refused is None or result.outcome is not Outcome.PASS or result.code:
            return result
        finding = Finding(
            code="GV905",
            summary=f"{TITLES['GV905']}: {told(*self.refused)}",
            minimal=self.refused[0],
            location=self.spec.source,
            remedy=REMEDIES["GV905"],
        )
        return msgspec.structs.replace(result, code="GV905", finding=finding)

    def _explained(self, result: Result, found: Found) -> Result:
        if result.outcome is Outcome.ERROR and result.worst is not None:
            e = result.worst.evidence
            said = str(e.facts["said"])
            finding = Finding(
                code=result.code,
                summary=said,
                minimal=e.case,
                repro=repro(self.spec, e),
                location=self.spec.source,
                remedy=remedy_of_raised(result.code, said),
            )
            result = msgspec.structs.replace(result, finding=finding, reason=said)
            return _unverifiable(result) if result.code == "GV904" else result
        told = explain(
            self.spec, result, runs=found.shrinks, fails=self._likewise(result), locate=lambda: self._entries(result)
        )
        return msgspec.structs.replace(result, finding=told, code=result.code if told is None else told.code)

    def _likewise(self, result: Result) -> Callable[[Case], bool | None]:
        """Whether another case fails with the same code; None where it cannot be judged, or time is up."""

        def fails(case: Case) -> bool | None:
            late = self.deadline is not None and time.monotonic() > self.deadline
            verdict = None if late else self._judge(case)
            if verdict is None or verdict.outcome is Outcome.INCONCLUSIVE or verdict.moot:
                return None
            return verdict.outcome is Outcome.FAIL and verdict.code == result.code

        return fails

    def _entries(self, result: Result) -> Culprits | None:
        """The wrong entries of the failing case; None where time is up."""
        if result.worst is None or (self.deadline is not None and time.monotonic() > self.deadline):
            return None
        case = result.worst.evidence.case
        with torch.random.fork_rng(enabled=self.spec.stochastic), threads_for(largest(self.spec, case)):
            return wrong_entries(at(self.spec, case))

    def _replayed(self, verdict: Verdict) -> Verdict:
        """A failure counts when the same case fails again."""
        again = self._judge(verdict.evidence.case)
        if again is not None and again.outcome is verdict.outcome:
            return again
        evidence = msgspec.structs.replace(
            verdict.evidence, facts={**verdict.evidence.facts, "cause": "it failed once and not again on the same case"}
        )
        return Verdict(outcome=Outcome.INCONCLUSIVE, code="GV303", evidence=evidence)

    def _nothing(self, found: Found) -> Result:
        refused = "where= refused every case" if self.spec.where else "no case held anything to judge"
        why = refused if found.invalid else "time was up before the first case"
        return Result(
            claim=self.claim,
            device=self.device,
            dtype=self.dtype,
            outcome=Outcome.INCONCLUSIVE,
            code="GV303",
            reason=why,
            finding=Finding(code="GV303", summary=f"nothing was tried: {why}"),
        )


def _unverifiable(result: Result) -> Result:
    """An op that has no float64 is not wrong: nothing can be said about it there."""
    assert result.worst is not None
    worst = msgspec.structs.replace(result.worst, outcome=Outcome.INCONCLUSIVE)
    return msgspec.structs.replace(result, outcome=Outcome.INCONCLUSIVE, worst=worst)


def _why(found: Found) -> str:
    return "failure" if found.failing is not None else found.stopped_because


def _expected(spec: Spec, result: Result) -> Result:
    """A declared failure (xfail) is no failure; one that passes is."""
    keys: Mapping[str, str] = spec.xfail
    # A pattern has a code of its own; that of the claim's family stands for any.
    codes = [c for c in (result.code, result.worst.code if result.worst else "") if c]
    hit = next((k for k in keys if k == result.claim or any(matches(c, k) for c in codes)), None)
    if hit is None or result.outcome is Outcome.SKIP:
        return result
    if result.outcome is Outcome.PASS and not result.code:
        if hit != result.claim:
            return result
        summary = f"xfail {hit!r} ({keys[hit]}) passes: remove it"
        finding = Finding(code="GV199", summary=summary, location=spec.source)
        return msgspec.structs.replace(result, outcome=Outcome.FAIL, code="GV199", reason=summary, finding=finding)
    return msgspec.structs.replace(
        result, outcome=Outcome.SKIP, reason=f"xfail {hit}: {keys[hit]}", xfailed=result.code
    )
