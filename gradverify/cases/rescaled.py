"""The same case with other values, or at other sizes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import torch

from gradverify.cases import shapes, sizes
from gradverify.cases.materialise import generator_of, materialise
from gradverify.cases.strategies import allowed
from gradverify.records.case import Case, Point, Sizes
from gradverify.records.spec import Arg, Dim, Spec

LADDER = (4, 8, 16, 32)
"""Sizes that a growth is read off: doubled three times, from where the smallest terms no longer lead."""

PARTS = (64, 8, 1)
"""Parts of a long size at which an error that adds up is measured."""

LONG = 256
"""From so many terms on the shortest of PARTS has terms at all."""

GROWN = 3
"""How much larger each size is in a call at other sizes: it changes the parity, and crosses no block by itself."""


def other_values(spec: Spec, case: Case, point: Point) -> Point:
    """A point of the same shapes with other values of the domain: another draw; where data was given, reversed.

    A reversal keeps to any domain: values stay what they are, a simplex sums to one, a matrix stays definite.
    """
    if case.data is None:
        drawn = materialise(spec, msgspec.structs.replace(case, seed=other_seed(case)))
        return Point(primals=drawn.primals, kwargs=point.kwargs, differentiate=point.differentiate)
    primals = {n: None if t is None else torch.flip(t, tuple(range(t.ndim))) for n, t in point.primals.items()}
    return Point(primals=primals, kwargs=point.kwargs, differentiate=point.differentiate)


def other_seed(case: Case) -> int:
    """A seed that no other draw of this case comes from."""
    return int(torch.randint(2**31, (), generator=generator_of(case.seed, "other")))


def grown(spec: Spec, case: Case) -> Case | None:
    """The case with every size larger; or one of them, where `where` and the documented sizes refuse all at once.

    None where nothing else is allowed, or `inputs=` or a strategy gives the tensors.
    """
    bigger = {letter: size for letter, n in _own(spec, case).items() if (size := _next(_dim(spec, letter), n)) != n}
    for dims in (bigger, *({letter: size} for letter, size in bigger.items())):
        found = at_sizes(spec, case, dims) if dims else None
        if found is not None:
            return found
    return None


def ladders(spec: Spec, case: Case) -> dict[str, tuple[tuple[int, Case], ...]]:
    """Letter -> cases in which it alone grows, with its size in each; the others are small and fixed.

    A letter with fewer than two sizes that the spec allows is left out; so are all where `inputs=` gives the tensors.
    """
    base = {n: _near(_dim(spec, n), LADDER[0]) for n in _own(spec, case)}
    out = {}
    for letter in base:
        tried = dict.fromkeys(_near(_dim(spec, letter), size) for size in LADDER)
        cases = ((size, at_sizes(spec, case, {**base, letter: size})) for size in tried)
        found = tuple((size, c) for size, c in cases if c is not None)
        if len(found) > 1:
            out[letter] = found
    return out


def long_letters(spec: Spec, case: Case) -> tuple[str, ...]:
    """The letters of a case that are long enough for roundings to add up along them, the longest last."""
    return tuple(sorted((n for n, size in _own(spec, case).items() if size >= LONG), key=lambda n: _own(spec, case)[n]))


def shortened(spec: Spec, case: Case, letter: str) -> tuple[tuple[int, Case], ...]:
    """The case with parts of one letter's size, and with that itself, the shortest first; those that are allowed."""
    size = _own(spec, case)[letter]
    tried = dict.fromkeys(_near(_dim(spec, letter), max(size // part, 1)) for part in PARTS)
    found = ((n, at_sizes(spec, case, {letter: n})) for n in tried)
    return tuple((n, c) for n, c in found if c is not None)


def at_sizes(spec: Spec, case: Case, dims: Mapping[str, int]) -> Case | None:
    """The case at other sizes, plain otherwise; None where the spec does not allow them.

    A variadic letter becomes one axis of that size; an axis that may be 1 or its letter's size is its letter's.
    """
    if spec.inputs is not None or case.data is not None:
        return None
    old = dict(case.dims)
    new: dict[str, Sizes] = {n: s for n, s in old.items() if "#" not in n}
    new |= {n: (s,) if isinstance(old[n], tuple) else s for n, s in dims.items()}
    try:
        new |= {
            f"{a.name}#{x.key}": shapes.axis_size(x, new) for a, x in _broadcast(spec) if f"{a.name}#{x.key}" in old
        }
        asked = msgspec.structs.replace(case, dims=tuple(sorted(new.items())), layouts=(), cotangents=())
        counts = [_elements(a, new) for a in spec.args]
    except (ZeroDivisionError, KeyError):
        return None
    fits = all(0 <= n <= sizes.MAX_OUTPUT for n in counts)
    return asked if fits and allowed(spec, asked) else None


def _broadcast(spec: Spec) -> list[tuple[Arg, shapes.Axis]]:
    return [(a, axis) for a in spec.args for axis in shapes.parse(a.shape, a.name) if axis.broadcast]


def _elements(arg: Arg, dims: Mapping[str, Sizes]) -> int:
    """The number of elements of an argument; negative where one of its sizes is."""
    count = 1
    for axis in shapes.parse(arg.shape, arg.name):
        size = shapes.axis_size(axis, dims)
        for n in size if isinstance(size, tuple) else (size,):
            if n < 0:
                return -1
            count *= n
    return count


def _own(spec: Spec, case: Case) -> dict[str, int]:
    """The letters of a case that a size can be given to; the size of a variadic one is that of its last axis."""
    known = shapes.letters(spec.args)
    dims = dict(case.dims)
    return {n: _last(dims[n]) for n in known if n in dims}


def _last(size: Sizes) -> int:
    return size if isinstance(size, int) else (size[-1] if size else 1)


def _dim(spec: Spec, letter: str) -> Dim:
    return spec.dims.get(letter, Dim())


def _next(dim: Dim, size: int) -> int:
    """A larger size that is documented; a smaller one where there is none."""
    if dim.choices is not None:
        larger = [n for n in dim.choices if n > size]
        return min(larger) if larger else max((n for n in dim.choices if n < size), default=size)
    wanted = size + GROWN
    return wanted if dim.hi is None or wanted <= dim.hi else max(dim.lo, min(size - 1, dim.hi))


def _near(dim: Dim, size: int) -> int:
    """The documented size nearest to one that is wanted."""
    if dim.choices is not None:
        return min(dim.choices, key=lambda n: (abs(n - size), n))
    return max(dim.lo, size if dim.hi is None else min(size, dim.hi))
