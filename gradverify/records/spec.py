"""A Spec states what an op promises: the domain of its arguments, its contract, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from gradverify.errors import SpecError
from gradverify.records.callables import SPEC_MODULE, describe_callable, source_of
from gradverify.records.case import Scalar
from gradverify.records.finding import Location
from gradverify.records.forms import form
from gradverify.records.nested import Slot, leaves, mapped, parameters, root, templates
from gradverify.records.parts import Arg, Contract, Dim, Domain, Example, Role, Times, Tolerance

__all__ = [
    "PARAMETERS",
    "SPEC_MODULE",
    "TRAINING",
    "Arg",
    "Contract",
    "Dim",
    "Domain",
    "Example",
    "Role",
    "Spec",
    "Times",
    "Tolerance",
    "describe_callable",
    "named_arguments",
    "source_of",
]

PARAMETERS, TRAINING = "parameters", "training"
"""What a module is given beside its inputs: its parameters by their paths, and its mode."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spec:
    """A promise about an op, and everything needed to try it. Frozen; equal only to itself.

    `Spec("mypkg.ops:FusedLinear", args={"x": "*b k", "w": "k n", "bias": gv.Arg("n", optional=True)})` is a whole one.
    Raises SpecError, naming the field or argument, for what contradicts itself.

    Attributes:
        name: the id in lists, reports and test ids; without one, the op's.
        op: autograd.Function class, callable, registered op, or a lazy `pkg.mod:attr`.
        args: tensor arguments: name -> shape, an Arg for more than a shape, or lists and dicts of these; or Args.
        kwargs: keyword -> its documented values, the default first.
        order: names of all parameters in the order of the op's signature (a Function is called positionally).
        nested: parameter -> the list, tuple or dict that it is given, with a `Slot` where an argument stands. Arguments
            that are named `xs[0]` or `params['w']` make up lists and dicts without it.
        dims: shape letter -> Dim.
        where: predicate over dims and kwargs by name; cases that it refuses are counted as invalid.
        inputs: Hypothesis strategy, or callable of `draw`, that yields the argument dict itself (variant C).
        contract: exact, backward_of or vjp.
        linear: whether backward must be linear in the cotangent.
        reference: slow, obvious forward in plain torch; None: finite differences only.
        truth: `differences`: the gradient is held against finite differences of the forward; `reference`: against
            autograd of the reference, after that was itself verified by differences (for ops that are slow to call).
        supports: declared features (`double_backward`, `vmap`, ...) -> whether they work; others are detected.
        stochastic: the op draws from the global generator; its state is restored before each call.
        nondeterministic: repeated calls may differ in rounding.
        nondiff: positions or names of outputs that carry no gradient.
        dtypes, devices, layouts: what to try; empty: float64 / every device present / all strided layouts.
        tol: dtype -> Times or Tolerance.
        digits: digits of agreement demanded; None: the policy's.
        examples: pinned cases.
        xfail: code, family or claim -> reason.
        source: where the spec is defined.
        described_by: where arguments and shapes came from, in words.
    """

    name: str = ""
    op: Any = field(kw_only=False)
    args: tuple[Arg, ...]
    kwargs: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    nested: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Dim] = field(default_factory=dict)
    where: Callable[..., bool] | None = None
    inputs: Any = None
    contract: Contract = field(default_factory=Contract)
    linear: bool = True
    reference: Callable[..., Any] | None = None
    truth: Literal["differences", "reference"] = "differences"
    supports: Mapping[str, bool] = field(default_factory=dict)
    stochastic: bool = False
    nondeterministic: bool = False
    nondiff: tuple[int | str, ...] = ()
    dtypes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    tol: Mapping[str, Times | Tolerance] = field(default_factory=dict)
    digits: float | None = None
    examples: tuple[Example, ...] = ()
    xfail: Mapping[str, str] = field(default_factory=dict)
    source: Location | None = None
    described_by: str = ""

    if TYPE_CHECKING:

        def __init__(self, op: Any, *, args: Mapping[str, Any] | tuple[Arg, ...], **more: Any) -> None: ...

    def __post_init__(self) -> None:
        self._set("name", self.name or describe_callable(self.op).rpartition(":")[2])
        if isinstance(self.args, Mapping):
            args, nested = named_arguments(self.args)
            self._set("args", args)
            self._set("nested", {**nested, **self.nested})
            self._set("described_by", self.described_by or "from the spec")
        for f in fields(self):
            value = form(self.name, f.name, getattr(self, f.name))
            self._set(f.name, MappingProxyType(dict(value)) if isinstance(value, dict) else value)
        for a in self.args:
            self._refuse_odd(a)
        declared = [a.name for a in self.args] + list(self.kwargs)
        doubled = sorted({n for n in declared if declared.count(n) > 1})
        if doubled:
            raise SpecError(f"{self.name}: argument {doubled[0]!r} is declared twice; declare it once.")
        if not self.order and not self.nested:
            self._set("nested", MappingProxyType(self._spelled()))
        names = [*self.parameters(), *self.kwargs]
        if not self.order:
            self._set("order", tuple(names))
        unknown = sorted(set(names) ^ set(self.order))
        if unknown:
            raise SpecError(f"{self.name}: {unknown[0]!r} stands in only one of `order` and the arguments; name both.")
        if self.truth == "reference" and self.reference is None:
            raise SpecError(f"{self.name}: truth='reference' needs a reference; give the spec a body.")
        if self.reference is not None:
            self._wrap(self.reference)

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _refuse_odd(self, arg: Arg) -> None:
        """Raise SpecError for complex numbers where there are none."""
        able = ("real", "positive", "parameter", "differentiable", "frozen")
        odd = [w for w in (arg.domain.kind, arg.role) if w not in able]
        if arg.complex and odd:
            raise SpecError(
                f"{self.name}: argument {arg.name!r} is both complex and {odd[0]}; declare one of them, "
                "or give its values by inputs=."
            )

    def _spelled(self) -> dict[str, Any]:
        try:
            return templates(a.name for a in self.args)
        except ValueError as error:
            raise SpecError(f"{self.name}: {error}") from error

    def _wrap(self, reference: Callable[..., Any]) -> None:
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            if hasattr(reference, name):
                self._set(name, getattr(reference, name))
        self._set("__wrapped__", reference)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the reference, with its own signature."""
        if self.reference is None:
            raise SpecError(f"{self.name}: the spec has no reference to call; give it a body.")
        return self.reference(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Spec({self.name!r}, op={describe_callable(self.op)})"

    def arg(self, name: str) -> Arg:
        """The argument of that name. Raises SpecError where there is none."""
        for a in self.args:
            if a.name == name:
                return a
        raise SpecError(f"{self.name}: no argument {name!r}; the arguments are {', '.join(a.name for a in self.args)}.")

    def parameters(self) -> tuple[str, ...]:
        """The parameters of the op that are given tensors, or nested values, in the order of the arguments."""
        return parameters((a.name for a in self.args), self.nested)

    def differentiable(self) -> tuple[str, ...]:
        """Names of the arguments with a gradient, in order."""
        return tuple(a.name for a in self.args if a.role == "differentiable")

    def with_(self, **changes: Any) -> Spec:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_builtins(self) -> dict[str, Any]:
        """The spec as plain JSON values; callables as `module:qualname` or `file:line`."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def _set_mark(spec: Spec, name: str, value: Any) -> None:
    """Frozen, but for the one attribute that `@pytest.mark...` above a spec sets."""
    if name != "pytestmark":
        raise FrozenInstanceError(f"cannot assign to field {name!r}; a changed copy is spec.with_({name}=...).")
    object.__setattr__(spec, name, value)


