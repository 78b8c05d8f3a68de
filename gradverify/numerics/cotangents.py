"""The tests of a group: random cotangents of all outputs at once, each held against every direction."""

from __future__ import annotations

import numpy as np

from gradverify.numerics.comparison import inner, norm
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
        out += [_test(trial, probe, k, seen, v, claim) for k, probe in enumerate(probes)]
    return out


def fine_enough(tests: list[Measurement]) -> bool:
    """Whether every test has the resolution that is wanted, or nothing moves and nothing is claimed (NaN)."""
    return all(np.isnan(m.resolution) or m.resolution <= wanted(m) for m in tests)


def wanted(m: Measurement) -> float:
    """The resolution that a test should have in the forward's own noise."""
    return float(max(TARGET, NOISY_TARGET * float(m.facts.get("unit", 0.0)) ** (2 / 3)))


def _claim(trial: Trial, probe: Probe, seen: Picture) -> tuple[Array, Array, Bools]:
    v = trial.cotangent(seen)
    claim = trial.problem.vjp(v)
    return v, claim, ~np.isfinite(claim) & (probe.direction != 0)


def _test(trial: Trial, probe: Probe, k: int, seen: Picture, v: Array, claim: Array) -> Measurement:
    weighed = np.abs(v) * np.where(v == 0, 0.0, seen.bar[k])
    terms = probe.terms(claim)
    bar = min(float(weighed.sum()), 4 * norm(weighed)) + 8 * probe.problem.unit * norm(terms)
    floor = norm(v * probe.problem.least())
    scale = max(norm(terms), norm(v * np.where(v == 0, 0.0, seen.value[k])), floor)
    return Measurement(
        analytic=inner(claim, probe.direction),
        value=inner(v, seen.value[k]),
        error=bar,
        scale=scale,
        resolution=_resolution(probe, terms, bar, scale),
        resolved=seen.share,
        code="smooth",
        steps=tuple(2.0 ** float(t) for t in np.unique(seen.tops[k])[:8]),
        powers=tuple(_power(norm(terms[mask]), bar) for mask in trial.apart) if len(trial.apart) > 1 else (),
        facts={
            **_powers(probe, terms, bar, scale, floor),
            "unit": measured_unit(probe),
            "few": few(probe.direction != 0),
        },
    )


def _resolution(probe: Probe, terms: Array, bar: float, scale: float) -> float:
    """The smallest error, relative to a tensor's own gradient, that would have been seen: the worst tensor's."""
    parts = [norm(terms[p.start : p.stop]) for p in probe.problem.parts]
    least = min((p for p in parts if p > 1e-3 * scale), default=scale)
    return SAFETY * bar / least if least > 0 else np.nan


def _powers(probe: Probe, terms: Array, bar: float, scale: float, floor: float) -> dict[str, str | int | float | bool]:
    """Per tensor the relative error that this test would have exposed in its gradient."""
    sizes = {p.name: max(norm(terms[p.start : p.stop]), floor) for p in probe.problem.parts}
    return {f"resolution {k}": _power(s, bar) for k, s in sizes.items() if scale > 0}


def _power(size: float, bar: float) -> float:
    """The smallest error that would have been seen, relative to a gradient of this size."""
    return SAFETY * bar / size if size > 0 else np.inf
