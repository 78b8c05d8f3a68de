"""An engine that says what it is told to, in place of the one that measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradverify import __version__
from gradverify.records.described import described
from gradverify.records.run import Environment, Invocation, OpRun, Run, Tool
from gradverify.records.spec import Spec
from gradverify.records.verdict import Result
from tests.reports.runs import passed

ENVIRONMENT = Environment(python="3.12.1", torch="2.13.0+cpu", platform="Linux", devices=("cpu",))


@dataclass(frozen=True)
class Unusable:
    target: str
    error: str


@dataclass
class Engine:
    """Says `results` of every spec (or what `by_name` says of it), and remembers with what it was called.

    `breaks`: an exception raised in place of the result of that number.
    """

    results: tuple[Result, ...] = (passed("vjp"), passed("linear"))
    by_name: dict[str, tuple[Result, ...]] = field(default_factory=dict)
    breaks: tuple[int, BaseException] | None = None
    calls: list[tuple[list[str], Any, Any]] = field(default_factory=list)
    Unusable: type = Unusable
    during: Callable[[], None] = lambda: None

    def environment(self) -> Environment:
        return ENVIRONMENT

    def run(
        self,
        specs: Sequence[Any],
        plan: Any,
        policy: Any,
        *,
        argv: tuple[str, ...] = (),
        on_result: Callable[[Spec, Result], None] | None = None,
        on_start: Callable[[Spec], None] | None = None,
        keep: Callable[[Spec, Result], Result] | None = None,
    ) -> Run:
        self.calls.append(([getattr(s, "name", getattr(s, "target", "")) for s in specs], plan, policy))
        ops, interrupted = [], False
        for spec in specs:
            if not isinstance(spec, Spec):
                ops.append(OpRun(target=spec.target, spec="", error=spec.error))
                continue
            done: list[Result] = []
            try:
                on_start and on_start(spec)
                for number, result in enumerate(self.by_name.get(spec.name, self.results)):
                    self.during()
                    if self.breaks and self.breaks[0] == number:
                        raise self.breaks[1]
                    done.append(keep(spec, result) if keep else result)
                    on_result and on_result(spec, done[-1])
            except KeyboardInterrupt:
                interrupted = True
            ops.append(described(spec, checks=tuple(done)))
            if interrupted:
                break
        return Run(
            tool=Tool(version=__version__),
            environment=ENVIRONMENT,
            run=Invocation(argv=argv, seed=plan.seed, profile=plan.profile, duration_s=1.44, interrupted=interrupted),
            ops=tuple(ops),
            totals={"PASS": sum(len(o.checks) for o in ops)},
        )
