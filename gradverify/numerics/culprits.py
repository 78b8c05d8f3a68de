"""All wrong entries of a gradient of any size, by group testing: sets of inputs, each tried along a masked direction.

With a cotangent v fixed, e = vjp(v) - J^T v is zero where the claim is right. Along a direction d that is zero outside
a set S of inputs, <vjp(v), d> less the slope of <v, f> is the sum of e_i d_i over S, for two forwards: S holds a wrong
entry where that is beyond its error. Such a set is halved; what one half lacks of the sum is the other's. So k wrong
entries of n cost k log2(n) tests. Two errors may cancel in a sum, and a small one hides beside large ones: what was
found is left out, and all others are tried along new directions, until two of these agree with the claim.

See D. Z. Du and F. K. Hwang, Combinatorial Group Testing and Its Applications (2000): binary splitting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradverify.numerics import settle
from gradverify.numerics.comparison import inner
from gradverify.numerics.cotangents import beside
from gradverify.numerics.difference import Array, Bools
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.picture import picture
from gradverify.numerics.probe import Probe
from gradverify.numerics.problem import Place, Problem
from gradverify.numerics.reverse import Reverse

MOST = 8
"""Wrong entries that are told apart; of more, where they lie."""

AGREEING = 2
"""Directions in a row along which all others agree with the claim: an error that one happens to cancel shows in two."""

Set = npt.NDArray[np.intp]

_Part = tuple[Set, float]
"""A set that is off, and what its wrong entries add up to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprits:
    """The wrong entries, each confirmed on a ladder of its own; and whether all others agree with the claim.

    `inputs`: of how many. `many`: there are more than are told apart; `among`: the first and the last, where those
    before and behind agree.
    """

    inputs: int
    entries: tuple[Place, ...] = ()
    complete: bool = False
    many: bool = False
    among: tuple[Place, Place] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """A cotangent whose claim is off along a direction, and how that is measured along a part of it.

    `error`: of such a measurement.
    """

    trial: Reverse
    v: Array
    claim: Array
    direction: Array
    gap: float
    error: float
    slope: Callable[[Probe], float]

    def off(self, part: Set) -> float:
        """What the wrong entries of a set add up to."""
        masked = np.zeros_like(self.direction)
        masked[part] = self.direction[part]
        return inner(self.claim, masked) - self.slope(Probe.along(self.trial.problem, masked))


def culprits(problem: Problem, rng: np.random.Generator) -> Culprits:
    """Find the wrong entries of a claim whose forward is smooth here."""
    trial, known = Reverse(problem, rng), set[int]()
    for mask in trial.apart:
        ended = _gathered(trial, mask, known)
        if ended is not None:
            return ended
    return _told(problem, known, complete=True)


def _gathered(trial: Reverse, mask: Bools, known: set[int]) -> Culprits | None:
    """Add the wrong entries of a group to those that are known; the answer where these are too many, or some escape."""
    agreed = 0
    while agreed < AGREEING:
        seen = _round(trial, mask, known)
        if seen is None:
            agreed += 1
            continue
        parts = _halved(seen)
        if len(parts) + len(known) > MOST:
            return _many(trial, seen, parts)
        found = {int(p[0]) for p, _ in parts if _confirmed(trial, int(p[0]), seen.v)}
        if not found:
            return _told(trial.problem, known)
        known |= found
    return None


def _told(problem: Problem, known: set[int], *, complete: bool = False) -> Culprits:
    entries = tuple(problem.place(i, None) for i in sorted(known))
    return Culprits(inputs=problem.x.size, entries=entries, complete=complete)


def _many(trial: Reverse, seen: _Round, parts: list[_Part]) -> Culprits:
    """Where too many lie: from the first to the last, those that were moved apart from these among them."""
    first, last = _end(seen, parts[0], 0), _end(seen, parts[-1], -1)
    for outside in _outside(trial, first, last):
        whole = (np.flatnonzero(outside.direction), outside.gap)
        first, last = min(first, _end(outside, whole, 0)), max(last, _end(outside, whole, -1))
    every = last - first + 1 == trial.problem.x.size or any(_outside(trial, first, last))
    among = None if every else (trial.problem.place(first, None), trial.problem.place(last, None))
    return Culprits(inputs=trial.problem.x.size, many=True, among=among)


