"""Hypothesis draws the cases and shrinks a failure; what a case says is decided elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn
from unittest.mock import patch

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.errors import Unsatisfiable, UnsatisfiedAssumption
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.strategies import SearchStrategy

from gradverify.cases.pins import Pins
from gradverify.errors import NotApplicableError
from gradverify.records.case import Case
from gradverify.records.verdict import Outcome, Verdict

REDRAWS = 4
"""A search ends when nothing could be judged in this many times the cases that were asked for; in as many as were asked
for where hardly one in ten could."""

SHRINKS = 150
"""Cases tried after the first failure. Enough for a dozen draws of a handful of choices each; more buys little."""


Judge = Callable[[Case], Verdict | None]
"""The verdict on a case; None where the spec's `where`, or the op for good reason, refuses it."""

Draw = Callable[[Pins | None], SearchStrategy[Case]]
"""The strategy of the cases that share some pins; None: of all cases."""


@dataclass(slots=True)
class Found:
    """What a search saw: verdicts in order, the failing one last and smallest; and how many cases went which way.

    `not_applicable`: why the claim says nothing about this op; the search ended at its first case.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    failing: Verdict | None = None
    invalid: int = 0
    redrawn: int = 0
    shrinks: int = 0
    stopped_because: str = "examples"
    not_applicable: str = ""


class _Wrong(Exception):
    pass


def _stop() -> NoReturn:
    """Hypothesis tells failures apart by the line that raised: there is one."""
    raise _Wrong


class _Enough(BaseException):
    """Not a failure: Hypothesis lets it through at once."""


@dataclass(slots=True)
class _Search:
    judge: Judge
    examples: int
    deadline: float | None
    shrinks: int = SHRINKS
    found: Found = field(default_factory=Found)
    spent: int = 0
    memory: dict[bytes, Verdict | None] = field(default_factory=dict)

    def try_case(self, case: Case) -> None:
        if self.found.failing is not None:
            self._shrinking(case)
            return
        if self.spent >= self.examples:
            raise _Enough("examples")
        hopeless = 10 * (len(self.found.verdicts) - self.found.redrawn) < self.found.redrawn
        if self.found.redrawn >= (1 if hopeless else REDRAWS) * max(self.examples, 10):
            raise _Enough("nothing to judge")
        self.try_swept(case)
        self.spent += 1

    def try_swept(self, case: Case) -> None:
        """Judge a case on top of the examples."""
        if self._late():
            raise _Enough("max-time")
        verdict = self._judged(case)
        if verdict is None:
            self.found.invalid += 1
            raise UnsatisfiedAssumption("refused")
        self.found.verdicts.append(verdict)
        if _fails(verdict):
            self.found.failing = verdict
            _stop()
        if verdict.moot:
            self.found.redrawn += 1
            raise UnsatisfiedAssumption("nothing to judge here")

    def _shrinking(self, case: Case) -> None:
        """Only what fails with the same code is the same failure; past the budget only what is known to fail."""
        assert self.found.failing is not None
        if case.canonical not in self.memory:
            self.found.shrinks += 1
            if self.found.shrinks > self.shrinks or self._late():
                return
        verdict = self._judged(case)
        if verdict is not None and _fails(verdict) and verdict.code == self.found.failing.code:
            self.found.failing = verdict
            _stop()

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _judged(self, case: Case) -> Verdict | None:
        # Not by the id: of a few thousand cases two share its six digits.
        key = case.canonical
        if key not in self.memory:
            try:
                self.memory[key] = self.judge(case)
            except NotApplicableError as why:
                self._not_applicable(why)
                self.memory[key] = None
        return self.memory[key]

    def _not_applicable(self, why: NotApplicableError) -> None:
        """What holds before anything was judged holds for the op; later, for this one case."""
        if not self.found.verdicts:
            self.found.not_applicable = str(why)
            raise _Enough("not applicable") from why


def _fails(verdict: Verdict) -> bool:
    return verdict.outcome in (Outcome.FAIL, Outcome.ERROR)


def search(
    draw: Draw,
    judge: Judge,
    *,
    pinned: Sequence[Case] = (),
    swept: Sequence[tuple[Case, Pins]] = (),
    examples: int,
    seed: int,
    deadline: float | None,
    shrinks: int | None = None,
) -> Found:
    """Judge the pinned cases, the swept ones, then drawn ones until `examples` are judged or one fails.

    A drawn failure is shrunk, a swept one among the cases that share its pins. Swept cases come on top of `examples`.
    """
    state = _Search(judge=judge, examples=examples, deadline=deadline, shrinks=SHRINKS if shrinks is None else shrinks)
    try:
        _try_pinned(pinned, state)
        for case, pins in swept:
            _try_swept(case, pins, state, draw, seed)
        _run(draw(None), state, seed, examples)
    except _Enough as why:
        state.found.stopped_because = str(why)
    except Unsatisfiable:
        state.found.stopped_because = "no further case"
    except _Wrong:
        state.found.stopped_because = "failure"
    return state.found


def _try_pinned(pinned: Sequence[Case], state: _Search) -> None:
    """Pinned cases come first and are never shrunk."""
    for case in pinned:
        with suppress(UnsatisfiedAssumption):
            state.try_case(case)


def _try_swept(case: Case, pins: Pins, state: _Search, draw: Draw, seed: int) -> None:
    """Where nothing that shares the pins fails likewise, the swept case stays the smallest."""
    try:
        with suppress(UnsatisfiedAssumption):
            state.try_swept(case)
    except _Wrong:
        with suppress(Unsatisfiable):
            _run(draw(pins), state, seed, SHRINKS)
        raise


def _run(strategy: SearchStrategy[Case], state: _Search, seed: int, examples: int) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=max(examples, 1),
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        backend="hypothesis",
    )
    @hypothesis.given(strategy)
    def property_(case: Case) -> None:
        state.try_case(case)

    with steady():
        property_()


@contextmanager
def steady() -> Iterator[None]:
    """No case depends on what else is loaded: Hypothesis mixes the literals of modules into what it draws.

    An unrelated edit of the user's code would then change the cases.
    """
    with patch.object(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None):
        yield
