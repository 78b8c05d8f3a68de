"""Forward mode: the claim gives the slope of every output along a direction, entry by entry.

For a direction d the ladder gives D_j +- bar_j, and the claim one number c_j beside it: no cotangent is drawn, and no
output can hide behind another. See specs/claims.md (JVP).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from gradverify.numerics import neighbourhood, settle
from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import Array, Bools
from gradverify.numerics.directions import few, some
from gradverify.numerics.measurement import SAFETY, Measurement
from gradverify.numerics.picture import Picture, measured_unit, settled
from gradverify.numerics.probe import Probe
from gradverify.numerics.problem import Problem
from gradverify.numerics.pursuit import judged_alone
from gradverify.numerics.sketch import tried
from gradverify.numerics.trial import Trial

SUSPECTS = 3
"""Outputs that are judged alone, the worst first: where a bar was lucky, the next one decides."""


def measure_jvp(problem: Problem, rng: np.random.Generator) -> Iterator[Measurement]:
    """Yield the measurements of every group of inputs, until one is off; then outputs whose claim is not finite."""
    trial = Forward(problem, rng)
    yield from tried(trial)
    for j in some(rng, np.array(sorted(trial.lost)), SUSPECTS):
        yield _not_finite(problem, trial.lost[int(j)], int(j))


@dataclass(slots=True)
class Forward(Trial):
    """A jvp on trial.

    `claims`: the directions that were asked for, by identity, and what was answered. `lost`: outputs whose claim is
    not finite, and a direction that shows it.
    """

    claims: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    lost: dict[int, Array] = field(default_factory=dict)

    def along(self, direction: Array) -> Array:
        """The claimed slopes of all outputs along a direction, [m]."""
        if id(direction) not in self.claims:
            # The direction is kept too: an identity is one only while its object lives.
            self.claims[id(direction)] = (direction, self.problem.jvp(direction))
        return self.claims[id(direction)][1]

    def first(self) -> list[Bools]:
        """One group after the other: a slope does not tell what each input adds to it."""
        return list(self.apart)

    def held(self, probes: list[Probe], seen: Picture) -> list[Measurement] | Bools:
        """Every output's claim beside every direction's slope."""
        for probe in probes:
            for j in np.flatnonzero(~np.isfinite(self.along(probe.direction))):
                self.lost.setdefault(int(j), probe.direction)
        return [self._test(probe, k, seen) for k, probe in enumerate(probes)]

    def pursue(self, probes: list[Probe], seen: Picture, tests: list[Measurement]) -> Measurement:
        """Judge the outputs that are most off alone, until one is wrong; then halve its inputs."""
        number = int(np.argmax([m.bars for m in tests]))
        _, bars = self._beside(probes[number], number, seen)
        worst, *others = np.argsort(-bars, kind="stable")[:SUSPECTS]
        # Among many outputs one has windows that agree by luck, where the forward works in a narrow float.
        probes[number].measure_noise()
        found: list[Measurement] = []
        for j in (worst, *(o for o in others if bars[o] > SAFETY)):
            one = settle.output(self, probes[number], int(j))
            found.append(judged_alone(self, probes, number, int(j), one))
            if found[-1].off and found[-1].confirmed:
                return found[-1]
        return next((m for m in found if m.off and m.code not in ("smooth", "flat")), _softened(found, tests[number]))

    def slope(self, direction: Array, j: int) -> tuple[float, float]:
        """What is claimed of output j, twice: the terms that it adds up are not known."""
        claim = float(self.along(direction)[j])
        return claim, abs(claim)

    def claimed(self, v: Array, direction: Array, x: Array | None = None) -> float:
        """<v, jvp(d)>."""
        return inner(v, self.along(direction) if x is None else self.problem.jvp_at(x, direction))

    def _beside(self, probe: Probe, k: int, seen: Picture) -> tuple[Array, Array]:
        """The bar of every output, and its mismatch in bars; a claim that is not finite is judged apart."""
        claim, value = self.along(probe.direction), seen.value[k]
        with np.errstate(all="ignore"):
            bar = seen.bar[k] + 8 * self.problem.unit * np.abs(claim)
            gap = np.abs(claim - value)
            bars = np.where((gap == 0) | ~np.isfinite(claim) | ~np.isfinite(bar), 0.0, gap / bar)
        return bar, bars

    def _test(self, probe: Probe, k: int, seen: Picture) -> Measurement:
        bar, bars = self._beside(probe, k, seen)
        claim, value = self.along(probe.direction), seen.value[k]
        known = np.isfinite(bar) & np.isfinite(claim)
        j = int(np.argmax(bars))
        return Measurement(
            analytic=float(claim[j]) if known[j] else 0.0,
            value=float(value[j]) if known[j] else 0.0,
            error=float(bar[j]) if known[j] else 0.0,
            scale=max(norm(claim[known]), norm(value[known])),
            resolution=self._resolution(*(np.where(known & seen.resolved, a, 0.0) for a in (value, bar))),
            resolved=seen.share,
            code="smooth",
            steps=seen.steps(k),
            facts={"unit": measured_unit(probe), "few": few(probe.direction != 0)},
        )

    def _resolution(self, value: Array, bar: Array) -> float:
        """The smallest error, relative to an output's own slope, that would have been seen: the worst output's.

        Of the resolved ones that rise above their bars; NaN where nothing moves, infinite where nothing can be told.
        """
        pairs = [(norm(value[p.start : p.stop]), norm(bar[p.start : p.stop])) for p in self.problem.outputs]
        told = [SAFETY * error / size for size, error in pairs if size > SAFETY * error]
        if told:
            return max(told)
        return np.inf if any(size > 0 for size, _ in pairs) else np.nan


def _softened(found: list[Measurement], test: Measurement) -> Measurement:
    """A mismatch that is not confirmed where the output is judged alone is the measure of our own error.

    Of many outputs one has an error bar that is too small by luck: what it is off by, the claim may be off by.
    """
    gap = max(abs(m.analytic - m.value) for m in (*found, test))
    own = SAFETY * gap / test.scale if test.scale > 0 else 0.0
    worst = max(found, key=lambda m: m.bars)
    error = max(worst.error, abs(worst.analytic - worst.value))
    return replace(worst, error=error, scale=test.scale, resolution=max(test.resolution, own), facts=test.facts)


def _not_finite(problem: Problem, direction: Array, j: int) -> Measurement:
    """What output j does along a direction for which its claim is not finite."""
    probe = Probe.along(problem, direction).only(np.array([j]))
    for stage in range(3):
        probe.extend(stage)
    best = probe.ladder.best()
    resolved = settled(probe.ladder, best.value, best.bar)
    around = neighbourhood.survey(probe.ladder, resolved=resolved & (best.kink <= best.bar / 2))
    name = neighbourhood.NAMES[int(around.code[0])]
    return Measurement(
        analytic=float("nan"),
        value=float(best.value[0]),
        error=float(best.bar[0]),
        scale=1.0,
        resolution=np.inf,
        resolved=1.0,
        code=name,
        steps=(),
        confirmed=name in ("smooth", "flat", "kink"),
        place=problem.place(None, j),
        facts={"kind": "not finite"},
    )
