"""Inputs whose claimed gradient is not finite, each judged along its own axis; at the edge of a domain on one side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradverify.numerics import neighbourhood
from gradverify.numerics.difference import ROUNDING, Array, Bools
from gradverify.numerics.directions import some
from gradverify.numerics.measurement import Measurement
from gradverify.numerics.picture import settled
from gradverify.numerics.probe import Probe
from gradverify.numerics.trial import Trial

SIDED = (-8, -14, -20)
"""Steps whose one-sided slopes are compared."""

CONVERGES = 0.5
"""Of slopes c + a h^p each change is 2^-6p of the one before: where they converge, with p above 1/6, less than this
part; of log h it is all of it, of h^-1/2 it is 8 times as much."""

INPUTS = 3
"""Inputs that are looked at: one shows the fault, others may lie at the edge of the domain."""


def not_finite(trial: Trial, where: Bools) -> Iterator[Measurement]:
    """What the function does at inputs whose claimed gradient is not finite."""
    for i in some(trial.rng, np.flatnonzero(where), INPUTS):
        probe = Probe.on_axis(trial.problem, int(i))
        for stage in range(3):
            probe.extend(stage)
        yield _measured(probe, int(i))


def _measured(probe: Probe, i: int) -> Measurement:
    best = probe.ladder.best()
    # Beside an output that is not finite itself, 0 times its derivative is rightly NaN.
    overflown = not np.isfinite(probe.problem.centre).all()
    name = "edge" if overflown else _name(probe, best.value, best.bar, best.kink)
    value, error = best.value, best.bar
    sided = _on_one_side(probe) if name == "edge" else None
    if sided is not None:
        value, error = sided
    return Measurement(
        analytic=float("nan"),
        value=float(value.sum()) / float(probe.direction[i]),
        error=float(error.sum()) / float(probe.direction[i]),
        scale=1.0,
        resolution=np.inf,
        resolved=1.0,
        code=name,
        steps=(),
        confirmed=name in ("smooth", "flat", "kink") or sided is not None,
        place=probe.problem.place(i, None),
        facts={"kind": "not finite"},
    )


def _name(probe: Probe, value: Array, bar: Array, kink: Array) -> str:
    """The commonest of what the outputs that move do."""
    around = neighbourhood.survey(probe.ladder, resolved=settled(probe.ladder, value, bar) & (kink <= bar / 2))
    moved = around.code[around.code != neighbourhood.FLAT]
    return neighbourhood.NAMES[int(np.bincount(moved).argmax())] if moved.size else "flat"


def _on_one_side(probe: Probe) -> tuple[Array, Array] | None:
    """Slopes and their errors on a side on which the forward is finite and all slopes converge as h -> 0; or None.

    sqrt at 0 has slopes h^-1/2 that do not; those of x^3/2 do, to 0.
    """
    ladder = probe.ladder
    if not np.isfinite(ladder.centre).all() or not set(SIDED) <= set(ladder.levels):
        return None
    for sign, side in ((1.0, ladder.plus), (-1.0, ladder.minus)):
        if all(np.isfinite(side[e]).all() for e in SIDED):
            a, b, c = (sign * (side[e] - ladder.centre) * 2.0**-e for e in SIDED)
            # Not the measured noise, which is infinite at an edge.
            rounding = 8 * ROUNDING * ladder.unit * (np.abs(ladder.centre) + np.abs(c)) * 2.0 ** -SIDED[-1]
            error = np.maximum(np.abs(c - b), rounding)
            return (c, error) if (error <= np.maximum(CONVERGES * np.abs(b - a), rounding)).all() else None
    return None
