"""What a spec may say beside its arguments, and the form in which the record keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from gradverify.errors import SpecError
from gradverify.records.case import Scalar
from gradverify.records.forms import form
from gradverify.records.names import refuse_unknown
from gradverify.records.spec import Contract, Dim, Example, Times, Tolerance

if TYPE_CHECKING:
    import torch

    DType = str | torch.dtype


class Fields(TypedDict, total=False):
    """What a spec may say beside its arguments and its contract; see `Spec` for each."""

    name: str
    kwargs: Mapping[str, Scalar | Sequence[Scalar]]
    dims: Mapping[str, Dim | int]
    where: Callable[..., bool]
    inputs: Any
    linear: bool
    truth: Literal["differences", "reference"]
    supports: Mapping[str, bool]
    stochastic: bool
    nondeterministic: bool
    nondiff: Sequence[int | str]
    dtypes: Sequence[DType]
    devices: Sequence[str]
    layouts: Sequence[str]
    tol: Mapping[DType, Times | Tolerance]
    digits: float
    examples: Sequence[Example]
    xfail: Mapping[str, str]


def contract_of(backward_of: Callable[..., Any] | None, vjp: Callable[..., Any] | None) -> Contract:
    """The one contract that was declared; exact where none was. Raises SpecError for two of them."""
    if backward_of is not None and vjp is not None:
        raise SpecError("a spec has one contract: declare backward_of= or vjp=, not both.")
    for kind, formula in (("backward_of", backward_of), ("vjp", vjp)):
        if formula is not None and not callable(formula):
            raise SpecError(f"{kind}= must be a function, got {formula!r}.")
    if backward_of is not None:
        return Contract(kind="backward_of", formula=backward_of)
    return Contract() if vjp is None else Contract(kind="vjp", formula=vjp)


def normalised(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a spec in the form that the record keeps. Raises SpecError with did-you-mean for an unknown one."""
    refuse_unknown("spec", "spec", given, [*Fields.__annotations__, "backward_of", "vjp"])
    owner = given.get("name", "spec")
    return {k: form(owner, k, v) for k, v in given.items()}