# A frozen dataclass refuses a __setattr__ of its own in its body.
Spec.__setattr__ = _set_mark  # type: ignore[method-assign,assignment]


def named_arguments(given: Mapping[str, Any]) -> tuple[tuple[Arg, ...], dict[str, Any]]:
    """Plain data as arguments, and the nested values that they make up by parameter.

    `given`: name -> shape, Arg, or lists, tuples and dicts of them; also spelled out, as `xs[0]` -> shape.
    Raises SpecError, naming the argument, for what is neither.
    """
    args = tuple(_arg(name, leaf) for key, value in given.items() for name, leaf in leaves(value, key, whole=Arg))
    found = {k: mapped(v, k, lambda n, _: Slot(n), whole=Arg) for k, v in given.items()}
    nested = {k: template for k, template in found.items() if template != Slot(k)}
    return args, {**spelled([a.name for a in args if root(a.name) not in nested]), **nested}


def spelled(names: Sequence[str]) -> dict[str, Any]:
    """The lists and dicts that names such as `xs[0]` make up. Raises SpecError for one that is misspelled."""
    try:
        return templates(names)
    except ValueError as error:
        raise SpecError(str(error)) from error


def _arg(name: str, leaf: Any) -> Arg:
    if isinstance(leaf, Arg):
        return replace(leaf, name=name)
    if not isinstance(leaf, str):
        raise SpecError(f"argument {name!r} is {leaf!r}; give its shape as a string, or an Arg.")
    return Arg(leaf, name=name)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    if isinstance(value, Domain | Contract):
        return str(value)
    if hasattr(value, "__dataclass_fields__"):
        return {f: _plain(getattr(value, f)) for f in value.__dataclass_fields__}
    if isinstance(value, Location):
        return {"file": value.file, "line": value.line}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return describe_callable(value)
