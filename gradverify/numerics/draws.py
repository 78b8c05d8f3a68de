"""How hard rounding is looked for: at a few nearby points, and at many, and elsewhere, before a mismatch counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

DRAWS = 3
"""Where everything agrees, more would cost more and change nothing."""

BEFORE_A_FAULT = 15
"""What is left of terms that cancel is a small multiple of one rounding, which may be the same at three points."""

_draws: ContextVar[int] = ContextVar("draws", default=DRAWS)


def draws() -> int:
    """The number of points now."""
    return _draws.get()


def looking_closely() -> bool:
    """Whether a fault is at stake: then the size of the terms is also taken from where small inputs are scaled up to 1.

    The derivative of x - tanh(x) near 0 is what is left of 1 - (1 - x^2), in steps of 1e-16 that no point nearby shows.
    """
    return draws() > DRAWS


@contextmanager
def careful() -> Iterator[None]:
    """What is measured inside draws BEFORE_A_FAULT points."""
    token = _draws.set(BEFORE_A_FAULT)
    try:
        yield
    finally:
        _draws.reset(token)
