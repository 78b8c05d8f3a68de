"""What the probes of one group say together: slopes, error bars, which outputs are resolved, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradverify.numerics.difference import AMPLIFICATION, FIRST, ROUNDING, Array, Bools, Ladder, chunks
from gradverify.numerics.probe import Probe

TARGET = 1e-5
"""A slope whose bar is below this part of it needs no further steps; the claim's own resolution is reported."""

NOISY_TARGET = 16.0
"""The best relative error of an extrapolated central difference goes like u^(2/3) in the forward's own roundoff u."""

COARSEST = 2.0**-20
"""Noise up to float32 arithmetic inside the forward is taken as it is; coarser is a quantiser as likely as a float."""

COVERED = 0.9
"""Share of the outputs that must be resolved."""


SAMPLE = 4096
"""Outputs that are enough to tell of what size the bars are, and which steps were taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the probes of one group say: slopes and bars [k, m], which outputs are resolved, their weights [m].

    `blind`: the share of the outputs that rounding keeps from being resolved: larger steps would see more.
    """

    value: Array
    bar: Array
    resolved: Bools
    weight: Array
    tops: npt.NDArray[np.int8]
    blind: float

    @property
    def share(self) -> float:
        """Share of the outputs that are resolved."""
        return float(self.resolved.mean()) if self.resolved.size else 1.0

    def steps(self, k: int) -> tuple[float, ...]:
        """Some of the steps that the slopes along direction k were taken with."""
        return tuple(2.0 ** float(t) for t in np.unique(_sampled(self.tops[k]))[:8])


def picture(probes: list[Probe], *, swing: Array | None = None) -> Picture:
    """Gather the probes. An output's bar is at least the median over directions: one lucky window proves little.

    `swing`, how far each output moves when all inputs do, [m], adds the rounding of values that large.
    """
    slopes = [probe.ladder.best() for probe in probes]
    value, bar, tops = (np.stack([getattr(s, f) for s in slopes]) for f in ("value", "bar", "top"))
    least = probes[0].problem.least() + np.zeros(value.shape[1]) if probes[0].problem.terms is not None else None
    largest = probes[0].problem.largest if swing is not None else 0.0
    resolved, blind = np.empty(value.shape[1], dtype=np.bool_), 0
    for c in chunks(value.shape[1]):
        bar[:, c] = np.maximum(bar[:, c], _middle(bar[:, c]))
        if swing is not None:
            bar[:, c] = np.maximum(bar[:, c], _rounding(probes[0].ladder.unit, largest, value[:, c], swing[c]))
        ladders = [p.ladder.cut(c) for p in probes]
        resolved[c], hidden = _resolved(ladders, value[:, c], bar[:, c], None if least is None else least[c])
        blind += int(hidden.sum())
    weight = _weights(bar.max(axis=0))
    share = blind / value.shape[1] if value.shape[1] else 0.0
    return Picture(value=value, bar=bar, resolved=resolved, weight=weight, tops=tops, blind=share)


def floor(ladder: Ladder, slope: Array) -> Array:
    """The bar that rounding alone leaves at the first stage: no step of a smooth function does better by much."""
    return 2 * AMPLIFICATION * ladder.roundoff(slope, FIRST[0]) * 2.0 ** -FIRST[0]


def settled(ladder: Ladder, value: Array, bar: Array) -> Bools:
    """Where a slope exists as far as its bar shows: it is below 1/64 of the slope, or rounding explains it.

    A slope that grows without end, like log h, changes by 1/45 and more from one level to the next.
    """
    with np.errstate(all="ignore"):
        return np.asarray(np.isfinite(bar) & (bar <= np.maximum(np.abs(value) / 64, floor(ladder, value))))


def noise_unit(ladder: Ladder, size: Array) -> Array:
    """The forward's measured noise as if it were the roundoff of a dtype, [m]; its own where none was measured."""
    measured = ladder.noise[-1][1] if ladder.noise else np.zeros_like(size)
    with np.errstate(all="ignore"):
        unit = measured / (np.abs(ladder.centre) + size)
    unit = np.where(np.isfinite(unit), np.minimum(unit, COARSEST), 0.0)
    return np.maximum(unit, ladder.unit)


def measured_unit(probe: Probe) -> float:
    """The forward's roundoff as measured, of half its outputs at least."""
    if not probe.ladder.noise:
        return probe.problem.unit
    return float(np.median(noise_unit(probe.ladder, np.abs(probe.ladder.best().value))))


def _rounding(unit: float, largest: float, value: Array, swing: Array) -> Array:
    """What the rounding of values as large as the function can return makes of a slope."""
    return ROUNDING * unit * np.where(value == 0, largest, AMPLIFICATION * swing)


def _resolved(ladders: list[Ladder], value: Array, bar: Array, least: Array | None) -> tuple[Bools, Bools]:
    """Which outputs are known as well as the target asks, or as rounding lets anyone know them; which by that alone.

    `least`: slopes that need not be told from zero.
    """
    size, bar = np.abs(value).max(axis=0), bar.max(axis=0)
    rounding = np.maximum.reduce([floor(ladder, v) for ladder, v in zip(ladders, value, strict=True)])
    limit = np.maximum(TARGET, NOISY_TARGET * noise_unit(ladders[0], size) ** (2 / 3)) if ladders[0].noise else TARGET
    beside = np.maximum.reduce([size, *(_secant(ladder) for ladder in ladders), *([] if least is None else [least])])
    known = np.isfinite(bar)
    kept = bar <= rounding
    return known & ((bar <= limit * beside) | kept), known & kept & (bar > TARGET * size) & (size > 0)


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
    some = _sampled(bar)
    some = some[np.isfinite(some) & (some > 0)]
    median = float(np.median(some)) if some.size else 1.0
    with np.errstate(all="ignore"):
        weight = np.clip(median / bar, 2.0**-60, 2.0**60)
    weight[bar == 0] = 1.0
    weight[~np.isfinite(bar)] = 0.0
    return weight


def _sampled(a: np.ndarray) -> np.ndarray:
    return a[:: max(1, a.size // SAMPLE)]
