"""The words a spec is written in: `gv.dim`, `gv.domain`, `gv.no_grad` and their like."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from typing import Final

from gradverify.errors import SpecError
from gradverify.records.case import Scalar
from gradverify.records.names import LAYOUTS
from gradverify.records.spec import Dim, Domain, Example, Times, Tolerance


class Marker(enum.Enum):
    """Marks that stand beside a domain: `no_grad`, no gradient; `complex`, complex numbers."""

    NO_GRAD = "no_grad"
    COMPLEX = "complex"


no_grad: Final = Marker.NO_GRAD
"""The op must return None or zeros as the gradient of this argument."""

complex: Final = Marker.COMPLEX  # noqa: A001 (gv.complex, beside gv.boolean)
"""Complex numbers: complex128 where float64 is under test. A domain holds for the real and for the imaginary part."""

positive: Final = Domain(kind="positive")
boolean: Final = Domain(kind="boolean")
spd: Final = Domain(kind="spd")
additive_mask: Final = Domain(kind="additive_mask")
"""0 where an entry is kept, -inf where it is masked out; only the claim `special` masks a whole row."""
avoid_ties: Final = Domain(avoid_ties=True)
"""No two entries are equal, nor nearly so."""

ALL: Final = LAYOUTS
"""Every memory layout of a strided tensor."""


def dim(lo: int = 0, hi: int | None = None, *, around: int | Iterable[int] = (), max: int | None = None) -> Dim:  # noqa: A002
    """Sizes lo to hi inclusive, on purpose near multiples of `around`. `max` is another word for `hi`.

    Raises SpecError where no size is left.
    """
    top = hi if max is None else max
    blocks = (around,) if isinstance(around, int) else tuple(around)
    if lo < 0 or (top is not None and top < lo):
        raise SpecError(f"gv.dim: no size lies between lo={lo} and hi={top}; give 0 <= lo <= hi.")
    if any(b < 1 for b in blocks):
        raise SpecError(f"gv.dim: around={blocks} names no block size; give sizes of 1 and above.")
    return Dim(lo=lo, hi=top, around=blocks)


def one_of(*sizes: int) -> Dim:
    """Only these sizes. Raises SpecError where there are none, or a negative one."""
    if not sizes or min(sizes) < 0:
        raise SpecError(f"gv.one_of: expected one size or more, 0 and above, got {sizes}.")
    return Dim(lo=min(sizes), hi=max(sizes), choices=tuple(sizes))


def domain(lo: float | None = None, hi: float | None = None) -> Domain:
    """Values from lo to hi inclusive; None is unbounded. Raises SpecError where lo is not below hi."""
    if any(b is not None and math.isnan(b) for b in (lo, hi)) or (lo is not None and hi is not None and lo >= hi):
        raise SpecError(f"gv.domain: no interval from lo={lo} to hi={hi}; give lo < hi.")
    return Domain(lo=_bound(lo), hi=_bound(hi))


def _bound(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else float(value)


def prob(letter: str) -> Domain:
    """Non-negative entries that sum to 1 along the axis `letter`."""
    return Domain(kind="prob", of=letter)


def index(letter: str) -> Domain:
    """Integers from 0 up to the size of `letter`, which is excluded; repeats occur."""
    return Domain(kind="index", of=letter)


def integers(lo: int, hi: int) -> Domain:
    """Integers lo to hi inclusive. Raises SpecError where lo is above hi."""
    if lo > hi:
        raise SpecError(f"gv.integers: no integer lies between lo={lo} and hi={hi}; give lo <= hi.")
    return Domain(kind="integers", lo=float(lo), hi=float(hi))


def avoid(*points: float) -> Domain:
    """Values that keep away from these points, where the op has a kink or a jump."""
    return Domain(avoid=tuple(float(p) for p in points))


def replay_rng() -> bool:
    """For `stochastic=`: an op that draws from torch's generators, whose state is put back before every call.

    Each forward of a case then draws the same numbers, and is a function of its inputs that differences can judge.
    """
    return True


def times(factor: float) -> Times:
    """A multiple of the derived tolerance. Raises SpecError where it is not above 0."""
    if not factor > 0:
        raise SpecError(f"gv.times: {factor:g} times the derived tolerance is none; give a factor above 0.")
    return Times(factor=factor)


def tol(*, rtol: float, atol: float = 0.0) -> Tolerance:
    """A raw tolerance; every report shows it as loosened."""
    return Tolerance(rtol=rtol, atol=atol)


def example(**sizes_and_kwargs: Scalar | tuple[int, ...]) -> Example:
    """A pinned case: sizes by letter and keywords by name, told apart by the spec that it stands in."""
    dims = {k: v for k, v in sizes_and_kwargs.items() if isinstance(v, int | tuple) and not isinstance(v, bool)}
    return Example(dims=dims, kwargs={k: v for k, v in sizes_and_kwargs.items() if not isinstance(v, tuple)})
