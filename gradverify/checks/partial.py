"""PARTIAL: any subset of inputs may require grad, any subset of outputs may be used; the rest stays the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff.calling import is_inexact
from gradverify.autodiff.products import Tape
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Gradients, Subject, at, compare_gradients, gradient_bars
from gradverify.errors import OpError, SpecError
from gradverify.numerics.comparison import rounding_bar
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

FEW = 4
"""Up to so many outputs every subset of them is used; of more: each alone, all but each, and all."""

Cotangents = Sequence[Tensor | None]


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare the gradients under a mask, and with unused outputs, with those of a call that uses everything.

    An output that is not used is one whose cotangent is zero; so is one that is handed an undefined gradient. A frozen
    argument, and an output that is declared to carry no gradient, give None or zeros. The same tensor given as two
    arguments gets the sum of their gradients. What is written to says so by its version.
    """
    subject = at(spec, case)
    everything = tuple(n for n in spec.differentiable() if subject.point.primals[n] is not None)
    whole = replace(subject, point=replace(subject.point, differentiate=everything))
    base = whole.record()
    us = subject.cotangents(base)
    yield from _masked(subject, whole, base, us)
    yield from _carries_none(whole, base)
    yield from _versions(whole, base)
    if subject.point.differentiate == everything:
        yield from _same_twice(whole, base)
    yield from _frozen(subject, everything)


# Subsets of inputs and of outputs.


def _masked(subject: Subject, whole: Subject, base: Tape, us: Cotangents) -> Iterator[Evidence]:
    inputs = f"gradients for {_listed(subject.point.differentiate)}"
    try:
        tape = subject.record()
    except OpError as error:
        yield _refused(subject, error, inputs)
        return
    if len(tape.outputs) != len(base.outputs):
        found, wanted = len(tape.outputs), len(base.outputs)
        yield subject.count("the number of outputs", 1, kind="outputs", mask=inputs, found=found, wanted=wanted)
        return
    for used in subsets(tape.active):
        words = f"{inputs}; {_used(tape, used)}"
        zeros = [_zeros_unless(k in used, u) for k, u in enumerate(us)]
        want = base.vjp(zeros)
        try:
            got = _pulled(tape, us, used)
        except OpError as error:
            yield _refused(subject, error, words)
            continue
        masked = {n: want[n] for n in tape.leaves}
        own = _rounding(whole, masked)
        own = own if _within(got, masked, own) else gradient_bars(whole, zeros, want)
        yield from compare_gradients(subject, got, masked, own, base.leaves, mask=words)


def subsets(active: Sequence[int]) -> list[tuple[int, ...]]:
    """The subsets of outputs to use: all of few, the whole first and none last; else each alone, all but each."""
    counts: Iterable[int] = range(len(active), -1, -1)
    if len(active) > FEW:
        counts = (len(active), len(active) - 1, 1, 0)
    return [s for count in counts for s in itertools.combinations(active, count)]


def _zeros_unless(used: bool, u: Tensor | None) -> Tensor | None:  # noqa: FBT001 (a step of the formula)
    return u if used or u is None else torch.zeros_like(u)


def _pulled(tape: Tape, us: Cotangents, used: tuple[int, ...]) -> Gradients:
    """Unused outputs are left out; where none is used, all are handed an undefined gradient."""
    if used:
        return tape.vjp([u if k in used else None for k, u in enumerate(us)])
    return tape.vjp_of_undefined()


def _rounding(whole: Subject, grads: Gradients) -> dict[str, Array]:
    """The bars of a gradient that nothing cancelled in: narrow, and had without a call."""
    return {
        n: rounding_bar(flat(g), zeros(g), unit=whole.unit, terms=g.numel()) for n, g in grads.items() if g is not None
    }


def _within(got: Gradients, want: Gradients, bars: Mapping[str, Array]) -> bool:
    """Whether two gradients agree within narrow bars: wide ones, which cost four calls, need then not be measured."""
    for name, w in want.items():
        g = got[name]
        if g is None and w is None:
            continue
        if g is None or w is None or g.shape != w.shape or not np.all(np.abs(flat(g) - flat(w)) <= bars[name]):
            return False
    return True


