"""An op at a point as numerics sees it: a function of flat vectors, and what is claimed of its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from gradverify.autodiff import calling
from gradverify.autodiff.calling import Called
from gradverify.autodiff.products import Tape
from gradverify.checks import flat
from gradverify.checks.flat import Array
from gradverify.checks.subject import Subject
from gradverify.errors import OpError, SpecError
from gradverify.numerics.problem import Problem

DIGITS = {"float64": 52, "float32": 23, "bfloat16": 7, "float16": 10}
"""Stored bits of the significand of each dtype."""


def problem_of(subject: Subject, function: Called, tape: Tape, *, claimed: Called) -> Problem:
    """The truth's function, and what `claimed` returned on `tape` and says in forward mode, as flat float64 vectors.

    A tensor whose tangent would be zero throughout gets none, and an output without a tangent has zeros.

    Away from the point itself, where the function raises it is taken as not finite: the edge of its domain.
    """
    leaves = {n: tape.leaves[n] for n in tape.leaves}
    positions = tape.active
    active = [tape.outputs[i] for i in positions]
    like = list(leaves.values())
    x = flat.array([t.detach() for t in like], like)
    others = {n: t for n, t in subject.point.primals.items() if n not in leaves}

    def forward(z: Array) -> Array:
        primals = {**subject.point.primals, **others, **dict(zip(leaves, flat.tensors(z, like), strict=True))}
        outputs = subject.values(function, calling.copies(primals) if tape.written else primals)
        chosen = [outputs[i] for i in positions if i < len(outputs)]
        if [t.shape for t in chosen] != [t.shape for t in active]:
            got, want = ([list(t.shape) for t in ts] for ts in (chosen, active))
            raise SpecError(f"{subject.spec.name}: the surrogate returns shapes {got}, the op {want}; they must agree.")
        return flat.array(chosen, active)

    def pulled(tape: Tape, v: Array) -> Array:
        cotangents: list[Tensor | None] = [None] * len(tape.outputs)
        for i, u in zip(positions, flat.tensors(v, active), strict=True):
            cotangents[i] = u
        grads = tape.vjp(cotangents)
        return flat.array([grads[n] for n in leaves], like)

    def vjp_at(z: Array, v: Array) -> Array:
        primals = {**subject.point.primals, **dict(zip(leaves, flat.tensors(z, like), strict=True))}
        moved = replace(subject, call=claimed, point=replace(subject.point, primals=primals))
        return pulled(moved.record(), v)

    def pushed(d: Array, at: Subject) -> Array:
        given = dict(zip(leaves, flat.tensors(d, like), strict=True))
        dual = at.jvp({n: v if v.numel() == 0 or bool(v.any()) else None for n, v in given.items()})
        return flat.array([dual.tangents[i] for i in positions], active)

    def jvp_at(z: Array, d: Array) -> Array:
        primals = {**subject.point.primals, **dict(zip(leaves, flat.tensors(z, like), strict=True))}
        return pushed(d, replace(subject, call=claimed, point=replace(subject.point, primals=primals)))

    centre = forward(x.copy())
    return Problem(
        x=x,
        parts=flat.parts(leaves),
        outputs=flat.parts({tape.name(i): tape.outputs[i] for i in positions}),
        centre=centre,
        rerun=difference(forward(x.copy()), centre),
        forward=lambda z: _unless_refused(lambda: forward(z), centre),
        vjp=lambda v: pulled(tape, v),
        vjp_at=lambda z, v: _unless_refused(lambda: vjp_at(z, v), x),
        jvp=lambda d: pushed(d, replace(subject, call=claimed)),
        jvp_at=lambda z, d: _unless_refused(lambda: jvp_at(z, d), centre),
        unit=subject.unit,
        digits=DIGITS[subject.case.dtype],
    )


def _unless_refused(call: Callable[[], Array], like: Array) -> Array:
    """What a call returns; NaN where the function raises."""
    try:
        return call()
    except OpError:
        return np.full(like.shape, np.nan)


def difference(a: Array, b: Array) -> Array:
    """|a - b|; zero where either is not finite, [m]."""
    with np.errstate(all="ignore"):
        return np.where((a == b) | ~np.isfinite(a) | ~np.isfinite(b), 0.0, np.abs(a - b))
