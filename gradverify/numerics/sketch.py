"""Random +-1 directions and whitened cotangents: a verdict on a gradient of any size in a handful of forwards.

For a direction d (relative to each input's own size) the ladder gives the slope D_j +- bar_j of every output j at once.
A cotangent v_j = +-1 / bar_j makes one bar of each output count alike; then

    <vjp(v), d>  is held against  sum_j v_j D_j  with the bar  min(sum |v_j| bar_j, 4 sqrt(sum (v_j bar_j)^2)).

A wrong entry is never averaged away: |d_i| and |v_j| bar_j are at least 1/2 everywhere. See specs/claims.md (VJP).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from gradverify.numerics import neighbourhood
from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import (
    AMPLIFICATION,
    CLIMB,
    FINE,
    FIRST,
    ROUNDED,
    ROUNDING,
    SECOND,
    THIRD,
    UP,
    Array,
    Bools,
    Ladder,
    Slopes,
)
from gradverify.numerics.noise import noise_levels, pooled

DIRECTIONS = 3
COTANGENTS = 2
GROUP = 10
"""Inputs whose sizes differ by more than 2^10 are perturbed apart: the large ones would drown the small ones."""

STRAGGLERS = 0.005
"""Groups of a smaller share of the inputs are perturbed together."""

TARGET = 1e-5
"""A slope whose bar is below this part of it needs no further steps; the claim's own resolution is reported."""

NOISY_TARGET = 16.0
"""The best relative error of an extrapolated central difference goes like u^(2/3) in the forward's own roundoff u."""

COARSEST = 2.0**-20
"""Noise up to float32 arithmetic inside the forward is taken as it is; coarser is a quantiser as likely as a float."""

COVERED = 0.9
"""Share of the outputs that must be resolved."""

