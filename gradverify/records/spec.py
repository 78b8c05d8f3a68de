"""A Spec states what an op promises: the domain of its arguments, its contract, and what it is held against."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from gradverify.errors import SpecError
from gradverify.records.case import Scalar
from gradverify.records.finding import Location
from gradverify.records.nested import parameters, templates

SPEC_MODULE = "gradverify_spec_"
"""How the name of a module begins that a spec file was imported as."""

Role = Literal["differentiable", "frozen", "integer", "mask"]
"""`frozen`: floating, but the gradient must be None or zero."""

Kind = Literal["real", "positive", "prob", "index", "boolean", "spd", "integers", "additive_mask", "parameter"]

PARAMETERS, TRAINING = "parameters", "training"
"""What a module is given beside its inputs: its parameters by their paths, and its mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Which values an argument may take. Bounds are inclusive; `avoid` are points that are kept away from.

    `kind` `prob` is a simplex along the axis `of`; `index` an integer in [0, size of letter `of`); `spd` symmetric
    positive definite over the last two axes; `additive_mask` 0 or -inf; `parameter` near the values of the op's own
    parameter at the path `of`.
    """

    kind: Kind = "real"
    lo: float | None = None
    hi: float | None = None
    of: str | None = None
    avoid: tuple[float, ...] = ()
    avoid_ties: bool = False

    def __str__(self) -> str:
        if self.kind == "parameter":
            return "parameter"
        words = [] if self.kind == "real" else [self.kind + (f"({self.of})" if self.of else "")]
        if self.lo is not None or self.hi is not None:
            words.append(f"[{_bound(self.lo, '-inf')}, {_bound(self.hi, 'inf')}]")
        if self.avoid:
            words.append("avoid " + ", ".join(f"{p:g}" for p in self.avoid))
        return " ".join([*words, "no ties"] if self.avoid_ties else words)


def _bound(value: float | None, word: str) -> str:
    return word if value is None else f"{value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dim:
    """Sizes that a shape letter may take: lo to hi inclusive, on purpose near multiples of `around`; or `choices`."""

    lo: int = 0
    hi: int | None = None
    around: tuple[int, ...] = ()
    choices: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """One tensor argument.

    Attributes:
        name: as in the op's signature.
        shape: jaxtyping's grammar: `k` symbol, `3` fixed, `*b`/`...` any axes, `#k` k or 1, `k-1` expression, `_` any.
        domain: which values.
        role: differentiable, frozen (no gradient may come back), integer or mask.
        dtype: fixed dtype (`int64`, `bool`, `float32`); None: the floating dtype under test.
        optional: None is a documented value.
        complex: complex numbers, in the precision under test; the domain holds for either part.
        strategy: a Hypothesis strategy for the tensor itself, where no domain can describe it.
    """

    name: str
    shape: str
    domain: Domain = Domain()
    role: Role = "differentiable"
    dtype: str | None = None
    optional: bool = False
    complex: bool = False
    strategy: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What backward promises.

    `exact`: the derivative of the forward. `backward_of`: the derivative of another function `formula`, called like
    the reference. `vjp`: `formula(inputs..., *cotangents)` returns the gradients of the differentiable arguments.
    """

    kind: Literal["exact", "backward_of", "vjp"] = "exact"
    formula: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return self.kind if self.formula is None else f"{self.kind} {describe_callable(self.formula)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A tolerance as a multiple of the derived one."""

    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """A raw tolerance. Accepted, and shown as loosened in every report."""

    rtol: float
    atol: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A pinned case: sizes by letter and keywords; run first, never shrunk."""

    dims: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    kwargs: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Spec:
    """A promise about an op, and everything needed to try it. Frozen; equal only to itself.

    Attributes:
        name: the id in lists, reports and test ids.
        op: autograd.Function class, callable, registered op, or a lazy `pkg.mod:attr`.
        args: tensor arguments, in the order of the op's signature.
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

    name: str
    op: Any
    args: tuple[Arg, ...]
    kwargs: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    nested: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Dim] = field(default_factory=dict)
    where: Callable[..., bool] | None = None
    inputs: Any = None
    contract: Contract = Contract()
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

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, dict):
                object.__setattr__(self, f.name, MappingProxyType(dict(value)))
        declared = [a.name for a in self.args] + list(self.kwargs)
        for a in self.args:
            self._refuse_odd(a)
        doubled = sorted({n for n in declared if declared.count(n) > 1})
        if doubled:
            raise SpecError(f"{self.name}: argument {doubled[0]!r} is declared twice; declare it once.")
        if not self.order and not self.nested:
            object.__setattr__(self, "nested", MappingProxyType(self._spelled()))
        names = [*self.parameters(), *self.kwargs]
        if not self.order:
            object.__setattr__(self, "order", tuple(names))
        unknown = sorted(set(names) ^ set(self.order))
        if unknown:
            raise SpecError(f"{self.name}: {unknown[0]!r} stands in only one of `order` and the arguments; name both.")
        if self.truth == "reference" and self.reference is None:
            raise SpecError(f"{self.name}: truth='reference' needs a reference; give the spec a body.")
        if self.reference is not None:
            self._wrap(self.reference)

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
                object.__setattr__(self, name, getattr(reference, name))
        object.__setattr__(self, "__wrapped__", reference)

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


_REGISTERED = ("CustomOpDef", "OpOverload", "OpOverloadPacket")
"""Torch's classes of registered ops; their own names are of little use."""


def describe_callable(op: Any) -> str:
    """`module:qualname` for what has a name; `file:line` for a lambda or local; str for a lazy target."""
    if isinstance(op, str):
        return op
    if type(op).__name__ in _REGISTERED:
        return "torch.ops." + str(getattr(op, "_qualname", op)).replace("::", ".")
    owner = getattr(op, "__self__", None)
    if isinstance(owner, type) and getattr(op, "__name__", "") == "apply":
        return describe_callable(owner)
    # A builtin of torch calls itself `_VariableFunctionsClass.sin`.
    words = ("__name__",) if inspect.isbuiltin(op) else ("__qualname__", "__name__")
    qualname = next((n for n in (getattr(op, w, None) for w in words) if n), None)
    module = getattr(op, "__module__", None) or ""
    if qualname and "<" not in qualname:
        return f"{_named(module)}:{qualname}"
    code = getattr(op, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    if qualname:
        return f"{module}:{qualname}"
    # The repr of a module is a page of its layers.
    return f"{type(op).__module__}:{type(op).__qualname__}()" if hasattr(op, "named_parameters") else str(op)


def _named(module: str) -> str:
    """The module of a spec file has a name of ours; the user knows it by its path."""
    file = getattr(sys.modules.get(module), "__file__", None) if module.startswith(SPEC_MODULE) else None
    return file or module


def source_of(obj: Any) -> Location | None:
    """Where an object is defined, as far as inspect can tell; a custom op by the function that it decorates."""
    obj = getattr(obj, "_init_fn", obj)
    try:
        file = inspect.getsourcefile(inspect.unwrap(obj))
        line = inspect.getsourcelines(inspect.unwrap(obj))[1]
    except (TypeError, OSError, ValueError):
        return None
    return Location(file=file or "", line=max(line, 1)) if file else None


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