def _refused(subject: Subject, error: OpError, words: str) -> Evidence:
    """What works when everything is asked for must work when a part is."""
    return subject.count("the call", 1, kind="refused", mask=words, said=str(error))


def _used(tape: Tape, used: tuple[int, ...]) -> str:
    names = _listed(tape.name(k) for k in used)
    return f"outputs used {names}" if used else "the gradients of all outputs undefined"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


# What carries no gradient.


def _frozen(subject: Subject, everything: tuple[str, ...]) -> Iterator[Evidence]:
    """What is declared to carry no gradient must get None or zeros even when it asks for one."""
    frozen = [a.name for a in subject.spec.args if a.role == "frozen" and subject.point.primals[a.name] is not None]
    if not frozen:
        return
    try:
        tape = subject.record(point=replace(subject.point, differentiate=(*everything, *frozen)))
        grads = tape.vjp(subject.cotangents(tape))
    except OpError:
        return  # what refuses aloud, as torch's losses do for a weight, hands out no gradient
    for name in frozen:
        grad = grads[name]
        wrong = 0 if grad is None else int((flat(grad) != 0).sum())
        yield subject.count(f"the gradient of the frozen `{name}`", wrong, kind="frozen")


def _carries_none(whole: Subject, base: Tape) -> Iterator[Evidence]:
    """An output that is declared `nondiff` passes nothing on. Raises SpecError where a declared name is no output."""
    declared = base.declared_nondiff
    unknown = [] if whole.spec.kwargs else base.unknown_nondiff()
    if unknown:
        names = ", ".join(base.name(k) for k in range(len(base.outputs)))
        raise SpecError(f"{whole.spec.name}: nondiff names {unknown[0]!r}; the outputs are {names}.")
    for k in sorted(declared):
        if is_inexact(base.outputs[k]):
            grads = base.vjp([torch.ones_like(y) if i == k else None for i, y in enumerate(base.outputs)])
            wrong = sum(int((flat(g) != 0).sum()) for g in grads.values() if g is not None)
            yield whole.count(f"the gradient through output {base.name(k)}", wrong, kind="nondiff")


# One tensor in two places; tensors that are written to.


def _same_twice(whole: Subject, base: Tape) -> Iterator[Evidence]:
    """f(x, x) has the gradient g1 + g2 of f at two tensors that are equal; for one pair of arguments of a case."""
    pairs = [] if base.written else _pairs(whole, base)
    if not pairs:
        return
    one, other = pairs[whole.case.seed % len(pairs)]
    primals = {**whole.point.primals, other: whole.point.primals[one]}
    equal = replace(whole, point=replace(whole.point, primals=primals))
    apart = equal.record()
    us = equal.cotangents(apart)
    g = apart.vjp(us)
    words = f"`{one}` and `{other}` are one tensor"
    try:
        got = equal.record(same=(one, other)).vjp(us)
    except OpError as error:
        yield _refused(equal, error, words)
        return
    want = {n: _sum(g[one], g[other]) if n == one else g[n] for n in g if n != other}
    own = _rounding(equal, want)
    if not _within(got, want, own):
        own = gradient_bars(equal, us, g)
        own[one] = np.asarray(sum(own[n] for n in (one, other) if n in own))
    yield from compare_gradients(equal, got, want, own, apart.leaves, mask=words, beside="two equal tensors")


def _pairs(whole: Subject, base: Tape) -> list[tuple[str, str]]:
    """Arguments of one shape and dtype, whose values may stand for each other's."""
    leaves = base.leaves
    return [
        (a, b)
        for a, b in itertools.combinations(leaves, 2)
        if (leaves[a].shape, leaves[a].dtype) == (leaves[b].shape, leaves[b].dtype)
        and whole.spec.arg(a).domain == whole.spec.arg(b).domain
    ]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _versions(whole: Subject, base: Tape) -> Iterator[Evidence]:
    """Autograd refuses a saved tensor that was changed by its version: a change that leaves it as it was is unseen."""
    for name in (n for n in base.returned() if n not in base.written):
        before = whole.point.primals[name]
        if before is not None:
            wrong = 0 if torch.equal(before, base.given[name]) else int((flat(before) != flat(base.given[name])).sum())
            yield whole.count(f"the version of `{name}`, which was written to,", wrong, kind="version")
