"""What no random draw may be left to meet: special values, sizes at the edge, masks and layouts, each in a case."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import msgspec
from torch import Tensor

from gradverify.cases import layouts, regimes, shapes, sizes, strategies
from gradverify.cases.crowded import SHIFTED, crowded
from gradverify.cases.materialise import materialise
from gradverify.cases.pins import Pins
from gradverify.cases.strategies import Plan
from gradverify.errors import SpecError
from gradverify.records.case import Case, Scalar, Sizes
from gradverify.records.claims import CLAIMS
from gradverify.records.spec import Arg, Spec

T = TypeVar("T")

CAP = 40
"""Most cases of one claim; more are thinned evenly."""

PLAIN = 3
"""Combinations of keyword values under a transform, which costs much and depends on them little."""

COMPILED = ("transforms.compile", "transforms.opcheck")
"""Claims for which torch compiles each case: two combinations."""

COMBINATIONS = 8
"""Most combinations of keyword values, unless one keyword alone has more values."""

SPECIAL = ("zeros", "ties", "bounds", "saturated", "shifted")
SCALES = ("scaled 1e-6", "scaled 1e+6")
MEMORY = ("transposed", "sliced", "expanded", "channels_last")

LONG = 1361
"""Terms enough for the roundings of a narrow accumulator to outgrow one of the result; thrice it is below the cap."""

SMALL = 3
"""Size of a letter that nothing is asked of; the next letters take the next sizes: two that are swapped show."""

ATTEMPTS = 64
"""Seeds tried for values that a regime gives by chance only."""

Labelled = Iterator[tuple[str, Pins]]


def sweep(
    spec: Spec, claim: str, *, dtype: str = "float64", device: str = "cpu", seed: int = 0
) -> tuple[tuple[Case, Pins], ...]:
    """The cases of a claim that come before the drawn ones, each with what makes it special. Nothing is drawn.

    Empty for claims whose answer hardly depends on the case, and where `inputs=` or a strategy gives the values.
    Raises SpecError where the spec contradicts itself.
    """
    if claim not in _SWEEPS or spec.inputs is not None or any(a.strategy is not None for a in spec.args):
        return ()
    plan = strategies.plan_of(spec, claim, dtype, device)
    combinations = keywords(spec)
    found: dict[Case, Pins] = {}
    for place, (label, pins) in enumerate(spread(tuple(_SWEEPS[claim](plan)), CAP)):
        offered = [pins.kwargs] if pins.kwargs else _rotated(combinations, place)
        case = _best(plan, pins, offered)
        if case is not None:
            found.setdefault(_seeded(spec, case, f"{seed}/{spec.name}/{claim}/{label}"), _with(pins, case))
    return tuple(found.items())


def spread(items: Sequence[T], count: int) -> tuple[T, ...]:
    """At most `count` of the items, evenly spread, in order."""
    count = min(count, len(items))
    return tuple(items[i * len(items) // count] for i in range(count))


def keywords(spec: Spec) -> list[Mapping[str, Scalar]]:
    """Combinations of the documented values in which each value of each keyword occurs: all where these are few."""
    columns = list(spec.kwargs.values())
    total = math.prod(map(len, columns))
    longest = max(map(len, columns), default=1)
    # One diagonal has every value; what room is left goes to combinations from all over.
    rows = [tuple(c[i % len(c)] for c in columns) for i in range(longest if total > COMBINATIONS else 0)]
    count = max(COMBINATIONS - len(rows), 0)
    # A product is never listed whole: eleven keywords of two values are 2048 combinations, and twenty a million.
    rows += [_row(columns, i * total // min(count, total)) for i in range(min(count, total))]
    return [dict(zip(spec.kwargs, row, strict=True)) for row in rows]


def _row(columns: Sequence[Sequence[Scalar]], number: int) -> tuple[Scalar, ...]:
    row = []
    for column in reversed(columns):
        number, place = divmod(number, len(column))
        row.append(column[place])
    return tuple(reversed(row))


def _rotated(items: list[T], by: int) -> list[T]:
    by %= len(items)
    return items[by:] + items[:by]


def _with(pins: Pins, case: Case) -> Pins:
    return replace(pins, kwargs=dict(case.kwargs))


def _ordinary(plan: Plan) -> Labelled:
    """Vjp: each keyword, all scaled, each optional argument absent. Special values are swept by `special`."""
    for place, combination in enumerate(keywords(plan.spec)):
        yield f"plain {place}", Pins(kwargs=combination)
    for scale in SCALES:
        able = {a.name: scale for a in plan.spec.args if scale in regimes.regimes(a.domain, plan.dtype)}
        if able:
            yield scale, Pins(regimes=able)
    yield from _absent(plan)
    yield from _broadcast(plan)


def _values(plan: Plan) -> Labelled:
    """Forward: what vjp sweeps, and each special regime of each argument."""
    yield from _ordinary(plan)
    for arg in plan.spec.args:
        yield from _each(arg, _special(arg, plan.dtype))


def _each(arg: Arg, words: Sequence[str]) -> Labelled:
    for word in words:
        yield f"{arg.name} {word}", Pins(regimes={arg.name: word})
        if word == "zeros" and arg.domain.kind == "real":
            yield f"{arg.name} zeros {_ALL}", Pins(regimes={arg.name: word})


def _special_values(plan: Plan) -> Labelled:
    """Special: each special regime of each argument; zeros, ties and each extreme size of all at once; one element."""
    for arg in plan.spec.args:
        yield from _each(arg, regimes.special(arg.domain, plan.dtype))
    real = [a for a in plan.spec.args if a.domain.kind in regimes.INTERVALS]
    for word in ("zeros", "ties", *regimes.EXTREME):
        able = {a.name: word for a in real if word in strategies.special_regimes(plan, a)}
        if len(able) > (word not in regimes.EXTREME):
            yield f"all {word}", Pins(regimes=able)
    single: dict[str, Sizes] = {n: (1,) if several else 1 for n, several in plan.sizes.variadic.items()}
    fits = {n: size for n, size in single.items() if 1 in plan.sizes.edges[n]}
    zeros = {a.name: "zeros" for a in real if "zeros" in regimes.special(a.domain, plan.dtype)}
    yield f"one element {_ALL}", Pins(dims=fits, regimes=zeros)


def _special(arg: Arg, dtype: str) -> tuple[str, ...]:
    offered = dict.fromkeys(regimes.regimes(arg.domain, dtype))
    interval = arg.domain.kind in ("real", "positive")
    return tuple(r for r in offered if (r in SPECIAL if interval else r not in ("normal", "ramp")))


def _absent(plan: Plan) -> Labelled:
    for arg in plan.spec.args:
        if arg.optional:
            yield f"{arg.name} absent", Pins(regimes={arg.name: regimes.ABSENT})


def _broadcast(plan: Plan) -> Labelled:
    for arg in plan.spec.args:
        ones: dict[str, Sizes] = {}
        for axis in shapes.parse(arg.shape, arg.name):
            if axis.broadcast and axis.kind == "variadic":
                ones |= {axis.key: (2,), f"{arg.name}#{axis.key}": (1,)}
            elif axis.broadcast:
                ones[f"{arg.name}#{axis.key}"] = 1
        if ones:
            yield f"{arg.name} broadcast", Pins(dims=ones)


def _edges(plan: Plan) -> Labelled:
    """Edges: each letter in turn, and all, at 0 and 1; then at its bounds and about its blocks, thinned to the cap."""
    extremes: list[tuple[str, Pins]] = []
    blocks: list[tuple[str, Pins]] = []
    together: dict[int, dict[str, Sizes]] = {0: {}, 1: {}}
    for name, several in plan.sizes.variadic.items():
        if several:
            extremes.append((f"{name} scalar", Pins(dims={name: ()})))
        for size in edge_sizes(plan, name):
            pinned: Sizes = (size,) if several else size
            (extremes if size < 2 else blocks).append((f"{name} {size}", Pins(dims={name: pinned})))
            if size < 2:
                together[size][name] = pinned
    extremes += [(f"all {size}", Pins(dims=dims)) for size, dims in together.items() if dims]
    yield from (*extremes, *spread(blocks, max(CAP - len(extremes), 0)))


def edge_sizes(plan: Plan, name: str) -> tuple[int, ...]:
    """The sizes of a letter to sweep: 0, 1, bounds, both sides of each block of its own, or one above usual blocks."""
    dim, offered = plan.sizes.dims[name], plan.sizes.edges[name]
    if dim.choices is not None or dim.around:
        return offered
    wanted = (0, 1, dim.lo, dim.hi, *(block + 1 for block in sizes.BLOCKS))
    return tuple(n for n in offered if n in wanted)


def _masks(plan: Plan) -> Labelled:
    """Partial: every mask of arguments; which outputs are used is tried in each case."""
    yield from _subsets(plan)
    yield from _absent(plan)


def _tangents(plan: Plan) -> Labelled:
    """Jvp: what vjp meets, and tangents on some of the arguments only."""
    yield from _values(plan)
    yield from _subsets(plan)


def _subsets(plan: Plan) -> Labelled:
    """Every mask of few arguments, a covering set of many."""
    for mask in strategies.masks(plan.spec.differentiable()):
        yield f"mask {mask}", Pins(differentiate=mask)


def _digits(plan: Plan) -> Labelled:
    """Precision: small sizes with each keyword value, each letter long, then values of which digits cancel."""
    yield from _long(plan)
    yield from _crowded(plan)


def _long(plan: Plan) -> Labelled:
    """Small sizes with each keyword value, then each letter long: roundings that add up need terms."""
    for place, combination in enumerate(spread(keywords(plan.spec), PLAIN)):
        yield f"plain {place}", Pins(kwargs=combination)
    for name, several in plan.sizes.variadic.items():
        size = _longest(plan, name)
        if size > max(sizes.ODD):
            yield f"{name} {size}", Pins(dims={name: (size,) if several else size})


def _crowded(plan: Plan) -> Labelled:
    """Precision: values far from zero, and near each other, all arguments at once and then each alone."""
    able = {a.name: crowded(a.domain, plan.dtype) for a in plan.spec.args}
    for word in dict.fromkeys(w for words in able.values() for w in words):
        names = [n for n, words in able.items() if word in words]
        yield f"all {word}", Pins(regimes=dict.fromkeys(names, word))
        if len(names) > 1 and word in SHIFTED:
            yield from ((f"{n} {word}", Pins(regimes={n: word})) for n in names)


def _longest(plan: Plan, name: str) -> int:
    """LONG, or the size nearest to it that the letter may have."""
    dim = plan.sizes.dims[name]
    if dim.choices is not None:
        return min(dim.choices, key=lambda n: abs(n - LONG))
    return max(LONG if dim.hi is None else min(LONG, dim.hi), dim.lo)


def _memory(plan: Plan) -> Labelled:
    """Layout: each argument in turn in each layout that it can have, then the cotangents in each."""
    for arg in plan.spec.args:
        for word in MEMORY:
            dims = _able(plan, arg, word)
            if dims is not None:
                yield f"{arg.name} {word}", Pins(dims=dims, layouts={arg.name: word})
    for word in MEMORY:
        # An output has the axes of an argument, or one axis fewer, or its own.
        able = [_able(plan, a, word, spare=word == "transposed") for a in plan.spec.args]
        if word != "channels_last" or any(d is not None for d in able):
            yield f"cotangent {word}", Pins(dims=next(filter(None, able), {}), cotangents=(word,))
    yield f"cotangent {layouts.STRIDE_ZERO}", Pins(cotangents=(layouts.STRIDE_ZERO,))


def _able(plan: Plan, arg: Arg, word: str, *, spare: bool = False) -> dict[str, Sizes] | None:
    """Sizes of the letter for many axes, if there is one, with which a layout differs from the contiguous one.

    The fewest axes that will do, and one more where one is to spare; None where no sizes will do.
    """
    many = next((axis.key for axis in shapes.parse(arg.shape, arg.name) if axis.kind == "variadic"), None)
    tried: list[dict[str, Sizes]] = [{}]
    if many is not None:
        options = plan.sizes.ordinary[many]
        tried += [{many: tuple(_nearest(options, SMALL + i) for i in range(n))} for n in range(2, 5)]
    found = [dims for dims in tried if _takes(plan, arg, word, dims)]
    return found[min(spare, len(found) - 1)] if found else None


def _takes(plan: Plan, arg: Arg, word: str, dims: Mapping[str, Sizes]) -> bool:
    case = _best(plan, Pins(dims=dims), keywords(plan.spec))
    if case is None or not strategies.allowed(plan.spec, case):
        return False
    return word in strategies.offered_layouts(plan.spec, arg, shapes.shape_of(arg, dict(case.dims)))


def _views(plan: Plan) -> Labelled:
    """Complex: nothing lazy, each argument in turn, the cotangents, then all of them, each with other keywords."""
    names = strategies.lazy(plan.spec)
    yield "plain", Pins()
    for name in names:
        yield f"{name} lazy", Pins(layouts={name: layouts.LAZY})
    yield "cotangents lazy", Pins(cotangents=(layouts.LAZY,))
    yield "all lazy", Pins(layouts=dict.fromkeys(names, layouts.LAZY), cotangents=(layouts.LAZY,))


def _plain(plan: Plan) -> Labelled:
    """Transforms: small sizes that differ from letter to letter, and a few combinations of keywords."""
    for place, combination in enumerate(spread(keywords(plan.spec), PLAIN if plan.claim not in COMPILED else 2)):
        yield f"plain {place}", Pins(kwargs=combination)


_SWEEPS: Mapping[str, Callable[[Plan], Labelled]] = MappingProxyType(
    {
        "forward": _values,
        "vjp": _ordinary,
        "special": _special_values,
        "jvp": _tangents,
        "edges": _edges,
        "partial": _masks,
        "layout": _memory,
        "complex": _views,
        "precision": _digits,
    }
    | {claim: _plain for claim in CLAIMS if claim.startswith("transforms.")}
)


def _best(plan: Plan, pins: Pins, offered: Sequence[Mapping[str, Scalar]]) -> Case | None:
    """The first case that `where` accepts, else the first at all: the engine counts what `where` refuses.

    None where no sizes fit the pins.
    """
    refused = None
    for kwargs, dims in itertools.product(offered, _candidates(plan, pins)):
        case = _case(plan, pins, dims, kwargs)
        if strategies.allowed(plan.spec, case):
            return case
        refused = refused or case
    return refused


def _case(plan: Plan, pins: Pins, dims: Mapping[str, Sizes], kwargs: Mapping[str, Scalar]) -> Case:
    words = dict(pins.regimes) | strategies.repeated(pins.layouts)
    present = tuple(n for n in plan.spec.differentiable() if words.get(n) != regimes.ABSENT)
    return strategies.case_of(
        plan,
        dims=dims,
        kwargs=kwargs,
        layouts=tuple(pins.layouts.items()),
        values=tuple(words.items()),
        differentiate=present if pins.differentiate is None else pins.differentiate,
        cotangents=pins.cotangents,
    )


def _candidates(plan: Plan, pins: Pins) -> Iterator[dict[str, Sizes]]:
    """Small sizes around the pinned ones: rising and falling from letter to letter, then all the same.

    First those with which nothing is empty that is not pinned to be.
    """
    count = len(plan.sizes.variadic)
    rising = [SMALL + i for i in range(count)]
    wanted = (rising, rising[::-1], *([n] * count for n in (4, 3, 2, 1)))
    sized = (_sized(plan, pins, dict(zip(plan.sizes.variadic, w, strict=True))) for w in wanted)
    emptied: list[dict[str, Sizes]] = []
    for dims in sized:
        if not _fits(plan, dims):
            continue
        if any(_elements(a, dims) == 0 for a in plan.spec.args):
            emptied.append(dims)
        else:
            yield dims
    yield from emptied


def _sized(plan: Plan, pins: Pins, wanted: Mapping[str, int]) -> dict[str, Sizes]:
    dims: dict[str, Sizes] = dict(pins.dims)
    for name, several in plan.sizes.variadic.items():
        if name in dims:
            continue
        options = plan.sizes.ordinary[name]
        if several:
            dims[name] = sizes.fitting(name, ((), (_nearest(options, 2),)), plan.sizes, known=dims)[-1]
        else:
            dims[name] = _nearest(sizes.fitting(name, options, plan.sizes, known=dims), wanted[name])
    for arg in plan.spec.args:
        for axis in shapes.parse(arg.shape, arg.name):
            if axis.broadcast:
                dims.setdefault(f"{arg.name}#{axis.key}", shapes.axis_size(axis, dims))
    return dims


def _nearest(options: Sequence[int], wanted: int) -> int:
    return min(options, key=lambda n: (n < 2, abs(n - wanted), n))


def _fits(plan: Plan, dims: Mapping[str, Sizes]) -> bool:
    """Whether no size is negative, and no tensor larger than the cap or than what the least sizes ask for."""
    least: dict[str, Sizes] = dict(plan.sizes.least)
    room = max(sizes.MAX_ELEMENTS, *(_elements(a, least) or 0 for a in plan.spec.args))
    return all((n := _elements(a, dims)) is not None and n <= room for a in plan.spec.args)


def _elements(arg: Arg, dims: Mapping[str, Sizes]) -> int | None:
    try:
        return math.prod(shapes.shape_of(arg, dims))
    except (SpecError, ZeroDivisionError):
        return None


def _seeded(spec: Spec, case: Case, label: str) -> Case:
    """The case with a seed of its own: for zeros the first that gives all, or some, as the label asks."""
    seeds = (_hash(f"{label}/{i}") for i in range(ATTEMPTS))
    able = (msgspec.structs.replace(case, seed=s) for s in seeds)
    zeros = [n for n, word in case.values if word == "zeros" and spec.arg(n).domain.kind == "real"]
    if not zeros:
        return next(able)
    wanted = _all_zero if label.endswith(_ALL) else _single_zero
    first, *others = able
    return next((c for c in (first, *others) if wanted(materialise(spec, c).primals[zeros[0]])), first)


_ALL = "everywhere"


def _all_zero(tensor: Tensor | None) -> bool:
    return tensor is not None and not bool(tensor.any())


def _single_zero(tensor: Tensor | None) -> bool:
    """Whether some line along the last axis has one zero: two hide what each would show."""
    if tensor is None or tensor.ndim == 0:
        return True
    return bool(((tensor == 0).sum(-1) == 1).any())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % strategies.SEEDS
