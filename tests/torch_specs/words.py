"""The words that the specs are written in: arguments by name and shape, and sizes that start above 0."""

from __future__ import annotations

from typing import Any

import gradverify as gv
from gradverify.records.spec import Arg, Dim, Domain, Spec

REAL = Domain()


SQUARE = Dim(lo=2, hi=65)
"""Of a letter that the output grows with faster than the inputs do."""


def spec(name: str, op: Any, *args: Arg, **fields: Any) -> Spec:
    """A spec. A field of one letter is the least size of that letter; a letter without one starts at 0."""
    least = {k: Dim(lo=fields.pop(k)) for k in list(fields) if len(k) == 1}
    return Spec(name=name, op=op, args=args, dims=least | fields.pop("dims", {}), **fields)


def real(name: str, shape: str, domain: Domain = REAL) -> Arg:
    """A floating argument; any number where no domain is given."""
    return Arg(name=name, shape=shape, domain=domain)


def positive(name: str, shape: str) -> Arg:
    """A positive argument."""
    return Arg(name=name, shape=shape, domain=gv.positive)


def spd(name: str, shape: str) -> Arg:
    """Symmetric positive definite matrices."""
    return Arg(name=name, shape=shape, domain=gv.spd)


def within(name: str, shape: str, lo: float, hi: float, *, closed: bool = True) -> Arg:
    """An argument from lo to hi; the ends are kept away from unless the interval is closed."""
    return Arg(name=name, shape=shape, domain=Domain(lo=lo, hi=hi, avoid=() if closed else (lo, hi)))


def off(name: str, shape: str, *points: float) -> Arg:
    """An argument that keeps away from some points."""
    return Arg(name=name, shape=shape, domain=gv.avoid(*points))


def distinct(name: str, shape: str) -> Arg:
    """An argument without ties."""
    return Arg(name=name, shape=shape, domain=gv.avoid_ties)


def mask(name: str, shape: str) -> Arg:
    """A boolean argument."""
    return Arg(name=name, shape=shape, domain=gv.boolean, role="mask", dtype="bool")


def index(name: str, shape: str, of: str) -> Arg:
    """Integers below the size of a letter."""
    return Arg(name=name, shape=shape, domain=gv.index(of), role="integer", dtype="int64")


def integers(name: str, shape: str, lo: int, hi: int) -> Arg:
    """Integers lo to hi."""
    return Arg(name=name, shape=shape, domain=gv.integers(lo, hi), role="integer", dtype="int64")


def fixed(name: str, shape: str, domain: Domain = REAL) -> Arg:
    """A floating argument that the function has no gradient for."""
    return Arg(name=name, shape=shape, domain=domain, role="frozen")
