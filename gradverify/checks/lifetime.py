"""LIFETIME: calls do not reach into each other, and what happens between forward and backward is not overlooked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff.calling import copies, is_inexact
from gradverify.autodiff.modes import inferred, overwrite
from gradverify.autodiff.products import Tape, dense
from gradverify.cases.materialise import generator, normal
from gradverify.checks import fresh_memory
from gradverify.checks.alone import Alone, Cotangents, clones, of
from gradverify.checks.elsewhere import with_other_sizes, with_other_values
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Gradients, Subject, at, compare_gradients, order_bar
from gradverify.checks.watch import changed, different, generator_moved, photograph, returned
from gradverify.errors import OpError
from gradverify.numerics.comparison import rounding_bar
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare with a call alone: interleaved calls, calls at other sizes, gradients added up in `.grad`.

    And: gradients returned earlier after later calls; gradients after an input or output was changed in place; results
    in memory that torch filled with NaN; outputs without gradients and in inference mode.
    """
    subject = at(spec, case)
    alone = of(subject)
    unwritten = list(fresh_memory.never_written(alone))
    yield from unwritten
    if not fresh_memory.stands(unwritten):
        return  # What differs from call to call, as what was left behind in memory does, can be held against nothing.
    yield from _in_modes(alone)
    yield from _interleaved(alone)
    yield from _kept(alone)
    yield from _after_other_sizes(alone)
    yield from _accumulated(alone)
    yield from _changed_in_place(alone)


# Several calls.


def _interleaved(alone: Alone) -> Iterator[Evidence]:
    """Forward a, forward b, backward a, backward b; a twice on the same memory, which stays as it is."""
    subject, us = alone.subject, alone.cotangents
    other = of(with_other_values(subject), draw=1)
    handed = copies(subject.point.primals)
    inputs = {n: t for n, t in handed.items() if t is not None}
    before = photograph(inputs)
    given = {f"cotangent {i}": u for i, u in enumerate(us) if u is not None}
    cotangents, state = photograph(given), torch.random.get_rng_state()
    a, b = subject.record(primals=handed), other.subject.record()
    yield from alone.same(a.vjp(us), kind="interleaved", phase="another forward came between")
    yield from other.same(b.vjp(other.cotangents), kind="interleaved", phase="another backward came between")
    again = subject.record(primals=handed)
    yield from alone.same(again.vjp(us), kind="interleaved", phase="on the same memory again")
    phase = "several calls"
    yield from changed(subject, before, inputs, "input", phase, allowed=returned(again.given, again.outputs))
    yield from changed(subject, cotangents, given, "cotangent", phase)
    if not subject.spec.stochastic:
        yield subject.count("the global generator", generator_moved(state), kind="generator", phase=phase)


def _kept(alone: Alone) -> Iterator[Evidence]:
    """Gradients that were returned stay what they are when backward is called again, here and on other data."""
    subject = alone.subject
    tape = subject.record()
    gradients = tape.vjp(alone.cotangents)
    before = clones(gradients)
    tape.vjp(subject.cotangents(tape, 2))
    other = with_other_values(subject)
    away = other.record()
    away.vjp(other.cotangents(away, 3))
    for name, now in gradients.items():
        was = before[name]
        if now is not None and was is not None:
            wrong = different(was, now)
            said = {"said": f"a later backward wrote over {wrong} of its {now.numel()} elements"} if wrong else {}
            yield subject.count(f"the gradient of `{name}` that was returned first", wrong, kind="kept", **said)


def _after_other_sizes(alone: Alone) -> Iterator[Evidence]:
    """A larger call between forward and backward, and another before both: whatever they leave behind differs."""
    subject, us = alone.subject, alone.cotangents
    larger = with_other_sizes(subject)
    if larger is None or not _called(larger, 0):
        return
    tape = subject.record()
    _called(larger, 1)
    yield from alone.same(tape.vjp(us), kind="other sizes", phase="a larger call came between")
    _called(larger, 2)
    yield from alone.same(subject.record().vjp(us), kind="other sizes", phase="a larger call came before")


def _called(subject: Subject, draw: int) -> bool:
    """Forward and backward; whether the op takes these sizes at all."""
    try:
        tape = subject.record()
        tape.vjp(subject.cotangents(tape, draw))
    except OpError:
        return False
    return True


