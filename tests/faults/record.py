"""One fault: an op with a wrong backward and its correct twin, under the same spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gradverify.records.spec import Arg, Contract, Dim, Domain, Role, Spec

POSITIVE = Domain(lo=0.1, hi=4.0)
BOOLEAN = Domain(kind="boolean")
SMALL = Domain(lo=-3.0, hi=3.0)
ANY = Domain()
NONEMPTY = Dim(lo=1)


class Rule(Function):
    """An op with a hand-written first derivative. A second one is refused, since none is claimed."""

    minds_autocast = False

    def __init_subclass__(cls) -> None:
        if "forward" in vars(cls) and cls.minds_autocast:
            cls.forward = staticmethod(under_autocast(cls.forward))
        if "backward" in vars(cls):
            backward = as_under_autocast(cls.backward) if cls.minds_autocast else cls.backward
            cls.backward = staticmethod(once_differentiable(backward))


class AutocastRule(Rule):
    """One whose backward, and that of what inherits from it, runs under the autocast state of its forward."""

    minds_autocast = True


def under_autocast(forward: Any, **how: Any) -> Any:
    """torch.amp.custom_fwd for whatever device the tensors are on."""
    marked = {d: custom_fwd(forward, device_type=d, **how) for d in ("cpu", "cuda")}
    return lambda ctx, *args, **kwargs: marked[_device(args)](ctx, *args, **kwargs)


def as_under_autocast(backward: Any) -> Any:
    """torch.amp.custom_bwd likewise."""
    marked = {d: custom_bwd(backward, device_type=d) for d in ("cpu", "cuda")}
    return lambda ctx, *us: marked[_device(us)](ctx, *us)


def _device(values: Sequence[Any]) -> str:
    return next(v.device.type for v in values if isinstance(v, Tensor))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A wrong backward, what must see it, and its twin.

    Attributes:
        name: unique; the name of the wrong spec, `<name>_twin` is the right one.
        cls: class of the taxonomy.
        primary: the claim whose report should lead.
        must_fail: every claim that has to FAIL, the primary one among them.
        source: public issue that it is modelled on; empty: from the taxonomy.
        wrong: spec of the wrong op.
        right: spec of the twin, which must neither FAIL nor be an ERROR under any claim.
        code: code of the primary result where it is sharper than the family's.
        note: what it takes to see it.
        unresolved: why the twin may be INCONCLUSIVE; empty: it may not.
    """

    name: str
    cls: str
    primary: str
    must_fail: tuple[str, ...]
    source: str
    wrong: Spec
    right: Spec
    code: str | None = None
    note: str = ""
    unresolved: str = ""


def arg(name: str, shape: str, domain: Domain = ANY, *, role: Role = "differentiable", dtype: str | None = None):
    """One argument; `x` of shape `b n` is `arg("x", "b n")`."""
    return Arg(name=name, shape=shape, domain=domain, role=role, dtype=dtype)


def mask(name: str, shape: str) -> Arg:
    """A boolean argument."""
    return Arg(name=name, shape=shape, domain=BOOLEAN, role="mask", dtype="bool")


def integers(name: str, shape: str, *, lo: int, hi: int) -> Arg:
    """An integer argument with values from lo to hi inclusive."""
    return Arg(name=name, shape=shape, domain=Domain(kind="integers", lo=lo, hi=hi), role="integer", dtype="int64")


def index(name: str, shape: str, of: str) -> Arg:
    """An index argument into the axis `of`."""
    return Arg(name=name, shape=shape, domain=Domain(kind="index", of=of), role="integer", dtype="int64")


def backward_of(formula: Any) -> Contract:
    """The contract of a stand-in."""
    return Contract(kind="backward_of", formula=formula)


def pair(
    name: str,
    *,
    cls: str,
    wrong: Any,
    right: Any,
    args: Sequence[Arg],
    source: str = "",
    primary: str = "vjp",
    must_fail: tuple[str, ...] = (),
    code: str | None = None,
    note: str = "",
    unresolved: str = "",
    **fields: Any,
) -> Fault:
    """Put `wrong` and `right` under the same spec."""
    twin = Spec(name=f"{name}_twin", op=right, args=tuple(args), **fields)
    return Fault(
        name=name,
        cls=cls,
        primary=primary,
        must_fail=must_fail or (primary,),
        source=source,
        wrong=twin.with_(name=name, op=wrong),
        right=twin,
        code=code,
        note=note,
        unresolved=unresolved,
    )
