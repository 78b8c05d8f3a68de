"""CONVENTION: backward returns what torch promises of a gradient: the shape, dtype and device of its input."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import torch

from gradverify.autodiff.returned import Returned, Wanted, functions, returned
from gradverify.cases.modules import in_dtype
from gradverify.checks.subject import Subject, at
from gradverify.errors import NotApplicableError, OpError
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

NARROW = "float32"
"""Under float64 nothing is wider than the input: a gradient that is too wide shows at this dtype."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Look at each gradient as the op's Functions return it, before torch casts it and sums it to size.

    Raises NotApplicableError where the gradients are torch's own.
    """
    subject = at(spec, case)
    yield from _looked_at(subject)
    if case.dtype == "float64" and NARROW in (spec.dtypes or (NARROW,)):
        try:
            narrow = list(_looked_at(at(in_dtype(spec, NARROW), msgspec.structs.replace(case, dtype=NARROW))))
        except (OpError, NotApplicableError):
            return
        yield from (msgspec.structs.replace(e, case=case, facts={**e.facts, "phase": f"in {NARROW}"}) for e in narrow)


def _looked_at(subject: Subject) -> Iterator[Evidence]:
    tape = subject.record()
    if not functions(tape):
        raise NotApplicableError("its gradients are torch's own: no Function of the op returns them")
    us = subject.cotangents(tape)
    try:
        found = returned(tape, us)
    except OpError as error:
        if error.code != "GV109":
            raise
        yield subject.count("the gradients", 1, kind="refused", said=str(error))
        return
    for r in found:
        yield from _one(subject, r)
    yield subject.count("the gradients", 0, kind="convention")


def _one(subject: Subject, r: Returned) -> Iterator[Evidence]:
    """A gradient that torch uses; or one for an argument that has none, which torch drops."""
    if r.wanted is None:
        yield from _dropped(subject, r)
        return
    quantity = (
        f"the gradient of `{r.argument}`" if r.argument in subject.point.primals else f"the gradient of {r.argument}"
    )
    kind = _breach(r, r.wanted)
    if kind:
        yield subject.count(quantity, 1, kind=kind, found=_words(r), wanted=_promised(r.wanted))
    if r.gradient.requires_grad:
        said = "it requires grad although no second derivative was asked for: it keeps a graph alive, use no_grad"
        yield subject.count(quantity, 1, kind="requires grad", said=said)


def _breach(r: Returned, wanted: Wanted) -> str:
    """The first of device, layout, shape and dtype that is not the input's."""
    g = r.gradient
    if g.device != wanted.device:
        return "device"
    if g.layout != torch.strided:
        return "sparse"
    if tuple(g.shape) != wanted.shape:
        return "shape"
    if g.dtype == wanted.dtype:
        return ""
    return "wider" if _holds(g.dtype, wanted.dtype) else "dtype"


def _holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether a floating dtype holds every value of another, and nothing that torch would drop on its way there."""
    if dtype.is_complex != other.is_complex or not (dtype.is_complex or dtype.is_floating_point):
        return False
    return torch.promote_types(dtype, other) == dtype


def _words(r: Returned) -> str:
    strided = "" if r.gradient.layout == torch.strided else f" {r.gradient.layout}".replace("torch.", "")
    return _described(r.gradient.dtype, tuple(r.gradient.shape), r.gradient.device) + strided


def _promised(wanted: Wanted) -> str:
    return _described(wanted.dtype, wanted.shape, wanted.device)


def _described(dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> str:
    where = "" if device.type == "cpu" else f" on {device}"
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}{where}"


def _dropped(subject: Subject, r: Returned) -> Iterator[Evidence]:
    """An integer or a mask has no gradient. Only of an op that is one Function are the positions known by name."""
    spec = subject.spec
    if not (r.alone and isinstance(spec.op, type) and r.position < len(spec.order)):
        return
    name = spec.order[r.position]
    if any(a.name == name and a.role in ("integer", "mask") for a in spec.args):
        yield subject.count(f"the gradient of `{name}`", 1, kind="dropped", found=_words(r), wanted="None")
