"""Jacobian-vector products of an op, through torch's dual numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradverify.autodiff.calling import Called, copies, raised
from gradverify.errors import NotApplicableError, OpError
from gradverify.records.case import Point
from gradverify.records.spec import Spec

Tangents = Mapping[str, Tensor | None]

MISFITS = ("forward gradient", "the jvp is not returning a view", "jvp returned")
"""What torch says of a tangent that it refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dual:
    """One call of an op in forward mode.

    Attributes:
        outputs: all output tensors.
        tangents: J v for each of them; None where torch has none.
        given: name -> the primal and the tangent that the op was handed, as the call left them.
    """

    outputs: tuple[Tensor, ...]
    tangents: tuple[Tensor | None, ...]
    given: Mapping[str, tuple[Tensor, Tensor]]


NONE = "the op has no jvp"


def lacking(op: object) -> bool:
    """Whether an op is a Function that defines no jvp."""
    function = torch.autograd.Function
    return isinstance(op, type) and issubclass(op, function) and op.jvp is function.jvp


def jvp(spec: Spec, called: Called, point: Point, tangents: Tangents) -> Dual:
    """Call the op on dual numbers: exact copies of the primals, with copies of the tangents that are not None.

    Raises NotApplicableError where forward mode is not implemented, OpError at the stage `jvp` for anything else: with
    the code GV401 where torch refuses what the op's jvp returned.
    """
    handed = {n: v.clone() for n, v in tangents.items() if v is not None}
    primals = copies(point.primals)
    try:
        return _dual(called, primals, point, handed)
    except OpError as error:
        _told(spec, error)


def refused(called: Called, point: Point, tangents: Tangents) -> str:
    """Why an output has no tangent, in torch's words; empty where it says nothing.

    An operator of torch.library without a forward-mode rule drops the tangents without a word, unless its inputs
    require grad.
    """
    handed = {n: v.clone() for n, v in tangents.items() if v is not None}
    primals = copies(point.primals)
    for n in handed:
        primals[n] = primals[n].requires_grad_()  # type: ignore[union-attr]
    try:
        with torch.enable_grad():
            _dual(called, primals, point, handed)
    except OpError as error:
        return _reason(error.__cause__) if isinstance(error.__cause__, NotImplementedError) else ""
    return ""


@cache
def _prepare() -> None:
    """Let torch register its forward-mode decompositions, as it does at the first dual number.

    It warns of a deprecation of its own there, which is none of the user's business.
    """
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))  # type: ignore[no-untyped-call]


def _dual(called: Called, primals: Mapping[str, Tensor | None], point: Point, handed: Mapping[str, Tensor]) -> Dual:
    given = {n: t for n, t in primals.items() if t is not None and n in handed}
    _prepare()
    with forward_ad.dual_level():
        duals = {n: forward_ad.make_dual(t, handed[n]) for n, t in given.items()}  # type: ignore[no-untyped-call]
        outputs = called({**primals, **duals}, point.kwargs)
        pairs = [forward_ad.unpack_dual(y) for y in outputs]  # type: ignore[no-untyped-call]
    return Dual(
        outputs=tuple(p.primal.detach() for p in pairs),
        tangents=tuple(None if p.tangent is None else p.tangent.detach() for p in pairs),
        given={n: (given[n].detach(), handed[n]) for n in given},
    )


def _told(spec: Spec, error: OpError) -> NoReturn:
    cause = error.__cause__
    if isinstance(cause, NotImplementedError):
        raise NotApplicableError(_reason(cause)) from error
    if not isinstance(cause, Exception):
        raise error
    if "INTERNAL ASSERT FAILED" in str(cause) and "new_grad" in str(cause):
        message = f"{spec.name}: the jvp returned None for an output that carries a gradient; return its tangent."
        raise OpError(message, code="GV401", stage="jvp") from cause
    misfit = any(w in str(cause) for w in MISFITS)
    raise raised(spec, cause, code="GV401" if misfit else "GV902", stage="jvp") from cause


def _reason(cause: BaseException | None) -> str:
    text = (str(cause).strip().splitlines() or [""])[0]
    return NONE if "must implement the jvp" in text else text.rstrip(".")
