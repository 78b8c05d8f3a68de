"""From a signature to a Spec: `@gradverify.spec` over a typed reference, a bare op, or plain data."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, cast

from gradverify.cases import shapes as shapes_
from gradverify.cases.annotations import (
    EMPTY,
    Parameter,
    argument,
    documented,
    enclosing_names,
    is_empty,
    op_parameters,
    parameters,
    takes_any_keyword,
)
from gradverify.cases.fields import Fields, contract_of, normalised
from gradverify.cases.nesting import Declared, of_data, of_parameter
from gradverify.cases.parameters import made, with_parameters
from gradverify.errors import SpecError
from gradverify.records.case import Scalar
from gradverify.records.described import kind_of
from gradverify.records.finding import Location
from gradverify.records.forms import values_of
from gradverify.records.names import did_you_mean, refuse_unknown
from gradverify.records.nested import owners, root
from gradverify.records.nested import parameters as called_with
from gradverify.records.spec import PARAMETERS, TRAINING, Spec, describe_callable, source_of

_INTEGERS = re.compile(r"(^|_)(i|idx|index|indices|ids?|labels?|targets?|lengths?|offsets?|mask)$")
"""Names that arguments of integers and masks go by."""


if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["from_data", "kind_of", "load", "resolved", "spec", "spec_from_op"]

P = ParamSpec("P")
R = TypeVar("R")

WAYS_OUT = (
    "  name them:      {named}   (`*b` any axes, `k` one axis, one letter is one size; nothing: a scalar)\n"
    '  annotate them:  {name}: Annotated[Tensor, "*b k"] in the signature of the op\n'
    "  or declare them in a spec file: @gradverify.spec(op) over a typed reference function"
)


if TYPE_CHECKING:

    class TypedSpec(Spec, Generic[P, R]):
        """A Spec that is called with the reference's own signature."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


def spec(
    op: Any,
    *,
    backward_of: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    **more: Unpack[Fields],
) -> Callable[[Callable[P, R]], TypedSpec[P, R]]:
    """Make a Spec of a typed reference: its signature is the domain, its body the truth, its name the spec's.

    Tensors: `Annotated[Tensor, "*b k", markers...]` or jaxtyping's `Float[Tensor, "*b k"]`; `| None` where None is a
    documented value. Scalars: `bool`, `Literal`, `Annotated[float, gv.domain(lo, hi)]`, or any default. A body of `...`
    or a docstring only: no reference, finite differences alone.
    Raises SpecError, naming the field or argument, for what contradicts itself or the op.
    """
    contract = contract_of(backward_of, vjp)
    declared = normalised(dict(more))

    def wrap(reference: Callable[P, R]) -> TypedSpec[P, R]:
        name = declared.get("name") or reference.__name__
        found = _beside_module(_function(op), parameters(reference, enclosing_names(1)))
        tensors, kwargs = _declared(name, found or (), declared.get("kwargs", {}), hooked="inputs" in declared)
        return cast(
            "TypedSpec[P, R]",
            _spec(
                _function(op),
                tensors,
                kwargs,
                {**declared, "name": name},
                contract=contract,
                reference=None if is_empty(reference) else reference,
                source=_defined_at(reference),
                described_by="from the spec",
            ),
        )

    return wrap


def spec_from_op(
    op: Any,
    *,
    name: str,
    target: str,
    shapes: Mapping[str, str],
    kwargs: Mapping[str, Scalar | Sequence[Scalar]] | None = None,
    said_by: Literal["--arg", "check()"] = "--arg",
    near: Sequence[str] = (),
) -> Spec:
    """The Spec of a bare op: arguments from the annotations of its forward, or from `shapes`, which stand before them.

    A scalar is a keyword with its default; a boolean one is tried both ways. `said_by`: where the user gave the shapes;
    `near`: what else a slip in a name may have meant.
    Raises SpecError, starting with GV901, where the shape of an argument cannot be told.
    """
    op = _function(op)
    found = op_parameters(op)
    wanted = dict.fromkeys([*map(root, shapes), *(kwargs or {})])
    known = found if found is not None else tuple(Parameter(name=n) for n in wanted)
    refuse_unknown(target, said_by, wanted, [p.name for p in known], near=near)
    values = {n: values_of(v) for n, v in (kwargs or {}).items()}
    tensors = {p.name: _tensors(p, shapes) for p in known if p.name not in values}
    scalars = values | {p.name: v for p in known if tensors.get(p.name, p) is None and (v := documented(p)) is not None}
    if found == ():
        raise SpecError(f"{target}: takes no argument, so there is nothing to differentiate.")
    missing = [p.name for p in known if tensors.get(p.name) is None and p.name not in scalars and _needed(p)]
    if missing or not any(tensors.values()):
        reasons = "".join(f"\n  {p.name}: {p.unresolved}" for p in known if p.name in missing and p.unresolved)
        raise SpecError(_cannot_tell(target, missing or [p.name for p in known] or ["x"], said_by) + reasons)
    annotated = "forward()" if hasattr(op, "forward") else "the signature"
    origin = f"from {said_by}" if shapes else f"from annotations on {annotated}"
    declared = _joined(tensors.values())
    return _spec(op, declared, scalars, {"name": name}, source=source_of(op), described_by=origin)


