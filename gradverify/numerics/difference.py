"""Central differences of a path on a ladder of power-of-two steps, extrapolated, each output with its own error bar.

A path is t -> phi(t), [m] float64 outputs along one direction. With h = 2^e the ladder holds

    C(h) = (phi(h) - phi(-h)) / 2h              the slope, error O(h^2) + noise / h
    G(h) = (phi(h) - 2 phi(0) + phi(-h)) / h    h phi'' where smooth; the jump of the slope, constant in h, at a kink

Three consecutive levels make a window. See specs/claims.md (VJP) and Ridders (1982), More & Wild (2012, 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Path = Callable[[float], Array]

FIRST = (-8, -9, -10)
"""Enough for a smooth function whose scale of variation is that of its input."""
SECOND = (-3, -4, -5, -6, -7, -11, -12)
THIRD = (-1, -2, -13, -14, -18, -19, -20, -24, -25, -26, -29, -30, -31)
UP = (4, 3, 2)
"""Where rounding and not curvature limits the first stage: inputs much smaller than what they are added to."""
FINE = (-20, -28, -36, -40, -44)
"""A slope that is held against a claim must not change below: coarser windows may agree on a function that has
saturated, or that turns many times within their steps."""
CLIMB = (0, 2, 3, 4, 8, 9, 10, 18, 19, 20, 30, 31, 32, 42, 43, 44)
"""Steps above the input's own size: the only ones that rise above the noise of an offset like (x + 1e8) - 1e8."""

AMPLIFICATION = 6.6
"""A window's extrapolated slope multiplies an error of `noise` in each sample by at most this over its coarsest h."""

ROUNDING = 4.0
"""A forward is taken to err by this many unit roundoffs of its value and of its response to its inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Every window of a ladder, coarsest first: arrays [w, m], and the exponent of each window's coarsest step.

    `flat`: at one of the window's levels neither sample moved at all.
    """

    tops: tuple[int, ...]
    value: Array
    bar: Array
    kink: Array
    flat: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Slopes:
    """The best window of each output: slope, error bar, slope jump seen there, exponent of its step; arrays [m].

    `bar` is infinite where no window is usable.
    """

    value: Array
    bar: Array
    kink: Array
    top: npt.NDArray[np.int8]


