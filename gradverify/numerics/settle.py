"""One scalar claim beside one probe, climbed until it agrees or its mismatch is sure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from gradverify.numerics import neighbourhood
from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import AMPLIFICATION, ROUNDING, Array, Ladder
from gradverify.numerics.measurement import SAFETY, Measurement, rescaled
from gradverify.numerics.picture import COARSEST, TARGET
from gradverify.numerics.probe import Probe
from gradverify.numerics.problem import axis
from gradverify.numerics.trial import Trial

DEEP = -31
"""Finer than 2^-31 no window reaches: only rounding, or a ripple that finer steps resolve, shows there."""

IMPRECISE = 1e-6
"""A claim's own scatter explains a mismatch up to this part of the function's values; beyond it is a fault."""

SHARP = 0.01
"""A slope, or a mismatch, is known where its bar is this part of it: one that is sure stands 100 bars above."""

SECOND = 0.3
"""Another window has a bar of at most this part of the mismatch: about SAFETY of them, so that it shows one itself;"""

AGREED = 0.1
"""and it agrees with the first to this part of the mismatch."""


def sketched(trial: Trial, probe: Probe, v: Array) -> Measurement:
    """Judge <vjp(v), d>."""
    claim = trial.problem.vjp(v)
    own = _own(trial, v, probe.direction)
    return _settle(trial, probe.weighted(v), inner(claim, probe.direction), norm(probe.terms(claim)), own=own)


def output(trial: Trial, probe: Probe, j: int) -> Measurement:
    """Judge the slope of output j alone."""
    own = _own(trial, axis(trial.problem.centre.size, j), probe.direction)
    return _settle(trial, probe.only(np.array([j])), *trial.slope(probe.direction, j), own=own)


def entry(trial: Trial, i: int, j: int) -> Measurement:
    """Judge d y_j / d x_i alone, on a ladder of its own; numbers are per unit of x_i."""
    probe = Probe.on_axis(trial.problem, i).only(np.array([j]))
    probe.extend(0)
    step = float(probe.direction[i])
    own = _own(trial, axis(trial.problem.centre.size, j), probe.direction)
    m = _settle(trial, probe, *trial.slope(probe.direction, j), own=own)
    return rescaled(replace(m, place=trial.problem.place(i, j)), 1 / step)


def _own(trial: Trial, v: Array, direction: Array) -> Callable[[], float]:
    """The claim's own error, measured where it is asked for."""
    return lambda: trial.scatter(v, direction)


def _settle(trial: Trial, probe: Probe, claim: float, size: float, *, own: Callable[[], float]) -> Measurement:
    """Climb until a scalar claim agrees, or its mismatch is confirmed by another window, or steps run out.

    Before a mismatch counts: finer steps must not contradict it, and it must stand above the claim's `own` error
    and above the rounding of the function's values around the point.
    """
    m = _beside(probe, claim, size)
    for stage in range(1, 4):
        if m.bars <= SAFETY and m.resolution <= TARGET:
            return m
        if m.confirmed and m.code in ("smooth", "flat"):
            probe.ladder.sample(probe.ladder.fine)
            m = _widened(trial, _beside(probe, claim, size), probe, own())
            if m.confirmed or m.bars <= SAFETY:
                return m
        probe.extend(stage)
        m = _beside(probe, claim, size)
    return _widened(trial, m, probe, own())


def _widened(trial: Trial, m: Measurement, probe: Probe, own: float) -> Measurement:
    """The error bar with the claim's own error, and the rounding of the largest values around the point."""
    problem = trial.problem
    gap = abs(m.analytic - m.value)
    rounding = 0.0
    if m.code == "flat" or gap <= COARSEST * problem.largest:
        rounding = AMPLIFICATION * ROUNDING * problem.unit * float(probe.scalar(trial.swung())[0])
        if m.code == "flat":
            # A probability of 1 - 1e-23 is 1: what the forward rounds away, backward may still know.
            rounding = max(rounding, ROUNDING * problem.unit * problem.largest, _hidden(trial, probe))
    rounding = max(rounding, _below_grid(probe, m))
    # Rounding residue of terms that cancel is excused; a backward that loses the digits of its result is not.
    around = float(probe.scalar(np.abs(problem.finite_centre) + trial.swung())[0])
    error = m.error + rounding + min(own, IMPRECISE * max(around, problem.largest))
    if m.code == "smooth" and (not _explained(probe, m, COARSEST * around) or _rippled(probe.ladder, m)):
        return replace(m, error=error, confirmed=False, code="unsettled")
    return replace(m, error=error, confirmed=bool(m.confirmed and gap > SAFETY * error))


def _hidden(trial: Trial, probe: Probe) -> float:
    """The largest slope that the forward's own noise hides where it stands still.

    A sum in float32 stands still where the inputs that move are small beside the others.
    """
    still = [e for e in probe.ladder.levels if probe.ladder.still(e)[0]]
    return float(probe.scalar(trial.heard()[-1][1])[0]) * 2.0 ** -max(still)


