"""PRECISION on average: a bias in which no rounding cancels, and an error that outgrows what roundings explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import at
from gradverify.checks.wide import Compared, Results, Sides, compared, over, quantity
from gradverify.numerics.budget import CONSTANT, FLOOR, bias_bar, mean_of, quartile, slope_of, spread_of
from gradverify.records.case import Case
from gradverify.records.evidence import Estimate, Evidence
from gradverify.records.policy import Policy

POINTS = 8
"""Independent points that an average is taken over; twice as many others confirm it."""

APART = 7919
"""Between the seeds of two points."""

UNIFORM = 3**-0.5
"""One rounding, at random within its bounds, in units of these."""


def check(sides: Sides, case: Case) -> Iterator[Evidence]:
    """Two averages of each quantity over independent points: its relative error's mean, and its size.

    What all entries of a point share, such as the rounding of a sum that divides them, is one draw of it.
    """
    points = _points(sides, case, range(POINTS))
    for name in points[0].here.truth:
        for average in (_mean, _spread):
            e = average(points, name)
            if over(e):
                again = average(_points(sides, case, range(POINTS, 3 * POINTS)), name)
                e = msgspec.structs.replace(again, confirmed=over(again))
            yield msgspec.structs.replace(e, case=case, facts={**e.facts, "of": name})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """The op at one of the points, and a plain computation there."""

    here: Compared
    plain: Results

    def moved(self) -> Results:
        """The truth after one rounding of the inputs and cotangents."""
        ((near, us),) = self.here.widened().near(1, by=self.here.subject.unit)
        return self.here.sides.truth(near, us)

    def size(self, name: str) -> Array:
        """What the rounding of an entry goes with: itself, and a tenth of the others, which it may be left of."""
        t = np.abs(flat(self.here.truth[name]))
        finite = t[np.isfinite(t)]
        whole = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
        return np.asarray(t + 0.1 * whole + self.here.least / self.here.subject.unit)

    def slope(self, found: Results, name: str) -> float:
        """The relative error that all entries of a quantity have in common."""
        return slope_of(*self._pair(found, name), self.size(name), unit=self.here.subject.unit)

    def spread(self, found: Results, name: str) -> float:
        """The relative error of a quantity as a whole."""
        return spread_of(*self._pair(found, name), self.size(name), unit=self.here.subject.unit)

    def apart(self, name: str) -> float:
        """The distance of two calls that are alike, as `spread` measures it."""
        again, size = self.here.recalled(), self.size(name)
        return spread_of(flat(again[name]), flat(self.here.got[name]), size, unit=self.here.subject.unit)

    def _pair(self, found: Results, name: str) -> tuple[Array, Array]:
        """A quantity beside its truth; NaN where it has another shape."""
        truth = self.here.truth[name]
        same = name in found and found[name].shape == truth.shape
        return flat(found[name]) if same else np.full_like(flat(truth), np.nan), flat(truth)


def _points(sides: Sides, case: Case, numbers: range) -> list[_Point]:
    others = (msgspec.structs.replace(case, seed=case.seed + APART * (k + 1), values=_present(case)) for k in numbers)
    return [_point(compared(sides, at(sides.narrow, c))) for c in others]


def _present(case: Case) -> tuple[tuple[str, str], ...]:
    """Ordinary values, of the arguments that are there: few distinct numbers have few distinct roundings."""
    return tuple((n, word) for n, word in case.values if word == "none")


def _point(here: Compared) -> _Point:
    return _Point(here=here, plain=here.sides.plain(here.subject, here.us))


def _mean(points: Sequence[_Point], name: str) -> Evidence:
    here = points[0].here
    own, plain = (mean_of([p.slope(f, name) for p, f in _of(points, what)]) for what in ("got", "plain"))
    floor = CONSTANT if here.sides.narrow.reference is None else FLOOR
    bar = bias_bar(own, plain, unit=here.subject.unit, floor=floor)
    if abs(own.value) > Policy().safety * bar:
        rounded = mean_of([_keywords(p, name) for p in points])
        bar = bias_bar(own, plain, rounded, unit=here.subject.unit, floor=floor)
    known = np.isfinite(own.value) and np.isfinite(bar)
    return here.subject.evidence(
        f"the mean of {quantity(name)} over the truth",
        analytic=1 + own.value if known else 1.0,
        numeric=Estimate(value=1.0, error=bar if known else 0.0),
        scale=1.0,
        resolution=Policy().safety * bar if known else float("nan"),
        facts={
            "kind": "bias",
            "truth": here.sides.word,
            "said": f"over {len(points)} independent points, where roundings cancel and this does not",
        },
    )


def _of(points: Sequence[_Point], what: str) -> list[tuple[_Point, Results]]:
    return [(p, p.here.got if what == "got" else p.plain) for p in points]


def _keywords(p: _Point, name: str) -> float:
    """The bias of the truth with its keywords as the dtype has them."""
    rounded = p.here.sides.rounded_keywords(p.here.subject)
    return 0.0 if rounded is None else p.slope(p.here.sides.truth(rounded, p.here.us), name)


def _spread(points: Sequence[_Point], name: str) -> Evidence:
    """The error as a whole at most points, beside the larger of the plain one's and the condition's at most points."""
    here = points[0].here
    own = quartile([p.spread(p.here.got, name) for p in points], 0.25)
    least = UNIFORM * here.subject.unit
    bar = max(quartile([p.spread(p.plain, name) for p in points], 0.75), least)
    if own > Policy().safety * bar:
        bar = max(here.order * quartile([p.spread(p.moved(), name) for p in points], 0.75), bar)
    if own > Policy().safety * bar and here.sides.narrow.nondeterministic:
        bar += quartile([p.apart(name) for p in points], 0.75)
    known = np.isfinite(own) and np.isfinite(bar)
    return here.subject.evidence(
        f"the error of {quantity(name)}, all entries together",
        analytic=own if known else 0.0,
        numeric=Estimate(value=0.0, error=bar if known else 0.0),
        scale=1.0,
        resolution=Policy().safety * bar if known else float("nan"),
        facts={
            "kind": "scatter",
            "truth": "rounding explains",
            "said": f"at most of {len(points)} points: {here.sides.plain_word} in {here.subject.case.dtype} "
            "and one rounding of the inputs are off by less",
        },
    )
