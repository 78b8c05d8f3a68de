"""TRANSFORMS.THREADS: a call gives in one thread what it gives alone, whatever another thread calls meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor

from gradverify.autodiff.calling import copies
from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms.pure import Gradients, TransformError, first_line
from gradverify.autodiff.transforms.threaded import at_once, in_the_midst, in_turn, operations
from gradverify.cases.sweep import spread
from gradverify.checks.elsewhere import with_other_values
from gradverify.checks.subject import at
from gradverify.checks.transforms import beside
from gradverify.checks.transforms.alone import Alone
from gradverify.errors import NotApplicableError, OpError
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import PARAMETERS, Spec

PLACES = 12
"""Operations of a call, evenly spread over it, behind which another call is let pass."""

REPEATS = 2
"""Runs of two calls at once, which may or may not meet."""

Outcome = tuple[Sequence[Tensor], Gradients]
Pair = tuple[Alone, Alone]


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Forward and backward in different threads; another call in the midst of a call; and two calls at once."""
    subject = at(spec, case)
    beside.unless_declared(subject, "threads")
    if spec.stochastic:
        raise NotApplicableError("the op draws random numbers, and the generator is one for all threads")
    pair = Alone.of(subject), Alone.of(with_other_values(subject))
    yield from _judged(pair, _crossed, "backward in another thread than forward")
    yield from _interrupted(pair)
    # Torch lends a module its parameters in place, and two such calls must not overlap but one within the other.
    for _ in range(0 if PARAMETERS in spec.nested else REPEATS):
        yield from _judged(pair, lambda calls: at_once(*map(_step, calls)), "two threads at once")


def _interrupted(pair: Pair) -> Iterator[Evidence]:
    """An op that makes the other thread wait is let alone from there on: it has a lock, or is much slower at times."""
    total, seconds = operations(_step(pair[0]))
    for after in spread(range(1, total + 1), PLACES):
        passed = [True]

        def run(calls: Pair, after: int = after, passed: list[bool] = passed) -> list[Outcome]:
            found, passed[0] = in_the_midst(*map(_step, calls), after=after, seconds=seconds)
            return found

        yield from _judged(pair, run, f"another thread's call after {after} of {total} operations")
        if not passed[0]:
            return


def _judged(pair: Pair, run: Callable[[Pair], Sequence[Outcome]], how: str) -> Iterator[Evidence]:
    try:
        found = run(pair)
    except OpError as error:
        yield beside.raised(pair[0].subject, TransformError(first_line(error), refused=False), how)
        return
    for alone, (outputs, grads) in zip(pair, found, strict=True):
        yield from beside.outputs(alone.subject, outputs, alone.tape.outputs, how)
        yield from alone.beside(grads, how)


def _crossed(pair: Pair) -> list[Outcome]:
    """Forward a, forward b, backward a, backward b, each in a new thread."""
    tapes = in_turn(*(partial(_forward, alone) for alone in pair))
    grads = in_turn(*(partial(tape.vjp, alone.us) for tape, alone in zip(tapes, pair, strict=True)))
    return [(tape.outputs, g) for tape, g in zip(tapes, grads, strict=True)]


def _forward(alone: Alone) -> Tape:
    return alone.subject.record(primals=copies(alone.subject.point.primals))


def _step(alone: Alone) -> Callable[[], Outcome]:
    """Forward and backward on copies that are made before."""
    given = copies(alone.subject.point.primals)

    def run() -> Outcome:
        tape = alone.subject.record(primals=dict(given))
        return tape.outputs, tape.vjp(alone.us)

    return run