def _below_grid(probe: Probe, m: Measurement) -> float:
    """The slope that the grid of the inputs' own magnitude hides, where finer and coarser steps tell different ones.

    x - tanh(x) near 0 is a multiple of one rounding of x, and x^3 / 3 much less: it stands still at fine steps. Far to
    the left x (1 + erf(x)) is x times a few roundings of 1: linear at fine steps, its slope shows at coarser ones.
    """
    ladder = probe.ladder
    still = [e for e in ladder.levels if ladder.still(e)[0] and 2.0**e <= m.steps[0]]
    gap = abs(m.analytic - m.value)
    claimed = [abs(float(ladder.central(e)[0]) - m.analytic) <= gap / 2 for e in ladder.levels if 2.0**e > m.steps[0]]
    if not still and not any(first and second for first, second in pairwise(claimed)):
        return 0.0
    moved = np.abs(probe.problem.x[probe.direction != 0])
    grid = ROUNDING * probe.problem.unit * float(moved.max(initial=0.0))
    return grid * (2.0 ** -max(still) if m.value == 0 and still else AMPLIFICATION / m.steps[0])


def _explained(probe: Probe, m: Measurement, noise: float) -> bool:
    """Whether the slope explains how the function moves at every finer step, but for its rounding and `noise`.

    sin(x) at x = 1e10 has turned many times within any step: its samples then scatter about a slope of zero. A bounded
    function has a slope of zero at huge steps, which finer ones contradict before they can measure it.
    """
    ladder = probe.ladder
    finer = [e for e in ladder.levels if 2.0**e < m.steps[-1]] or [ladder.levels[-1]]
    if any(not _moves_by(ladder, e, m, float(ladder.central(e)[0]) - m.value, noise) for e in finer):
        return False
    above, e = [e for e in ladder.levels if e >= DEEP][-2:]
    # Where smooth, the bend is proportional to h.
    return _moves_by(ladder, e, m, float(ladder.bend(e)[0] - 2.0 ** (e - above) * ladder.bend(above)[0]), noise)


def _rippled(ladder: Ladder, m: Measurement) -> bool:
    """Whether what passes for noise is a slope at the finest steps: two of them agree, and not with what is measured.

    x + sin(x) at 10^10: its ripple is below the rounding of a float32, and its derivative is not 1.
    """
    gap = abs(m.analytic - m.value)
    deep = [e for e in ladder.levels if e < DEEP and not ladder.still(e)[0]]
    rounding = SAFETY * 4 * ROUNDING * ladder.unit * (abs(float(ladder.centre[0])) + abs(m.value))
    slopes = [float(ladder.central(e)[0]) for e in deep]
    clear = [abs(c - m.value) > max(gap / 2, rounding * 2.0**-e) for c, e in zip(slopes, deep, strict=True)]
    pairs = zip(slopes, slopes[1:], clear, clear[1:], strict=False)
    return any(first and second and abs(c - d) <= gap / 4 for c, d, first, second in pairs)


def _moves_by(ladder: Ladder, e: int, m: Measurement, off: float, noise: float) -> bool:
    """Whether a slope that is `off` at one step is so within rounding, truncation and the error bar of the slope."""
    rounding = min(float(ladder.roundoff(np.array([m.value]), max(e, DEEP))[0]), noise)
    top = round(np.log2(m.steps[0]))
    truncation = abs(float(ladder.central(top)[0]) - m.value) * 4.0 ** (e - top)
    return bool(abs(off) * 2.0**e <= SAFETY * (4 * rounding + (truncation + m.error) * 2.0**e))


def _beside(probe: Probe, claim: float, size: float) -> Measurement:
    """The claim beside what the ladder says so far."""
    w = probe.ladder.windows()
    best = probe.ladder.best()
    value, bar, top = float(best.value[0]), float(best.bar[0]), int(best.top[0])
    scale = max(size, abs(value))
    resolved = np.array([np.isfinite(bar) and bar <= SHARP * max(scale, abs(claim))])
    around = neighbourhood.survey(probe.ladder, resolved=resolved & (best.kink < bar))
    code = neighbourhood.NAMES[int(around.code[0])]
    low, high = float(around.low[0]), float(around.high[0])
    kink = code == "kink"
    sure = kink or (code == "flat" and claim != 0) or _confirmed(w.tops, w.value[:, 0], w.bar[:, 0], claim)
    return Measurement(
        analytic=claim,
        value=(low + high) / 2 if kink else value,
        error=float(around.error[0]) if kink else bar,
        scale=scale,
        resolution=SAFETY * bar / scale if scale > 0 else (0.0 if bar == 0 else np.inf),
        resolved=1.0,
        code=code,
        steps=(2.0**top, 2.0 ** (top - 2)),
        interval=(low, high) if kink else None,
        confirmed=bool(sure),
    )


def _confirmed(tops: tuple[int, ...], value: Array, bar: Array, claim: float) -> bool:
    """Whether two windows at least two levels apart agree with each other far better than with the claim."""
    order = np.argsort(bar)
    first = order[0]
    gap = abs(claim - value[first])
    if not bar[first] <= SHARP * gap:
        return False
    others = [k for k in order[1:] if abs(tops[k] - tops[first]) >= 2]
    return any(bar[k] <= SECOND * gap and abs(value[k] - value[first]) <= AGREED * gap for k in others)