def from_data(
    op: Any,
    args: Mapping[str, Any],
    *,
    backward_of: Any = None,
    vjp: Any = None,
    reference: Any = None,
    **more: Unpack[Fields],
) -> Spec:
    """A Spec from plain data: argument name -> shape, an Arg for more than a shape, or lists and dicts of these.

    `from_data("mypkg.ops:FusedLinear", {"x": "*b k", "w": "k n"}, dims={"k": gv.dim(1, 200, around=64)})`;
    `from_data(lambda xs, params: ..., {"xs": ["b n", "b m"], "params": {"w": "n m"}})`.
    Raises SpecError, naming the field or argument, for what contradicts itself or the op.
    """
    declared = normalised(dict(more))
    name = declared.get("name") or describe_callable(op).rpartition(":")[2]
    contract = contract_of(backward_of, vjp)
    scalars = declared.get("kwargs", {})
    fixed: dict[str, Any] = {"contract": contract, "reference": reference, "described_by": "from the spec"}
    return _spec(_function(op), of_data(args), scalars, {**declared, "name": name}, **fixed)


def load(op: Any) -> Any:
    """The op itself: what a `pkg.mod:attr` string names, or what was given.

    Raises SpecError where the module or the attribute is missing.
    """
    if not isinstance(op, str):
        return op
    module, _, path = op.partition(":")
    try:
        value: Any = importlib.import_module(module)
    except Exception as error:  # the user's module may raise anything
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SpecError(f"{op}: cannot be loaded ({said}); name it as module:attribute.") from error
    for part in path.split("."):
        if not hasattr(value, part):
            raise SpecError(f"{op}: {module} has no attribute {part!r}{did_you_mean(part, dir(value))}.")
        value = getattr(value, part)
    return _function(value)


def resolved(spec: Spec) -> Spec:
    """The spec with its lazy op loaded, in the order of that op, with the parameters of a module.

    Raises SpecError where it contradicts itself or the op.
    """
    op = _function(load(spec.op))
    order = _order(spec.name, spec.order, op)
    return _whole(spec if op is spec.op and order == spec.order else spec.with_(op=op, order=order))


def _whole(spec: Spec) -> Spec:
    if not (isinstance(spec.op, str) or callable(spec.op)):
        raise SpecError(f"{spec.name}: the op is {spec.op!r}, which cannot be called; name a Function or a function.")
    found = with_parameters(spec)
    _refuse_nested(found)
    if found.inputs is None:
        shapes_.validate(found)
        _validate_names(found)
    return found


def _refuse_nested(spec: Spec) -> None:
    """A Function loses the tensors in its containers: raise SpecError."""
    held = owners(spec.nested)
    if held and kind_of(spec.op) == "autograd.Function":
        first = next(iter(held))
        raise SpecError(
            f"{spec.name}: {first!r} is a tensor in a container, which autograd.Function does not track: its gradient "
            "would be lost; give every tensor as an argument of its own, or name the function that calls it."
        )


def _function(op: Any) -> Any:
    """`MyFunction.apply` stands for the Function, and what makes a module for that."""
    owner = getattr(op, "__self__", None)
    return owner if isinstance(owner, type) and kind_of(owner) == "autograd.Function" else made(op)


def _beside_module(op: Any, found: tuple[Parameter, ...] | None) -> tuple[Parameter, ...] | None:
    """What a reference declares, less the parameters and the mode of a module, which are known of the module."""
    if found is None or kind_of(op) != "nn.Module":
        return found
    own = {p.name for p in op_parameters(op) or ()}
    return tuple(p for p in found if p.name in own or p.name not in (PARAMETERS, TRAINING))


def _tensors(parameter: Parameter, shapes: Mapping[str, str]) -> Declared | None:
    """The tensors of a parameter: as `--arg` says, one or several of them, else as it is annotated."""
    own = {n: s for n, s in shapes.items() if root(n) == parameter.name}
    if any(n != parameter.name for n in own):
        return of_data(own)
    one = argument(parameter, shape=own.get(parameter.name))
    return of_parameter(parameter) if one is None else Declared(args=(one,), nested={})


def _joined(found: Iterable[Declared | None]) -> Declared:
    """All of them as one."""
    given = [d for d in found if d is not None]
    return Declared(
        args=tuple(a for d in given for a in d.args), nested={n: t for d in given for n, t in d.nested.items()}
    )


