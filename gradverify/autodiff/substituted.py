"""Torch's functions with the derivative of their tangents replaced by what reverse over reverse makes of it.

<c, J(x) v> = <B(x; c), v>, so the gradients of a tangent J v by x and by v are those of <B(x; c), v>: backward and its
own backward, which double_backward has held against differences, tell them without forward mode's formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_unflatten

from gradverify.autodiff.calling import is_inexact
from gradverify.autodiff.products import gradients


class ByReverse(TorchFunctionMode):
    """For as long as it is entered, tangents of torch's functions `names`, or of all, are differentiated in reverse.

    Functions of the user are not torch's, and keep their own jvp. `seen`: names of the functions that met a tangent.
    """

    def __init__(self, names: Collection[str] | None = None) -> None:
        super().__init__()
        self.names = names
        self.seen: dict[str, None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch's."""
        kwargs = kwargs or {}
        name = short(func)
        if not name or "out" in kwargs or not any(_tangent(t) is not None for t in tree_flatten((args, kwargs))[0]):
            return func(*args, **kwargs)
        self.seen[name] = None
        if self.names is not None and name not in self.names:
            return func(*args, **kwargs)
        return _replaced(func, args, kwargs)


def short(func: Callable[..., Any]) -> str:
    """`layer_norm` of torch.nn.functional.layer_norm; empty for attributes and for what writes in place."""
    name = str(resolve_name(func) or getattr(func, "__name__", "")).rpartition(".")[2]
    return "" if name.startswith("__") or name.endswith("_") or name in ("unpack_dual", "detach") else name


def _tangent(t: Any) -> Tensor | None:
    if not is_inexact(t):
        return None
    tangent: Tensor | None = forward_ad.unpack_dual(t).tangent  # type: ignore[no-untyped-call]
    return tangent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One call of a function: its flattened arguments, those of them that are floating, and where it began to draw."""

    func: Callable[..., Any]
    flat: Sequence[Any]
    shape: Any
    places: Sequence[int]
    state: Tensor

    def outputs(self, tensors: Sequence[Tensor]) -> list[Any]:
        """The flattened outputs with other tensors in the places of the floating arguments, and the same draws."""
        flat = list(self.flat)
        for place, t in zip(self.places, tensors, strict=True):
            flat[place] = t
        args, kwargs = tree_unflatten(flat, self.shape)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.state)
            return list(tree_flatten(self.func(*args, **kwargs))[0])


def _replaced(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The outputs, as primals with the history that they have and tangents with another."""
    flat, shape = tree_flatten((args, kwargs))
    places = [k for k, t in enumerate(flat) if is_inexact(t)]
    call = _Call(func=func, flat=flat, shape=shape, places=places, state=torch.get_rng_state())
    outputs, back = tree_flatten(func(*args, **kwargs))
    parts = [forward_ad.unpack_dual(flat[k]) for k in places]  # type: ignore[no-untyped-call]
    primals = [p.primal for p in parts]
    tangents = [torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in parts]
    return tree_unflatten([_dual(call, k, y, primals, tangents) for k, y in enumerate(outputs)], back)


def _dual(call: _Call, k: int, y: Any, primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Any:
    tangent = _tangent(y)
    if tangent is None:
        return y
    differentiated = [p.requires_grad or v.requires_grad for p, v in zip(primals, tangents, strict=True)]
    replaced = _Tangent.apply(call, k, differentiated, tangent.detach(), *primals, *tangents)  # type: ignore[no-untyped-call]
    return forward_ad.make_dual(forward_ad.unpack_dual(y).primal, replaced)  # type: ignore[no-untyped-call]


class _Tangent(Function):
    """The tangent of one output as a function of primals and tangents."""

    @staticmethod
    def forward(ctx: Any, call: _Call, k: int, differentiated: Sequence[bool], value: Tensor, *given: Tensor) -> Tensor:
        ctx.call, ctx.k, ctx.differentiated = call, k, differentiated
        ctx.save_for_backward(*given)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> Any:
        half = len(ctx.saved_tensors) // 2
        with torch.enable_grad():
            # What carries no gradient may be a buffer that the function writes to.
            given = [x.detach().clone() for x in ctx.saved_tensors[:half]]
            xs = [x.requires_grad_() if needed else x for x, needed in zip(given, ctx.differentiated, strict=True)]
            vs = ctx.saved_tensors[half:]
            y = ctx.call.outputs(xs)[ctx.k]
            rows = _all(gradients([y], [x for x in xs if x.requires_grad], [c], create_graph=True), xs)
            terms = [(g.conj() * v).real.sum() for g, v in zip(rows, vs, strict=True) if g is not None]
            told = [t for t in terms if t.requires_grad]
            leaves = [x for x in xs if x.requires_grad]
            by_x = _all(gradients(told, leaves, [torch.ones_like(t) for t in told]), xs) if told else [None] * half
        return (None, None, None, None, *by_x, *(None if g is None else g.detach() for g in rows))


def _all(found: Sequence[Tensor | None], xs: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of those that require one, with None for the others."""
    rest = iter(found)
    return [next(rest) if x.requires_grad else None for x in xs]
