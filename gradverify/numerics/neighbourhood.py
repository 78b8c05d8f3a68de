"""What a path looks like around t = 0, told from a ladder of samples: smooth, kink, jump, staircase, flat, edge.

All are read off the finest levels that were sampled: a jump keeps phi(h) - phi(0) constant as h -> 0, a kink keeps
G(h) = (phi(h) - 2 phi(0) + phi(-h)) / h constant, a staircase does not move at fine steps and moves at coarser ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradverify.numerics.difference import CHUNK, ROUNDED, ROUNDING, Array, Bools, Ladder, chunks

NAMES = ("smooth", "kink", "jump", "staircase", "flat", "edge", "noisy", "unsettled")
CLEAR = 8
"""What is measured counts where it is so many times what rounding makes of it."""

STEADY = 0.1
"""Of two levels a factor of 4 apart G is the same at a kink, and 4 times the finer one's where smooth: what drifts by
up to this part of it is a kink with some curvature beside it. The drift is in the error of the slopes."""

ALIVE = 0.5
"""Over a window G stays as it is at a kink and falls to a quarter where smooth: above this part it has stayed."""

LEVEL = 1.1
"""Over four levels a jump stays as it is, and h^p grows by 8^p and more: below this growth p is less than 1/20."""

FAR = 64
"""A jump, and noise that is not rounding, rise above so many roundings of the value: a sum of 4,096 terms errs so."""

SMOOTH, KINK, JUMP, STAIRCASE, FLAT, EDGE, NOISY, UNSETTLED = range(len(NAMES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """One code of NAMES per output, and at a kink the interval of slopes [low, high] with its error; arrays [m]."""

    code: np.ndarray
    low: Array
    high: Array
    error: Array


def survey(ladder: Ladder, *, resolved: Bools) -> Surroundings:
    """Classify every output of a sampled ladder; what is `resolved` is smooth, unless it does not move at all."""
    if ladder.centre.size > CHUNK:
        parts = [survey(ladder.cut(c), resolved=resolved[c]) for c in chunks(ladder.centre.size)]
        names = ("code", "low", "high", "error")
        return Surroundings(**{f: np.concatenate([getattr(p, f) for p in parts]) for f in names})
    finest, slope = ladder.levels[-1], ladder.best().value
    code = np.full(ladder.centre.size, UNSETTLED)
    low, high, error, kinked = slopes_at_kink(ladder)
    code[_noisy(ladder)] = NOISY
    code[kinked] = KINK
    code[_jumps(ladder)] = JUMP
    still, throughout = ladder.still(finest), _still_throughout(ladder)
    code[still & ~throughout & ~ladder.one_sided()] = STAIRCASE
    code[still & throughout & (slope == 0)] = FLAT
    code[~(np.isfinite(ladder.centre) & np.isfinite(ladder.plus[finest]) & np.isfinite(ladder.minus[finest]))] = EDGE
    code[resolved & (code != FLAT) & (code != JUMP)] = SMOOTH
    return Surroundings(code=code, low=low, high=high, error=error)


def slopes_at_kink(ladder: Ladder) -> tuple[Array, Array, Array, Bools]:
    """The one-sided slopes (low, high), their error, and where a kink lies at t = 0 itself; arrays [m].

    A kink at t = 0 has the same G at two levels a factor of 4 apart, well above what rounding makes of G.
    """
    m = ladder.centre.size
    low, high, error = np.zeros(m), np.zeros(m), np.full(m, np.inf)
    found = np.zeros(m, dtype=np.bool_)
    for top in ladder.tops():
        fine = top - 2
        g0, g2, c = ladder.bend(top), ladder.bend(fine), ladder.central(fine)
        with np.errstate(all="ignore"):
            wobble = 4 * ladder.roundoff(c, top) * 2.0**-fine
            drift = np.abs(g0 - g2)
            kinked = (np.abs(g2) > CLEAR * wobble) & (drift <= STEADY * np.abs(g2)) & np.isfinite(c)
            bar = drift + wobble + np.abs(ladder.central(top) - c)
        better = kinked & (bar < error)
        low[better] = c[better] - np.abs(g2[better]) / 2
        high[better] = c[better] + np.abs(g2[better]) / 2
        error[better] = bar[better]
        found |= kinked
    return low, high, error, found & _bent_at_the_finest(ladder)


def _bent_at_the_finest(ladder: Ladder) -> Bools:
    """Whether G has not died away at the finest window whose G rises above rounding: else the kink is elsewhere."""
    tops = ladder.tops()
    seen = np.zeros(ladder.centre.size, dtype=np.bool_)
    bent = np.zeros(ladder.centre.size, dtype=np.bool_)
    largest = np.zeros(ladder.centre.size)
    with np.errstate(all="ignore"):
        for top in tops:
            g = np.abs(ladder.bend(top - 2))
            visible = CLEAR * 4 * ladder.roundoff(ladder.central(top - 2), top) * 2.0 ** -(top - 2) < largest
            bent = np.where(visible | ~seen, g > ALIVE * largest, bent)
            largest = np.maximum(largest, np.where(np.isfinite(g), g, 0.0))
            seen |= visible
    return bent


def _still_throughout(ladder: Ladder) -> Bools:
    out = np.ones(ladder.centre.size, dtype=np.bool_)
    for e in ladder.levels:
        if e <= ROUNDED:
            out &= ladder.still(e)
    return out


def _jumps(ladder: Ladder) -> Bools:
    """phi(+-h) - phi(0) the same over the finest levels and far above rounding, on at least one side."""
    fine = [e for e in ladder.levels if e <= ladder.levels[-1] + 6][-4:]
    out = np.zeros(ladder.centre.size, dtype=np.bool_)
    with np.errstate(all="ignore"):
        rounding = FAR * ROUNDING * ladder.unit * np.abs(ladder.centre)  # not the measured noise: a jump looks like it
        for side in (ladder.plus, ladder.minus):
            steps = np.stack([np.abs(side[e] - ladder.centre) for e in fine])
            out |= (steps.min(axis=0) > rounding) & (steps.max(axis=0) < LEVEL * steps.min(axis=0))
    return out & np.isfinite(ladder.centre)


def _noisy(ladder: Ladder) -> Bools:
    """Measured noise far beyond the rounding of the value."""
    if not ladder.noise:
        return np.zeros(ladder.centre.size, dtype=np.bool_)
    return np.asarray(ladder.noise[-1][1] > FAR * ladder.unit * np.abs(ladder.centre))
