"""One direction through a problem, its ladder of samples, and the views of it that cost no forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradverify.numerics.comparison import inner, norm
from gradverify.numerics.difference import CLIMB, FIRST, SECOND, THIRD, Array, Ladder
from gradverify.numerics.noise import noise_levels, pooled
from gradverify.numerics.problem import Problem, axis


@dataclass(slots=True)
class Probe:
    """One direction and its ladder. `levels`: the forward's noise along it; `heard`: the ladder knows of some."""

    problem: Problem
    direction: Array
    ladder: Ladder
    whole: Probe | None = None
    view: Callable[[Array], Array] = np.asarray
    heard: bool = False
    levels: tuple[tuple[int, Array], ...] | None = None

    @classmethod
    def along(cls, problem: Problem, direction: Array) -> Probe:
        """A probe along `direction`, nothing sampled yet."""

        def path(t: float) -> Array:
            return problem.forward(problem.x + t * direction)

        noise = ((-31, 4 * problem.rerun),) if problem.rerun.any() else ()
        ladder = Ladder(path=path, centre=problem.centre, unit=problem.unit, noise=noise, finest=problem.finest)
        return cls(problem, direction, ladder)

    @classmethod
    def on_axis(cls, problem: Problem, i: int) -> Probe:
        """A probe that moves input i alone, by its own size."""
        return cls.along(problem, axis(problem.x.size, i) * float(problem.scale()[i]))

    def extend(self, stage: int) -> None:
        """Climb on: stage 0 FIRST, 1 SECOND, 2 the forward's noise and THIRD, 3 CLIMB."""
        if stage == 2:
            self.measure_noise()
        self.ladder.sample((FIRST, SECOND, THIRD, CLIMB)[stage])

    def measure_noise(self) -> None:
        """Let the error bars hold the forward's noise as it is measured."""
        if not self.heard:
            self.hear((self.whole or self).noise())

    def hear(self, noise: tuple[tuple[int, Array], ...]) -> None:
        """Learn the noise of every output of the problem, once."""
        if self.heard:
            return
        self.ladder.noise += tuple((e, self.view(sigma)) for e, sigma in noise)
        self.heard = True

    def noise(self) -> tuple[tuple[int, Array], ...]:
        """The forward's noise along this direction, of every output."""
        ladder = self.ladder
        if self.levels is None:
            self.levels = noise_levels(ladder.path, finest=ladder.finest)
        slope = np.abs(ladder.best().value) if ladder.tops() else 0.0
        still = ladder.still(ladder.levels[-1]) if ladder.levels else np.zeros(ladder.centre.size, dtype=np.bool_)
        return pooled(self.levels, np.abs(ladder.centre) + slope, still)

    def terms(self, claim: Array) -> Array:
        """Claim * direction, [n]."""
        return terms(claim, self.direction)

    def flat_share(self) -> float:
        """Share of the outputs that do not move at the first stage's steps."""
        return float(self.ladder.still(FIRST[0]).mean())

    def only(self, columns: np.ndarray) -> Probe:
        """The same probe seen at some outputs, for the price of nothing."""
        noise = tuple((e, sigma[columns]) for e, sigma in self.ladder.noise)
        return self._with(lambda y: y[columns], noise, lambda sigma: sigma[columns])

    def weighted(self, v: Array) -> Probe:
        """The same probe of the scalar <v, phi>; the outputs' roundings add up like independent ones."""
        support = np.flatnonzero(v)
        slope = self.ladder.best().value
        bars = [(e, np.array([norm(v[support] * self.ladder.roundoff(slope, e)[support])])) for e in (-31, -8)]
        return self._with(
            lambda y: np.array([inner(v, y)]), tuple(bars), lambda sigma: np.array([norm(v[support] * sigma[support])])
        )

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
        return Probe(self.problem, self.direction, out, whole=self, view=of_noise, heard=self.heard)


def terms(claim: Array, direction: Array) -> Array:
    """Claim * direction, zero where the direction is zero even if the claim is not finite."""
    with np.errstate(all="ignore"):
        return np.where(direction == 0, 0.0, claim * direction)