@dataclass(slots=True)
class Ladder:
    """Samples of one path, kept by level, so that climbing on costs only the new levels.

    Attributes:
        path: t -> outputs [m].
        centre: phi(0), [m].
        unit: unit roundoff of the dtype that the forward works in.
        noise: measured noise of one evaluation: (exponent of the spacing, [m]), finest first; empty until measured.
        finest: no step below 2^finest is representable in the forward's dtype.
    """

    path: Path
    centre: Array
    unit: float
    noise: tuple[tuple[int, Array], ...] = ()
    finest: int = -31
    plus: dict[int, Array] = field(default_factory=dict)
    minus: dict[int, Array] = field(default_factory=dict)
    _best: tuple[tuple[int, int], Slopes] | None = None

    def sample(self, exponents: Iterable[int]) -> None:
        """Evaluate phi at +-2^e for every new exponent: two forwards a level."""
        for e in exponents:
            if e not in self.plus and e >= self.finest:
                h = 2.0**e
                self.plus[e], self.minus[e] = self.path(h), self.path(-h)

    @property
    def fine(self) -> tuple[int, ...]:
        """FINE, or the three finest steps where these are coarser."""
        return FINE if self.finest <= min(FINE) else (self.finest + 2, self.finest + 1, self.finest)

    @property
    def levels(self) -> tuple[int, ...]:
        """Sampled exponents, coarsest first."""
        return tuple(sorted(self.plus, reverse=True))

    def central(self, e: int) -> Array:
        """C(2^e), [m]."""
        with np.errstate(all="ignore"):
            return np.asarray((self.plus[e] - self.minus[e]) * 2.0 ** (-e - 1))

    def bend(self, e: int) -> Array:
        """G(2^e), [m]."""
        with np.errstate(all="ignore"):
            return np.asarray(((self.plus[e] - self.centre) + (self.minus[e] - self.centre)) * 2.0**-e)

    def still(self, e: int) -> Bools:
        """Where neither sample differs from the centre at all, [m]."""
        return np.asarray((self.plus[e] == self.centre) & (self.minus[e] == self.centre))

    def one_sided(self) -> Bools:
        """Where one of the two sides has not moved at any level: the dead side of a clamp, not a staircase; [m]."""
        levels = self.levels
        above = np.logical_and.reduce([self.plus[e] == self.centre for e in levels])
        below = np.logical_and.reduce([self.minus[e] == self.centre for e in levels])
        return np.asarray(above | below)

    def roundoff(self, slope: Array, top: int) -> Array:
        """Error of one evaluation near t = 2^top, [m]: rounding of value and response, or measured noise if larger."""
        rounding: Array = ROUNDING * self.unit * (np.abs(self.centre) + np.abs(slope))
        for e, sigma in self.noise:
            if e <= top:
                rounding = np.maximum(rounding, sigma)
        return rounding

    def tops(self) -> tuple[int, ...]:
        """Exponents e whose window (e, e-1, e-2) is complete."""
        return tuple(e for e in self.levels if e - 1 in self.plus and e - 2 in self.plus)

    def windows(self) -> Windows:
        """Slope, error bar and slope jump of every complete window."""
        tops = self.tops()
        rows = [self._window(e) for e in tops]
        value, bar, kink, flat = (np.stack(column) for column in zip(*rows, strict=True))
        return Windows(
            tops=tops,
            value=value,
            bar=_consistent(value, _usable(tops, bar, flat & ~self.one_sided())),
            kink=kink,
            flat=flat,
        )

    def _window(self, top: int) -> tuple[Array, Array, Array, Bools]:
        c0, c1, c2 = (self.central(top - k) for k in range(3))
        g0, g1, g2 = (self.bend(top - k) for k in range(3))
        with np.errstate(all="ignore"):
            first, second = np.abs(c0 - c1), np.abs(c1 - c2)
            t1, t2 = (4 * c1 - c0) / 3, (4 * c2 - c1) / 3
            # An error C h^2 shrinks by 4 a level; 2.5 leaves room for the h^4 term and some noise.
            asymptotic = first > 2.5 * second
            value = np.where(asymptotic, (16 * t2 - t1) / 15, c1)
            truncation = np.where(asymptotic, np.abs(t1 - t2) / 4, np.maximum(first, second))
            rounding = self.roundoff(c1, top)
            kink = _kink(g0, g1, g2, floor=16 * rounding * 2.0**-top)
            bar = truncation + AMPLIFICATION * rounding * 2.0**-top + kink
            bar = np.where(np.isfinite(bar) & np.isfinite(value), bar, np.inf)
        flat = self.still(top) | self.still(top - 1) | self.still(top - 2)
        return np.where(np.isfinite(value), value, 0.0), bar, np.where(np.isfinite(kink), kink, 0.0), flat

    def best(self) -> Slopes:
        """For each output the window with the least bar."""
        state = (len(self.plus), len(self.noise))
        if self._best is None or self._best[0] != state:
            self._best = (state, self._least())
        return self._best[1]

    def _least(self) -> Slopes:
        m = self.centre.size
        if m > CHUNK:
            out = Slopes(value=np.empty(m), bar=np.empty(m), kink=np.empty(m), top=np.empty(m, dtype=np.int8))
            for c in chunks(m):
                part = self.cut(c).best()
                out.value[c], out.bar[c], out.kink[c], out.top[c] = part.value, part.bar, part.kink, part.top
            return out
        w = self.windows()
        pick = np.argmin(w.bar, axis=0)
        column = np.arange(pick.size)
        tops = np.asarray(w.tops, dtype=np.int8)
        return Slopes(value=w.value[pick, column], bar=w.bar[pick, column], kink=w.kink[pick, column], top=tops[pick])

    def cut(self, columns: slice) -> Ladder:
        """The same samples at some outputs; nothing is copied."""
        noise = tuple((e, sigma[columns]) for e, sigma in self.noise)
        out = Ladder(path=self.path, centre=self.centre[columns], unit=self.unit, noise=noise, finest=self.finest)
        out.plus = {e: y[columns] for e, y in self.plus.items()}
        out.minus = {e: y[columns] for e, y in self.minus.items()}
        return out


CHUNK = 2**14
"""Outputs are worked on in stretches that stay in the cache: temporaries of megabytes cost more than the sums."""


def chunks(size: int) -> tuple[slice, ...]:
    """Slices of at most CHUNK that cover `size`."""
    return tuple(slice(k, k + CHUNK) for k in range(0, size, CHUNK))


def _kink(g0: Array, g1: Array, g2: Array, *, floor: Array) -> Array:
    """How much of the bend does not vanish with h: 2G(h/2) - G(h) is O(h^3) where smooth, the jump at a kink.

    Zero where the two measurements shrink like h^3, or lie below what rounding alone makes of them.
    """
    first, second = np.abs(2 * g1 - g0), np.abs(2 * g2 - g1)
    size = np.maximum(first, second)
    smooth = (first > 5 * second) | (size <= floor)
    return np.where(smooth, 0.0, size)


ROUNDED = -5
"""A plateau that ends below 2^-5 of the input may be the rounding of a narrow float (bfloat16: 2^-8) in the forward."""


def _usable(tops: tuple[int, ...], bar: Array, flat: Bools) -> Array:
    """A narrow plateau below a step that moved is not evidence of a zero slope: infinite bar."""
    moved = np.zeros(bar.shape[1], dtype=np.bool_)
    out = bar.copy()
    for row, top in enumerate(tops):
        if top <= ROUNDED:
            out[row, moved & flat[row]] = np.inf
            moved |= ~flat[row]
    return np.asarray(out)


def _consistent(value: Array, bar: Array) -> Array:
    """The slope is the limit h -> 0: a window that a finer one contradicts beyond both bars has left it.

    So a bounded function does not pass for constant at huge steps, nor a staircase for its mean slope.
    """
    out = bar.copy()
    for row in range(len(bar) - 2, -1, -1):
        with np.errstate(all="ignore"):
            apart = np.abs(value[row] - value[row + 1 :]) > 3 * (bar[row] + bar[row + 1 :])
        out[row, (apart & np.isfinite(bar[row + 1 :])).any(axis=0)] = np.inf
    return np.asarray(out)
