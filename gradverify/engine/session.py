"""A session verifies several specs and gathers everything into one Run. Who listens to it is not its affair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from msgspec.structs import replace

from gradverify.cases.modules import note
from gradverify.cases.signatures import resolved
from gradverify.engine.environment import environment
from gradverify.engine.verify import Trial, present, tried, verify
from gradverify.errors import UsageError
from gradverify.records.claims import NOT_YET, WHY_NOT_YET, selected
from gradverify.records.described import described
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import Environment, Invocation, NotCovered, OpRun, Run, Tool, Unusable, totals
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result

__all__ = ["Listener", "Unusable", "run"]

BUFFERS = "buffers of other allocators"
NOT_FILLED = "lifetime cannot tell whether they were written"

Listener = Callable[[Spec, Result], None]


def run(
    specs: Sequence[Spec | Unusable],
    plan: Plan,
    policy: Policy,
    *,
    argv: Sequence[str] = (),
    on_result: Listener | None = None,
    on_start: Callable[[Spec], None] | None = None,
    keep: Callable[[Spec, Result], Result] | None = None,
) -> Run:
    """Verify all specs. An interruption ends it with what is known until then, and `run.interrupted`.

    `keep` is handed every result first, and returns it, perhaps with the id under which it can be replayed.
    """
    session = _Session(plan=plan, policy=policy, on_result=on_result, on_start=on_start, keep=keep)
    began, started = time.perf_counter(), datetime.now(timezone.utc)
    try:
        for item in specs:
            if isinstance(item, Unusable):
                session.ops.append(OpRun(target=item.target, spec="", error=item.error))
            elif session.failures() < (plan.max_failures or math.inf):
                session.verify(item)
    except KeyboardInterrupt:
        session.interrupted = True
    invocation = Invocation(
        argv=tuple(argv),
        seed=plan.seed,
        profile=plan.profile,
        started=started.isoformat(timespec="seconds"),
        duration_s=time.perf_counter() - began,
        interrupted=session.interrupted,
    )
    return _run(invocation, session.ops, environment())


def run_one(
    spec: Spec, trial: Trial, plan: Plan, policy: Policy, *, where: Environment, deadline: float | None = None
) -> Run:
    """One trial of a resolved spec as a Run of its own; those of all trials merged are the Run of the spec.

    Raises UsageError where the spec is unusable.
    """
    return run_of(spec, lambda: tried(spec, trial, plan, policy, deadline=deadline), plan, where=where)


def run_of(spec: Spec, do: Callable[[], Result], plan: Plan, *, where: Environment) -> Run:
    """One result of a resolved spec, and when and how it came about, as a Run of its own."""
    began, started = time.perf_counter(), datetime.now(timezone.utc)
    op = described(spec, checks=(do(),), not_covered=_not_covered(plan), note=note(spec))
    invocation = Invocation(
        seed=plan.seed,
        profile=plan.profile,
        started=started.isoformat(timespec="seconds"),
        duration_s=time.perf_counter() - began,
    )
    return _run(invocation, [op], where)


def _run(invocation: Invocation, ops: Sequence[OpRun], where: Environment) -> Run:
    return Run(
        tool=Tool(version=_version()),
        environment=where,
        run=invocation,
        ops=tuple(ops),
        totals=totals(ops),
    )


def _version() -> str:
    import gradverify

    return gradverify.__version__


@dataclass(slots=True)
class _Session:
    plan: Plan
    policy: Policy
    on_result: Listener | None
    on_start: Callable[[Spec], None] | None
    keep: Callable[[Spec, Result], Result] | None = None
    ops: list[OpRun] = field(default_factory=list)
    interrupted: bool = False

    def verify(self, spec: Spec) -> None:
        """Verify one spec; its place in the run is kept up to date, so that nothing is lost on the way."""
        spec = _loaded(spec).with_(dtypes=self.plan.dtypes or spec.dtypes)
        self.ops.append(described(spec, not_covered=_not_covered(self.plan), note=note(spec)))
        if self.on_start:
            self.on_start(spec)
        try:
            for found in verify(spec, self.plan, self.policy):
                result = self.keep(spec, found) if self.keep else found
                self.ops[-1] = replace(self.ops[-1], checks=(*self.ops[-1].checks, result))
                if self.on_result:
                    self.on_result(spec, result)
                if self.failures() >= (self.plan.max_failures or math.inf):
                    return
        except UsageError as error:
            self.ops[-1] = replace(self.ops[-1], error=str(error))

    def failures(self) -> int:
        """How many results have failed so far."""
        return sum(r.outcome in (Outcome.FAIL, Outcome.ERROR) for op in self.ops for r in op.checks)


def _loaded(spec: Spec) -> Spec:
    """The spec with its lazy op, so that reports know where that stands; as it is where `verify` will say why not."""
    try:
        return resolved(spec)
    except UsageError:
        return spec


def _not_covered(plan: Plan) -> tuple[NotCovered, ...]:
    claims = [NotCovered(what=claim, why=WHY_NOT_YET) for claim in NOT_YET]
    devices = [] if "cuda" in present() else [NotCovered(what="cuda", why="no such device here")]
    skipped = [NotCovered(what=claim, why="skipped on request") for claim in plan.skip]
    buffers = [NotCovered(what=BUFFERS, why=NOT_FILLED)] if "lifetime" in selected(plan.claims, plan.skip) else []
    return (*claims, *buffers, *devices, *skipped)
