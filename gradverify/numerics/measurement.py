"""A claim beside its numerical value, in error bars."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gradverify.numerics.problem import Place

SAFETY = 3.0
"""A mismatch counts beyond this many error bars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A claim beside its numerical value; the fields of records.evidence.Evidence that numerics knows.

    `powers`: for each group of inputs of like size, the relative error that would have been seen in its gradient.
    """

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
    powers: tuple[float, ...] = ()
    facts: dict[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def bars(self) -> float:
        """The mismatch in error bars; infinite where the claim is not finite."""
        gap = abs(self.analytic - self.value)
        if not np.isfinite(gap):
            return np.inf
        return gap / self.error if self.error > 0 else (0.0 if gap == 0 else np.inf)

    @property
    def off(self) -> bool:
        """Whether the claim is off beyond its bars; what is held against an interval is judged by who reads it."""
        return self.bars > SAFETY and self.interval is None


def rescaled(m: Measurement, factor: float) -> Measurement:
    """The same measurement in other units."""
    interval = (m.interval[0] * factor, m.interval[1] * factor) if m.interval else None
    return replace(
        m,
        analytic=m.analytic * factor,
        value=m.value * factor,
        error=m.error * factor,
        scale=m.scale * factor,
        interval=interval,
    )
