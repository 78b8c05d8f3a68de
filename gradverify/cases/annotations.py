"""What a signature says: tensors with shapes and domains, keywords with their documented values."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal, Union

import torch
from hypothesis.strategies import SearchStrategy
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module

from gradverify.errors import SpecError
from gradverify.records.case import Scalar
from gradverify.records.described import kind_of
from gradverify.records.spec import Arg, Domain, Role
from gradverify.records.vocabulary import Marker

EMPTY = inspect.Parameter.empty
_ROLES: Mapping[str, Role] = {"index": "integer", "integers": "integer", "boolean": "mask"}
_SCHEMA_TYPES = {
    "Tensor": Tensor,
    "Optional[Tensor]": Tensor | None,
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
}
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a signature; `annotation` and `default` are EMPTY where there is none.

    `unresolved`: why the annotation could not be evaluated, in words. `keyword_only`: it is not given by position.
    """

    name: str
    annotation: Any = EMPTY
    default: Any = EMPTY
    unresolved: str = ""
    keyword_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An annotation taken apart: the bare type, what `Annotated` adds to it, and whether None is allowed."""

    core: Any
    metadata: tuple[Any, ...] = ()
    optional: bool = False

    @property
    def shape(self) -> str | None:
        """The shape in words: jaxtyping's, else the first string of `Annotated`; None where there is none."""
        own = getattr(self.core, "dim_str", None)
        return own if isinstance(own, str) else next((m for m in self.metadata if isinstance(m, str)), None)

    @property
    def is_tensor(self) -> bool:
        """Whether this annotates a tensor."""
        return hasattr(self.core, "dim_str") or (isinstance(self.core, type) and issubclass(self.core, Tensor))


def parameters(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> tuple[Parameter, ...] | None:
    """The parameters of a plain callable; None where Python cannot tell them, or where they are `*args`.

    `names`: what the annotations may use beside the function's own globals (the locals of an enclosing function).
    """
    try:
        declared = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in declared):
        return None
    plain = inspect.unwrap(getattr(function, "__func__", function))
    scope = {"Tensor": Tensor, "torch": torch, **getattr(plain, "__globals__", {}), **(names or {})}
    return tuple(
        Parameter(
            name=p.name,
            default=p.default,
            keyword_only=p.kind is p.KEYWORD_ONLY,
            **_resolved(p.annotation, scope),
        )
        for p in declared
        if p.kind not in _VARIABLE
    )


def _resolved(annotation: Any, scope: Mapping[str, Any]) -> dict[str, Any]:
    """An annotation evaluated, as fields of a Parameter; `Tensor` is known even where it is imported for types only."""
    if annotation is EMPTY:
        return {}
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return {"annotation": typing.get_type_hints(holder, globalns=dict(scope), include_extras=True)["it"]}
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        return {
            "unresolved": f"its annotation {annotation!r} cannot be evaluated ({error}); import its names at run time"
        }


def op_parameters(op: Any) -> tuple[Parameter, ...] | None:
    """The parameters that a user of the op gives: of `Function.forward` without ctx, of a schema, of a callable.

    None where they cannot be told.
    """
    match kind_of(op):
        case "autograd.Function":
            found = parameters(op.forward)
            split = op.setup_context is not Function.setup_context
            return found if found is None or split else found[1:]
        case "custom_op" | "registered op":
            return _of_registered(op)
        case "nn.Module":
            return parameters(op.forward) if isinstance(op, Module) else None
        case "lazy":
            return None
        case _:
            return parameters(op)


def takes_any_keyword(op: Any) -> bool:
    """Whether a callable ends in `**kwargs`."""
    try:
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(op).parameters.values())
    except (TypeError, ValueError):
        return False


def _of_registered(op: Any) -> tuple[Parameter, ...] | None:
    # The function under @custom_op keeps the shapes in its annotations; the schema keeps only types.
    written = getattr(op, "_init_fn", None)
    if written is not None:
        return parameters(written)
    schema = getattr(_overload(op), "_schema", None)
    if schema is None:
        return None
    return tuple(
        Parameter(
            name=a.name,
            annotation=_SCHEMA_TYPES.get(str(a.type), EMPTY),
            default=a.default_value if a.has_default_value() else EMPTY,
            keyword_only=a.kwarg_only,
        )
        for a in schema.arguments
    )


def _overload(op: Any) -> Any:
    """The overload that a packet stands for: its default, or its only one. Raises SpecError where it has several."""
    names = op.overloads() if hasattr(op, "overloads") else ["default"]
    if "default" not in names and len(names) > 1:
        raise SpecError(f"torch.ops.{op} has several overloads, and none is the default; name one: {', '.join(names)}.")
    return getattr(op, "default" if "default" in names else names[0], op)


