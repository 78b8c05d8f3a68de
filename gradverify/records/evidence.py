"""Evidence: numbers with their own error, and no opinion."""

from __future__ import annotations

from typing import Literal

import msgspec

from gradverify.records.case import Case

Neighbourhood = Literal["smooth", "kink", "jump", "staircase", "flat", "edge", "noisy", "unsettled"]
"""What the forward looks like around the point, along the direction that was measured.

`edge`: the forward is not finite on both sides. `flat`: it does not move at all although a change was claimed.
"""

Fact = str | int | float | bool

TIMED = ("backward in forwards",)
"""Facts that are measured with a clock: they differ from run to run."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A numerical value with an error bar; an error of NaN means unknown, never 0. `steps`: the steps h it rests on."""

    value: float
    error: float
    steps: tuple[float, ...] = ()


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """The worst place: element `index` of `argument`, under the cotangent at `output_index` of output `output`.

    `output_index` is None where a random cotangent on all outputs was used; `index` is empty where the place is a
    direction rather than one element. `output_name`: where the output stands in a nested value; empty in a plain tuple.
    """

    argument: str
    index: tuple[int, ...] | None
    output: int | None
    output_index: tuple[int, ...] | None
    analytic: float
    numeric: float
    error: float
    output_name: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one claim at one case.

    Attributes:
        quantity: what was measured, in words (`the gradient of `w``).
        analytic: the op's own number.
        numeric: ours, with its error bar.
        scale: the size that mismatch and bar are relative to; 0 where there is none.
        resolution: the smallest relative fault that this measurement would have exposed; NaN where it has no power.
        resolved: share of the outputs that were resolved, in [0, 1].
        neighbourhood: what the forward looks like here.
        interval: at a kink, the interval of directional derivatives that a subgradient may give.
        confirmed: a second, independent window of steps (or a second run) gives the same mismatch.
        worst: where it is worst.
        facts: what else was measured; `kind` names a breach (see judge), `truth` names what was held against what.
    """

    claim: str
    case: Case
    quantity: str
    analytic: float
    numeric: Estimate
    scale: float
    resolution: float
    resolved: float = 1.0
    neighbourhood: Neighbourhood = "smooth"
    interval: tuple[float, float] | None = None
    confirmed: bool = False
    worst: Mismatch | None = None
    facts: dict[str, Fact] = {}
