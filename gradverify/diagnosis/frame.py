"""Where in the source a wrong gradient is returned: the element of backward's `return`, with a caret under it."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradverify.records.finding import Location
from gradverify.records.nested import root
from gradverify.records.spec import Spec

BEFORE = 2
"""Lines shown before the one with the caret."""

WIDEST = 78
"""A line of source is cut behind so many columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The place of an expression, and the lines that show it."""

    location: Location
    lines: tuple[str, ...]


def frame(spec: Spec, argument: str) -> Frame | None:
    """The frame of what backward returns for an argument; None where the source, or the element, cannot be told."""
    backward = getattr(spec.op, "backward", None) if isinstance(spec.op, type) else None
    name = root(argument)
    if backward is None or name not in spec.order:
        return None
    try:
        function = inspect.unwrap(backward)
        source, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or ""
        text = textwrap.dedent("".join(source))
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    node = _element(tree, spec.order.index(name), len(spec.order))
    if node is None or not file:
        return None
    indent = len(source[0]) - len(text.splitlines()[0]) - 1
    return _framed(node, file, first, max(indent, 0), f"gradient of input {spec.order.index(name)}, `{name}`")


def _element(tree: ast.Module, place: int, count: int) -> ast.expr | None:
    """The expression that is returned at a place of several; None where it cannot be told."""
    outer = next((n for n in tree.body if isinstance(n, ast.FunctionDef)), None)
    returns = [r for r in _returns(outer.body) if r.value is not None] if outer is not None else []
    if len(returns) != 1:
        return None
    value: Any = returns[0].value
    if isinstance(value, ast.Tuple):
        plain = len(value.elts) >= count and not any(isinstance(e, ast.Starred) for e in value.elts)
        return value.elts[place] if plain else None
    return value if count == 1 else None


def _returns(body: list[ast.stmt]) -> Iterator[ast.Return]:
    """The return statements of a function, without those of functions inside it."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def _framed(node: ast.expr, file: str, first: int, indent: int, said: str) -> Frame:
    line = first + node.lineno - 1
    col, last = node.col_offset + indent, node.end_lineno == node.lineno
    text = linecache.getline(file, line).rstrip("\n")
    end = (node.end_col_offset or 0) + indent if last else len(text)
    width = len(str(line))
    shown = [(n, linecache.getline(file, n).rstrip("\n")) for n in range(max(line - BEFORE, first), line + 1)]
    caret = f"{'':>{width}} | {' ' * col}{'^' * max(end - col, 1)}"
    caret += f" {said}" if len(caret) + len(said) < WIDEST else ""
    rows = [f"{n:>{width}} | {t}"[:WIDEST].rstrip() for n, t in shown]
    return Frame(
        location=Location(file=file, line=line, col=col + 1, end_col=end + 1), lines=(*rows, caret[:WIDEST].rstrip())
    )