def _accumulated(alone: Alone) -> Iterator[Evidence]:
    """`.grad` becomes r + B(u) where it was r, and B(u) + B(w) after two backwards where it was None."""
    subject, us = alone.subject, alone.cotangents
    tape = subject.record()
    ws = subject.cotangents(tape, 2)
    more = clones(tape.vjp(ws))
    bars = {n: _of_sum(subject, bar, more.get(n)) for n, bar in alone.bars.items()}
    filled = {n: _random(subject, n, t) for n, t in tape.leaves.items()}
    started: dict[str, Tensor | None] = dict(filled)
    yield from _grads(subject, (us,), started, _sum(filled, alone.gradients), bars, "`.grad` was filled before")
    empty = dict.fromkeys(tape.leaves)
    yield from _grads(subject, (us, ws), empty, _sum(alone.gradients, more), bars, "two backwards added up in `.grad`")


def _of_sum(subject: Subject, bar: Array, more: Tensor | None) -> Array:
    """The bar of a gradient that is added to another, or to numbers of order 1."""
    other = 0 * bar if more is None else order_bar(subject, more)
    return bar + other + rounding_bar(np.ones(bar.size), np.zeros(bar.size), unit=subject.unit, terms=2)


def _grads(
    subject: Subject,
    rounds: Sequence[Cotangents],
    start: Mapping[str, Tensor | None],
    want: Gradients,
    bars: Mapping[str, Array],
    phase: str,
) -> Iterator[Evidence]:
    tape = subject.record()
    for name, leaf in tape.leaves.items():
        r = start[name]
        leaf.grad = None if r is None else r.clone()
    try:
        for us in rounds:
            tape.accumulate(us)
    except OpError as error:
        yield subject.count("the second backward", 1, kind="accumulated", phase=phase, said=str(error))
        return
    got = {n: dense(leaf.grad) for n, leaf in tape.leaves.items()}
    yield from compare_gradients(
        subject, got, want, bars, tape.leaves, kind="accumulated", phase=phase, beside="the sum of each alone"
    )


def _random(subject: Subject, name: str, like: Tensor) -> Tensor:
    return normal(like, generator=generator(subject.case, "grad", name))


def _sum(a: Gradients, b: Gradients) -> dict[str, Tensor | None]:
    return {n: _plus(a[n], b[n]) for n in a}


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


# Between forward and backward.


def _changed_in_place(alone: Alone) -> Iterator[Evidence]:
    """Each input and each output in turn takes other values: torch refuses, or the gradient is that of the old ones."""
    subject = alone.subject
    other = with_other_values(subject).point.primals
    for name, t in subject.point.primals.items():
        values = other[name]
        if t is not None and values is not None and t.numel():
            tape = subject.record()
            if overwrite(tape.given[name], values):
                yield from _noticed(alone, tape, f"`{name}`", real=is_inexact(t))
    for k, y in enumerate(alone.outputs):
        tape = subject.record()
        given = any(tape.outputs[k] is t for t in tape.given.values())
        real = is_inexact(y)
        if y.numel() and not given and overwrite(tape.outputs[k], 0.25 - 1.5 * y if real else torch.zeros_like(y)):
            yield from _noticed(alone, tape, f"output {k}", real=real)


def _noticed(alone: Alone, tape: Tape, what: str, *, real: bool) -> Iterator[Evidence]:
    try:
        got = tape.vjp(alone.cotangents)
    except OpError:
        return
    kind = "in place" if real else "index in place"
    yield from alone.same(got, kind=kind, phase=f"{what} was changed in place before backward")


# Modes.


def _draws(subject: Subject) -> Iterator[Evidence]:
    """An op that draws more, or less, where gradients are recorded moves whatever is drawn after it."""
    subject.record()
    state = torch.random.get_rng_state()
    subject.values(subject.call, copies(subject.point.primals))
    moved = generator_moved(state)
    said = {"said": "without gradients another amount is drawn than with them"} if moved else {}
    yield subject.count("the global generator", moved, kind="mode", phase="gradients off", **said)


def _in_modes(alone: Alone) -> Iterator[Evidence]:
    """The outputs without gradients and in inference mode are those that are recorded; and so is what was drawn."""
    subject = alone.subject
    if subject.spec.stochastic:
        yield from _draws(subject)
    if subject.spec.nondeterministic:
        return
    subject.reseed()
    quick = inferred(subject.call, copies(subject.point.primals), subject.point.kwargs)
    still = subject.values(subject.call, copies(subject.point.primals))
    for mode, outputs in (("gradients off", still), ("inference mode", quick)):
        for k, (a, b) in enumerate(zip(outputs, alone.outputs, strict=False)):
            if a.shape != b.shape:
                shapes = {"found": str(list(a.shape)), "wanted": str(list(b.shape))}
                yield subject.count(f"output {k}", 1, kind="mode", phase=mode, **shapes)
            else:
                bar = rounding_bar(flat(b), zeros(b), unit=subject.unit, terms=b.numel())
                yield subject.compare(
                    f"output {k}", f"output {k}", a, b, bar, kind="mode", phase=mode, beside="recorded"
                )
