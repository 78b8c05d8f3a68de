"""What a group amounts to once its steps are spent: agreement, a mismatch, or the reason why neither is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradverify.numerics import neighbourhood
from gradverify.numerics.cotangents import fine_enough
from gradverify.numerics.difference import Bools
from gradverify.numerics.directions import some
from gradverify.numerics.kinks import at_kink
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.neighbourhood import Surroundings
from gradverify.numerics.picture import COARSEST, COVERED, Picture
from gradverify.numerics.probe import Probe
from gradverify.numerics.trial import Trial

AFAR = (2, 12, 32)
"""Steps at which a forward that stands still is tried for whether it moves at all."""

TURNS = 3
"""Further directions at a kink: where two elements tie, a claim that pays both lies among the slopes along every other
direction."""

KINKS = 4
"""Outputs at a kink that are looked at, each for the price of a backward."""


def conclude(trial: Trial, probes: list[Probe], seen: Picture, tests: list[Measurement]) -> list[Measurement]:
    """What is reported of a group; its worst test last."""
    worst = max(tests, key=lambda m: (m.bars, m.resolution if np.isfinite(m.resolution) else 0.0))
    if worst.bars > SAFETY:
        pursued = trial.pursue(probes, seen, tests)
        return [pursued] if pursued.interval is None else _outputs_at_kink(trial, probes, pursued)
    if worst.scale == 0 and _moves_far_away(probes[0]):
        return [replace(worst, code="flat", resolution=np.inf)]
    if seen.resolved.all() and fine_enough(tests):
        return [_unless_coarse(worst, probes[0])]
    views = [neighbourhood.survey(p.ladder, resolved=seen.resolved) for p in probes]
    kinks = _at_kinks(trial, probes, views, seen.resolved)
    return [*kinks, _unless_coarse(_with_cause(worst, views[0]), probes[0])]


def _outputs_at_kink(trial: Trial, probes: list[Probe], total: Measurement) -> list[Measurement]:
    """A weighted sum of outputs at a kink, output by output; where none shows it alone, only that it is one.

    The sum has generalised slopes outside its two one-sided ones: entries that tie may be sorted in any order.
    """
    # Central differences at a kink agree with each other, so there an output may seem resolved.
    known = np.zeros_like(trial.problem.centre, np.bool_)
    views = [neighbourhood.survey(p.ladder, resolved=known) for p in probes]
    return _at_kinks(trial, probes, views, known) or [replace(total, interval=None, value=np.nan, confirmed=False)]


def _at_kinks(trial: Trial, probes: list[Probe], views: list[Surroundings], known: Bools) -> list[Measurement]:
    """Some of the outputs at a kink, along every direction that shows it."""
    kinks = np.flatnonzero(np.any([v.code == neighbourhood.KINK for v in views], axis=0))
    if not kinks.size:
        return []
    turned = [_turned(trial, probes[0]) for _ in range(TURNS)]
    seen = [*zip(probes, views, strict=True), *((p, neighbourhood.survey(p.ladder, resolved=known)) for p in turned)]
    out: list[Measurement] = []
    for j in some(trial.rng, kinks, KINKS):
        out += [at_kink(trial, p, v, int(j)) for p, v in seen if v.code[j] == neighbourhood.KINK]
    return out


def _turned(trial: Trial, probe: Probe) -> Probe:
    """Another direction for the same inputs, sampled at the first stage's steps.

    A zero has no size of its own: here all zeros move alike, for among tied ones a small move hides beside a large one.
    """
    size = np.where(probe.direction == 0, 0.0, trial.scale)
    zeros = (trial.problem.x == 0) & (size > 0)
    size[zeros] = np.max(size[zeros], initial=0.0)
    turned = Probe.along(trial.problem, trial.jitter() * size)
    turned.extend(0)
    return turned


def _moves_far_away(probe: Probe) -> bool:
    """Where nothing moves and nothing is claimed: whether the forward moves at steps far beyond the input's size.

    Then its slope here lies below its rounding, and a claim of zero is not shown to be right. An output that is
    exactly zero has no rounding: there it is.
    """
    for e in AFAR:
        for t in (2.0**e, -(2.0**e)):
            y = probe.ladder.path(t)
            if ((y != probe.problem.centre) & (probe.problem.centre != 0) & np.isfinite(y)).any():
                return True
    return False


def _unless_coarse(m: Measurement, probe: Probe) -> Measurement:
    """A staircase with steps coarser than float32's is linear at large steps, and flat: it has no slope to find."""
    if not probe.ladder.noise:
        return m
    ladder = probe.ladder
    size = np.abs(ladder.centre) + np.abs(ladder.best().value)
    coarse = (ladder.noise[-1][1] > COARSEST * size) & ladder.still(ladder.levels[-1]) & ~ladder.one_sided()
    moved = ~np.logical_and.reduce([ladder.still(e) for e in ladder.levels])
    share = float((coarse & moved).mean())
    return m if share <= 1 - COVERED else replace(m, code="staircase", resolved=1 - share)


def _with_cause(m: Measurement, around: Surroundings) -> Measurement:
    """Name the commonest reason among the outputs that were not resolved."""
    if m.resolved >= COVERED and fine_enough([m]):
        return m
    codes = around.code[(around.code != neighbourhood.SMOOTH) & (around.code != neighbourhood.FLAT)]
    return replace(m, code=neighbourhood.NAMES[int(np.bincount(codes).argmax())]) if codes.size else m