def _outside(trial: Reverse, first: int, last: int) -> list[_Round]:
    """Directions that do not touch a stretch and are off."""
    within = set(range(first, last + 1))
    return [r for r in (_round(trial, mask, within) for mask in trial.apart) if r is not None]


def _end(seen: _Round, part: _Part, which: int) -> int:
    """The first or the last entry of a set that is off, by halves."""
    halves = [part]
    while halves and halves[which][0].size > 1:
        part = halves[which]
        halves = _halves(seen, *part)
    return int((halves[which] if halves else part)[0][which])


def _round(trial: Reverse, mask: Bools, known: set[int]) -> _Round | None:
    """A new direction through the inputs that are not known yet, a new cotangent; None where the claim agrees."""
    left = mask.copy()
    left[list(known)] = False
    direction = np.where(left, trial.jitter() * trial.scale, 0.0)
    probe = Probe.along(trial.problem, direction)
    probe.extend(0)
    seen = picture([probe])
    v = trial.cotangent(seen)
    # An entry that is not finite is known to be wrong.
    claim = np.nan_to_num(trial.problem.vjp(v), nan=0.0, posinf=0.0, neginf=0.0)
    test = beside(trial, probe, 0, seen, v, claim)
    if not test.off:
        return None
    slope, error = _cheapest(probe, v, test)
    return _Round(
        trial=trial, v=v, claim=claim, direction=direction, gap=test.analytic - test.value, error=error, slope=slope
    )


def _cheapest(probe: Probe, v: Array, test: Measurement) -> tuple[Callable[[Probe], float], float]:
    """How to measure a slope of <v, f>, and its error: by one central difference, unless that is too coarse."""
    ladder = probe.ladder
    off = {e: abs(inner(v, ladder.central(e)) - test.value) for e in ladder.levels}
    # An error of h^2 that happens to be small at one step shows at the coarser ones.
    errors = {e: max(off[c] * 4.0 ** (e - c) for c in off if c >= e) + test.error for e in off}
    best = min(errors, key=errors.__getitem__)
    if SAFETY * errors[best] < abs(test.analytic - test.value):
        return lambda part: _central(part, v, best), errors[best]
    return lambda part: _by_window(part, v), test.error


def _central(part: Probe, v: Array, e: int) -> float:
    part.ladder.sample((e,))
    return inner(v, part.ladder.central(e))


def _by_window(part: Probe, v: Array) -> float:
    part.extend(0)
    return inner(v, part.ladder.best().value)


def _halved(seen: _Round) -> list[_Part]:
    """Halve what is off until single entries are left, or more sets than entries that are told apart."""
    parts = [(np.flatnonzero(seen.direction), seen.gap)]
    while any(p.size > 1 for p, _ in parts) and len(parts) <= MOST:
        parts = [half for p, gap in parts for half in _halves(seen, p, gap)]
    return parts


def _halves(seen: _Round, part: Set, gap: float) -> list[_Part]:
    """The halves of a set that are off."""
    if part.size == 1:
        return [(part, gap)]
    left, right = np.array_split(part, 2)
    off = seen.off(left)
    return [(p, g) for p, g in ((left, off), (right, gap - off)) if abs(g) > SAFETY * seen.error]


def _confirmed(trial: Reverse, i: int, v: Array) -> bool:
    """Whether the claim of one entry is off on a ladder of its own: for the outputs that it moves, or for all."""
    probe = Probe.on_axis(trial.problem, i)
    probe.extend(0)
    moved = np.where(probe.ladder.still(probe.ladder.levels[0]), 0.0, v)
    found = (settle.sketched(trial, probe, u) for u in ([moved, v] if moved.any() else [v]))
    return any(m.off and m.confirmed for m in found)
