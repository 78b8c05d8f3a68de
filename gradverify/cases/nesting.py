"""Nested arguments: what an annotation such as `list[Annotated[Tensor, "n"]]` or a dict of shapes declares."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any

from gradverify.cases.annotations import Parameter, argument, reading
from gradverify.errors import SpecError
from gradverify.records.nested import Slot
from gradverify.records.spec import Arg, named_arguments

LENGTH = 2
"""Tensors in a list whose length the annotation leaves open: the fewest that can be mixed up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Tensor arguments, and by parameter the nested values that they make up."""

    args: tuple[Arg, ...] = ()
    nested: Mapping[str, Any]


def of_parameter(parameter: Parameter, *, fallback: str | None = None) -> Declared | None:
    """The tensors in a parameter's annotation, one by one; None where it is no container of tensors.

    A list or a tuple of any length has two; a tuple, TypedDict, NamedTuple or dataclass what it declares.
    Raises SpecError for a dict, whose keys nobody knows, and for a tensor whose shape is missing.
    """
    found: dict[str, Any] = {}
    template = _template(reading(parameter.annotation).core, parameter.name, found)
    if isinstance(template, Slot) or not any(reading(a).is_tensor for a in found.values()):
        return None
    args = [argument(Parameter(name=n, annotation=a), fallback=fallback) for n, a in found.items()]
    for name, made in zip(found, args, strict=True):
        if made is None:
            raise SpecError(f'GV901 cannot tell the shape of {name}; annotate it: Annotated[Tensor, "*b k"].')
    return Declared(args=tuple(a for a in args if a is not None), nested={parameter.name: template})


def of_data(given: Mapping[str, Any]) -> Declared:
    """Plain data, as `Spec` takes it. Raises SpecError, naming the argument, for what is no such data."""
    args, nested = named_arguments(given)
    return Declared(args=args, nested=nested)


def _template(annotation: Any, name: str, found: dict[str, Any]) -> Any:
    inside = _inside(annotation, name)
    if inside is None:
        found[name] = annotation
        return Slot(name)
    make, steps = inside
    return make({key: _template(a, f"{name}{step}", found) for key, (step, a) in steps.items()})


Build = Callable[[dict[Any, Any]], Any]
Steps = dict[Any, tuple[str, Any]]
"""Key of a container -> how a name spells it, and the annotation of what stands there."""


def _inside(annotation: Any, name: str) -> tuple[Build, Steps] | None:
    """How to build a container from its entries, and their annotations; None for what is no container."""
    origin, of = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (dict, Mapping) and reading(of[1]).is_tensor:
        raise SpecError(
            f"GV901 cannot tell the keys of {name}; annotate it as a TypedDict, "
            f"or spell its tensors: --arg \"{name}['key']=*b k\"."
        )
    if origin in (list, Sequence) or (origin is tuple and of[1:] == (...,)):
        build: Callable[..., Any] = tuple if origin is tuple else list
        return _of_values(build), _positions([of[0]] * LENGTH)
    if origin is tuple:
        return _of_values(tuple), _positions(of)
    if typing.is_typeddict(annotation):
        return dict, {k: (f"[{k!r}]", a) for k, a in _hints(annotation).items()}
    if isinstance(annotation, type) and (is_dataclass(annotation) or hasattr(annotation, "_fields")):
        return partial(_made, annotation), {k: (f".{k}", a) for k, a in _hints(annotation).items()}
    return None


def _of_values(build: Callable[[Iterable[Any]], Any]) -> Build:
    return lambda entries: build(entries.values())


def _positions(annotations: Sequence[Any]) -> Steps:
    return {i: (f"[{i}]", a) for i, a in enumerate(annotations)}


def _hints(owner: Any) -> dict[str, Any]:
    return typing.get_type_hints(owner, include_extras=True)


def _made(kind: type, entries: Mapping[str, Any]) -> Any:
    """A NamedTuple, or a dataclass without its `__init__`: what it checks there does not hold of slots."""
    if hasattr(kind, "_fields"):
        return kind(**entries)
    made: Any = object.__new__(kind)
    for field, value in entries.items():
        object.__setattr__(made, field, value)
    return made
