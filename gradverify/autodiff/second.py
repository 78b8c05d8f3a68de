"""Second derivatives of an op: its gradients as a function of inputs and cotangents, differentiated once more.

B(x; u) = J(x)^T u is what backward returns. Reverse over reverse differentiates <w, B(x; u)> by x and u; forward over
reverse pushes a tangent of (x, u) through backward; reverse over forward differentiates <u, J(x) v> by x. Where J is
right they agree: d<w, B>/dx = d<u, J w>/dx, and <w, dB(d)> = <d<w, B>, d>.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradverify.autodiff.calling import Called, copies, is_inexact, raised
from gradverify.autodiff.products import Tape, gradients, nodes_of
from gradverify.errors import OpError
from gradverify.records.case import Point

STAGE = "double backward"

REFUSALS = (
    "once_differentiable",
    "double backward",
    "double-backward",
    "differentiate twice",
    "second derivative",
    "second-order",
    "not implemented",
    "no autograd formula was registered",
)
"""Words of an exception that says that there is no second derivative; any other is an accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Twice:
    """The gradients of one recorded call, recorded in turn.

    Attributes:
        tape: the call.
        cotangents: one an output, each requiring grad; None for outputs that are not used.
        grads: B(x; u) by argument, None where none came back.
    """

    tape: Tape
    cotangents: tuple[Tensor | None, ...]
    grads: Mapping[str, Tensor | None]

    @property
    def inputs(self) -> list[Tensor]:
        """What the gradients are functions of: the leaves, then the cotangents."""
        return [*self.tape.leaves.values(), *(u for u in self.cotangents if u is not None)]

    def vjp(self, weights: Mapping[str, Tensor]) -> tuple[Tensor | None, ...]:
        """Gradients of sum_k <w_k, B_k(x; u)> by the inputs; None where there is no history.

        Raises OpError (stage `double backward`) where backward cannot be differentiated.
        """
        known = [(g, weights[n]) for n, g in self.grads.items() if g is not None and g.requires_grad]
        if not known:
            return (None,) * len(self.inputs)
        try:
            return gradients([g for g, _ in known], self.inputs, [w for _, w in known])
        except Exception as error:
            raise raised(self.tape.spec, error, stage=STAGE) from error


def twice(tape: Tape, cotangents: Sequence[Tensor | None]) -> Twice:
    """Backward of a recorded call with its own history kept, at cotangents that require grad themselves.

    A constant cotangent would hide an op that refuses: `once_differentiable` looks at the cotangents alone.
    Raises OpError (stage `double backward`).
    """
    us = tuple(None if u is None else u.detach().clone().requires_grad_() for u in cotangents)
    try:
        recorded = _recorded(tape, us)
    except Exception as error:
        raise raised(tape.spec, error, stage=STAGE) from error
    _ask_whether_refused(tape, list(recorded.grads.values()))
    return recorded


def _recorded(tape: Tape, us: tuple[Tensor | None, ...]) -> Twice:
    used = [(y, u) for y, u in zip(tape.outputs, us, strict=True) if u is not None and y.requires_grad]
    if not used or not tape.leaves:
        return Twice(tape=tape, cotangents=us, grads=dict.fromkeys(tape.leaves))
    found = gradients([y for y, _ in used], list(tape.leaves.values()), [u for _, u in used], create_graph=True)
    return Twice(tape=tape, cotangents=us, grads=dict(zip(tape.leaves, found, strict=True)))


def _ask_whether_refused(tape: Tape, grads: Sequence[Tensor | None]) -> None:
    """Raise what `once_differentiable` would raise.

    It hangs a node that raises on copies of the gradients, which no path joins to the inputs: torch.autograd.grad, with
    allow_unused, never comes there and returns None, as if the derivative were zero; only backward() does.
    """
    for g in grads:
        if g is not None and any(node.name().endswith("::Error") for node in nodes_of([g])):
            try:
                torch.autograd.backward([g], [torch.zeros_like(g)], retain_graph=True)
            except Exception as error:
                raise raised(tape.spec, error, stage=STAGE) from error


