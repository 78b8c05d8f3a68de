"""The gradient of an op as a function of inputs and cotangents: what second derivatives are taken of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from gradverify.autodiff import calling, second
from gradverify.autodiff.frozen import Recorder
from gradverify.autodiff.second import Twice
from gradverify.checks import flat
from gradverify.checks.flat import Array
from gradverify.checks.gradient import differentiated, formula_of, matching
from gradverify.checks.problem import DIGITS, difference
from gradverify.checks.subject import WIGGLE, Gradients, Subject, scatter, shaken
from gradverify.errors import OpError
from gradverify.numerics.draws import draws
from gradverify.numerics.problem import Problem

Cotangents = Sequence[Tensor | None]
Map = Callable[[Subject, Cotangents], Gradients]
"""(x, u) -> J(x)^T u as the truth has it, by argument."""


def gradient_map(subject: Subject) -> Map:
    """B as the contract has it: the op's own; autograd of the surrogate or the verified reference; the formula."""
    spec, contract = subject.spec, subject.spec.contract
    if contract.kind == "vjp" and contract.formula is not None:
        formula = Recorder().around(contract.formula)
        return lambda moved, us: formula_of(moved, formula, us)
    function = subject.call
    if contract.kind == "backward_of":
        function = differentiated(subject)
    elif spec.truth == "reference" and spec.reference is not None:
        function = calling.companion(spec, spec.reference)

    def gradients(moved: Subject, us: Cotangents) -> Gradients:
        tape = replace(moved, call=function).record()
        return tape.vjp(matching(us, tape.outputs))

    return gradients


def truth_of(subject: Subject) -> str:
    """What the derivative is held against, in words."""
    if subject.spec.contract.kind == "backward_of":
        return "central differences of the surrogate's gradient"
    if subject.spec.contract.kind == "vjp":
        return "central differences of the declared formula"
    whose = "the reference's gradient" if subject.spec.truth == "reference" else "backward"
    return f"central differences of {whose}"


def names(recorded: Twice) -> list[str]:
    """The inputs of the gradient: its arguments, and the cotangents, whose names no argument has."""
    return [*recorded.tape.leaves, *_cotangents(recorded)]


def _cotangents(recorded: Twice) -> list[str]:
    """`u`, or `u0`, `u1`, ... for the cotangents of several outputs; none that an argument has."""
    places = [i for i, u in enumerate(recorded.cotangents) if u is not None]
    words = [f"u{i}" if len(places) > 1 else "u" for i in places]
    return [f"{n}_" if n in recorded.tape.given else n for n in words]


def problem_of(subject: Subject, recorded: Twice) -> Problem:
    """(x, u) -> B(x; u) as a problem: its function the truth's, its claim what autograd makes of the op's backward."""
    gradients = gradient_map(subject)
    leaves = recorded.tape.leaves
    inputs, grads = recorded.inputs, list(leaves.values())
    x = flat.array([t.detach() for t in inputs], inputs)

    def moved(z: Array) -> tuple[Subject, Cotangents]:
        pieces = iter(flat.tensors(z, inputs))
        primals = {**subject.point.primals, **{n: next(pieces) for n in leaves}}
        us = [None if u is None else next(pieces) for u in recorded.cotangents]
        return replace(subject, point=replace(subject.point, primals=primals)), us

    def forward(z: Array) -> Array:
        found = gradients(*moved(z))
        return flat.array([found.get(n) for n in leaves], grads)

    def pulled(twice: Twice, w: Array) -> Array:
        weights = dict(zip(leaves, flat.tensors(w, grads), strict=True))
        return flat.array(twice.vjp(weights), inputs)

    def vjp_at(z: Array, w: Array) -> Array:
        there, us = moved(z)
        return pulled(second.twice(there.record(), us), w)

    def nearby(z: Array) -> Array:
        try:
            return forward(z)
        except OpError:
            return np.full(centre.shape, np.nan)

    centre = forward(x.copy())
    return Problem(
        x=x,
        parts=flat.parts(dict(zip(names(recorded), inputs, strict=True))),
        outputs=flat.parts(leaves),
        centre=centre,
        rerun=difference(forward(x.copy()), centre),
        forward=nearby,
        vjp=lambda w: pulled(recorded, w),
        vjp_at=vjp_at,
        unit=subject.unit,
        digits=DIGITS[subject.case.dtype],
        terms=_terms(subject, recorded, centre),
    )


def _terms(subject: Subject, recorded: Twice, centre: Array) -> Array:
    """The size of the terms that every gradient is a sum of, [m].

    A gradient whose terms cancel scatters when the inputs move by a few roundings, by as many roundings of the terms.
    """
    us = [None if u is None else u.detach() for u in recorded.cotangents]
    leaves = recorded.tape.leaves
    moved = []
    for draw in range(draws()):
        primals = shaken(subject, subject.point.primals, draw=draw)
        grads = replace(subject, point=replace(subject.point, primals=primals)).record().vjp(us)
        moved.append(flat.array([grads[n] for n in leaves], list(leaves.values())))
    size = np.where(np.isfinite(centre), np.abs(centre), 0.0)
    for p in flat.parts(leaves):
        own = slice(p.start, p.stop)
        cancelled = scatter(centre[own], [m[own] for m in moved]) / (WIGGLE * subject.unit)
        size[own] = np.maximum(size[own], cancelled)
    return size
