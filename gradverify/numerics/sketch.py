"""Random +-1 directions and whitened cotangents: a verdict on a gradient of any size in a handful of forwards.

For a direction d (relative to each input's own size) the ladder gives the slope D_j +- bar_j of every output j at once.
A cotangent v_j = +-1 / bar_j makes one bar of each output count alike; then

    <vjp(v), d>  is held against  sum_j v_j D_j  with the bar  min(sum |v_j| bar_j, 4 sqrt(sum (v_j bar_j)^2)).

A wrong entry is never averaged away: |d_i| and |v_j| bar_j are at least 1/2 everywhere. See specs/claims.md (VJP).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradverify.numerics.cotangents import fine_enough, wanted
from gradverify.numerics.difference import Bools
from gradverify.numerics.directions import few
from gradverify.numerics.infinite import not_finite
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.picture import COVERED, picture
from gradverify.numerics.probe import Probe
from gradverify.numerics.problem import Part, Problem
from gradverify.numerics.reverse import Reverse
from gradverify.numerics.stages import judged
from gradverify.numerics.trial import Trial


def measure(problem: Problem, rng: np.random.Generator) -> Iterator[Measurement]:
    """Yield the measurements of every group of inputs, until one is off beyond its bars."""
    yield from tried(Reverse(problem, rng))


def glance(problem: Problem, rng: np.random.Generator) -> Measurement | None:
    """One direction at the first steps, for a function that is slow to call: seven forwards.

    None where that is not enough to say that the claim agrees; then `measure` decides.
    """
    trial = Reverse(problem, rng)
    probe = Probe.along(problem, trial.jitter() * trial.scale)
    probe.extend(0)
    seen = picture([probe])
    found = trial.held([probe], seen)
    if isinstance(found, np.ndarray) or seen.share < COVERED:
        return None
    worst = max(found, key=lambda m: m.bars)
    return worst if worst.bars <= SAFETY and fine_enough(found) else None


def tried(trial: Trial) -> Iterator[Measurement]:
    """The measurements of a trial in whichever mode its claim is made."""
    problem = trial.problem
    queue = trial.first()
    together = len(queue) < len(trial.apart)
    skip = np.zeros(problem.x.size, dtype=np.bool_)
    done: set[str] = set()
    while queue:
        mask = queue.pop(0) & ~skip
        if not mask.any():
            continue
        found = judged(trial, mask)
        if isinstance(found, np.ndarray):
            skip |= found
            queue.insert(0, mask)
            yield from not_finite(trial, found)
            continue
        yield from found
        if any(m.off for m in found):
            return
        if together:
            together = False
            weak = _unresolved(trial.apart, found)
            queue += weak
            mask = mask & ~np.logical_or.reduce(weak) if weak else mask
        queue += _alone(problem.parts, found, mask, done)


def _unresolved(apart: list[Bools], found: list[Measurement]) -> list[Bools]:
    """Inputs of one size that the common direction did not resolve, each size to be perturbed on its own."""
    ratios = [np.array(m.powers) / wanted(m) for m in found if m.powers]
    least = np.min(ratios, axis=0) if ratios else np.full(len(apart), np.inf)
    return [mask for mask, ratio in zip(apart, least, strict=True) if ratio > 1]


def _alone(parts: tuple[Part, ...], found: list[Measurement], mask: Bools, done: set[str]) -> list[Bools]:
    """Tensors that the common direction did not resolve, each to be perturbed on its own."""
    out = []
    for p in parts:
        own = np.zeros(mask.size, dtype=np.bool_)
        own[p.start : p.stop] = mask[p.start : p.stop]
        power = min((float(m.facts.get(f"resolution {p.name}", 0.0)) / wanted(m) for m in found), default=0.0)
        part = own[p.start : p.stop]
        lost = part.all() if few(mask) else part.any()
        if power > 1 and p.name not in done and lost and not np.array_equal(own, mask):
            done.add(p.name)
            out.append(own)
    return out
