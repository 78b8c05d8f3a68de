"""From all outputs to the worst one, and from all inputs to the worst one: halves, the worse of which goes on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import Array, Ladder
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


CLEAR = 0.02
"""Single differences tell the wrong half where they err by less than this part of the mismatch: the error of a half is
that of the whole but for luck, and only one that is 25 times as large would mislead."""


def worst_input(trial: Trial, probe: Probe, j: int) -> int:
    """Halve the inputs towards the largest mismatch of output j: one, two, four or six forwards a time."""
    whole = probe.only(np.array([j])).ladder.best()
    coordinates = np.flatnonzero(probe.direction)
    gap = trial.slope(probe.direction, j)[0] - float(whole.value[0])
    measured = _cheapest(probe, j, float(whole.value[0]), CLEAR * abs(gap))
    while coordinates.size > 1:
        left, right = np.array_split(coordinates, 2)
        part = _part(probe, left)
        off = trial.slope(part.direction, j)[0] - measured(part)
        coordinates, gap = (left, off) if abs(off) >= abs(gap - off) else (right, gap - off)
    return int(coordinates[0])


def _part(probe: Probe, coordinates: np.ndarray) -> Probe:
    """The probe along which only some inputs move."""
    masked = np.zeros_like(probe.direction)
    masked[coordinates] = probe.direction[coordinates]
    return Probe.along(probe.problem, masked)


def _cheapest(probe: Probe, j: int, slope: float, error: float) -> Callable[[Probe], float]:
    """How to measure a slope of output j: by the one difference that gives the whole probe's slope, or by a window."""
    ladder = probe.ladder
    one = next((e for e in ladder.levels if abs(_forward(probe, j, e) - slope) <= error), None)
    if one is not None:
        return lambda part: _forward(part, j, one)
    two = next((e for e in ladder.levels if abs(float(ladder.central(e)[j]) - slope) <= error), None)
    if two is not None:
        return lambda part: _central(part, j, (two,))
    pairs = (e for e in ladder.levels if e - 1 in ladder.plus)
    four = next((e for e in pairs if abs(_extrapolated(ladder, j, e) - slope) <= error), None)
    top = int(probe.only(np.array([j])).ladder.best().top[0])
    return lambda part: _central(part, j, (top, top - 1, top - 2) if four is None else (four, four - 1))


def _forward(part: Probe, j: int, e: int) -> float:
    """The slope of output j by a difference on one side."""
    y = part.ladder.plus[e] if e in part.ladder.plus else part.ladder.path(2.0**e)
    return float(y[j] - part.ladder.centre[j]) * 2.0**-e


def _central(part: Probe, j: int, levels: tuple[int, ...]) -> float:
    """The slope of output j by a central difference, two of them extrapolated, or the window of three."""
    part.ladder.sample(levels)
    if len(levels) == 1:
        return float(part.ladder.central(levels[0])[j])
    if len(levels) == 2:
        return _extrapolated(part.ladder, j, levels[0])
    return float(part.only(np.array([j])).ladder.best().value[0])


def _extrapolated(ladder: Ladder, j: int, e: int) -> float:
    """The slope of output j from the central differences at 2^e and 2^(e-1): their error of h^2 cancels."""
    return float(4 * ladder.central(e - 1)[j] - ladder.central(e)[j]) / 3