def refused(error: OpError) -> bool:
    """Whether an op says that it has no second derivative, rather than fails on the way to one."""
    text = str(error.__cause__).lower()
    return isinstance(error.__cause__, NotImplementedError) or any(word in text for word in REFUSALS)


def without_history(tape: Tape) -> tuple[str, ...]:
    """Names of the floating tensors that the op's Functions kept and that no gradient flows back from.

    Inputs that were not asked a gradient have none rightly.
    """
    constant = {t.data_ptr() for n, t in tape.given.items() if n not in tape.leaves}
    names = []
    for node in tape.nodes():
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names += [n for n, t in _kept(node) if _lost(t) and t.data_ptr() not in constant]
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncut:
    """What cuts history inside a backward, and its derivatives where that has no effect.

    Attributes:
        names: of `detach`, `.data` and `no_grad`, what was used.
        numbers: of `item`, `tolist` and `float`, what was asked of a tensor with history.
        derivatives: as of `Twice.vjp`; empty where backward does not run so.
    """

    names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    derivatives: tuple[Tensor | None, ...] = ()


def uncut(recorded: Twice, weights: Mapping[str, Tensor]) -> Uncut:
    """One backward in which `detach`, `.data` and `no_grad` do not cut history."""
    seen: dict[str, None] = {}
    numbers: dict[str, None] = {}
    try:
        with _harmless(seen), _overheard(numbers):
            again = _recorded(recorded.tape, recorded.cotangents)
        return Uncut(names=tuple(seen), numbers=tuple(numbers), derivatives=again.vjp(weights))
    except Exception:  # noqa: BLE001 a backward that needs what it detaches
        return Uncut()


def numbers_kept(tape: Tape, other: Tape) -> tuple[str, ...]:
    """Names of the Python numbers on the op's contexts that differ between calls on other values: they have no history.

    Both calls are of one op at one shape, so that their contexts come in the same order.
    """
    contexts = [
        [n for n in t.nodes() if isinstance(n, torch.autograd.function.BackwardCFunction)] for t in (tape, other)
    ]
    return tuple(
        f"ctx.{name}"
        for one, two in zip(*contexts, strict=False)
        for name, value in vars(one).items()
        if isinstance(value, float) and isinstance(of := vars(two).get(name), float) and value != of
    )


