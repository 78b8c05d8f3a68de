"""One group of inputs, stage by stage: whether more steps are worth their forwards."""

from __future__ import annotations

import numpy as np

from gradverify.numerics import neighbourhood
from gradverify.numerics.conclusion import conclude
from gradverify.numerics.cotangents import fine_enough
from gradverify.numerics.difference import THIRD, UP, Array, Bools
from gradverify.numerics.directions import few
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.noise import POOL
from gradverify.numerics.picture import COVERED, Picture, picture
from gradverify.numerics.probe import Probe
from gradverify.numerics.trial import Trial

AT_FIRST = 2
"""Directions that settle a smooth function: the larger of their bars is not fooled by one lucky window."""

DIRECTIONS = 3
"""Where two do not settle it: the median of three bars is not fooled by one unlucky line, either. Stragglers make do
with two."""

STAGES = 4


def judged(trial: Trial, mask: Bools) -> list[Measurement] | Bools:
    """Judge one group; or the mask of the inputs whose claimed gradient is not finite."""
    found = _in_step(trial, mask) if few(mask) else None
    return _at_size(trial, mask, trial.scale) if found is None else found


def _in_step(trial: Trial, mask: Bools) -> list[Measurement] | None:
    """Stragglers, moved as far as the others are, where their own size is nothing to the function; else None.

    Near a singularity or a kink it is not: some output then is unresolved, and they are moved by their own size.
    """
    scale = np.maximum(trial.scale, trial.common())
    probes = _probes(trial, mask, scale, count=1)
    seen, tests = _climbed(trial, probes, 0)
    for stage in range(1, trial.stages):
        if isinstance(tests, np.ndarray) or (seen.resolved.all() and fine_enough(tests)):
            break
        seen, tests = _climbed(trial, probes, stage)
    if isinstance(tests, np.ndarray) or not seen.resolved.all():
        return None
    if _worst(tests) <= SAFETY:
        return [max(tests, key=lambda m: m.bars)]
    found = _at_size(trial, mask, scale)
    return None if isinstance(found, np.ndarray) or not any(m.off for m in found) else found


def _at_size(trial: Trial, mask: Bools, scale: Array) -> list[Measurement] | Bools:
    """Judge one group whose inputs move by `scale`."""
    probes = _probes(trial, mask, scale, count=AT_FIRST)
    seen, tests = _climbed(trial, probes, 0)
    if isinstance(tests, np.ndarray):
        return tests
    if seen.resolved.all() and _settled(seen, tests, few=few(mask)):
        return conclude(trial, probes, seen, tests)
    if not few(mask):
        probes += _probes(trial, mask, scale, count=DIRECTIONS - AT_FIRST)
    return _staged(trial, probes, mask)


def _staged(trial: Trial, probes: list[Probe], mask: Bools) -> list[Measurement] | Bools:
    """Climb until the tests agree as finely as is wanted, a mismatch is confirmed, or steps do not help."""
    tests: list[Measurement] = []
    for stage in range(STAGES):
        seen, found = _climbed(trial, probes, stage)
        if isinstance(found, np.ndarray):
            return found
        tests = found
        trial.stages = max(trial.stages, stage + 1)
        if _settled(seen, tests, few=few(mask)):
            return conclude(trial, probes, seen, tests)
        if stage >= 1 and _hopeless(probes, seen):
            break
        if _worst(tests) > SAFETY and (stage >= 1 or seen.share >= COVERED):
            pursued = trial.pursue(probes, seen, tests)
            if pursued.off and pursued.confirmed and pursued.place is not None:
                return [pursued]
        if stage == 2 and not _drowned(seen):
            break
    return conclude(trial, probes, picture(probes, swing=trial.swing), tests)


def _probes(trial: Trial, mask: Bools, scale: Array, *, count: int) -> list[Probe]:
    probes = [Probe.along(trial.problem, np.where(mask, trial.jitter() * scale, 0.0)) for _ in range(count)]
    if trial.noise is not None:
        for probe in probes:
            probe.hear(trial.noise)
    return probes


def _climbed(trial: Trial, probes: list[Probe], stage: int) -> tuple[Picture, list[Measurement] | Bools]:
    """One more stage of steps, and what the tests then say."""
    for probe in probes:
        if stage == 2 and trial.problem.centre.size >= POOL:
            probe.hear(trial.heard(probe))
        probe.extend(stage)
    seen = picture(probes, swing=trial.swing)
    if stage == 0 and seen.blind > 1 - COVERED:
        for probe in probes:
            probe.ladder.sample(UP)
        seen = picture(probes, swing=trial.swing)
    found = trial.held(probes, seen)
    if not isinstance(found, np.ndarray) and _worst(found) > SAFETY:
        deaf = few(probes[0].direction != 0) and not probes[0].heard
        if deaf or trial.swing is None:
            # Before a mismatch is looked into: is it larger than the rounding of what the function can return, and
            # than the noise in which a few small inputs drown?
            for probe in probes if deaf else ():
                probe.hear(trial.heard())
            seen = picture(probes, swing=trial.swung())
            found = trial.held(probes, seen)
    return seen, found


def _worst(tests: list[Measurement]) -> float:
    return max(m.bars for m in tests)


def _settled(seen: Picture, tests: list[Measurement], *, few: bool) -> bool:
    """Whether the claim agrees as finely as is wanted; of stragglers, whether it agrees."""
    return _worst(tests) <= SAFETY and seen.share >= COVERED and (few or fine_enough(tests))


def _hopeless(probes: list[Probe], seen: Picture) -> bool:
    """Whether finer steps cannot help: what is unresolved lies at a kink."""
    if seen.resolved.all():
        return False
    for probe in probes:
        probe.ladder.sample(THIRD[-3:])
    around = neighbourhood.survey(probes[0].ladder, resolved=seen.resolved).code[~seen.resolved]
    return bool((around == neighbourhood.KINK).all())


def _drowned(seen: Picture) -> bool:
    """Whether rounding, not curvature, limits the unresolved outputs at the coarsest steps: climb on."""
    tops = seen.tops[:, ~seen.resolved] if not seen.resolved.all() else seen.tops
    return bool((tops >= -4).any())
