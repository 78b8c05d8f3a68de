"""From all outputs to the worst one, and from all inputs to the worst one: halves, the worse of which goes on."""

from __future__ import annotations

import numpy as np

from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import Array
from gradverify.numerics.measurement import SAFETY
from gradverify.numerics.probe import Probe
from gradverify.numerics.trial import Trial


def worst_output(probe: Probe, value: Array, bar: Array, v: Array) -> int | None:
    """Halve the outputs towards the largest mismatch in error bars: one backward a step, no forward.

    `value`, `bar`: the slopes along the probe, [m]. None where no single output is off.
    """
    bar = np.where(v == 0, 0.0, bar)

    def off(columns: np.ndarray) -> float:
        part = np.zeros_like(v)
        part[columns] = v[columns]
        gap = inner(probe.problem.vjp(part), probe.direction) - inner(part, value)
        weighed = np.abs(part) * bar
        return abs(gap) / max(min(float(weighed.sum()), 4 * norm(weighed)), 1e-300)

    columns = np.flatnonzero(v)
    while columns.size > 1:
        columns = max(np.array_split(columns, 2), key=off)
    return int(columns[0]) if columns.size and off(columns) > SAFETY else None


def worst_input(trial: Trial, probe: Probe, j: int) -> int:
    """Halve the inputs towards the largest mismatch of output j: one or three levels of steps a time."""
    whole = probe.only(np.array([j])).ladder.best()
    top = int(whole.top[0])
    coordinates = np.flatnonzero(probe.direction)
    gap = trial.slope(probe.direction, j)[0] - float(whole.value[0])
    cheap = abs(float(probe.ladder.central(top)[j]) - float(whole.value[0])) < 0.02 * abs(gap)
    levels = (top,) if cheap else (top, top - 1, top - 2)
    while coordinates.size > 1:
        left, right = np.array_split(coordinates, 2)
        part = _part(probe, left)
        off = trial.slope(part.direction, j)[0] - _slope(part, j, levels)
        coordinates, gap = (left, off) if abs(off) >= abs(gap - off) else (right, gap - off)
    return int(coordinates[0])


def _part(probe: Probe, coordinates: np.ndarray) -> Probe:
    """The probe along which only some inputs move."""
    masked = np.zeros_like(probe.direction)
    masked[coordinates] = probe.direction[coordinates]
    return Probe.along(probe.problem, masked)


def _slope(part: Probe, j: int, levels: tuple[int, ...]) -> float:
    """The slope of output j along a probe."""
    part.ladder.sample(levels)
    part = part.only(np.array([j]))
    return float(part.ladder.central(levels[0])[0] if len(levels) == 1 else part.ladder.best().value[0])
