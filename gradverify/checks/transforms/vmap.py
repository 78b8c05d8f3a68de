"""TRANSFORMS.VMAP: a batch of calls, of gradients and of cotangents gives what a loop gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch

from gradverify.autodiff.calling import written_buffers
from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms import batched
from gradverify.autodiff.transforms.batched import Places
from gradverify.autodiff.transforms.pure import Gradients, TransformError
from gradverify.checks.flat import zeros
from gradverify.checks.subject import Subject, at
from gradverify.checks.transforms import beside
from gradverify.checks.transforms.loop import BATCH, Loop, loop_of
from gradverify.errors import NotApplicableError
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

ALONE = 3
"""Up to so many tensors every subset of them is batched; above, each alone and all."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Batch every subset of the tensor arguments, in front and behind; then the backward alone, over cotangents."""
    subject = at(spec, case)
    beside.unless_declared(subject, "vmap")
    if spec.stochastic:
        raise NotApplicableError("the op draws random numbers, and a batch may draw others than a loop")
    tape = subject.record()
    beside.unless_writing(tape)
    written = written_buffers(spec, subject.point.primals, subject.point.kwargs)
    if written:
        raise NotApplicableError(f"the module writes to its buffer `{written[0]}`, which a batch would share")
    evidence, refused = _batches(subject)
    evidence += _cotangents(subject, tape)
    if refused and not beside.off(evidence):
        raise NotApplicableError(refused)
    yield from evidence


def _batches(subject: Subject) -> tuple[list[Evidence], str]:
    """Evidence for every subset that torch takes; where it takes none, why."""
    names = tuple(n for n, t in subject.point.primals.items() if t is not None)
    declared = batched.declared(subject.spec)
    evidence: list[Evidence] = []
    reasons: list[str] = []
    subsets = _subsets(names)
    for turn, subset in enumerate(subsets):
        places = {n: _place(subject, n, turn) for n in subset}
        how = "vmap, batch at axis " + ", ".join(f"{p} of `{n}`" for n, p in places.items())
        loop = loop_of(subject, subset)
        try:
            evidence += _batch(loop, places, names, how)
        except TransformError as error:
            if error.refused and not declared:
                reasons.append(str(error))
            else:
                evidence.append(beside.raised(subject, error, how))
    return evidence, reasons[0] if len(reasons) == len(subsets) else ""


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    sizes = range(len(names), 0, -1) if len(names) <= ALONE else (len(names), 1)
    return [subset for k in sizes for subset in itertools.combinations(names, k)]


def _place(subject: Subject, name: str, turn: int) -> int:
    """In front and behind by turns."""
    t = subject.point.primals[name]
    return t.ndim if t is not None and turn % 2 else 0


def _batch(loop: Loop, places: Places, names: Sequence[str], how: str) -> list[Evidence]:
    subject = loop.subjects[0]
    point = batched.stacked([s.point for s in loop.subjects], places)
    got = batched.outputs(subject.spec, point, places, names)
    evidence = list(beside.outputs(subject, got, loop.outputs(), how))
    if beside.off(evidence):
        return evidence
    us = loop.stacked_us
    got_grads = batched.gradient_of_vmap(subject.spec, point, places, names, us)
    evidence += _gradients(loop, got_grads, tuple(n for n in got_grads if n not in places), f"gradient of {how}")
    got_grads = batched.vmap_of_gradient(subject.spec, point, places, names, us)
    return evidence + list(_gradients(loop, got_grads, (), f"{how}, of the gradient"))


def _gradients(loop: Loop, got: Gradients, summed: Sequence[str], how: str) -> Iterator[Evidence]:
    for name, a in got.items():
        want = loop.gradient(name, summed=name in summed)
        given = torch.zeros_like(want) if a is None else a
        same = beside.equal(given, want)
        bar = zeros(want) if same else loop.bar(name, summed=name in summed)
        yield beside.one(loop.subjects[0], f"the gradient of `{name}`", name, given, want, bar, how)


def _cotangents(subject: Subject, tape: Tape) -> list[Evidence]:
    """The backward of one recorded call for several cotangents at once; it needs no vmap of the forward."""
    how = "backward batched over cotangents"
    us = [beside.cotangents(subject, tape, k) for k in range(BATCH)]
    each = [tape.vjp(u) for u in us]
    try:
        got = batched.batched_gradient(tape, us)
    except TransformError as error:
        return [] if error.refused else [beside.raised(subject, error, how)]
    evidence: list[Evidence] = []
    for k, want in enumerate(each):
        mine = {n: None if g is None else g[k] for n, g in got.items()}
        evidence += beside.gradients(subject, mine, want, us[k], tape.leaves, how)
    return evidence
