"""The only knobs: how verdicts are taken, and how much is tried."""

from __future__ import annotations

from types import MappingProxyType

import msgspec


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How evidence becomes a verdict.

    Attributes:
        safety: how many error bars a claim may lie away from the numerical value before it counts as different.
        digits: digits of agreement demanded; None: below 6 is wrong, above is at worst imprecise.
        strict: INCONCLUSIVE counts as not verified.
        loosened: relative error that the user chose to accept, shown in every report; None: none was.
    """

    safety: float = 3.0
    digits: float | None = None
    strict: bool = True
    loosened: float | None = None
    loosened_absolute: float | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried: claims (empty: all), devices, dtypes (empty: the spec's), cases a claim, seed, time limit.

    `trail`: whether the results keep every case.
    """

    claims: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    examples: int = 20
    seed: int = 0
    max_seconds: float | None = None
    max_failures: int | None = None
    profile: str = "dev"
    trail: bool = False


OFF = MappingProxyType({"dev": ("transforms.compile",)})
"""Profile -> claims that are too slow for it, unless they are asked for by name."""
