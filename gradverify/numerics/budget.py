"""The error that a dtype allows: of a plain computation in it, and of its roundings at the condition of the point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradverify.numerics.comparison import norm

Array = npt.NDArray[np.float64]

MOST = 0.9
"""What this share of the entries stays below speaks for the others, whose own errors may be small by luck."""

FLOOR = 24.0
"""Roundings to nearest of few distinct numbers have a mean of their own, of about u/24: 128 significands of bfloat16,
each with an error of u/2 sqrt(3) at random, leave u/39."""

CONSTANT = 3.0
"""Without a plain computation by other code, a factor that the sizes alone make (2 / n) may have been rounded: by u."""

FACTOR = 2 * 2.0**-24 / CONSTANT
"""Whatever else there is, a factor such as 2 / n has been rounded to float32, in which narrower dtypes are computed. It
may count twice, as the root of a scale does that multiplies both sides of a product."""

APART = 32.0
"""Roundings beyond which an entry is no matter of averages: it is wrong, or at a kink, and judged on its own."""

SIGMAS = 2.0
"""Standard errors that one error bar of a mean holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One error bar of each entry, [n], and what it is made of, each relative to the size of the result.

    `plain`: the error of the plain computation; `rounding`: one rounding of the result; `condition`: what one rounding
    of the inputs does to it; `noise`: how far calls that are alike lie apart, where that is declared.
    """

    bar: Array
    plain: float
    rounding: float
    condition: float
    noise: float = 0.0


def budget(
    truth: Array,
    moved: Sequence[Array],
    errors: Sequence[Array],
    *,
    unit: float,
    least: float,
    order: float = 1.0,
    noise: Array | None = None,
    sizes: Array | None = None,
) -> Budget:
    """The budget of a result whose exact value is `truth`.

    `moved`: exact values where the inputs are moved by one rounding; `errors`: those of a plain computation, at the
    point and at neighbours of it, so that every rounding inside is drawn anew; empty where there is none. `least`:
    half of the smallest number above zero. `order`: what another order of summation multiplies the condition by. An
    entry's bar is its largest error, or the ratio of errors to (condition + rounding) that most entries stay below,
    times its own, at least once that; and no less than half of the entries that are not all zero are off by: what is
    small by cancellation keeps the rounding of what has cancelled. `noise` is added to the bars. `sizes`: what one
    rounding of an entry is relative to, where that is not its own size.
    """
    sizes = np.abs(truth) if sizes is None else sizes
    size = np.where(np.isfinite(sizes), sizes, 0.0)
    condition = order * _farthest(truth, moved)
    own = condition + unit * size + least
    worst = np.max(np.abs(np.stack(errors)), axis=0) if errors else np.zeros_like(truth)
    with np.errstate(all="ignore"):
        ratios = worst[np.isfinite(worst)] / own[np.isfinite(worst)]
    ratio = max(float(np.quantile(ratios, MOST)) if ratios.size else 0.0, 1.0)
    whole = norm(size) or 1.0
    # A row in which nothing is kept says nothing of one in which all but one term has cancelled.
    alive = np.isfinite(worst) & ((size > 0) | (condition > 0) | (worst > 0))
    shared = float(np.median(np.maximum(worst, own)[alive])) if alive.any() else 0.0
    apart = np.zeros_like(truth) if noise is None else noise
    return Budget(
        bar=np.maximum(np.where(np.isnan(worst), np.inf, worst), np.maximum(ratio * own, shared)) + apart,
        plain=norm(worst[np.isfinite(worst)]) / whole,
        rounding=unit,
        condition=norm(condition) / whole,
        noise=norm(apart) / whole,
    )


def _farthest(base: Array, moved: Sequence[Array]) -> Array:
    if not moved or base.size == 0:
        return np.zeros_like(base)
    with np.errstate(all="ignore"):
        far = np.max(np.stack([np.abs(m - base) for m in moved]), axis=0)
    return np.asarray(np.where(np.isfinite(far), far, 0.0))


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean relative error and its standard error, over so many independent points."""

    value: float
    error: float
    points: int


def slope_of(got: Array, truth: Array, size: Array, *, unit: float) -> float:
    """The d of got = (1 + d) truth + noise, least squares in units of `size`; NaN where nothing says anything of it."""
    usable = _near(got, truth, size, unit) & (truth != 0)
    t, e = truth[usable] / size[usable], (got[usable] - truth[usable]) / size[usable]
    total = float(t @ t)
    return float(t @ e) / total if total > 0 else float("nan")


def mean_of(slopes: Sequence[float]) -> Mean:
    """The mean of relative errors at independent points: what shares a rounding within a point is one draw of it."""
    known = np.array([s for s in slopes if np.isfinite(s)])
    if known.size < 3:
        return Mean(float("nan"), float("nan"), known.size)
    return Mean(float(known.mean()), float(known.std(ddof=1) / np.sqrt(known.size)), known.size)


def bias_bar(own: Mean, *allowed: Mean, unit: float, floor: float = FLOOR) -> float:
    """One error bar of a mean relative error: its standard error, that of rounding itself, and what else is biased.

    `allowed`: the means of computations whose bias is no fault: a plain one's, that of keywords that are rounded.
    """
    known = [m for m in allowed if np.isfinite(m.value)]
    return SIGMAS * own.error + max(unit / floor, FACTOR) + sum(abs(m.value) + SIGMAS * m.error for m in known)


def spread_of(found: Array, truth: Array, size: Array, *, unit: float) -> float:
    """Root mean square of (found - truth) / size over the entries that are not APART; NaN where there are none."""
    usable = _near(found, truth, size, unit)
    e = (found[usable] - truth[usable]) / size[usable]
    return float(np.sqrt(np.mean(e**2))) if usable.any() else float("nan")


def _near(found: Array, truth: Array, size: Array, unit: float) -> npt.NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        return np.asarray((size > 0) & (np.abs(found - truth) <= APART * unit * size) & np.isfinite(found))


def quartile(values: Sequence[float], share: float) -> float:
    """The quantile of those that are known; NaN where fewer than three are: no rare jump moves it."""
    known = np.array([v for v in values if np.isfinite(v)])
    return float(np.quantile(known, share)) if known.size >= 3 else float("nan")
