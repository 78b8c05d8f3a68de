"""What makes a swept case special, so that it can be shrunk without becoming ordinary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradverify.records.case import Scalar, Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What every case drawn under them shares; what they leave open is drawn, the plain first.

    Attributes:
        dims: letter -> its size. Other letters are of ordinary size.
        regimes: argument -> regime of its values. Other arguments are tame.
        kwargs: keyword -> its value, or the default: a fault that does not need the value shrinks to the default.
        layouts: argument -> memory layout. Other arguments are contiguous.
        differentiate: the mask; None: every argument that is present.
        cotangents: the words of the cotangents.
    """

    dims: Mapping[str, Sizes] = field(default_factory=dict)
    regimes: Mapping[str, str] = field(default_factory=dict)
    kwargs: Mapping[str, Scalar] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    differentiate: tuple[str, ...] | None = None
    cotangents: tuple[str, ...] = ()
