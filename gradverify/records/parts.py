"""What a Spec is made of: arguments with their domains, sizes, the contract, tolerances, pinned cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gradverify.errors import SpecError
from gradverify.records.callables import describe_callable
from gradverify.records.case import Scalar
from gradverify.records.names import refuse_unknown

Role = Literal["differentiable", "frozen", "integer", "mask"]
"""`frozen`: floating, but the gradient must be None or zero."""

Promise = Literal["exact", "backward_of", "vjp"]

Kind = Literal["real", "positive", "prob", "index", "boolean", "spd", "integers", "additive_mask", "parameter"]


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
    """One tensor argument: `Arg("*b k", domain=gv.positive)`.

    Attributes:
        name: as in the op's signature; a mapping of arguments gives it.
        shape: jaxtyping's grammar: `k` symbol, `3` fixed, `*b`/`...` any axes, `#k` k or 1, `k-1` expression, `_` any.
        domain: which values.
        role: differentiable, frozen (no gradient may come back), integer or mask.
        dtype: fixed dtype (`int64`, `bool`, `float32`); None: the floating dtype under test.
        optional: None is a documented value.
        complex: complex numbers, in the precision under test; the domain holds for either part.
        strategy: a Hypothesis strategy for the tensor itself, where no domain can describe it.
    """

    name: str = ""
    shape: str = field(kw_only=False)
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

    kind: Promise = "exact"
    formula: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        refuse_unknown("contract", "kind", [self.kind], get_args(Promise))
        if (self.kind == "exact") != (self.formula is None):
            need = "takes no formula" if self.kind == "exact" else f"needs the formula of {self.kind}"
            raise SpecError(f"contract: {self.kind!r} {need}; give backward_of= or vjp= a function.")

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
