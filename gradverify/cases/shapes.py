"""Shapes by letters: jaxtyping's grammar, parsed once; sizes for the letters; shapes from sizes."""

from __future__ import annotations

import ast
import keyword
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

from gradverify.errors import SpecError
from gradverify.records.case import Sizes
from gradverify.records.spec import Arg, Dim, Spec

MAX_ELEMENTS = 4096
"""No drawn tensor has more elements: a wrong block tail shows at 129, and a case stays below a millisecond."""

SMALL = (1, 2, 3, 4, 5, 6, 7, 8)
ODD = (11, 13, 17, 37)
"""Ordinary sizes above SMALL: primes, so that no block size divides them."""

BLOCKS = (16, 64, 128)
"""Block sizes to straddle at the edges where the spec names none: what kernels use most."""

Size = TypeVar("Size", int, tuple[int, ...])

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CALLS: dict[str, Callable[[Iterable[int]], int]] = {"min": min, "max": max}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One word of a shape. `key` is where its size stands in a case's dims; of an expression, its letters are used.

    `broadcast` axes have size 1 or the letter's; which of the two stands in the dims under `argument#key`.
    """

    kind: Literal["fixed", "symbol", "variadic", "expression"]
    key: str = ""
    size: int = 0
    tree: ast.expr | None = None
    letters: tuple[str, ...] = ()
    broadcast: bool = False


@lru_cache(maxsize=1024)
def parse(shape: str, argument: str) -> tuple[Axis, ...]:
    """The axes of a shape in jaxtyping's grammar; "" is a scalar.

    `k` symbol, `3` fixed, `*b` or `...` any axes, `#k` and `#*b` broadcast, `k-1` expression, `_` any size.
    Raises SpecError, naming the argument, for a word outside the grammar and for two variadic words.
    """
    axes = tuple(_axis(word, argument, place) for place, word in enumerate(shape.split()))
    if sum(a.kind == "variadic" for a in axes) > 1:
        raise SpecError(
            f"argument {argument!r}: shape {shape!r} has two variadic words; one is the most that can be told apart."
        )
    return axes


def _axis(word: str, argument: str, place: int) -> Axis:
    body = word.lstrip("#*")
    marks = word[: len(word) - len(body)]
    named, _, rest = body.partition("=")
    body = rest if rest and named.isidentifier() else body
    broadcast, variadic = "#" in marks, "*" in marks
    if body == "..." and not variadic:
        return Axis(kind="variadic", key=f"{argument}...", letters=(f"{argument}...",), broadcast=broadcast)
    if body == "_" and not variadic:
        return Axis(kind="symbol", key=f"{argument}.{place}", letters=(f"{argument}.{place}",))
    if body.isdigit() and not variadic:
        return Axis(kind="fixed", key=body, size=int(body), broadcast=broadcast)
    if body.isidentifier() and not keyword.iskeyword(body):
        return Axis(kind="variadic" if variadic else "symbol", key=body, letters=(body,), broadcast=broadcast)
    tree = _expression(body)
    if tree is None or variadic or marks.count("#") > 1:
        raise SpecError(
            f"argument {argument!r}: {word!r} is no word of a shape; write a letter `k`, a size `3`, `*b`, `...`, "
            f"`#k`, an expression `k-1` without spaces, or `_`."
        )
    return Axis(kind="expression", key=body, tree=tree, letters=_letters(tree), broadcast=broadcast)


def _expression(text: str) -> ast.expr | None:
    try:
        tree = ast.parse(text, mode="eval").body
        # Sizes that no expression of a shape maps to a division by zero by accident.
        evaluate(tree, {name: 997 + place for place, name in enumerate(_letters(tree))})
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError):
        return None
    return tree


def _letters(tree: ast.expr) -> tuple[str, ...]:
    names = (n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
    return tuple(dict.fromkeys(n for n in names if n not in _CALLS))


def evaluate(tree: ast.expr, sizes: Mapping[str, Sizes]) -> int:
    """The value of an integer expression over letters: `+ - * // %`, `min`, `max`, parentheses; nothing is executed.

    Raises ValueError for any other syntax, KeyError for a letter without a size, ZeroDivisionError as arithmetic does.
    """
    match tree:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name) if isinstance(size := sizes[name], int):
            return size
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand, sizes)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](evaluate(left, sizes), evaluate(right, sizes))
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as args, keywords=[]) if name in _CALLS:
            return _CALLS[name]([evaluate(a, sizes) for a in args])
    raise ValueError(ast.dump(tree))


def shape_of(arg: Arg, dims: Mapping[str, Sizes]) -> tuple[int, ...]:
    """The shape of an argument at these sizes.

    Raises SpecError, naming the argument, for a letter without a size and for a negative size.
    """
    return tuple(n for axis in parse(arg.shape, arg.name) for n in _sizes(axis, arg, dims))


def _sizes(axis: Axis, arg: Arg, dims: Mapping[str, Sizes]) -> tuple[int, ...]:
    chosen = dims.get(f"{arg.name}#{axis.key}") if axis.broadcast else None
    try:
        value = axis_size(axis, dims) if chosen is None else chosen
    except KeyError as error:
        raise SpecError(
            f"argument {arg.name!r}: shape {arg.shape!r} needs a size for {error.args[0]!r}; give one."
        ) from None
    sizes = value if isinstance(value, tuple) else (value,)
    if any(n < 0 for n in sizes):
        raise SpecError(
            f"argument {arg.name!r}: {axis.key!r} of shape {arg.shape!r} is {sizes[0]}; no size is negative."
        )
    return sizes


def axis_size(axis: Axis, dims: Mapping[str, Sizes]) -> Sizes:
    """The size of one axis, or the sizes of a variadic one. Raises KeyError for a letter without a size."""
    if axis.kind == "fixed":
        return axis.size
    return dims[axis.key] if axis.tree is None else evaluate(axis.tree, dims)


def letters(args: Iterable[Arg]) -> dict[str, bool]:
    """Every letter of the arguments, in order of first appearance -> whether it is variadic.

    Raises SpecError, naming the argument, where a letter is both one axis and many.
    """
    found: dict[str, bool] = {}
    for arg in args:
        for axis in parse(arg.shape, arg.name):
            for letter in axis.letters:
                if found.setdefault(letter, axis.kind == "variadic") != (axis.kind == "variadic"):
                    raise SpecError(
                        f"argument {arg.name!r}: {letter!r} of shape {arg.shape!r} is one axis here and many (`*{letter}`) "
                        f"elsewhere; use two letters."
                    )
    return found


def validate(spec: Spec) -> None:
    """Raise SpecError, naming the argument, where shapes, sizes and domains of a spec contradict each other."""
    known = letters(spec.args)
    for letter in spec.dims:
        if letter not in known:
            raise SpecError(
                f"{spec.name}: dims has {letter!r}, which no shape uses; the letters are {', '.join(known) or 'none'}."
            )
    for arg in spec.args:
        _validate_domain(spec, arg, known)


def _validate_domain(spec: Spec, arg: Arg, known: Mapping[str, bool]) -> None:
    axes = parse(arg.shape, arg.name)
    kind, of = arg.domain.kind, arg.domain.of
    if kind == "prob" and of not in [a.key for a in axes if a.kind != "variadic"]:
        raise SpecError(
            f"{spec.name}: argument {arg.name!r} is prob({of!r}), but its shape {arg.shape!r} has no axis {of!r}."
        )
    if kind == "index" and known.get(of or "", True):
        raise SpecError(f"{spec.name}: argument {arg.name!r} is index({of!r}), but {of!r} is the size of no axis.")
    if kind == "spd" and (len(axes) < 2 or axes[-1].key != axes[-2].key):
        raise SpecError(
            f"{spec.name}: argument {arg.name!r} is spd, but the last two axes of {arg.shape!r} are not equal."
        )


def ordinary(dim: Dim) -> tuple[int, ...]:
    """Sizes to try ordinarily, smallest first: small ones, primes, both sides of each block; 0 only where there is no other."""
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

    `known`: sizes of the letters drawn before. Where nothing fits, what comes nearest: who asks for large tensors gets them.
    """
    touched = outline.touching[letter]
    expressions = any(axis.tree is not None for arg in touched for axis in parse(arg.shape, arg.name))
    if not expressions and _elements(touched, outline.least, {**known, letter: candidates[-1]}) <= MAX_ELEMENTS:
        return candidates
    cost = {n: _elements(touched, outline.least, {**known, letter: n}) for n in candidates}
    return tuple(n for n, elements in cost.items() if elements <= MAX_ELEMENTS) or (min(cost, key=lambda n: cost[n]),)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Everything about a spec's sizes that is fixed before the first draw.

    Attributes:
        variadic: letter -> whether it stands for many axes, in order of first appearance.
        ordinary, edges: letter -> candidate sizes, the simplest first and the largest last.
        least: letter -> its least ordinary size.
        touching: letter -> the arguments whose shape it is in.
    """

    variadic: Mapping[str, bool]
    ordinary: Mapping[str, tuple[int, ...]]
    edges: Mapping[str, tuple[int, ...]]
    least: Mapping[str, Sizes]
    touching: Mapping[str, tuple[Arg, ...]]


def outline(spec: Spec) -> Outline:
    """The sizes to draw from. Raises SpecError where the spec contradicts itself."""
    validate(spec)
    variadic = letters(spec.args)
    dims = {n: spec.dims.get(n, Dim()) for n in variadic}
    sizes = {n: ordinary(d) for n, d in dims.items()}
    # An index needs something to point at.
    indexed = {a.domain.of for a in spec.args if a.domain.kind == "index"}
    return Outline(
        variadic=variadic,
        ordinary=sizes,
        edges={n: tuple(s for s in edges(d) if s or n not in indexed) or sizes[n] for n, d in dims.items()},
        least={n: () if variadic[n] else s[0] for n, s in sizes.items()},
        touching={n: tuple(a for a in spec.args if n in letters([a])) for n in variadic},
    )
