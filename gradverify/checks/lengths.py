"""PRECISION along long axes: how the error grows with the number of terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from gradverify.cases.rescaled import long_letters, shortened
from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import at
from gradverify.checks.wide import Compared, Results, Sides, compared, quantity
from gradverify.errors import OpError
from gradverify.numerics.comparison import norm
from gradverify.numerics.growth import fitted
from gradverify.records.case import Case

POINTS = 3
"""Independent points at each length."""

APART = 104729
"""Between the seeds of two points."""

KNOWN = 0.25
"""A fit whose exponent has a larger standard error tells nothing."""

GROWS = 0.2
"""An exponent above it, and above two standard errors, is that of an error which adds up."""

Measured = tuple[int, Mapping[str, float]]
"""A length, and relative errors by quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Of one quantity: the power of a letter's size that its relative error grows with, and the plain one's."""

    name: str
    letter: str
    exponent: float
    error: float
    plain: float
    plain_word: str

    @property
    def adds_up(self) -> bool:
        """Whether it grows beyond what the fit leaves open."""
        return _adds_up((self.exponent, self.error))

    def __str__(self) -> str:
        beside = f", that of {self.plain_word} like {self._power(self.plain)}" if self.plain_word else ""
        return (
            f"the error of {quantity(self.name)} grows like {self._power(self.exponent)} (+- {self.error:.2f}){beside}"
        )

    def _power(self, exponent: float) -> str:
        return f"{self.letter}^{round(exponent, 1) + 0.0:.1f}"


def growths(sides: Sides, case: Case) -> tuple[Growth, ...]:
    """How the relative error of each quantity grows along the longest letter, the steepest last; empty if unknown.

    The root mean square error relative to the size of the whole tensor, at parts of the length and at the whole, as a
    power of it. Rounding once at the end is n^0, a narrow accumulator n^0.5 to n^1.
    """
    letters = long_letters(sides.narrow, case) if case.data is None else ()
    if not letters:
        return ()
    letter = letters[-1]
    points = [(n, p) for n, c in shortened(sides.narrow, case, letter) for p in _points(sides, c)]
    own = [(n, _errors(here.got, here.truth)) for n, here in points]
    fits = {name: _fit(own, name) for name in (own[0][1] if own else ())}
    known = {name: fit for name, fit in fits.items() if fit[1] < KNOWN}
    plain = own if not any(map(_adds_up, known.values())) else [(n, _plain(here)) for n, here in points]
    word = sides.plain_word.rstrip(",") if plain is not own else ""
    found = (
        Growth(name=name, letter=letter, exponent=e, error=error, plain=_fit(plain, name)[0], plain_word=word)
        for name, (e, error) in known.items()
    )
    return tuple(sorted(found, key=lambda g: g.exponent))


def _adds_up(fit: tuple[float, float]) -> bool:
    return fit[0] > max(GROWS, 2 * fit[1])


def _points(sides: Sides, case: Case) -> list[Compared]:
    cases = [msgspec.structs.replace(case, seed=case.seed + APART * k) for k in range(POINTS)]
    try:
        return [compared(sides, at(sides.narrow, c)) for c in cases]
    except OpError:
        return []


def _plain(here: Compared) -> Mapping[str, float]:
    return _errors(here.sides.plain(here.subject, here.us), here.truth)


def _errors(found: Results, truth: Results) -> dict[str, float]:
    """|found - truth| / |truth|; NaN where shapes differ, or a number is not finite."""
    return {
        n: _relative(flat(found[n]), flat(t)) if n in found and found[n].shape == t.shape else float("nan")
        for n, t in truth.items()
    }


def _relative(found: Array, truth: Array) -> float:
    size = norm(truth)
    with np.errstate(all="ignore"):
        return norm(found - truth) / size if size > 0 and np.isfinite(found).all() else float("nan")


def _fit(found: Sequence[Measured], name: str) -> tuple[float, float]:
    """Exponent and standard error; NaN where fewer than three lengths say anything."""
    pairs = [(n, e[name]) for n, e in found if e.get(name, 0) > 0]
    if len({n for n, _ in pairs}) < 3:
        return float("nan"), float("nan")
    sizes, amounts = zip(*pairs, strict=True)
    return fitted(sizes, amounts)
