"""From a mismatch to its place: which output, which input, and whether the entry is wrong by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradverify.numerics import settle
from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import AMPLIFICATION, ROUNDED, Array
from gradverify.numerics.halving import worst_input, worst_output
from gradverify.numerics.kinks import smooth_around
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.picture import Picture
from gradverify.numerics.probe import Probe
from gradverify.numerics.settle import IMPRECISE
from gradverify.numerics.trial import Trial


def pursue(trial: Trial, probes: list[Probe], seen: Picture, tests: list[Measurement]) -> Measurement:
    """Find the worst entry behind a mismatch and judge it alone; or judge the sketch where no entry stands out."""
    number = int(np.argmax([m.bars for m in tests])) % len(probes)
    probe = probes[number]
    v = _suspects(probe, trial.cotangent(seen))
    total = settle.sketched(trial, probe, v)
    if not total.off:
        return _softened(total, tests)
    j = worst_output(probe, seen.value[number], seen.bar[number], v)
    if j is None:
        return total if _nonlinear(probe, v) else replace(total, confirmed=False, code="unsettled")
    one = settle.output(trial, probe, j)
    if not one.off and _nonlinear(probe, v):
        return total
    return judged_alone(trial, probes, number, j, one)


def judged_alone(trial: Trial, probes: list[Probe], number: int, j: int, one: Measurement) -> Measurement:
    """What becomes of output j, measured as `one` along probe `number`: a mismatch of one entry, or of none."""
    if not one.off:
        # Each output alone is right: our own slope along this line was not.
        return replace(one, confirmed=False, place=None)
    if one.code not in ("smooth", "flat") or not _smooth(trial, probes, number, j, one):
        return replace(one, confirmed=False, code=one.code if one.code != "smooth" else "kink", value=np.nan)
    return _entry_or(trial, one, probes[number], j)


def _smooth(trial: Trial, probes: list[Probe], number: int, j: int, one: Measurement) -> bool:
    others = [p for k, p in enumerate(probes) if k != number]
    return smooth_around(trial, probes[number], others, j, abs(one.analytic - one.value), one.scale)


def _nonlinear(probe: Probe, v: Array) -> bool:
    """Whether <B(v), d> differs from <B(a v), d> / a, a = 2.5 or -1, or from what two halves of v add up to."""
    vjp, direction = probe.problem.vjp, probe.direction
    whole, half = inner(vjp(v), direction), np.arange(v.size) % 2 == 0
    scaled = max((inner(vjp(a * v), direction) / a for a in (2.5, -1.0)), key=lambda s: abs(s - whole))
    halves = sum(inner(vjp(np.where(h, v, 0.0)), direction) for h in (half, ~half))
    return max(abs(whole - scaled), abs(whole - halves)) > IMPRECISE * max(abs(whole), abs(scaled), abs(halves))


def _suspects(probe: Probe, v: Array) -> Array:
    """The cotangent of the outputs that stand still, where these alone get a gradient; else of all.

    A quantiser's outputs that happen to jump along this line would hide those that do not.
    """
    still = np.logical_and.reduce([probe.ladder.still(e) for e in probe.ladder.levels if e <= ROUNDED])
    alone = np.where(still, v, 0.0)
    if not alone.any() or still.all():
        return v
    claimed = inner(probe.problem.vjp(alone), probe.direction)
    given = alone != 0
    rounding = AMPLIFICATION * norm(alone[given] * probe.ladder.roundoff(np.zeros_like(v), -8)[given]) * 2.0**8
    return alone if abs(claimed) > SAFETY * rounding else v


def _entry_or(trial: Trial, one: Measurement, probe: Probe, j: int) -> Measurement:
    """The worst entry of a row that is off; the row itself where no entry is off by itself."""
    i = worst_input(trial, probe, j)
    entry = settle.entry(trial, i, j)
    found = entry if entry.off else replace(one, place=trial.problem.place(None, j))
    size = float(trial.scale[i]) if found is entry else 1.0
    facts = {"row": trial.slope(probe.direction, j)[1] / size, "flat": probe.flat_share()}
    return replace(found, facts={**found.facts, **facts})


def _softened(total: Measurement, tests: list[Measurement]) -> Measurement:
    """A mismatch that does not come back with another cotangent is the measure of our own error."""
    gap = max(abs(m.analytic - m.value) / m.scale if m.scale > 0 else 0.0 for m in tests)
    return replace(total, resolution=max(total.resolution, SAFETY * gap))
