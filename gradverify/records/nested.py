"""Nested values: lists, tuples, dicts and dataclasses as named leaves, `xs[0]`, `params['w']`, `y.loss`."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

STEP = re.compile(r"\[(\d+)\]|\['([^']+)'\]")
"""One step into a nested argument, as its name spells it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an argument in the nested value that an op is called with."""

    name: str


def leaves(value: Any, name: str, *, whole: type | None = None) -> Iterator[tuple[str, Any]]:
    """What is not a container, or is a `whole`, depth first, under the name by which Python reads it from `name`.

    Keys of a mapping come in the order of their spelling, whatever order it was filled in.
    """
    inside = None if whole and isinstance(value, whole) else _children(value)
    if inside is None:
        yield name, value
    else:
        for step, child in inside.items():
            yield from leaves(child, f"{name}{step}", whole=whole)


def is_nested(value: Any) -> bool:
    """Whether a value is a container."""
    return _children(value) is not None


def mapped(value: Any, name: str, change: Callable[[str, Any], Any], *, whole: type | None = None) -> Any:
    """A copy of a nested value in which `change(name, leaf)` stands for each leaf."""
    inside = None if whole and isinstance(value, whole) else _children(value)
    if inside is None:
        return change(name, value)
    new = {step: mapped(child, f"{name}{step}", change, whole=whole) for step, child in inside.items()}
    if isinstance(value, Mapping):
        return _filled(value, {key: new[f"[{key!r}]"] for key in value})
    if isinstance(value, tuple | list):
        return type(value)(*new.values()) if hasattr(value, "_fields") else type(value)(new.values())
    twin = copy.copy(value)
    for f in fields(value):
        object.__setattr__(twin, f.name, new[f".{f.name}"])
    return twin


def slots(template: Any) -> tuple[str, ...]:
    """Names of the arguments that stand in a nested value, in order."""
    return tuple(leaf.name for _, leaf in leaves(template, "") if isinstance(leaf, Slot))


def owners(nested: Mapping[str, Any]) -> dict[str, str]:
    """Argument -> the parameter in whose nested value it stands."""
    return {name: parameter for parameter, value in nested.items() for name in slots(value)}


def parameters(names: Iterable[str], nested: Mapping[str, Any]) -> tuple[str, ...]:
    """What the op is given for these arguments, in their order: itself, or the nested value that holds it."""
    owner = owners(nested)
    return tuple(dict.fromkeys([*(owner.get(n, n) for n in names), *nested]))


def root(name: str) -> str:
    """The parameter that an argument belongs to: `xs` of `xs[0]`."""
    return name.partition("[")[0]


def templates(names: Iterable[str]) -> dict[str, Any]:
    """The lists and dicts that names such as `xs[0]` and `params['w']` spell, by parameter.

    Raises ValueError, naming the argument, where the spelling is not that, or mixes positions and keys.
    """
    found: dict[str, Any] = {}
    for name in (n for n in names if "[" in n):
        _place(found, name)
    return {parameter: _listed(tree, parameter) for parameter, tree in found.items()}


def _place(found: dict[str, Any], name: str) -> None:
    owner = root(name)
    rest = name[len(owner) :]
    steps = [int(m[1]) if m[1] else m[2] for m in STEP.finditer(rest)]
    if not owner.isidentifier() or "".join(m[0] for m in STEP.finditer(rest)) != rest:
        raise ValueError(f"argument {name!r}: write a nested argument as xs[0] or params['w'].")
    tree = found.setdefault(owner, {})
    for step in steps[:-1]:
        tree = tree.setdefault(step, {})
    if not isinstance(tree, dict) or steps[-1] in tree:
        raise ValueError(f"argument {name!r}: another argument stands in its place.")
    tree[steps[-1]] = Slot(name)


def _listed(tree: Any, parameter: str) -> Any:
    """Dicts whose keys are positions as lists."""
    if not isinstance(tree, dict):
        return tree
    inside = {key: _listed(child, parameter) for key, child in tree.items()}
    if all(isinstance(key, str) for key in inside):
        return inside
    if set(inside) != set(range(len(inside))):
        raise ValueError(f"argument {parameter!r}: its positions are {list(inside)}; name them from 0 without a gap.")
    return [inside[i] for i in range(len(inside))]


def _children(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        return {f"[{key!r}]": value[key] for key in sorted(value, key=repr)}
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        return {f"[{i}]" if names is None else f".{names[i]}": child for i, child in enumerate(value)}
    if is_dataclass(value) and not isinstance(value, type | Slot):
        return {f".{f.name}": getattr(value, f.name) for f in fields(value)}
    return None


def _filled(mapping: Mapping[Any, Any], new: Mapping[Any, Any]) -> Any:
    """A mapping of the same kind, where it can be written to."""
    if not hasattr(mapping, "__setitem__"):
        return dict(new)
    twin = copy.copy(mapping)
    for key, child in new.items():
        twin[key] = child
    return twin
