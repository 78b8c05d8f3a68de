"""Kinks: a claim held against the slopes nearby, and whether a mismatch is one of a smooth function at all."""

from __future__ import annotations

import numpy as np

from gradverify.numerics.comparison import ROUNDINGS
from gradverify.numerics.difference import FIRST, Array, Bools
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.neighbourhood import Surroundings
from gradverify.numerics.probe import Probe
from gradverify.numerics.problem import Problem
from gradverify.numerics.settle import AGREED, SHARP
from gradverify.numerics.trial import Trial

NEIGHBOURS = 12
"""Points nearby at which a slope must be the same before a mismatch with it counts: of tied elements each may win."""

SAMPLES = 12
"""Points around a kink at which the slope is sampled: generalised gradients are limits of gradients nearby."""
ROUNDS = 10
"""So often as many points are sampled while the claim lies outside: of n tied elements each wins one time in n."""
MOST = 25
"""So often at most, while they come closer to the claim."""


def at_kink(trial: Trial, probe: Probe, around: Surroundings, j: int) -> Measurement:
    """Hold the slope that the claim gives output j against the interval of one-sided slopes there."""
    low, high, error = (float(a[j]) for a in (around.low, around.high, around.error))
    claim, size = trial.slope(probe.direction, j)
    if not low - SAFETY * error <= claim <= high + SAFETY * error:
        low, high = _hull(trial, probe, around, j, (low, high), claim)
    return Measurement(
        analytic=claim,
        value=(low + high) / 2,
        error=error,
        scale=max(size, abs(low), abs(high)),
        resolution=np.inf,
        resolved=1.0,
        code="kink",
        steps=(2.0 ** probe.ladder.levels[-1],),
        interval=(low, high),
        confirmed=True,
        place=trial.problem.place(None, j),
    )


def _hull(
    trial: Trial, probe: Probe, around: Surroundings, j: int, seen: tuple[float, float], claim: float
) -> tuple[float, float]:
    """The hull of the slopes at differentiable points nearby, an eighth wider: Clarke's gradient at the kink.

    The one-sided slopes at the point itself, `seen`, are not all of it: the median of ties has many gradients and,
    along any line, hardly a kink. Sorting n tied entries has n! of them, which no sample holds: every other of the
    later points climbs, it keeps some of the moves of the one whose slope came closest to the claim. Where most points
    have a slope that no other has, there are more corners than points, or none: singular values that are equal have a
    gradient for every basis. Outputs that are equal change their roles there: the one-sided slopes of each count.
    """
    low, high = seen
    slopes: list[float] = []
    # Ties with inputs beside the group count as well.
    size = np.where(probe.direction == 0, trial.problem.scale(), np.abs(probe.direction))
    best, nearest, since = _away(trial), np.inf, 0
    for k in range(MOST * SAMPLES):
        margin = (high - low) / 8
        if low - margin <= claim <= high + margin or (k >= ROUNDS * SAMPLES and since > 2 * SAMPLES):
            break
        kept = k >= SAMPLES and k % 2 == 1 and trial.rng.random(best.size) >= 2.0 ** -int(trial.rng.integers(1, 5))
        away = np.where(kept, best, _away(trial))
        slope = _central(trial.problem, trial.problem.x + 2.0**-14 * away * size, probe.direction, j, -26)
        since += 1
        if np.isfinite(slope):
            slopes.append(slope)
            low, high = min(low, slope), max(high, slope)
            if abs(slope - claim) <= nearest:
                since = 0 if abs(slope - claim) < nearest else since
                best, nearest = away, abs(slope - claim)
    if 2 * _different(slopes, (high - low) / 1024) > max(len(slopes), SAMPLES):
        equal = _equal(trial.problem, j) & np.isfinite(around.error)
        low, high = min(low, *around.low[equal]), max(high, *around.high[equal])
    return low - (high - low) / 8, high + (high - low) / 8


def _equal(problem: Problem, j: int) -> Bools:
    """The outputs that equal output j within the rounding of their largest, [m]."""
    rounding = ROUNDINGS * problem.unit * np.sqrt(problem.x.size) * problem.largest
    return np.asarray(np.abs(problem.centre - problem.centre[j]) <= rounding)


def _different(slopes: list[float], grain: float) -> int:
    """How many of the slopes differ by more than a grain from all others below them."""
    return int((np.diff(np.sort(slopes)) > grain).sum()) + 1 if slopes else 0


def smooth_around(trial: Trial, probe: Probe, others: list[Probe], j: int, gap: float, scale: float) -> bool:
    """Whether the slope of output j is linear in the direction, and the same at points nearby.

    The median of tied elements has a slope along every line, yet no gradient: D(d + e) is not D(d) + D(e), and
    each of its neighbours has another slope. `gap`: the mismatch; `scale`: the size of what is compared.
    """
    # Single differences, whose truncation needs a fine step: no coarser than the first stage's.
    top = min(int(probe.only(np.array([j])).ladder.best().top[0]), FIRST[0])
    probe.ladder.sample((top,))
    own = float(probe.ladder.central(top)[j])
    # A single difference is good to a few parts in a thousand, and no kink is as small as its rounding.
    least = max(AGREED * gap, SHARP * max(abs(own), scale))
    if not _linear(probe, others, j, top, max(least, 8 * _rounding(trial.problem, probe, j, top) * 2.0**-top)):
        return False
    # The noise at that finer step: what the coarser samples show may be a kink nearby.
    limit = max(least, 8 * _rounding(trial.problem, probe, j, top - 6) * 2.0 ** (6 - top))
    return not any(
        abs(_central(trial.problem, _nearby(trial, probe, top - 4), probe.direction, j, top - 6) - own) > limit
        for _ in range(NEIGHBOURS)
    )


def _rounding(problem: Problem, probe: Probe, j: int, e: int) -> float:
    return float(probe.ladder.roundoff(np.zeros_like(problem.centre), e)[j] + problem.rerun[j])


def _linear(probe: Probe, others: list[Probe], j: int, top: int, limit: float) -> bool:
    """Whether the slope along the sum and the difference of two directions is that of their slopes, but for `limit`."""
    own = float(probe.ladder.central(top)[j])
    for other in others:
        other.ladder.sample((top,))
        for sign in (1.0, -1.0):
            both = _central(probe.problem, probe.problem.x, probe.direction + sign * other.direction, j, top)
            if abs(both - own - sign * float(other.ladder.central(top)[j])) > limit:
                return False
    return True


def _nearby(trial: Trial, probe: Probe, e: int) -> Array:
    """A random point 2^e of the probe's step away."""
    return np.asarray(trial.problem.x + 2.0**e * _away(trial) * np.abs(probe.direction))


def _away(trial: Trial) -> Array:
    """Random moves of the inputs in [-1, 1], by 1024 sizes and none by zero: ties are rarely moved alike."""
    return np.asarray((2 * trial.rng.integers(-512, 512, size=trial.problem.x.size) + 1) / 1024)


def _central(problem: Problem, x: Array, direction: Array, j: int, e: int) -> float:
    """One central difference of output j at x with h = 2^e."""
    up, down = (problem.forward(x + t * direction)[j] for t in (2.0**e, -(2.0**e)))
    return float(up - down) * 2.0 ** (-e - 1)
