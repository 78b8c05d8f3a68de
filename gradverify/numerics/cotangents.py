"""The tests of a group: random cotangents of all outputs at once, each held against every direction."""

from __future__ import annotations

import numpy as np

from gradverify.numerics.comparison import moments, norm
from gradverify.numerics.difference import Array, Bools
from gradverify.numerics.directions import few
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.picture import NOISY_TARGET, TARGET, Picture, measured_unit
from gradverify.numerics.probe import Probe
from gradverify.numerics.trial import Trial

COTANGENTS = 2
"""A fault that one random cotangent happens to cancel does not cancel in two."""


def held(trial: Trial, probes: list[Probe], seen: Picture) -> list[Measurement] | Bools:
    """Every cotangent beside every direction; or the mask of the inputs whose claimed gradient is not finite."""
    out = []
    for _ in range(COTANGENTS):
        v, claim, lost = _claim(trial, probes[0], seen)
        if lost.any() and not trial.plain:
            # A backward in a narrow float may overflow under large weights: then all weigh alike.
            trial.plain = True
            v, claim, lost = _claim(trial, probes[0], seen)
        if lost.any():
            return lost
        out += [beside(trial, probe, k, seen, v, claim) for k, probe in enumerate(probes)]
    return out


def fine_enough(tests: list[Measurement]) -> bool:
    """Whether every test has the resolution that is wanted, or nothing moves and nothing is claimed (NaN)."""
    return all(np.isnan(m.resolution) or m.resolution <= wanted(m) for m in tests)


def wanted(m: Measurement) -> float:
    """The resolution that a test should have in the forward's own noise."""
    return wanted_in(float(m.facts.get("unit", 0.0)))


def wanted_in(unit: float) -> float:
    """The resolution that a measurement should have in this roundoff, or noise."""
    return float(max(TARGET, NOISY_TARGET * unit ** (2 / 3)))


def _claim(trial: Trial, probe: Probe, seen: Picture) -> tuple[Array, Array, Bools]:
    v = trial.cotangent(seen)
    claim = trial.problem.vjp(v)
    return v, claim, ~np.isfinite(claim) & (probe.direction != 0)


def beside(trial: Trial, probe: Probe, k: int, seen: Picture, v: Array, claim: Array) -> Measurement:
    """What is claimed for the cotangent v beside what probe k of a picture shows."""
    weighed = moments(v, seen.bar[k])
    claimed, slopes = moments(claim, probe.direction), moments(v, seen.value[k])
    bar = min(weighed.absolute, 4 * weighed.norm) + 8 * probe.problem.unit * claimed.norm
    floor = norm(v * probe.problem.least()) if probe.problem.terms is not None else 0.0
    scale = max(claimed.norm, slopes.norm, floor)
    sizes = {n: max(s, floor) for n, s in _sizes(probe, claim, claimed.norm).items()}
    unit = measured_unit(probe)
    return Measurement(
        analytic=claimed.total,
        value=slopes.total,
        error=bar,
        scale=scale,
        resolution=_resolution(list(sizes.values()), bar, scale, wanted_in(unit)),
        resolved=seen.share,
        code="smooth",
        steps=seen.steps(k),
        powers=tuple(_power(s, bar) for s in _grouped(trial, probe, claim, claimed.norm)),
        facts={
            **{f"resolution {n}": _power(s, bar) for n, s in sizes.items() if scale > 0},
            "unit": unit,
            "few": few(probe.direction != 0),
        },
    )


def _sizes(probe: Probe, claim: Array, whole: float) -> dict[str, float]:
    """The size of each tensor's part in a claimed slope."""
    parts = probe.problem.parts
    if len(parts) == 1:
        return {parts[0].name: whole}
    return {p.name: moments(claim[p.start : p.stop], probe.direction[p.start : p.stop]).norm for p in parts}


def _grouped(trial: Trial, probe: Probe, claim: Array, whole: float) -> Array:
    """The size of each group's part in a claimed slope; none where all inputs are of like size."""
    count = len(trial.apart)
    if count < 2 or not 0 < whole < np.inf:
        return np.zeros(count if count > 1 else 0)
    squares = np.square(probe.terms(claim) / whole)
    return np.asarray(whole * np.sqrt(np.bincount(trial.labels, squares, minlength=count)))


def _resolution(sizes: list[float], bar: float, scale: float, limit: float) -> float:
    """The smallest error, relative to a tensor's own gradient, that would have been seen: the worst tensor's.

    Of the tensors that this direction resolves: each other one is perturbed on its own. Where it resolves none, of the
    largest: of k parts one has 1/sqrt(k) of their norm at least.
    """
    least = min((s for s in sizes if SAFETY * bar <= limit * s), default=scale / np.sqrt(max(len(sizes), 1)))
    return SAFETY * bar / least if least > 0 else np.nan


def _power(size: float, bar: float) -> float:
    """The smallest error that would have been seen, relative to a gradient of this size."""
    return SAFETY * bar / size if size > 0 else np.inf