SAFETY = 3.0
IMPRECISE = 1e-6
"""A claim's own scatter explains a mismatch up to this part of the function's values; beyond it is a fault."""
AFAR = (2, 12, 32)
"""Steps at which a forward that stands still is tried for whether it moves at all."""
NEIGHBOURS = 2
"""Points nearby at which a slope must be the same before a mismatch with it counts."""
SAMPLES = 12
"""Points around a kink at which the slope is sampled: generalised gradients are limits of gradients nearby."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch [start, stop) of a flat vector that is one tensor."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]

    def index(self, flat: int) -> tuple[int, ...]:
        """The tensor's own index of a flat position."""
        return tuple(int(i) for i in np.unravel_index(flat - self.start, self.shape)) if self.shape else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be judged: x [n], the truth's function [n] -> [m], the claim vjp [m] -> [n], and the roundoff.

    `vjp_at` is the claim at another point, (x [n], v [m]) -> [n]. `rerun`: the difference of two evaluations at x, [m].
    """

    x: Array
    parts: tuple[Part, ...]
    outputs: tuple[Part, ...]
    centre: Array
    rerun: Array
    forward: Callable[[Array], Array]
    vjp: Callable[[Array], Array]
    vjp_at: Callable[[Array, Array], Array]
    unit: float
    digits: int = 52

    @property
    def finest(self) -> int:
        """Exponent of the finest step that is exact in the inputs' dtype, with 3 bits for the direction's factor."""
        return max(-31, 6 - self.digits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where: element `index` of part `argument` and `output_index` of output `output`; None where not one element."""

    argument: str
    index: tuple[int, ...] | None = None
    output: int | None = None
    output_index: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A claim beside its numerical value; the fields of records.evidence.Evidence that numerics knows."""

    analytic: float
    value: float
    error: float
    scale: float
    resolution: float
    resolved: float
    code: str
    steps: tuple[float, ...]
    interval: tuple[float, float] | None = None
    confirmed: bool = False
    place: Place | None = None
    facts: dict[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def bars(self) -> float:
        """The mismatch in error bars; infinite where the claim is not finite."""
        gap = abs(self.analytic - self.value)
        if not np.isfinite(gap):
            return np.inf
        return gap / self.error if self.error > 0 else (0.0 if gap == 0 else np.inf)


def sizes(x: Array, parts: Iterable[Part]) -> Array:
    """s_i = 2^floor(log2 |x_i|); a zero takes the root mean square of its tensor, or 1. Steps t s_i are exact."""
    magnitude = np.abs(x)
    for part in parts:
        piece = magnitude[part.start : part.stop]
        rms = norm(piece) / np.sqrt(max(piece.size, 1))
        piece[piece == 0] = rms if rms > 0 else 1.0
    return np.asarray(np.exp2(np.floor(np.log2(np.clip(magnitude, 1e-290, 1e290)))))


def groups(scale: Array) -> list[Bools]:
    """Masks of inputs of like size, each spanning at most 2^GROUP, the largest first; stragglers in one group, last.

    Among many normal numbers a few are tiny by chance: they are no population of their own.
    """
    exponent = np.log2(scale)
    out, left = [], np.ones(scale.size, dtype=np.bool_)
    stragglers = np.zeros(scale.size, dtype=np.bool_)
    while left.any():
        mask = left & (exponent > exponent[left].max() - GROUP)
        left &= ~mask
        if mask.sum() < STRAGGLERS * scale.size:
            stragglers |= mask
        else:
            out.append(mask)
    return [*out, stragglers] if stragglers.any() else out


def jitter(rng: np.random.Generator, size: int) -> Array:
    """+-k/8 with k in 4..8: exact in a product with a power of two, and equal errors do not cancel in pairs."""
    return np.asarray(rng.integers(4, 9, size=size) / 8 * rng.choice((-1.0, 1.0), size=size))


@dataclass(slots=True)
class Probe:
    """One direction and its ladder."""

    problem: Problem
    direction: Array
    ladder: Ladder
    whole: Probe | None = None
    view: Callable[[Array], Array] = np.asarray

    @classmethod
    def along(cls, problem: Problem, direction: Array) -> Probe:
        """A probe along `direction`, nothing sampled yet."""

        def path(t: float) -> Array:
            return problem.forward(problem.x + t * direction)

        noise = ((-31, 4 * problem.rerun),) if problem.rerun.any() else ()
        ladder = Ladder(path=path, centre=problem.centre, unit=problem.unit, noise=noise, finest=problem.finest)
        return cls(problem, direction, ladder)

    def extend(self, stage: int) -> None:
        """Climb on: stage 0 FIRST, 1 SECOND, 2 the forward's noise and THIRD, 3 CLIMB."""
        if stage == 2:
            self.ladder.noise += tuple((e, self.view(sigma)) for e, sigma in (self.whole or self).noise())
        self.ladder.sample((FIRST, SECOND, THIRD, CLIMB)[stage])

    def noise(self) -> tuple[tuple[int, Array], ...]:
        """The forward's noise along this direction, of every output."""
        levels = noise_levels(self.ladder.path, finest=self.ladder.finest)
        slope = np.abs(self.ladder.best().value) if self.ladder.tops() else 0.0
        return pooled(levels, np.abs(self.ladder.centre) + slope)

    def only(self, columns: np.ndarray) -> Probe:
        """The same probe seen at some outputs, for the price of nothing."""
        noise = tuple((e, sigma[columns]) for e, sigma in self.ladder.noise)
        return self._with(lambda y: y[columns], noise, lambda sigma: sigma[columns])

    def weighted(self, v: Array) -> Probe:
        """The same probe of the scalar <v, phi>; the outputs' roundings add up like independent ones."""
        support = np.flatnonzero(v)
        slope = self.ladder.best().value
        bars = [(e, np.array([norm((v * self.ladder.roundoff(slope, e))[support])])) for e in (-31, -8)]
        return self._with(lambda y: np.array([inner(v, y)]), tuple(bars), lambda sigma: np.array([norm(v * sigma)]))

    def scalar(self, sizes_: Array) -> Array:
        """Sizes of all outputs as this view adds them up."""
        return self.view(sizes_) if self.whole is None else self.view(self.whole.scalar(sizes_))

    def _with(
        self,
        view: Callable[[Array], Array],
        noise: tuple[tuple[int, Array], ...],
        of_noise: Callable[[Array], Array],
    ) -> Probe:
        inside = self.ladder

        def path(t: float) -> Array:
            e = round(math.log2(abs(t)))
            if abs(t) != 2.0**e:
                return view(inside.path(t))
            inside.sample((e,))
            return view((inside.plus if t > 0 else inside.minus)[e])

        out = Ladder(path=path, centre=view(inside.centre), unit=inside.unit, noise=noise, finest=inside.finest)
        out.plus = {e: view(y) for e, y in inside.plus.items()}
        out.minus = {e: view(y) for e, y in inside.minus.items()}
        return Probe(self.problem, self.direction, out, whole=self, view=of_noise)


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
        unit = ROUNDING * probes[0].problem.unit
        largest = np.max(np.abs(probes[0].ladder.centre[np.isfinite(probes[0].ladder.centre)]), initial=0.0)
        bar = np.maximum(bar, np.where(value == 0, unit * largest, AMPLIFICATION * unit * swing))
    typical = bar.max(axis=0)
    size = np.abs(value).max(axis=0)
    floor = np.stack([_floor(p, s) for p, s in zip(probes, slopes, strict=True)]).max(axis=0)
    noisy = _noise_unit(probes[0], size) if probes[0].ladder.noise else 0.0
    limit = np.maximum(TARGET, NOISY_TARGET * noisy ** (2 / 3))
    swing = np.stack([_secant(p.ladder) for p in probes]).max(axis=0)
    resolved = np.isfinite(typical) & ((typical <= limit * np.maximum(size, swing)) | (typical <= floor))
    return Picture(
        value=value, bar=bar, resolved=resolved, weight=_weights(typical), tops=np.stack([s.top for s in slopes])
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


def _noise_unit(probe: Probe, size: Array) -> Array:
    """The forward's measured noise as if it were the roundoff of a dtype, [m]; its own where none was measured."""
    measured = probe.ladder.noise[-1][1] if probe.ladder.noise else np.zeros_like(size)
    with np.errstate(all="ignore"):
        unit = measured / (np.abs(probe.ladder.centre) + size)
    unit = np.where(np.isfinite(unit), np.minimum(unit, COARSEST), 0.0)
    return np.maximum(unit, probe.problem.unit)


def _floor(probe: Probe, slopes: Slopes) -> Array:
    """The bar that rounding alone leaves at the first stage: no step of a smooth function does better by much."""
    return 2 * AMPLIFICATION * probe.ladder.roundoff(slopes.value, FIRST[0]) * 2.0 ** -FIRST[0]


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


@dataclass(slots=True)
class Sketch:
    """The judgement of one problem; `measure` yields what it finds."""

    problem: Problem
    rng: np.random.Generator
    safety: float = SAFETY
    plain: bool = False
    swing: Array | None = None

    def measure(self) -> Iterator[Measurement]:
        """Yield the measurements of every group of inputs, until one is off beyond its bars."""
        scale = sizes(self.problem.x, self.problem.parts)
        skip = np.zeros(scale.size, dtype=np.bool_)
        queue = groups(scale)
        done: set[str] = set()
        while queue:
            mask = queue.pop(0) & ~skip
            if not mask.any():
                continue
            found = self._group(scale, mask)
            if isinstance(found, np.ndarray):
                skip |= found
                queue.insert(0, mask)
                yield from self._not_finite(scale, found)
                continue
            yield from found
            if any(self._off(m) for m in found):
                return
            queue += self._faint(found, mask, done)

    def _off(self, m: Measurement) -> bool:
        return m.bars > self.safety and m.interval is None

    def _group(self, scale: Array, mask: Bools) -> list[Measurement] | Bools:
        """Judge one group; or the mask of the inputs whose claimed gradient is not finite."""
        probes = [
            Probe.along(self.problem, np.where(mask, jitter(self.rng, scale.size) * scale, 0.0))
            for _ in range(DIRECTIONS - (mask.sum() < STRAGGLERS * mask.size))
        ]
        few = mask.sum() < STRAGGLERS * mask.size
        tests: list[Measurement] = []
        for stage in range(4):
            for probe in probes:
                probe.extend(stage)
            seen = picture(probes, swing=self.swing)
            if stage == 0 and self._rounded(probes, seen):
                for probe in probes:
                    probe.ladder.sample(UP)
                seen = picture(probes, swing=self.swing)
            found = self._tests(probes, seen)
            if not isinstance(found, np.ndarray) and self.swing is None and max(m.bars for m in found) > self.safety:
                # Before a mismatch is looked into: is it larger than the rounding of what the function can return?
                seen = picture(probes, swing=self._swing())
                found = self._tests(probes, seen)
            if isinstance(found, np.ndarray):
                return found
            tests = found
            agrees = max(m.bars for m in tests) <= self.safety
            if agrees and seen.share >= COVERED and (few or self._fine_enough(tests)):
                break
            if stage >= 1 and self._hopeless(probes, seen):
                break
            if not agrees and (stage >= 1 or seen.share >= COVERED):
                pursued = self._pursue(probes, seen, tests)
                if self._off(pursued) and pursued.confirmed and pursued.place is not None:
                    return [pursued]
            if stage == 2 and not self._drowned(probes, seen):
                break
        return self._conclude(probes, picture(probes, swing=self.swing), tests)

    def _rounded(self, probes: list[Probe], seen: Picture) -> bool:
        """Whether rounding is what limits the first stage, so that larger steps would see more."""
        size = np.abs(seen.value).max(axis=0)
        bar = seen.bar.max(axis=0)
        floor = np.stack([_floor(p, p.ladder.best()) for p in probes]).max(axis=0)
        blind = np.isfinite(bar) & (bar > TARGET * size) & (bar <= floor) & (size > 0)
        return bool(blind.mean() > 1 - COVERED) if blind.size else False

    def _fine_enough(self, tests: list[Measurement]) -> bool:
        """Whether every test has the resolution that is wanted, or nothing moves and nothing is claimed (NaN)."""
        return all(np.isnan(m.resolution) or m.resolution <= self._wanted(m) for m in tests)

    def _wanted(self, m: Measurement) -> float:
        return float(max(TARGET, NOISY_TARGET * float(m.facts.get("unit", 0.0)) ** (2 / 3)))

    def _hopeless(self, probes: list[Probe], seen: Picture) -> bool:
        """Whether finer steps cannot help: what is unresolved lies at a kink or is flat, and the rest agrees."""
        if seen.resolved.all():
            return False
        for probe in probes:
            probe.ladder.sample(THIRD[-3:])
        around = neighbourhood.survey(probes[0].ladder, resolved=seen.resolved).code[~seen.resolved]
        return bool(np.isin(around, (neighbourhood.KINK,)).all())

    def _drowned(self, probes: list[Probe], seen: Picture) -> bool:
        """Whether rounding, not curvature, limits the unresolved outputs at the coarsest steps: climb on."""
        tops = seen.tops[:, ~seen.resolved] if not seen.resolved.all() else seen.tops
        return bool((tops >= -4).any()) and len(probes) > 0

    def _tests(self, probes: list[Probe], seen: Picture) -> list[Measurement] | Bools:
        out = []
        for _ in range(COTANGENTS):
            v, claim, lost = self._claim(probes[0], seen)
            if lost.any() and not self.plain:
                # A backward in a narrow float may overflow under large weights: then all weigh alike.
                self.plain = True
                v, claim, lost = self._claim(probes[0], seen)
            if lost.any():
                return lost
            out += [self._test(probe, k, seen, v, claim) for k, probe in enumerate(probes)]
        return out

    def _claim(self, probe: Probe, seen: Picture) -> tuple[Array, Array, Bools]:
        v = self._cotangent(seen)
        claim = self.problem.vjp(v)
        return v, claim, ~np.isfinite(claim) & (probe.direction != 0)

    def _cotangent(self, seen: Picture) -> Array:
        weight = np.sign(seen.weight) if self.plain else seen.weight
        return weight * jitter(self.rng, weight.size)

    def _test(self, probe: Probe, k: int, seen: Picture, v: Array, claim: Array) -> Measurement:
        weighed = np.abs(v) * np.where(v == 0, 0.0, seen.bar[k])
        terms = _times(claim, probe.direction)
        bar = min(float(weighed.sum()), 4 * norm(weighed)) + 8 * self.problem.unit * norm(terms)
        scale = max(norm(terms), norm(v * np.where(v == 0, 0.0, seen.value[k])))
        return Measurement(
            analytic=inner(claim, probe.direction),
            value=inner(v, seen.value[k]),
            error=bar,
            scale=scale,
            resolution=self._resolution(terms, bar, scale),
            resolved=seen.share,
            code="smooth",
            steps=tuple(2.0 ** float(t) for t in np.unique(seen.tops[k])[:8]),
            facts={**self._powers(terms, bar, scale), "unit": self._unit(probe), "few": self._few(probe)},
        )

    def _few(self, probe: Probe) -> bool:
        """Whether the direction moves stragglers only."""
        return bool((probe.direction != 0).sum() < STRAGGLERS * probe.direction.size)

    def _unit(self, probe: Probe) -> float:
        """The forward's roundoff as measured, of half its outputs at least."""
        if not probe.ladder.noise:
            return self.problem.unit
        return float(np.median(_noise_unit(probe, np.abs(probe.ladder.best().value))))

    def _resolution(self, terms: Array, bar: float, scale: float) -> float:
        """The smallest error, relative to a tensor's own gradient, that would have been seen: the worst tensor's."""
        parts = [norm(terms[p.start : p.stop]) for p in self.problem.parts]
        least = min((p for p in parts if p > 1e-3 * scale), default=scale)
        return self.safety * bar / least if least > 0 else np.nan

    def _powers(self, terms: Array, bar: float, scale: float) -> dict[str, str | int | float | bool]:
        """Per tensor the relative error that this test would have exposed in its gradient."""
        sizes_ = {p.name: norm(terms[p.start : p.stop]) for p in self.problem.parts}
        return {f"resolution {k}": self.safety * bar / s if s > 0 else np.inf for k, s in sizes_.items() if scale > 0}

    def _faint(self, found: list[Measurement], mask: Bools, done: set[str]) -> list[Bools]:
        """Tensors that the common direction did not resolve, each to be perturbed on its own."""
        out = []
        for p in self.problem.parts:
            own = np.zeros(mask.size, dtype=np.bool_)
            own[p.start : p.stop] = mask[p.start : p.stop]
            power = min((float(m.facts.get(f"resolution {p.name}", 0.0)) for m in found), default=0.0)
            if power > TARGET and p.name not in done and own.any() and not np.array_equal(own, mask):
                done.add(p.name)
                out.append(own)
        return out

    def _conclude(self, probes: list[Probe], seen: Picture, tests: list[Measurement]) -> list[Measurement]:
        worst = max(tests, key=lambda m: (m.bars, m.resolution if np.isfinite(m.resolution) else 0.0))
        if worst.bars > self.safety:
            return [self._pursue(probes, seen, tests)]
        if worst.scale == 0 and self._moves_far_away(probes[0]):
            return [_replace(worst, code="flat", resolution=np.inf)]
        if seen.resolved.all() and self._fine_enough(tests):
            return [self._unless_coarse(worst, probes[0])]
        views = [neighbourhood.survey(p.ladder, resolved=seen.resolved) for p in probes]
        kinks = np.flatnonzero(np.any([v.code == neighbourhood.KINK for v in views], axis=0))
        out: list[Measurement] = []
        for j in self._some(kinks, 4):
            row = self.problem.vjp(_unit(self.problem.centre.size, int(j)))
            seen_by = [(p, v) for p, v in zip(probes, views, strict=True) if v.code[j] == neighbourhood.KINK]
            out += [self._at_kink(p, v, int(j), row) for p, v in seen_by]
        return [*out, self._unless_coarse(self._with_cause(worst, views[0]), probes[0])]

    def _moves_far_away(self, probe: Probe) -> bool:
        """Where nothing moves and nothing is claimed: whether the forward moves at steps far beyond the input's size.

        Then its slope here lies below its rounding, and a claim of zero is not shown to be right. An output that is
        exactly zero has no rounding: there it is.
        """
        for e in AFAR:
            for t in (2.0**e, -(2.0**e)):
                y = probe.ladder.path(t)
                if ((y != self.problem.centre) & (self.problem.centre != 0) & np.isfinite(y)).any():
                    return True
        return False

    def _unless_coarse(self, m: Measurement, probe: Probe) -> Measurement:
        """A staircase with steps coarser than float32's is linear at large steps, and flat: it has no slope to find."""
        if not probe.ladder.noise:
            return m
        ladder = probe.ladder
        size = np.abs(ladder.centre) + np.abs(ladder.best().value)
        coarse = (ladder.noise[-1][1] > COARSEST * size) & ladder.still(ladder.levels[-1]) & ~ladder.one_sided()
        moved = ~np.logical_and.reduce([ladder.still(e) for e in ladder.levels])
        share = float((coarse & moved).mean())
        return m if share <= 1 - COVERED else _replace(m, code="staircase", resolved=1 - share)

    def _some(self, choices: np.ndarray, count: int) -> np.ndarray:
        return choices if choices.size <= count else self.rng.choice(choices, size=count, replace=False)

    def _with_cause(self, m: Measurement, around: neighbourhood.Surroundings) -> Measurement:
        """Name the commonest reason among the outputs that were not resolved."""
        if m.resolved >= COVERED and self._fine_enough([m]):
            return m
        codes = around.code[(around.code != neighbourhood.SMOOTH) & (around.code != neighbourhood.FLAT)]
        return _replace(m, code=neighbourhood.NAMES[int(np.bincount(codes).argmax())]) if codes.size else m

    def _at_kink(self, probe: Probe, around: neighbourhood.Surroundings, j: int, row: Array) -> Measurement:
        """Hold the slope that the claim gives output j against the interval of one-sided slopes there."""
        terms = _times(row, probe.direction)
        low, high, error = (float(a[j]) for a in (around.low, around.high, around.error))
        claim = inner(row, probe.direction)
        if not low - self.safety * error <= claim <= high + self.safety * error:
            low, high = self._hull(probe, j, low, high)
        return Measurement(
            analytic=claim,
            value=(low + high) / 2,
            error=error,
            scale=max(norm(terms), abs(low), abs(high)),
            resolution=np.inf,
            resolved=1.0,
            code="kink",
            steps=(2.0 ** probe.ladder.levels[-1],),
            interval=(low, high),
            confirmed=True,
            place=self._place(None, j),
        )

    def _hull(self, probe: Probe, j: int, low: float, high: float) -> tuple[float, float]:
        """The hull of the slopes at differentiable points nearby, an eighth wider: Clarke's gradient at the kink.

        The one-sided slopes at the point itself are not all of it: the median of ties has many gradients and, along
        any line, hardly a kink.
        """
        slopes = [low, high]
        for _ in range(SAMPLES):
            away = self.problem.x + 2.0**-14 * jitter(self.rng, self.problem.x.size) * np.abs(probe.direction)
            step = 2.0**-26
            up, down = (self.problem.forward(away + t * probe.direction)[j] for t in (step, -step))
            slopes.append(float(up - down) / (2 * step))
        finite = [s for s in slopes if np.isfinite(s)]
        wide = (max(finite) - min(finite)) / 8
        return min(finite) - wide, max(finite) + wide

    # From a mismatch to its place.

    def _pursue(self, probes: list[Probe], seen: Picture, tests: list[Measurement]) -> Measurement:
        """Find the worst entry behind a mismatch and judge it alone; or judge the sketch where no entry stands out."""
        number = int(np.argmax([m.bars for m in tests])) % len(probes)
        probe = probes[number]
        v = self._suspects(probe, self._cotangent(seen))
        total = self._scalar(probe, v)
        if not self._off(total):
            return self._softened(total, tests)
        j = self._output(probe, number, seen, v)
        if j is None:
            return total if self._nonlinear(v, probe.direction) else _replace(total, confirmed=False, code="unsettled")
        cotangent = _unit(self.problem.centre.size, j)
        row = self.problem.vjp(cotangent)
        one = self._settle(
            probe.only(np.array([j])),
            inner(row, probe.direction),
            norm(_times(row, probe.direction)),
            own=lambda: self._own_error(cotangent, probe.direction),
        )
        if not self._off(one):
            # Each output alone is right: then backward is not linear, or our own slope along this line was not.
            return total if self._nonlinear(v, probe.direction) else _replace(one, confirmed=False, place=None)
        if one.code not in ("smooth", "flat") or not self._smooth_around(probes, number, j, one):
            return _replace(one, confirmed=False, code=one.code if one.code != "smooth" else "kink", value=np.nan)
        return self._entry_or(one, probe, j, row)

    def _nonlinear(self, v: Array, direction: Array) -> bool:
        """Whether <B(v), d> differs from <B(a v), d> / a, a = 2.5 or -1, or from what two halves of v add up to."""
        whole, half = inner(self.problem.vjp(v), direction), np.arange(v.size) % 2 == 0
        scaled = max((inner(self.problem.vjp(a * v), direction) / a for a in (2.5, -1.0)), key=lambda s: abs(s - whole))
        halves = sum(inner(self.problem.vjp(np.where(h, v, 0.0)), direction) for h in (half, ~half))
        return max(abs(whole - scaled), abs(whole - halves)) > IMPRECISE * max(abs(whole), abs(scaled), abs(halves))

    def _suspects(self, probe: Probe, v: Array) -> Array:
        """The cotangent of the outputs that stand still, where these alone get a gradient; else of all.

        A quantiser's outputs that happen to jump along this line would hide those that do not.
        """
        still = np.logical_and.reduce([probe.ladder.still(e) for e in probe.ladder.levels if e <= ROUNDED])
        alone = np.where(still, v, 0.0)
        if not alone.any() or still.all():
            return v
        claimed = inner(self.problem.vjp(alone), probe.direction)
        rounding = AMPLIFICATION * norm(alone * probe.ladder.roundoff(np.zeros_like(v), -8)) * 2.0**8
        return alone if abs(claimed) > self.safety * rounding else v

    def _entry_or(self, one: Measurement, probe: Probe, j: int, row: Array) -> Measurement:
        """The worst entry of a row that is off; the row itself where no entry is off by itself."""
        i = self._input(probe, j, row)
        entry = self.entry(i, j, float(row[i]))
        found = entry if self._off(entry) else _replace(one, place=self._place(None, j))
        size = float(sizes(self.problem.x, self.problem.parts)[i]) if found is entry else 1.0
        facts = {"row": norm(_times(row, probe.direction)) / size, "flat": _flat_share(probe)}
        return _replace(found, facts={**found.facts, **facts})

    def _smooth_around(self, probes: list[Probe], number: int, j: int, one: Measurement) -> bool:
        """Whether the slope of output j is linear in the direction, and the same at points nearby.

        The median of tied elements has a slope along every line, yet no gradient: D(d + e) is not D(d) + D(e), and
        each of its neighbours has another slope.
        """
        probe = probes[number]
        top = int(probe.only(np.array([j])).ladder.best().top[0])
        own = float(probe.ladder.central(top)[j])
        # A single difference is good to a few parts in a thousand, and no kink is as small as a rounding error.
        limit = max(0.1 * abs(one.analytic - one.value), 0.01 * max(abs(own), one.scale))
        for other in (p for p in probes if p is not probe):
            other.ladder.sample((top,))
            for sign in (1.0, -1.0):
                sum_ = self._central(self.problem.x, probe.direction + sign * other.direction, j, top)
                if abs(sum_ - own - sign * float(other.ladder.central(top)[j])) > limit:
                    return False
        # Finer steps are noisier: what is below their noise is no kink.
        rounding = probe.ladder.roundoff(np.zeros_like(self.problem.centre), top - 6)[j] + self.problem.rerun[j]
        limit = max(limit, 8 * float(rounding) * 2.0 ** (6 - top))
        for _ in range(NEIGHBOURS):
            away = self.problem.x + 2.0 ** (top - 4) * jitter(self.rng, self.problem.x.size) * np.abs(probe.direction)
            if abs(self._central(away, probe.direction, j, top - 6) - own) > limit:
                return False
        return True

    def _central(self, x: Array, direction: Array, j: int, e: int) -> float:
        """One central difference of output j at x with h = 2^e."""
        up, down = (self.problem.forward(x + t * direction)[j] for t in (2.0**e, -(2.0**e)))
        return float(up - down) * 2.0 ** (-e - 1)

    def _own_error(self, v: Array, direction: Array) -> float:
        """How far the claim <vjp(v), d> itself scatters when x moves by a few roundings: its condition and rounding."""
        here = inner(self.problem.vjp(v), direction)
        wiggle = 8 * self.problem.unit
        there = []
        for _ in range(3):
            x = self.problem.x * (1 + wiggle * self.rng.uniform(-1, 1, self.problem.x.size))
            there.append(abs(inner(self.problem.vjp_at(x, v), direction) - here))
        return 4 * max(there)

    def _softened(self, total: Measurement, tests: list[Measurement]) -> Measurement:
        """A mismatch that does not come back with another cotangent is the measure of our own error."""
        gap = max(abs(m.analytic - m.value) / m.scale if m.scale > 0 else 0.0 for m in tests)
        return _replace(total, resolution=max(total.resolution, self.safety * gap))

    def _scalar(self, probe: Probe, v: Array) -> Measurement:
        claim = self.problem.vjp(v)
        terms = _times(claim, probe.direction)
        return self._settle(
            probe.weighted(v),
            inner(claim, probe.direction),
            norm(terms),
            own=lambda: self._own_error(v, probe.direction),
        )

    def _output(self, probe: Probe, number: int, seen: Picture, v: Array) -> int | None:
        """Halve the outputs towards the largest mismatch in error bars: one backward a step, no forward."""
        value, bar = seen.value[number], np.where(v == 0, 0.0, seen.bar[number])

        def off(columns: np.ndarray) -> float:
            part = np.zeros_like(v)
            part[columns] = v[columns]
            gap = inner(self.problem.vjp(part), probe.direction) - inner(part, value)
            weighed = np.abs(part) * bar
            return abs(gap) / max(min(float(weighed.sum()), 4 * norm(weighed)), 1e-300)

        columns = np.flatnonzero(v)
        while columns.size > 1:
            halves = np.array_split(columns, 2)
            columns = max(halves, key=off) if columns.size > 2 else max((h for h in halves), key=off)
        return int(columns[0]) if columns.size and off(columns) > self.safety else None

    def _input(self, probe: Probe, j: int, row: Array) -> int:
        """Halve the inputs towards the largest mismatch of output j: one or three levels of steps a time."""
        whole = probe.only(np.array([j])).ladder.best()
        top = int(whole.top[0])
        coordinates = np.flatnonzero(probe.direction)
        claimed = _times(row, probe.direction)
        gap = inner(claimed[coordinates], np.ones(coordinates.size)) - float(whole.value[0])
        cheap = abs(float(probe.ladder.central(top)[j]) - float(whole.value[0])) < 0.02 * abs(gap)
        levels = (top,) if cheap else (top, top - 1, top - 2)
        while coordinates.size > 1:
            left, right = np.array_split(coordinates, 2)
            slope = self._slope(probe, left, j, levels)
            off = inner(claimed[left], np.ones(left.size)) - slope
            coordinates, gap = (left, off) if abs(off) >= abs(gap - off) else (right, gap - off)
        return int(coordinates[0])

    def _slope(self, probe: Probe, coordinates: np.ndarray, j: int, levels: tuple[int, ...]) -> float:
        masked = np.zeros_like(probe.direction)
        masked[coordinates] = probe.direction[coordinates]
        part = Probe.along(self.problem, masked)
        part.ladder.sample(levels)
        part = part.only(np.array([j]))
        return float(part.ladder.central(levels[0])[0] if len(levels) == 1 else part.ladder.best().value[0])

    def entry(self, i: int, j: int, claim: float) -> Measurement:
        """Judge d y_j / d x_i alone, on a ladder of its own; numbers are per unit of x_i."""
        step = np.zeros_like(self.problem.x)
        step[i] = float(sizes(self.problem.x, self.problem.parts)[i])
        probe = Probe.along(self.problem, step).only(np.array([j]))
        probe.extend(0)
        cotangent = _unit(self.problem.centre.size, j)
        m = self._settle(probe, claim * step[i], abs(claim * step[i]), own=lambda: self._own_error(cotangent, step))
        return _rescaled(_replace(m, place=self._place(i, j)), 1 / float(step[i]))

    def _settle(self, probe: Probe, claim: float, size: float, *, own: Callable[[], float]) -> Measurement:
        """Climb until a scalar claim agrees, or its mismatch is confirmed by another window, or steps run out.

        Before a mismatch counts: finer steps must not contradict it, and it must stand above the claim's `own` error
        and above the rounding of the function's values around the point.
        """
        m = self._scalar_at(probe, claim, size)
        for stage in range(1, 4):
            if m.bars <= self.safety and m.resolution <= TARGET:
                return m
            if m.confirmed and m.code in ("smooth", "flat"):
                probe.ladder.sample(FINE)
                m = self._widened(self._scalar_at(probe, claim, size), probe, own())
                if m.confirmed or m.bars <= self.safety:
                    return m
            probe.extend(stage)
            m = self._scalar_at(probe, claim, size)
        return self._widened(m, probe, own())

    def _largest(self) -> float:
        """The largest value that the function returns at the point."""
        return float(np.max(np.abs(self._finite_centre()), initial=0.0))

    def _finite_centre(self) -> Array:
        return np.where(np.isfinite(self.problem.centre), self.problem.centre, 0.0)

    def _widened(self, m: Measurement, probe: Probe, own: float) -> Measurement:
        """The error bar with the claim's own error, and the rounding of the largest values around the point."""
        gap = abs(m.analytic - m.value)
        rounding = 0.0
        if m.code == "flat" or gap <= COARSEST * self._largest():
            rounding = AMPLIFICATION * ROUNDING * self.problem.unit * float(probe.scalar(self._swing())[0])
            if m.code == "flat":
                # A probability of 1 - 1e-23 is 1: what the forward rounds away, backward may still know.
                rounding = max(rounding, ROUNDING * self.problem.unit * self._largest())
        # Rounding residue of terms that cancel is excused; a backward that loses the digits of its result is not.
        around = float(probe.scalar(np.abs(self._finite_centre()) + self._swing())[0])
        error = m.error + rounding + min(own, IMPRECISE * max(around, self._largest()))
        return _replace(m, error=error, confirmed=bool(m.confirmed and gap > self.safety * error))

    def _swing(self) -> Array:
        """How far each output moves when all inputs move by as much as they are themselves, [m]: it rounds that."""
        if self.swing is None:
            scale = sizes(self.problem.x, self.problem.parts)
            direction = jitter(self.rng, scale.size) * scale
            moved = [self.problem.forward(self.problem.x + t * direction) for t in (-4.0, -1.0, -0.5, 0.5, 1.0, 4.0)]
            with np.errstate(all="ignore"):
                far = np.abs(np.stack(moved) - self.problem.centre)
            self.swing = np.where(np.isfinite(far), far, 0.0).max(axis=0)
        return self.swing

    def _scalar_at(self, probe: Probe, claim: float, size: float) -> Measurement:
        ladder = probe.ladder
        w = ladder.windows()
        best = ladder.best()
        value, bar, top = float(best.value[0]), float(best.bar[0]), int(best.top[0])
        scale = max(size, abs(value))
        resolved = np.array([np.isfinite(bar) and bar <= 0.01 * max(scale, abs(claim))])
        around = neighbourhood.survey(ladder, resolved=resolved & (best.kink < bar))
        code = neighbourhood.NAMES[int(around.code[0])]
        kink = code == "kink"
        return Measurement(
            analytic=claim,
            value=(float(around.low[0]) + float(around.high[0])) / 2 if kink else value,
            error=float(around.error[0]) if kink else bar,
            scale=scale,
            resolution=self.safety * bar / scale if scale > 0 else (0.0 if bar == 0 else np.inf),
            resolved=1.0,
            code=code,
            steps=(2.0**top, 2.0 ** (top - 2)),
            interval=(float(around.low[0]), float(around.high[0])) if kink else None,
            confirmed=bool(
                kink or (code == "flat" and claim != 0) or _confirmed(w.tops, w.value[:, 0], w.bar[:, 0], claim)
            ),
        )

    def _place(self, i: int | None, j: int | None) -> Place:
        argument = next((p for p in self.problem.parts if i is not None and p.start <= i < p.stop), None)
        output = next((k for k, p in enumerate(self.problem.outputs) if j is not None and p.start <= j < p.stop), None)
        return Place(
            argument=argument.name if argument else "",
            index=argument.index(i) if argument and i is not None else None,
            output=output,
            output_index=self.problem.outputs[output].index(j) if output is not None and j is not None else None,
        )

    def _not_finite(self, scale: Array, where: Bools) -> Iterator[Measurement]:
        """Judge inputs whose claimed gradient is not finite, each along its own axis."""
        for i in self._some(np.flatnonzero(where), 3):
            step = np.zeros_like(scale)
            step[i] = scale[i]
            probe = Probe.along(self.problem, step)
            for stage in range(3):
                probe.extend(stage)
            best = probe.ladder.best()
            resolved = np.isfinite(best.bar) & (best.bar <= 1e-3 * (np.abs(best.value) + np.abs(self.problem.centre)))
            around = neighbourhood.survey(probe.ladder, resolved=resolved & (best.kink <= best.bar / 2))
            moved = around.code[around.code != neighbourhood.FLAT]
            name = neighbourhood.NAMES[int(np.bincount(moved).argmax())] if moved.size else "flat"
            yield Measurement(
                analytic=float("nan"),
                value=float(best.value.sum()) / float(scale[i]),
                error=float(best.bar.sum()) / float(scale[i]),
                scale=1.0,
                resolution=np.inf,
                resolved=1.0,
                code=name,
                steps=(),
                confirmed=name in ("smooth", "flat", "kink"),
                place=self._place(int(i), None),
                facts={"kind": "not finite"},
            )


def _confirmed(tops: tuple[int, ...], value: Array, bar: Array, claim: float) -> bool:
    """Whether two windows at least two levels apart agree with each other far better than with the claim."""
    order = np.argsort(bar)
    first = order[0]
    gap = abs(claim - value[first])
    if not bar[first] <= 0.01 * gap:
        return False
    others = [k for k in order[1:] if abs(tops[k] - tops[first]) >= 2]
    return any(bar[k] <= 0.3 * gap and abs(value[k] - value[first]) <= 0.1 * gap for k in others)


def _flat_share(probe: Probe) -> float:
    """Share of the outputs that do not move at the first stage's steps."""
    return float(probe.ladder.still(FIRST[0]).mean())


def _times(claim: Array, direction: Array) -> Array:
    """Claim * direction, zero where the direction is zero even if the claim is not finite."""
    with np.errstate(all="ignore"):
        return np.where(direction == 0, 0.0, claim * direction)


def _unit(size: int, at: int) -> Array:
    out = np.zeros(size)
    out[at] = 1.0
    return out


def _replace(m: Measurement, **changes: object) -> Measurement:
    fields_ = {name: getattr(m, name) for name in Measurement.__dataclass_fields__}
    return Measurement(**{**fields_, **changes})


def _rescaled(m: Measurement, factor: float) -> Measurement:
    interval = (m.interval[0] * factor, m.interval[1] * factor) if m.interval else None
    return _replace(
        m,
        analytic=m.analytic * factor,
        value=m.value * factor,
        error=m.error * factor,
        scale=m.scale * factor,
        interval=interval,
    )
