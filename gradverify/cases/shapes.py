"""Shapes by letters: jaxtyping's grammar, parsed once, and evaluated at given sizes."""

from __future__ import annotations

import ast
import keyword
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from gradverify.errors import SpecError
from gradverify.records.case import Sizes
from gradverify.records.spec import Arg, Spec

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
                        f"argument {arg.name!r}: {letter!r} of shape {arg.shape!r} is one axis here "
                        f"and many (`*{letter}`) elsewhere, or the other way round; use two letters."
                    )
    return found


def validate(spec: Spec) -> None:
    """Raise SpecError, naming the argument, where shapes, sizes and domains of a spec contradict each other."""
    if not spec.args and spec.inputs is None:
        raise SpecError(f'{spec.name}: no argument is a tensor; declare one, as in x: Annotated[Tensor, "*b k"].')
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