@contextmanager
def _overheard(numbers: dict[str, None]) -> Iterator[None]:
    """For as long as one backward takes, it is heard what makes a Python number of a tensor with history."""

    def told(word: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(given: Tensor, *more: Any) -> Any:
            if given.requires_grad:
                numbers[word] = None
            return own(given, *more)

        return call

    with ExitStack() as stack:
        for word, name in (("item", "item"), ("tolist", "tolist"), ("float", "__float__")):
            stack.enter_context(patch.object(Tensor, name, told(word, getattr(Tensor, name))))
        yield


@contextmanager
def _harmless(seen: dict[str, None]) -> Iterator[None]:
    """For as long as one backward takes, what cuts history in Python has no effect but to be seen."""

    def kept(name: str) -> Callable[..., Any]:
        def same(given: Any, *_: Any) -> Any:
            seen[name] = None
            return given

        return same

    with ExitStack() as stack:
        stack.enter_context(patch.object(Tensor, "detach", kept("detach")))
        stack.enter_context(patch.object(Tensor, "data", property(kept(".data")), create=True))
        stack.enter_context(patch.object(torch.no_grad, "__enter__", kept("no_grad")))
        stack.enter_context(patch.object(torch.no_grad, "__exit__", lambda *_: None))
        yield


def _kept(node: Any) -> Iterator[tuple[str, Any]]:
    for i, t in enumerate(node.saved_tensors):
        yield f"saved tensor {i}", t
    for name, value in vars(node).items():
        if name != "saved_for_forward":
            yield from ((f"ctx.{name}", t) for t in (value if isinstance(value, tuple | list) else (value,)))


def _lost(t: Any) -> bool:
    return is_inexact(t) and t.numel() > 0 and not t.requires_grad


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What forward mode gives along a tangent (v, t) of (x, u).

    Attributes:
        outputs: J v, one an output; None where no tangent came out.
        grads: the tangents of B(x; u), by argument; None where none came out.
    """

    outputs: tuple[Tensor | None, ...]
    grads: Mapping[str, Tensor | None]


def forward_over_reverse(
    called: Called, point: Point, cotangents: Sequence[Tensor | None], tangents: Sequence[Tensor]
) -> Pushed | None:
    """The tangent of B along `tangents`, of the leaves and then of the cotangents; None without forward mode."""
    along = iter(tangents)
    with _forward_mode():
        leaves = {n: _dual(t, next(along)) for n, t in _leaves(point).items()}
        us = [None if u is None else _dual(u.detach().clone(), next(along)) for u in cotangents]
        try:
            outputs = called({**copies(point.primals), **leaves}, point.kwargs)
            used = [(y, u) for y, u in zip(outputs, us, strict=True) if u is not None and y.requires_grad]
            found = gradients([y for y, _ in used], list(leaves.values()), [u for _, u in used], create_graph=True)
        except Exception:  # noqa: BLE001 an op without forward mode, in whichever words
            return None
        grads = {n: None if g is None else _tangent(g) for n, g in zip(leaves, found, strict=True)}
        return Pushed(outputs=tuple(_tangent(y) for y in outputs), grads=grads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """Gradients of <u, J(x) v>, by argument.

    Attributes:
        outputs: J v, one an output; None where no tangent came out.
        by_x: None where no gradient came back.
        by_v: likewise.
    """

    outputs: tuple[Tensor | None, ...]
    by_x: Mapping[str, Tensor | None]
    by_v: Mapping[str, Tensor | None]


def reverse_over_forward(
    called: Called,
    point: Point,
    cotangents: Sequence[Tensor | None],
    tangents: Mapping[str, Tensor],
    mode: AbstractContextManager[Any] | None = None,
) -> Pulled | None:
    """The gradients of <u, J(x) v>; None where there is no forward mode, or it refuses. `mode`: to call the op in."""
    leaves = _leaves(point)
    vs = {n: tangents[n].detach().clone().requires_grad_() for n in leaves}
    with _forward_mode():
        try:
            duals = {n: _dual(t, vs[n]) for n, t in leaves.items()}
            with mode or nullcontext():
                outputs = called({**copies(point.primals), **duals}, point.kwargs)
            pushed = tuple(_tangent(y) for y in outputs)
            pairs = zip(pushed, cotangents, strict=True)
            known = [(t, u) for t, u in pairs if t is not None and u is not None and t.requires_grad]
            found = gradients([t for t, _ in known], [*leaves.values(), *vs.values()], [u for _, u in known])
        except Exception:  # noqa: BLE001 an op without forward mode, in whichever words
            return None
        by = [None if g is None else _primal(g) for g in found]
        values = tuple(None if t is None else _primal(t).detach() for t in pushed)
    return Pulled(
        outputs=values,
        by_x=dict(zip(leaves, by[: len(leaves)], strict=True)),
        by_v=dict(zip(leaves, by[len(leaves) :], strict=True)),
    )


def _leaves(point: Point) -> dict[str, Tensor]:
    given = copies(point.primals)
    return {n: given[n].detach().requires_grad_() for n in point.differentiate}  # type: ignore[union-attr]


def _dual(primal: Tensor, tangent: Tensor) -> Tensor:
    return cast("Tensor", forward_ad.make_dual(primal, tangent))  # type: ignore[no-untyped-call]


def _primal(t: Tensor) -> Tensor:
    return cast("Tensor", forward_ad.unpack_dual(t).primal.clone())  # type: ignore[no-untyped-call]


def _tangent(t: Tensor) -> Tensor | None:
    tangent: Tensor | None = forward_ad.unpack_dual(t).tangent  # type: ignore[no-untyped-call]
    return None if tangent is None else tangent.clone()  # a tensor that is zero by its type has no memory


@contextmanager
def _forward_mode() -> Iterator[None]:
    with warnings.catch_warnings(), torch.enable_grad(), forward_ad.dual_level():
        # torch compiles some of its own formulas with what it has itself deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
