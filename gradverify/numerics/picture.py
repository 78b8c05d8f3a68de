"""What the probes of one group say together: slopes, error bars, which outputs are resolved, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradverify.numerics.difference import AMPLIFICATION, FIRST, ROUNDING, Array, Bools, Ladder, Slopes
from gradverify.numerics.probe import Probe

TARGET = 1e-5
"""A slope whose bar is below this part of it needs no further steps; the claim's own resolution is reported."""

NOISY_TARGET = 16.0
"""The best relative error of an extrapolated central difference goes like u^(2/3) in the forward's own roundoff u."""

COARSEST = 2.0**-20
"""Noise up to float32 arithmetic inside the forward is taken as it is; coarser is a quantiser as likely as a float."""

COVERED = 0.9
"""Share of the outputs that must be resolved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the probes of one group say: slopes and bars [k, m], which outputs are resolved, their weights [m]."""

    value: Array
    bar: Array
    resolved: Bools
    weight: Array
    tops: np.ndarray

    @property
    def share(self) -> float:
        """Share of the outputs that are resolved."""
        return float(self.resolved.mean()) if self.resolved.size else 1.0


def picture(probes: list[Probe], *, swing: Array | None = None) -> Picture:
    """Gather the probes. An output's bar is at least the median over directions: one lucky window proves little.

    `swing`, how far each output moves when all inputs do, [m], adds the rounding of values that large.
    """
    slopes = [probe.ladder.best() for probe in probes]
    value = np.stack([s.value for s in slopes])
    bar = np.stack([s.bar for s in slopes])
    bar = np.maximum(bar, _middle(bar))
    if swing is not None:
        bar = np.maximum(bar, _rounding(probes[0], value, swing))
    typical = bar.max(axis=0)
    return Picture(
        value=value,
        bar=bar,
        resolved=_resolved(probes, slopes, np.abs(value).max(axis=0), typical),
        weight=_weights(typical),
        tops=np.stack([s.top for s in slopes]),
    )


def floor(probe: Probe, slopes: Slopes) -> Array:
    """The bar that rounding alone leaves at the first stage: no step of a smooth function does better by much."""
    return 2 * AMPLIFICATION * probe.ladder.roundoff(slopes.value, FIRST[0]) * 2.0 ** -FIRST[0]


def noise_unit(probe: Probe, size: Array) -> Array:
    """The forward's measured noise as if it were the roundoff of a dtype, [m]; its own where none was measured."""
    measured = probe.ladder.noise[-1][1] if probe.ladder.noise else np.zeros_like(size)
    with np.errstate(all="ignore"):
        unit = measured / (np.abs(probe.ladder.centre) + size)
    unit = np.where(np.isfinite(unit), np.minimum(unit, COARSEST), 0.0)
    return np.maximum(unit, probe.problem.unit)


def measured_unit(probe: Probe) -> float:
    """The forward's roundoff as measured, of half its outputs at least."""
    if not probe.ladder.noise:
        return probe.problem.unit
    return float(np.median(noise_unit(probe, np.abs(probe.ladder.best().value))))


def _rounding(probe: Probe, value: Array, swing: Array) -> Array:
    """What the rounding of values as large as the function can return makes of a slope."""
    unit = ROUNDING * probe.problem.unit
    return np.where(value == 0, unit * probe.problem.largest, AMPLIFICATION * unit * swing)


def _resolved(probes: list[Probe], slopes: list[Slopes], size: Array, bar: Array) -> Bools:
    """Which outputs are known as well as the target asks, or as rounding lets anyone know them."""
    least = np.stack([floor(p, s) for p, s in zip(probes, slopes, strict=True)]).max(axis=0)
    noisy = noise_unit(probes[0], size) if probes[0].ladder.noise else 0.0
    limit = np.maximum(TARGET, NOISY_TARGET * noisy ** (2 / 3))
    secant = np.stack([_secant(p.ladder) for p in probes]).max(axis=0)
    return np.asarray(
        np.isfinite(bar)
        & ((bar <= limit * np.maximum(np.maximum(size, secant), probes[0].problem.least())) | (bar <= least))
    )


def _secant(ladder: Ladder) -> Array:
    """The mean slope over the coarsest steps: what a slope of zero is small beside, [m]."""
    top = ladder.levels[0]
    with np.errstate(all="ignore"):
        both = np.maximum(np.abs(ladder.plus[top] - ladder.centre), np.abs(ladder.minus[top] - ladder.centre))
        return np.where(np.isfinite(both), both * 2.0**-top, 0.0)


def _middle(bar: Array) -> Array:
    """The median over two or three directions (of two, the larger), [m]."""
    if len(bar) < 3:
        return np.asarray(bar.max(axis=0))
    a, b, c = bar
    return np.asarray(np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)))


def _weights(bar: Array) -> Array:
    """1 / bar relative to the median; outputs without a bar get 0, outputs that are known exactly the median."""
    usable = np.isfinite(bar)
    positive = usable & (bar > 0)
    # A sample is enough: the weights only have to be of one size.
    median = float(np.median(bar[positive][:: max(1, bar.size // 4096)])) if positive.any() else 1.0
    weight = np.where(usable, 1.0, 0.0)
    with np.errstate(all="ignore"):
        weight[positive] = np.clip(median / bar[positive], 2.0**-60, 2.0**60)
    return weight
