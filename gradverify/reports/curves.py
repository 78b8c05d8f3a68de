"""The V-curve in words: how the error of central differences goes with their step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradverify.reports.words import size

Points = Sequence[tuple[float, float]]

_FLAT = 10.0
"""A curve whose errors lie within this factor has no best step."""
_FEWEST = 3


def told(points: Points, steps: Sequence[float]) -> str:
    """`least error 2e-12 at h = 1e-03; below it like 1/h (round-off), above it like h^2 (truncation); used: ...`."""
    seen = sorted((h, e) for h, e in points if h > 0 and math.isfinite(e))
    if not seen:
        return "no step could be tried"
    step, least = min(seen, key=lambda pair: pair[1])
    said = f"least error {size(least)} at h = {step:.0e}" if least else f"no error at all at h = {step:.0e}"
    branches = _branches([(h, e) for h, e in seen if e > 0], step)
    used = f"; used: h = {_range(steps)}, dashed" if steps else ""
    return said + (f"; {', '.join(branches)}" if branches else "") + used


def _branches(seen: list[tuple[float, float]], step: float) -> list[str]:
    errors = [e for _, e in seen]
    if len(seen) >= 2 * _FEWEST and max(errors) < _FLAT * min(errors):
        return ["flat: no step is better than another"]
    below, above = _slope([p for p in seen if p[0] <= step]), _slope([p for p in seen if p[0] >= step])
    found = ["below it like 1/h (round-off, or a jump)"] if -1.5 < below < -0.5 else []
    return [*found, *([f"above it like {_power(round(above))} (truncation)"] if above > 0.5 else [])]


def _slope(seen: list[tuple[float, float]]) -> float:
    """The least-squares slope in logarithms; NaN of too few points."""
    if len(seen) < _FEWEST:
        return math.nan
    xs, ys = [math.log(h) for h, _ in seen], [math.log(e) for _, e in seen]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def _power(exponent: int) -> str:
    return f"h^{exponent}" if exponent > 1 else "h"


def _range(steps: Sequence[float]) -> str:
    low, high = f"{min(steps):.0e}", f"{max(steps):.0e}"
    return low if low == high else f"{low} ... {high}"