def reading(annotation: Any) -> Reading:
    """An annotation taken apart, however `Annotated` and `| None` nest."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        found = reading(inside[0])
        return replace(found, metadata=(*found.metadata, *inside[1:]))
    if origin in (Union, types.UnionType):
        rest = [a for a in inside if a is not types.NoneType]
        if len(rest) == 1:
            return replace(reading(rest[0]), optional=len(inside) > 1)
    return Reading(core=annotation)


def argument(parameter: Parameter, *, shape: str | None = None, fallback: str | None = None) -> Arg | None:
    """The tensor argument that a parameter declares; None where it declares none, or no shape.

    `shape` stands in place of the annotation's, `fallback` where the annotation has none.
    Raises SpecError, naming the parameter, where its markers contradict each other.
    """
    read = reading(parameter.annotation)
    words = shape if shape is not None else (read.shape if read.shape is not None else fallback)
    if words is None or not (read.is_tensor or shape is not None):
        return None
    domain = _domain(parameter.name, _domains(read))
    role: Role = "frozen" if Marker.NO_GRAD in read.metadata else "differentiable"
    return Arg(
        name=parameter.name,
        shape=words,
        domain=domain,
        role=_ROLES.get(domain.kind, role),
        dtype=_fixed_dtype(read),
        optional=read.optional or parameter.default is None,
        complex=Marker.COMPLEX in read.metadata or _dtype_kinds(read) == {"complex"},
        strategy=next((m for m in read.metadata if isinstance(m, SearchStrategy)), None),
    )


def _domains(read: Reading) -> list[Domain]:
    declared = [m for m in read.metadata if isinstance(m, Domain)]
    kinds = _dtype_kinds(read)
    if declared or not kinds or kinds & {"float", "complex"}:
        return declared
    return [Domain(kind="boolean")] if kinds == {"bool"} else [Domain(kind="integers")]


def _dtypes(read: Reading) -> tuple[str, ...]:
    """The dtypes that a jaxtyping annotation names; empty where it names none."""
    named = getattr(read.core, "dtypes", ())
    return tuple(n for n in named if isinstance(n, str)) if isinstance(named, list | tuple) else ()


def _dtype_kinds(read: Reading) -> set[str]:
    words = {"bfloat": "float", "uint": "int", "bool_": "bool"}
    stems = {n.rstrip("0123456789") if "_e" not in n else "float" for n in _dtypes(read)}
    return {words.get(s, s) for s in stems}


def _fixed_dtype(read: Reading) -> str | None:
    # A floating dtype stays open: finite differences need float64, whatever the op is mostly called with.
    names = _dtypes(read)
    return names[0] if len(names) == 1 and _dtype_kinds(read) == {"int"} else None


def _domain(name: str, domains: Iterable[Domain]) -> Domain:
    """One domain that says all that the markers say."""
    merged = Domain()
    for d in domains:
        if "real" not in (merged.kind, d.kind) and (merged.kind, merged.of) != (d.kind, d.of):
            raise SpecError(f"argument {name!r} is both {merged} and {d}; declare one of them.")
        special = merged if d.kind == "real" else d
        merged = Domain(
            kind=special.kind,
            of=special.of,
            lo=_bound(max, merged.lo, d.lo),
            hi=_bound(min, merged.hi, d.hi),
            avoid=(*merged.avoid, *d.avoid),
            avoid_ties=merged.avoid_ties or d.avoid_ties,
        )
    if merged.lo is not None and merged.hi is not None and merged.lo > merged.hi:
        raise SpecError(f"argument {name!r}: no value lies in {merged}; widen one of its domains.")
    return merged


def _bound(tighter: Callable[..., float], one: float | None, other: float | None) -> float | None:
    given = [b for b in (one, other) if b is not None]
    return tighter(given) if given else None


def documented(parameter: Parameter) -> tuple[Scalar, ...] | None:
    """The values of a keyword that are worth trying, the default first; None where the parameter is no scalar.

    Both booleans; every value of a Literal; both ends of a domain; of anything else the default alone. `inplace`
    keeps its default: a tensor that is differentiated may not be written to.
    """
    read, default = reading(parameter.annotation), parameter.default
    if read.is_tensor:
        return None
    first = () if default is EMPTY else (default,)
    if parameter.name == "inplace" and isinstance(default, bool):
        return first
    if not all(v is None or isinstance(v, bool | int | float | str) for v in first):
        return None
    values = dict.fromkeys((type(v), v) for v in (*first, *_more(read, default)))
    return tuple(v for _, v in values) or None


def _more(read: Reading, default: Any) -> tuple[Any, ...]:
    if typing.get_origin(read.core) is Literal:
        return typing.get_args(read.core)
    if read.core is bool or isinstance(default, bool):
        return (False, True)
    ends = [b for d in read.metadata if isinstance(d, Domain) for b in (d.lo, d.hi) if b is not None]
    whole = read.core is int or isinstance(default, int)
    return tuple(int(b) if whole else b for b in ends)


def is_empty(function: Callable[..., Any]) -> bool:
    """Whether the body is `...`, `pass` or a docstring only."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_code in {t.__code__.co_code for t in (_bare, _with_docstring)}


def _bare() -> None: ...


def _with_docstring() -> None:
    """A body of a docstring only, to compare with."""


def enclosing_names(depth: int) -> dict[str, Any]:
    """The local names of the caller `depth` frames up, so that annotations inside a function resolve."""
    return dict(sys._getframe(depth + 1).f_locals)  # noqa: SLF001