def _declared(
    name: str, found: Iterable[Parameter], given: Mapping[str, tuple[Scalar, ...]], *, hooked: bool
) -> tuple[Declared, dict[str, tuple[Scalar, ...]]]:
    tensors: list[Declared] = []
    kwargs: dict[str, tuple[Scalar, ...]] = {}
    for p in found:
        # With an `inputs=` hook the tensors bring their shapes.
        fallback = "..." if hooked else None
        one = None if p.name in given else argument(p, fallback=fallback)
        several = of_parameter(p, fallback=fallback) if one is None and p.name not in given else None
        values = given.get(p.name) or documented(p)
        if one is not None or several is not None:
            tensors.append(several or Declared(args=(one,) if one else (), nested={}))
        elif values is not None:
            kwargs[p.name] = values
        elif _needed(p):
            remedy = f'annotate it as {p.name}: Annotated[Tensor, "*b k"], or, if it is no tensor, give it a default'
            raise SpecError(f"{name}: GV901 cannot tell the shapes of {p.name}; {p.unresolved or remedy}.")
    refuse_unknown(name, "kwargs", given, kwargs)
    return _joined(tensors), kwargs


def _needed(parameter: Parameter) -> bool:
    return parameter.default is EMPTY


def _cannot_tell(target: str, names: Sequence[str], said_by: str) -> str:
    named = f"--arg '{names[0]}=*b k'" if said_by == "--arg" else f'check(op, {names[0]}="*b k")'
    ways = WAYS_OUT.format(name=names[0], named=named)
    integer = next((n for n in names if _INTEGERS.search(n)), None)
    if integer:
        ways += f"\nWhere {integer} holds integers or a mask, annotate it: "
        ways += f'{integer}: Annotated[Tensor, "n", gv.index("k")], gv.integers(lo, hi), gv.boolean'
    return f"GV901 cannot tell the shapes of {', '.join(names)} of {target}; three ways out:\n{ways}"


def _spec(
    op: Any, tensors: Declared, kwargs: Mapping[str, tuple[Scalar, ...]], declared: Mapping[str, Any], **fixed: Any
) -> Spec:
    known = {f.name for f in fields(Spec)}
    given = {k: v for k, v in declared.items() if k in known} | fixed
    names = (*called_with((a.name for a in tensors.args), tensors.nested), *kwargs)
    order = _order(given["name"], _as_declared(names, given.get("reference")), op)
    whole = {"op": op, "args": tensors.args, "nested": tensors.nested, "kwargs": dict(kwargs), "order": order}
    return _whole(Spec(**{**given, **whole}))


def _validate_names(spec: Spec) -> None:
    """Raise SpecError where `where` or an example names what is neither a letter nor a keyword."""
    known = [*shapes_.letters(spec.args), *spec.kwargs]
    for example in spec.examples:
        refuse_unknown(spec.name, "examples", {**example.dims, **example.kwargs}, known)
    refuse_unknown(spec.name, "where", _asked_for(spec.where), known)


def _asked_for(where: Callable[..., bool] | None) -> list[str]:
    return [p.name for p in (where and parameters(where)) or () if _needed(p)]


def _as_declared(names: tuple[str, ...], reference: Any) -> tuple[str, ...]:
    """Names in the order of the reference's signature, where it has them all."""
    found = [p.name for p in (parameters(reference) or ())] if reference is not None else []
    return tuple(n for n in found if n in names) if set(names) <= set(found) else names


def _order(name: str, names: tuple[str, ...], op: Any) -> tuple[str, ...]:
    """The names of a spec in the order of its op: by name where they agree, else by position where the counts do.

    What the op has a default for is absent unless it is declared.
    """
    found = op_parameters(op)
    if found is None:
        return names
    theirs = [p.name for p in found]
    surplus = [p.name for p in found if p.name not in names and _needed(p)]
    extra = tuple(n for n in names if n not in theirs)
    skipping = kind_of(op) in ("function", "nn.Module") or _gapless(names, found)
    if not surplus and skipping and (not extra or takes_any_keyword(op)):
        return (*(n for n in theirs if n in names), *extra)
    # Names of one's own for what the op cannot do without; among names of the op's a strange one is a slip.
    needed = sum(map(_needed, found)) if set(names).isdisjoint(theirs) else 0
    placed = all(mine == own or mine not in theirs for mine, own in zip(names, theirs, strict=False))
    if placed and len(names) in (len(theirs), needed):
        return names
    missing = surplus or [n for n in theirs if n not in names]
    what = f"has no {extra[0]!r}{did_you_mean(extra[0], theirs)}" if extra else f"also needs {missing[0]!r}"
    raise SpecError(f"{name}: the op takes ({', '.join(theirs)}) and {what}; declare the same arguments in the spec.")


def _gapless(names: Iterable[str], found: Iterable[Parameter]) -> bool:
    """Whether the names are the first by position: a Function is called by position, so none may be skipped."""
    positional = [p.name for p in found if not p.keyword_only]
    wanted = set(names) & set(positional)
    return set(positional[: len(wanted)]) == wanted


def _defined_at(function: Callable[..., Any]) -> Location | None:
    code = getattr(function, "__code__", None)
    return None if code is None else Location(file=code.co_filename, line=code.co_firstlineno)
