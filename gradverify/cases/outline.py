"""What a spec file declares, read from its text with `ast`: nothing is imported, so listing is quick and harmless."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, TypeGuard

import msgspec


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """One spec of a file. `inputs` are `name[shape]`, with `?` where None is documented; `op` is source text."""

    name: str
    op: str
    line: int
    inputs: tuple[str, ...] = ()
    contract: str = "exact"


def outlines(text: str, *, file: str = "<spec>") -> tuple[Outline, ...]:
    """The specs that the text declares at module level: decorated functions, and assigned Spec(...) or spec(op)(...).

    Specs made in loops or by helpers are not seen; importing the file finds them. Raises SyntaxError.
    """
    module = ast.parse(text, filename=file)
    words = _Words(module)
    return tuple(found for node in module.body for found in _declared(node, words))


class _Words:
    """How a module spells gradverify's names, and what its own names stand for."""

    def __init__(self, module: ast.Module) -> None:
        self.packages: set[str] = set()
        self.names: dict[str, str] = {}
        self.values: dict[str, ast.expr] = {}
        for node in module.body:
            self._learn(node)

    def _learn(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import):
            self.packages |= {a.asname or a.name for a in node.names if a.name == "gradverify"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gradverify":
            self.names |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.Assign):
            self.values |= {t.id: node.value for t in node.targets if isinstance(t, ast.Name)}

    def is_ours(self, node: ast.AST, word: str) -> bool:
        """Whether an expression is gradverify's `word`."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id) == word
        return isinstance(node, ast.Attribute) and node.attr == word and ast.unparse(node.value) in self.packages

    def calls(self, node: ast.AST, word: str) -> TypeGuard[ast.Call]:
        """Whether an expression calls gradverify's `word`."""
        return isinstance(node, ast.Call) and self.is_ours(node.func, word)


def _declared(node: ast.stmt, words: _Words) -> Iterator[Outline]:
    if isinstance(node, ast.FunctionDef):
        for mark in node.decorator_list:
            if words.calls(mark, "spec"):
                yield _of_call(mark, name=node.name, line=node.lineno, inputs=_inputs(node, words))
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        yield from _assigned(node.value, node.targets[0].id, node.lineno, words)


def _assigned(value: ast.expr, name: str, line: int, words: _Words) -> Iterator[Outline]:
    if words.calls(value, "Spec") or words.calls(value, "from_data"):
        yield _of_call(value, name=_op_name(value) or name, line=line, inputs=tuple(_args(value, words)))
    elif isinstance(value, ast.Call) and words.calls(value.func, "spec"):
        yield _of_call(value.func, name=name, line=line, inputs=())


def _of_call(call: ast.Call, *, name: str, line: int, inputs: tuple[str, ...]) -> Outline:
    given = {k.arg: k.value for k in call.keywords if k.arg}
    op = call.args[0] if call.args else given.get("op")
    named = given.get("name")
    return Outline(
        name=named.value if isinstance(named, ast.Constant) and isinstance(named.value, str) else name,
        op=_op_text(op),
        line=line,
        inputs=inputs,
        contract=_contract(given),
    )


def _op_name(call: ast.Call) -> str:
    """What a spec without a name of its own is called: by its op, where the text says that."""
    given = {k.arg: k.value for k in call.keywords if k.arg}
    text = _op_text(call.args[0] if call.args else given.get("op")).removesuffix(".apply")
    name = text.rpartition(":")[2] if ":" in text else text.rpartition(".")[2]
    return name if name.isidentifier() else ""


def _op_text(op: ast.expr | None) -> str:
    if op is None:
        return ""
    return op.value if isinstance(op, ast.Constant) and isinstance(op.value, str) else ast.unparse(op)


def _contract(given: dict[str, ast.expr]) -> str:
    rules = ("backward_of", "vjp")
    named: list[str] = [word for word in rules if word in given and ast.unparse(given[word]) != "None"]
    whole = given.get("contract")
    if whole is not None and not named:
        kinds = [k.value for c in ast.walk(whole) if isinstance(c, ast.Call) for k in c.keywords if k.arg == "kind"]
        named = [str(k.value) for k in kinds if isinstance(k, ast.Constant)]
    return named[0] if named else "exact"


def _inputs(node: ast.FunctionDef, words: _Words) -> tuple[str, ...]:
    parameters = [*node.args.posonlyargs, *node.args.args]
    shapes = [(p.arg, _shape(p.annotation, words)) for p in parameters]
    return tuple(f"{name}{shape}" for name, shape in shapes if shape is not None)


def _args(call: ast.Call, words: _Words) -> Iterator[str]:
    """What the arguments are: `{"x": "*b k", "w": Arg("k")}`, or `Arg(name="x", shape="*b k")` anywhere in the call."""
    data = next((a for a in (*call.args[1:], *_given(call, "args")) if isinstance(a, ast.Dict)), None)
    if data is not None:
        named = [(k.value, v) for k, v in zip(data.keys, data.values, strict=True) if isinstance(k, ast.Constant)]
        yield from (f"{name!s}{_data(value, words)}" for name, value in named)
        return
    for node in ast.walk(call):
        if words.calls(node, "Arg"):
            yield f"{_constants(node).get('name', '')!s}{_data(node, words)}"


def _given(call: ast.Call, word: str) -> list[ast.expr]:
    return [k.value for k in call.keywords if k.arg == word]


def _constants(call: ast.Call) -> dict[str | None, Any]:
    return {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}


def _data(value: ast.expr, words: _Words) -> str:
    """`[*b k]` of a shape or an Arg, with `?` where None is documented; nested values as they are written."""
    if isinstance(value, ast.Constant):
        return f"[{value.value!s}]"
    if not words.calls(value, "Arg"):
        return f"[{ast.unparse(value)}]"
    fields = _constants(value)
    shape = value.args[0].value if value.args and isinstance(value.args[0], ast.Constant) else fields.get("shape", "")
    return f"[{shape!s}]{'?' if fields.get('optional') else ''}"


def _shape(annotation: ast.expr | None, words: _Words) -> str | None:
    """`[*b k]` of `Annotated[Tensor, "*b k"]` or `Float[Tensor, "*b k"]`; None where it describes no tensor."""
    if annotation is None:
        return None
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _shape(_parsed(annotation.value), words)
    if isinstance(annotation, ast.Name) and annotation.id in words.values:
        return _shape(words.values[annotation.id], words)
    if isinstance(annotation, ast.BinOp):
        inner = _shape(annotation.left, words)
        return f"{inner}?" if inner else None
    return _subscripted(annotation)


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _subscripted(annotation: ast.expr) -> str | None:
    if not (isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple)):
        return None
    words = [e.value for e in annotation.slice.elts[1:] if isinstance(e, ast.Constant) and isinstance(e.value, str)]
    return f"[{words[0]}]" if words and "Tensor" in ast.unparse(annotation.slice.elts[0]) else None
