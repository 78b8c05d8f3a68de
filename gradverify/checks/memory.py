"""MEMORY: what a call was given, saved and returned is freed when its output goes, and is saved where torch sees it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from gradverify.autodiff import held
from gradverify.autodiff.calling import is_inexact
from gradverify.autodiff.held import Saved, Trace
from gradverify.cases.rescaled import ladders
from gradverify.checks.subject import Subject, at
from gradverify.errors import OpError
from gradverify.numerics import growth
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact
from gradverify.records.spec import Spec

CALLS = 3
"""A workspace keeps what the last call left in it, and a leak what every call did: three calls tell them apart."""

PHASES = {True: "dropped after backward", False: "dropped without backward"}


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Count inputs and outputs that the context holds as attributes, and what outlives its call.

    What outlives it is looked for with the garbage collector off, then on. What is saved, in bytes, and the time of
    backward in forwards are facts beside.
    """
    subject = at(spec, case)
    with held.collector_off():
        series = [_series(subject, backward=backward) for backward in PHASES]
        facts: dict[str, Fact] = {"saves": _saves(subject), "backward in forwards": _ratio(series[0].seconds)}
        yield from _attributes(subject, facts)
        for one in series:
            yield from _freed(subject, one, facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Calls of which nothing should be left: what is, by name, and in how many; and what is after collection."""

    phase: str
    seconds: tuple[tuple[float, float], ...]
    left: Mapping[str, int]
    stuck: Mapping[str, int]


def _series(subject: Subject, *, backward: bool) -> _Series:
    """CALLS calls after a first one, which may fill caches."""
    _one_call(subject, backward=backward)
    before = held.young()
    calls = [_one_call(subject, backward=backward) for _ in range(CALLS)]
    traces = [call.traces for call in calls]
    made = [alive for tensor, alive in held.young().items() if tensor not in before]
    left = stuck = _left(traces, made)
    if any(left.values()):
        held.collect()
        stuck = _left(traces, made)
    return _Series(phase=PHASES[backward], seconds=tuple(call.seconds for call in calls), left=left, stuck=stuck)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What is kept of a call: weak holds, and the seconds of its forward and its backward."""

    traces: tuple[Trace, ...]
    seconds: tuple[float, float]


def _one_call(subject: Subject, *, backward: bool) -> _Call:
    began = time.perf_counter()
    tape = subject.record()
    middle = time.perf_counter()
    traces = held.traces(tape)
    us = subject.cotangents(tape)
    after = time.perf_counter()
    if backward:
        tape.vjp(us)
    return _Call(traces=traces, seconds=(middle - began, time.perf_counter() - after))


def _ratio(seconds: Sequence[tuple[float, float]]) -> float:
    """The shortest backward over the shortest forward, to two digits."""
    forward, backward = (min(s) for s in zip(*seconds, strict=True))
    return float(f"{backward / max(forward, 1e-9):.2g}")


def _freed(subject: Subject, series: _Series, facts: Mapping[str, Fact]) -> Iterator[Evidence]:
    """Each thing of a call, by name: in how many calls it is still alive, and whether garbage collection frees it."""
    for name, times in series.left.items():
        kind = "leak" if series.stuck[name] else "cycle"
        said = {"said": _said(kind, times)} if times else {}
        yield subject.count(name, times, kind=kind, phase=series.phase, **said, **facts)


def _left(calls: Sequence[tuple[Trace, ...]], made: Sequence[Callable[[], bool]]) -> dict[str, int]:
    """Name -> in how many calls it is alive and should not be.

    Nobody else may keep a node or an input. An output or a saved tensor may lie in a cache or a workspace, which the
    calls share: it leaks where each call has one of its own. So do tensors, one a call or more.
    """
    alive: dict[tuple[str, str], list[int]] = defaultdict(list)
    for trace in (t for traces in calls for t in traces):
        alive[trace.kind, trace.name] += [trace.memory] if trace.alive() else []
    owned = ("input", "node")
    more = sum(alive() for alive in made)
    named = {
        name: len(where) if kind in owned or len(set(where)) == len(calls) else 0
        for (kind, name), where in alive.items()
    }
    return {**named, "a tensor that the op made": CALLS if more >= CALLS and not any(named.values()) else 0}


def _said(kind: str, times: int) -> str:
    if kind == "cycle":
        return "only the garbage collector frees it: the context and a tensor that it holds refer to each other"
    return f"still alive after {times} of {CALLS} calls, although their outputs were dropped and the garbage collected"


# What the context holds.


def _attributes(subject: Subject, facts: Mapping[str, Fact]) -> Iterator[Evidence]:
    """Tensors held as attributes: those that share memory with a floating input or an active output are counted."""
    tape = subject.record()
    owners = {t.untyped_storage().data_ptr(): f"the input `{n}`" for n, t in tape.given.items() if _real(t)}
    for i in tape.active:
        owners.setdefault(tape.outputs[i].untyped_storage().data_ptr(), f"output {i}")
    found = [a for a in held.attributes(tape) if a.tensor.numel()]
    beside = [f"{a.path}: {a.tensor.untyped_storage().nbytes()} bytes" for a in found]
    more = {"attributes": "; ".join(beside)} if beside else {}
    for a in found:
        owner = owners.get(a.tensor.untyped_storage().data_ptr())
        if owner is not None:
            said = f"it is {owner}: torch sees neither its changes nor its hooks; use ctx.save_for_backward"
            yield subject.count(f"`{a.path}`", 1, kind="attribute", said=said, **facts, **more)
    yield subject.count("the context", 0, kind="attribute", **facts, **more)


def _real(t: Tensor) -> bool:
    return is_inexact(t)


# What is saved.


def _saves(subject: Subject) -> str:
    """`8 B H S^2 bytes`: what is saved for backward beside the inputs, as a function of the sizes."""
    rungs = {letter: _climbed(subject.spec, cases) for letter, cases in ladders(subject.spec, subject.case).items()}
    rungs = {letter: steps for letter, steps in rungs.items() if len(steps) > 1}
    if not rungs:
        return _here(subject)
    base = next(iter(rungs.values()))[0][1]
    least = {letter: steps[0][0] for letter, steps in rungs.items()}
    if not any(saved for steps in rungs.values() for _, saved in steps):
        return "nothing beside its inputs"
    if len({len(saved) for steps in rungs.values() for _, saved in steps}) > 1:
        return _total(base, rungs)
    terms: dict[str, float] = defaultdict(float)
    for i, one in enumerate(base):
        powers = {
            n: growth.exponent([s for s, _ in steps], [k[i].bytes for _, k in steps]) for n, steps in rungs.items()
        }
        term = growth.monomial(one.bytes, least, powers)
        if term is None:
            return _total(base, rungs)
        terms[term[1]] += term[0]
    return " + ".join(f"{c:g} {word}".strip() for word, c in terms.items()) + " bytes"


def _here(subject: Subject) -> str:
    try:
        saved = held.saved(subject.spec, subject.call, subject.point)
    except OpError:
        return "unknown"
    return f"{sum(s.bytes for s in saved)} bytes in this case"


def _climbed(spec: Spec, cases: Sequence[tuple[int, Case]]) -> list[tuple[int, tuple[Saved, ...]]]:
    """Size and what is saved at it, up to where the op raises."""
    out = []
    for size, case in cases:
        there = at(spec, case)
        there.reseed()
        try:
            out.append((size, held.saved(spec, there.call, there.point)))
        except OpError:
            break
    return out


def _total(base: Sequence[Saved], rungs: Mapping[str, Sequence[tuple[int, tuple[Saved, ...]]]]) -> str:
    """All that is saved together, by the slopes of its sum: a sum of several powers has none of them exactly."""
    amounts = {n: [float(sum(k.bytes for k in saved)) for _, saved in steps] for n, steps in rungs.items()}
    powers = {n: growth.exponent([s for s, _ in steps], amounts[n]) for n, steps in rungs.items()}
    least = ", ".join(f"{n}={steps[0][0]}" for n, steps in rungs.items())
    grows = growth.powers({n: e for n, e in powers.items() if not math.isnan(e)})
    return f"{sum(s.bytes for s in base)} bytes at {least}" + (f", growing like {grows}" if grows else "")
