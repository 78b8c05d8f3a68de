"""vmap of an op, of its gradient, and of its backward alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms.pure import Gradients, Outputs, function_of, pulled, transforming
from gradverify.records.case import Point
from gradverify.records.spec import Spec

Places = Mapping[str, int]
"""Argument -> the axis of its batch; an argument that is not named has none."""


def declared(spec: Spec) -> bool:
    """Whether the op says that it can be batched: by the spec, by a `vmap` of its own, or by generate_vmap_rule."""
    if spec.supports.get("vmap"):
        return True
    if not (isinstance(spec.op, type) and issubclass(spec.op, torch.autograd.Function)):
        return False
    return bool(spec.op.generate_vmap_rule) or spec.op.vmap is not torch.autograd.Function.vmap


def stacked(points: Sequence[Point], places: Places) -> Point:
    """One point of which the tensors in `places` are those of all the points, stacked along that axis."""
    first = points[0]
    primals = dict(first.primals)
    for name, place in places.items():
        primals[name] = torch.stack([p.primals[name] for p in points], dim=place)  # type: ignore[misc]
    return Point(primals=primals, kwargs=first.kwargs, differentiate=first.differentiate)


def outputs(spec: Spec, point: Point, places: Places, names: Sequence[str]) -> Outputs:
    """The op batched by vmap, each output with its batch in front."""
    batched = function_of(spec, point, names)
    with transforming():
        out: Outputs = torch.func.vmap(batched, in_dims=_dims(places, names))(*(point.primals[n] for n in names))
    return out


def gradient_of_vmap(
    spec: Spec, point: Point, places: Places, names: Sequence[str], us: Sequence[Tensor | None]
) -> Gradients:
    """Gradients of sum <u, vmap(F)(x)>: of a batched argument one a sample, of another the sum over them."""
    leaves = {n: point.primals[n].detach().clone().requires_grad_() for n in point.differentiate}  # type: ignore[union-attr]
    recorded = Point(primals={**point.primals, **leaves}, kwargs=point.kwargs, differentiate=point.differentiate)
    with torch.enable_grad():
        ys = outputs(spec, recorded, places, names)
    used = [(y, u) for y, u in zip(ys, us, strict=True) if u is not None and y.requires_grad]
    with transforming():
        grads = pulled([y for y, _ in used], list(leaves.values()), [u for _, u in used])
    moved = (None if g is None else g.movedim(places.get(n, 0), 0) for n, g in zip(leaves, grads, strict=True))
    return dict(zip(leaves, moved, strict=True))


def vmap_of_gradient(
    spec: Spec, point: Point, places: Places, names: Sequence[str], us: Sequence[Tensor | None]
) -> Gradients:
    """The gradient of one sample, batched: one a sample of every argument, [batch, ...]."""
    active = tuple(i for i, u in enumerate(us) if u is not None)
    free = point.differentiate

    def of_one(*tensors: Tensor) -> tuple[Tensor, ...]:
        given, cotangents = dict(zip(names, tensors, strict=False)), tensors[len(names) :]
        here = Point(primals={**point.primals, **given}, kwargs=point.kwargs, differentiate=free)
        pull = torch.func.vjp(function_of(spec, here, free, active), *(given[n] for n in free))[1]
        return tuple(pull(cotangents))

    dims = (*_dims(places, names), *(0 for _ in active))
    tensors = [point.primals[n] for n in names] + [us[i] for i in active]
    with transforming():
        grads = torch.func.vmap(of_one, in_dims=dims)(*tensors)  # type: ignore[arg-type]
    return dict(zip(free, grads, strict=True))


def batched_gradient(tape: Tape, us: Sequence[Sequence[Tensor | None]]) -> Gradients:
    """Gradients of one recorded call for several cotangents at once, [number of cotangents, ...]."""
    used = [i for i, y in enumerate(tape.outputs) if us[0][i] is not None and y.requires_grad]
    with transforming():
        grads = pulled(
            [tape.outputs[i] for i in used],
            list(tape.leaves.values()),
            [torch.stack([u[i] for u in us]) for i in used],  # type: ignore[misc]
            is_grads_batched=True,
            retain_graph=True,
        )
    return dict(zip(tape.leaves, grads, strict=True))


def _dims(places: Places, names: Sequence[str]) -> tuple[int | None, ...]:
    return tuple(places.get(n) for n in names)
