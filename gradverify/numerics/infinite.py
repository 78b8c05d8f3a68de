"""Inputs whose claimed gradient is not finite, each judged along its own axis."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradverify.numerics import neighbourhood
from gradverify.numerics.difference import Array, Bools
from gradverify.numerics.directions import some
from gradverify.numerics.measurement import Measurement
from gradverify.numerics.probe import Probe
from gradverify.numerics.trial import Trial

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
    return Measurement(
        analytic=float("nan"),
        value=float(best.value.sum()) / float(probe.direction[i]),
        error=float(best.bar.sum()) / float(probe.direction[i]),
        scale=1.0,
        resolution=np.inf,
        resolved=1.0,
        code=name,
        steps=(),
        confirmed=name in ("smooth", "flat", "kink"),
        place=probe.problem.place(i, None),
        facts={"kind": "not finite"},
    )


def _name(probe: Probe, value: Array, bar: Array, kink: Array) -> str:
    """The commonest of what the outputs that move do."""
    resolved = np.isfinite(bar) & (bar <= 1e-3 * (np.abs(value) + np.abs(probe.problem.centre)))
    around = neighbourhood.survey(probe.ladder, resolved=resolved & (kink <= bar / 2))
    moved = around.code[around.code != neighbourhood.FLAT]
    return neighbourhood.NAMES[int(np.bincount(moved).argmax())] if moved.size else "flat"
