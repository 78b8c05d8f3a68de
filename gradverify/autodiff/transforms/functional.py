"""An op under torch.func, and the same derivatives by the recorded graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradverify.autodiff.transforms.pure import Gradients, Pure, function_of, pulled, transforming
from gradverify.records.case import Point
from gradverify.records.spec import Spec

Named = Mapping[str, Tensor]
Used = Sequence[Tensor | None]


def values(spec: Spec, point: Point, us: Used) -> tuple[Tensor, ...]:
    """The outputs that are used, as torch.func.vjp computes them."""
    with transforming():
        return torch.func.vjp(_active(spec, point, us), *_free(point))[0]  # type: ignore[no-any-return]


def vjp(spec: Spec, point: Point, us: Used) -> Gradients:
    """torch.func.vjp at the same cotangents."""
    with transforming():
        pull = torch.func.vjp(_active(spec, point, us), *_free(point))[1]
        return dict(zip(point.differentiate, pull(_given(us)), strict=True))


def grad(spec: Spec, point: Point, us: Used) -> Gradients:
    """torch.func.grad of the scalar <u, F(x)>."""
    with transforming():
        return _named(point, _gradient(spec, point, us)(*_free(point)))


def jacobian(spec: Spec, point: Point, us: Used, *, mode: str) -> Named:
    """torch.func.jacrev, row by row, or jacfwd: `argument/output` -> [output, argument]."""
    places = tuple(range(len(point.differentiate)))
    function = _active(spec, point, us)
    with transforming():
        if mode == "jacrev":
            # With chunks of one row torch takes a loop, and needs no vmap of the op.
            rows = torch.func.jacrev(function, argnums=places, chunk_size=1)(*_free(point))
        else:
            rows = torch.func.jacfwd(function, argnums=places)(*_free(point))
    return {
        f"{name}/{k}": block for k, row in enumerate(rows) for name, block in zip(point.differentiate, row, strict=True)
    }


def eager_jacobian(spec: Spec, point: Point, us: Used) -> Named:
    """The same Jacobian by one backward an output element."""
    xs = tuple(t.clone().requires_grad_() for t in _free(point))
    with torch.enable_grad():
        ys = _active(spec, point, us)(*xs)
    out = {}
    for k, y in enumerate(ys):
        rows = [_row(y, xs, i) for i in range(y.numel())]
        for j, (name, x) in enumerate(zip(point.differentiate, xs, strict=True)):
            out[f"{name}/{k}"] = torch.stack([row[j] for row in rows]).reshape(y.shape + x.shape)
    return out


def _row(y: Tensor, xs: Sequence[Tensor], i: int) -> list[Tensor]:
    u = torch.zeros(y.numel(), dtype=y.dtype, device=y.device)
    u[i] = 1
    if not y.requires_grad:
        return [torch.zeros_like(x) for x in xs]
    grads = pulled([y], xs, [u.reshape(y.shape)], retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(grads, xs, strict=True)]


def eager_columns(spec: Spec, point: Point, us: Used) -> Named:
    """The same Jacobian by one dual number an input element: the terms of forward mode, in their order."""
    xs = _free(point)
    zeros = [torch.zeros_like(x) for x in xs]
    out: dict[str, Tensor] = {}
    for j, (name, x) in enumerate(zip(point.differentiate, xs, strict=True)):
        unit = torch.eye(x.numel(), dtype=x.dtype, device=x.device).reshape(x.numel(), *x.shape)
        columns = [eager_jvp(spec, point, us, [*zeros[:j], v, *zeros[j + 1 :]]) for v in unit]
        for k in range(len(_given(us))):
            block = torch.stack([c[f"output {k}"] for c in columns], dim=-1)
            out[f"{name}/{k}"] = block.reshape(block.shape[:-1] + x.shape)
    return out


def jvp(spec: Spec, point: Point, us: Used, tangents: Sequence[Tensor]) -> Named:
    """torch.func.jvp: output -> its tangent."""
    with transforming():
        return _numbered(torch.func.jvp(_active(spec, point, us), _free(point), tuple(tangents))[1])


def eager_jvp(spec: Spec, point: Point, us: Used, tangents: Sequence[Tensor]) -> Named:
    """The same tangents by torch.autograd.forward_ad."""
    make_dual: Any = forward_ad.make_dual
    unpack_dual: Any = forward_ad.unpack_dual
    with transforming(), forward_ad.dual_level():
        duals = [make_dual(x, v) for x, v in zip(_free(point), tangents, strict=True)]
        ys = _active(spec, point, us)(*duals)
        parts = [unpack_dual(y) for y in ys]
    return _numbered([torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in parts])


def second(spec: Spec, point: Point, us: Used, along: Sequence[Tensor]) -> Gradients:
    """torch.func.grad of <v, grad <u, F>>: the Hessian of <u, F> times v."""
    inner = _gradient(spec, point, us)

    def slope(*xs: Tensor) -> Tensor:
        return _inner(inner(*xs), along)

    with transforming():
        return _named(point, torch.func.grad(slope, argnums=tuple(range(len(along))))(*_free(point)))


def eager_second(spec: Spec, point: Point, us: Used, along: Sequence[Tensor]) -> Gradients | None:
    """The same by the graph of the backward; None where torch or the op refuses a second derivative, or it is zero."""
    xs = tuple(t.clone().requires_grad_() for t in _free(point))
    try:
        with torch.enable_grad():
            value = _inner(_active(spec, point, us)(*xs), _given(us))
            grads = pulled([value], xs, create_graph=True)
        slope = _inner([torch.zeros_like(x) if g is None else g for g, x in zip(grads, xs, strict=True)], along)
        return _named(point, pulled([slope], xs))
    except Exception:  # noqa: BLE001 whatever it raises, there is no second derivative to hold torch.func against
        return None


def hessian(spec: Spec, point: Point, us: Used) -> Named:
    """torch.func.hessian of <u, F(x)>, which is forward over reverse mode: `first/second argument` -> block."""
    places = tuple(range(len(point.differentiate)))
    with transforming():
        blocks = torch.func.hessian(_scalar(spec, point, us), argnums=places)(*_free(point))
    names = point.differentiate
    return {
        f"{a}/{b}": block for a, row in zip(names, blocks, strict=True) for b, block in zip(names, row, strict=True)
    }


def eager_hessian(spec: Spec, point: Point, us: Used) -> Named:
    """The same by the gradient of dual numbers, one input element at a time."""
    xs = _free(point)
    zeros = [torch.zeros_like(x) for x in xs]
    out: dict[str, Tensor] = {}
    for j, (name, x) in enumerate(zip(point.differentiate, xs, strict=True)):
        unit = torch.eye(x.numel(), dtype=x.dtype, device=x.device).reshape(x.numel(), *x.shape)
        columns = [_dual_gradient(spec, point, us, [*zeros[:j], v, *zeros[j + 1 :]]) for v in unit]
        for i, other in enumerate(point.differentiate):
            block = torch.stack([c[i] for c in columns], dim=-1)
            out[f"{other}/{name}"] = block.reshape(block.shape[:-1] + x.shape)
    return out


def _dual_gradient(spec: Spec, point: Point, us: Used, tangents: Sequence[Tensor]) -> list[Tensor]:
    make_dual: Any = forward_ad.make_dual
    unpack_dual: Any = forward_ad.unpack_dual
    xs = [x.clone().requires_grad_() for x in _free(point)]
    with transforming(), torch.enable_grad(), forward_ad.dual_level():
        duals = [make_dual(x, v) for x, v in zip(xs, tangents, strict=True)]
        value = _inner(_active(spec, point, us)(*duals), _given(us))
        # Some backwards take what they saved for constants unless a graph is asked for, as torch.func does.
        found = pulled([value], xs, create_graph=True)
        grads = [torch.zeros_like(x) if g is None else g for g, x in zip(found, xs, strict=True)]
        parts = [unpack_dual(g).tangent for g in grads]
    return [torch.zeros_like(x) if p is None else p.detach() for p, x in zip(parts, xs, strict=True)]


def _gradient(spec: Spec, point: Point, us: Used) -> Pure:
    places = tuple(range(len(point.differentiate)))
    gradient: Pure = torch.func.grad(_scalar(spec, point, us), argnums=places)
    return gradient


def _scalar(spec: Spec, point: Point, us: Used) -> Pure:
    function = _active(spec, point, us)

    def scalar(*xs: Tensor) -> Tensor:
        return _inner(function(*xs), _given(us))

    return scalar  # type: ignore[return-value]


def _active(spec: Spec, point: Point, us: Used) -> Pure:
    return function_of(spec, point, point.differentiate, tuple(i for i, u in enumerate(us) if u is not None))


def _given(us: Used) -> tuple[Tensor, ...]:
    return tuple(u for u in us if u is not None)


def _free(point: Point) -> tuple[Tensor, ...]:
    return tuple(point.primals[n] for n in point.differentiate)  # type: ignore[misc]


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Re <a, b>."""
    return torch.stack([_product(x, y) for x, y in zip(a, b, strict=True)]).sum()


def _product(x: Tensor, y: Tensor) -> Tensor:
    return (x * y.conj()).real.sum() if x.is_complex() or y.is_complex() else (x * y).sum()


def _named(point: Point, grads: Sequence[Tensor | None]) -> Gradients:
    return dict(zip(point.differentiate, grads, strict=True))


def _numbered(tensors: Sequence[Tensor]) -> Named:
    return {f"output {k}": t.detach() for k, t in enumerate(tensors)}
