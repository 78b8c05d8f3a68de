"""The wrong entries of a gradient that is too large to be measured whole, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gradverify.diagnosis.sample import MOST_INPUTS
from gradverify.numerics.culprits import MOST, Culprits
from gradverify.numerics.problem import Place

Locate = Callable[[], Culprits | None]
"""Finds the wrong entries of the failing case, where that can be done."""


def wrong_in(found: Culprits | None) -> Iterator[str]:
    """`wrong in       3 entries of 65536: x[5], x[77], w[3,4]; all others are right`; nothing where none was found."""
    if found is None or found.inputs <= MOST_INPUTS:
        return
    if found.many:
        where = " to ".join(map(_told, found.among or ()))
        yield f"wrong in       more than {MOST} entries of {found.inputs}" + (f", from {where}" if where else "")
    elif found.entries:
        number = len(found.entries)
        least, rest = ("", "; all others are right") if found.complete else ("at least ", "")
        listed = ", ".join(map(_told, found.entries))
        noun = "entry" if number == 1 else "entries"
        yield f"wrong in       {least}{number} {noun} of {found.inputs}: {listed}{rest}"


def _told(place: Place) -> str:
    return f"{place.argument}[{','.join(map(str, place.index))}]" if place.index else place.argument
