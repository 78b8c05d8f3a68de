"""Sizes of the shape letters: which are worth trying, and which fit together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gradverify.cases.shapes import Axis, axis_size, letters, parse, validate
from gradverify.records.case import Sizes
from gradverify.records.spec import Arg, Dim, Spec

MAX_ELEMENTS = 4096
"""No drawn tensor has more elements: a wrong tail of the usual blocks shows, and a case takes about a millisecond."""

MAX_OUTPUT = 16 * MAX_ELEMENTS
"""Nor is the product of all sizes larger, which an output may have for elements."""

SMALL = (1, 2, 3, 4, 5, 6, 7, 8)
ODD = (11, 13, 17, 37)
"""Ordinary sizes above SMALL: primes, so that no block size divides them."""

BLOCKS = (16, 64, 128, 1024)
"""Block sizes to straddle at the edges where the spec names none: what kernels use most."""

Size = TypeVar("Size", int, tuple[int, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Everything about a spec's sizes that is fixed before the first draw.

    Attributes:
        variadic: letter -> whether it stands for many axes, in order of first appearance.
        dims: letter -> the sizes that it may take.
        ordinary, edges: letter -> candidate sizes, the simplest first and the largest last.
        least: letter -> its least ordinary size.
        touching: letter -> the arguments whose shape it is in.
    """

    variadic: Mapping[str, bool]
    dims: Mapping[str, Dim]
    ordinary: Mapping[str, tuple[int, ...]]
    edges: Mapping[str, tuple[int, ...]]
    least: Mapping[str, Sizes]
    touching: Mapping[str, tuple[Arg, ...]]


def ordinary(dim: Dim) -> tuple[int, ...]:
    """Sizes to try ordinarily, smallest first: small ones, primes, both sides of each block; 0 only where all is 0."""
    if dim.choices is not None:
        return tuple(sorted(set(dim.choices) - {0})) or (0,)
    low = max(dim.lo, 1)
    wanted = {low - 1 + n for n in SMALL} | {n for n in ODD if n >= low} | set(_straddling(dim.around))
    return _within(dim, wanted - {0}) or (dim.lo,)


def edges(dim: Dim) -> tuple[int, ...]:
    """Sizes at the edges: 1, 0, then both sides of each block and of its double."""
    if dim.choices is not None:
        return tuple(sorted(set(dim.choices), key=_one_first))
    wanted = {0, 1, dim.lo, *_straddling(dim.around or BLOCKS), *(() if dim.hi is None else (dim.hi,))}
    return tuple(sorted(_within(dim, wanted), key=_one_first))


def _straddling(blocks: Iterable[int]) -> Iterator[int]:
    for block in blocks:
        yield from (block - 1, block, block + 1, 2 * block + 1)


def _within(dim: Dim, sizes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(n for n in set(sizes) if dim.lo <= n and (dim.hi is None or n <= dim.hi)))


def _one_first(size: int) -> tuple[bool, int]:
    return size != 1, size


def fitting(
    letter: str, candidates: tuple[Size, ...], outline: Outline, *, known: Mapping[str, Sizes]
) -> tuple[Size, ...]:
    """Those sizes of a letter that keep every tensor within MAX_ELEMENTS and no expression negative.

    `known`: sizes of the letters drawn before. Where nothing fits, the smallest: large dims stay allowed.
    """
    candidates = _within_reach(letter, candidates, known)
    touched = outline.touching[letter]
    expressions = any(axis.tree is not None for arg in touched for axis in parse(arg.shape, arg.name))
    if not expressions and _elements(touched, outline.least, {**known, letter: candidates[-1]}) <= MAX_ELEMENTS:
        return candidates
    cost = {n: _elements(touched, outline.least, {**known, letter: n}) for n in candidates}
    if all(math.isinf(elements) for elements in cost.values()):
        wanted = _nearest(letter, candidates, outline, known)
        cost = {n: _elements(touched, outline.least, {**known, letter: n}) for n in wanted} or cost
    fit = tuple(n for n, elements in cost.items() if elements <= MAX_ELEMENTS)
    return fit or (min(cost, key=lambda n: cost[n]),)


def _within_reach(letter: str, candidates: tuple[Size, ...], known: Mapping[str, Sizes]) -> tuple[Size, ...]:
    """An output may have all letters: their product is held below MAX_OUTPUT, where any candidate allows it."""
    others = math.prod(max(_total(n), 1) for k, n in known.items() if k != letter)
    return tuple(n for n in candidates if _total(n) * others <= MAX_OUTPUT) or candidates[:1]


def _total(size: Sizes) -> int:
    return math.prod(size) if isinstance(size, tuple) else size


def _nearest(
    letter: str, candidates: tuple[Size, ...], outline: Outline, known: Mapping[str, Sizes]
) -> tuple[Any, ...]:
    """Sizes that an expression over other letters asks for: near theirs, and near their doubles."""
    if isinstance(candidates[0], tuple):
        return ()
    others = [n for n in known.values() if isinstance(n, int)]
    wanted = _within(outline.dims[letter], [n for o in others for n in (o, o + 1, 2 * o, 2 * o + 1)])
    able = [n for n in wanted if _elements(outline.touching[letter], outline.least, {**known, letter: n}) < math.inf]
    return tuple(able)


def _elements(args: Iterable[Arg], least: Mapping[str, Sizes], known: Mapping[str, Sizes]) -> float:
    """Elements of the largest tensor, letters to come at their least; infinite where a size is negative."""
    return max((math.prod(_count(axis, least, known) for axis in parse(a.shape, a.name)) for a in args), default=0)


def _count(axis: Axis, least: Mapping[str, Sizes], known: Mapping[str, Sizes]) -> float:
    if axis.tree is not None and not all(n in known for n in axis.letters):
        return 1
    try:
        size = axis_size(axis, {**least, **known})
    except ZeroDivisionError:
        return math.inf
    count = math.prod(max(n, 1) for n in size) if isinstance(size, tuple) else size
    return math.inf if count < 0 else max(count, 1)


def outline(spec: Spec) -> Outline:
    """The sizes to draw from. Raises SpecError where the spec contradicts itself."""
    validate(spec)
    variadic = letters(spec.args)
    dims = {n: spec.dims.get(n, Dim()) for n in variadic}
    sizes = {n: ordinary(d) for n, d in dims.items()}
    # An index needs something to point at, and a simplex needs a corner.
    indexed = {a.domain.of for a in spec.args if a.domain.of and a.domain.kind != "parameter"}
    return Outline(
        variadic=variadic,
        dims=dims,
        ordinary=sizes,
        edges={n: tuple(s for s in edges(d) if s or n not in indexed) or sizes[n] for n, d in dims.items()},
        least={n: () if variadic[n] else s[0] for n, s in sizes.items()},
        touching={n: tuple(a for a in spec.args if n in letters([a])) for n in variadic},
    )
