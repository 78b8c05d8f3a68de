"""The adjoint test <u, J v> = <J^T u, v>: two claims of one derivative held against each other, to rounding.

No difference is taken, so it works where the forward is noisy, stiff or a staircase. See specs/claims.md (ADJOINT) and
Claerbout, Earth Soundings Analysis, 1992 (the dot-product test).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gradverify.numerics import neighbourhood
from gradverify.numerics.comparison import inner, norm, rounding_bar
from gradverify.numerics.difference import Array
from gradverify.numerics.directions import GROUP, jitter
from gradverify.numerics.draws import draws, looking_closely
from gradverify.numerics.measurement import SAFETY, Measurement, rescaled
from gradverify.numerics.probe import Probe
from gradverify.numerics.problem import Problem, axis
from gradverify.numerics.settle import SHARP
from gradverify.numerics.trial import WIGGLE

DRAWS = 3
"""Pairs (u, v)."""

LEAST = 2.0**-GROUP
"""Outputs that move less than this part of their tensor's mean are weighed like ones that move so much: what is smaller
by more has no size of its own, as among inputs (directions.GROUP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """The two sides at their worst, and where: output j and input i, None where no single entry shows it."""

    measurement: Measurement
    j: int | None = None
    i: int | None = None


def measure_adjoint(problem: Problem, rng: np.random.Generator) -> Disagreement:
    """Hold <u, jvp(v)> against <vjp(u), v> for random u and v; a mismatch is pursued to one entry of the Jacobian."""
    worst, u, v = max((_drawn(problem, rng) for _ in range(DRAWS)), key=lambda t: t[0].bars)
    if not worst.bars > SAFETY or not np.isfinite(worst.analytic) or not np.isfinite(worst.value):
        return Disagreement(measurement=worst)
    j = _worst_output(problem, u, v)
    i = _worst_input(problem, j, v)
    step = float(problem.scale()[i])
    entry = _sides(problem, axis(problem.centre.size, j), axis(problem.x.size, i) * step, rng)
    if not entry.off:
        return Disagreement(measurement=worst)
    return Disagreement(measurement=replace(rescaled(entry, 1 / step), place=problem.place(i, j)), j=j, i=i)


def _drawn(problem: Problem, rng: np.random.Generator) -> tuple[Measurement, Array, Array]:
    """Random signs: inputs in proportion to their own size, outputs in inverse proportion to what they then move by."""
    v = jitter(rng, problem.x.size) * problem.scale()
    u = jitter(rng, problem.centre.size) / _moves(problem, np.abs(problem.jvp(v)))
    return _sides(problem, u, v, rng), u, v


def _moves(problem: Problem, size: Array) -> Array:
    """|J v|_j, at least a thousandth of its tensor's root mean square; 1 where a whole tensor does not move."""
    out = np.where(np.isfinite(size), size, 0.0)
    for p in problem.outputs:
        piece = out[p.start : p.stop]
        rms = norm(piece) / np.sqrt(max(piece.size, 1))
        piece[:] = np.clip(piece, max(LEAST * rms, 1e-290), 1e290) if rms > 0 else 1.0
    return out


def _sides(problem: Problem, u: Array, v: Array, rng: np.random.Generator) -> Measurement:
    """<u, jvp(v)> beside <vjp(u), v>, with the error bar of their difference.

    It is how far the difference scatters when x moves by a few roundings; the rounding of both sums; that of <u, y>,
    which terms that cancelled have hidden; and that of the sums at inputs scaled to 1, where nothing saturates.
    """
    pushed, pulled = problem.jvp(v), problem.vjp(u)
    left, right = inner(u, pushed), inner(pulled, v)
    size = _size(u, pushed, pulled, v)
    hidden = norm(_products(u, problem.finite_centre)) + _ordinary(problem, u, v)
    terms = max(u.size, v.size)
    scattered = max(abs(_gap_at(problem, u, v, rng) - (left - right)) for _ in range(draws()))
    rounding = rounding_bar(np.array([size, hidden]), np.array([scattered, 0.0]), unit=problem.unit, terms=terms)
    error = float(rounding.sum()) if np.isfinite(left) and np.isfinite(right) else np.nan
    return Measurement(
        analytic=left,
        value=right,
        error=error,
        scale=size,
        resolution=SAFETY * error / size if size > 0 else np.nan,
        resolved=1.0,
        code="smooth",
        steps=(),
        confirmed=True,
    )


def _size(u: Array, pushed: Array, pulled: Array, v: Array) -> float:
    return max(norm(_products(u, pushed)), norm(_products(pulled, v)))


def _products(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.where((a == 0) | (b == 0), 0.0, a * b)


def _gap_at(problem: Problem, u: Array, v: Array, rng: np.random.Generator) -> float:
    """The difference of the two sides at a point a few roundings away; 0 where it is not finite."""
    x = problem.x * (1 + WIGGLE * problem.unit * rng.uniform(-1, 1, problem.x.size))
    gap = inner(u, problem.jvp_at(x, v)) - inner(problem.vjp_at(x, u), v)
    return gap if np.isfinite(gap) else 0.0


def _ordinary(problem: Problem, u: Array, v: Array) -> float:
    """The size of the terms where every tensor is scaled down to 1, and up to 1 where a fault is at stake."""
    x, far = problem.x.copy(), False
    for p in problem.parts:
        top = float(np.max(np.abs(x[p.start : p.stop]), initial=0.0))
        if 1 < top < np.inf or (0 < top < 1 and looking_closely()):
            x[p.start : p.stop] /= top
            far = True
    if not far:
        return 0.0
    size = _size(u, problem.jvp_at(x, v), problem.vjp_at(x, u), v)
    return size if np.isfinite(size) else 0.0


def _worst_output(problem: Problem, u: Array, v: Array) -> int:
    """Halve the cotangent towards the larger difference: one backward a step."""
    pushed = problem.jvp(v)
    return _halved(u, lambda part: inner(part, pushed) - inner(problem.vjp(part), v))


def _worst_input(problem: Problem, j: int, v: Array) -> int:
    """Halve the tangent towards the larger difference at output j: one forward a step."""
    row = problem.vjp(axis(problem.centre.size, j))
    return _halved(v, lambda part: float(problem.jvp(part)[j]) - inner(row, part))


def _halved(whole: Array, gap: Callable[[Array], float]) -> int:
    def off(columns: np.ndarray) -> float:
        part = np.zeros_like(whole)
        part[columns] = whole[columns]
        return abs(gap(part))

    columns = np.flatnonzero(whole)
    while columns.size > 1:
        columns = max(np.array_split(columns, 2), key=off)
    return int(columns[0])


def opinion(problem: Problem, i: int, j: int) -> Measurement:
    """Differences of output j along input i, per unit of it: a third opinion beside the two claims."""
    probe = Probe.on_axis(problem, i).only(np.array([j]))
    for stage in range(3):
        probe.extend(stage)
    best = probe.ladder.best()
    resolved = np.isfinite(best.bar) & (best.bar <= SHARP * np.abs(best.value)) & (best.kink < best.bar)
    around = neighbourhood.survey(probe.ladder, resolved=resolved)
    kink = around.code[0] == neighbourhood.KINK
    measured = Measurement(
        analytic=np.nan,
        value=float(best.value[0]),
        error=float(around.error[0] if kink else best.bar[0]),
        scale=abs(float(best.value[0])),
        resolution=np.nan,
        resolved=float(resolved[0]),
        code=neighbourhood.NAMES[int(around.code[0])],
        steps=(),
        interval=(float(around.low[0]), float(around.high[0])) if kink else None,
    )
    return rescaled(measured, 1 / float(probe.direction[i]))
