"""What a spec may say beside its arguments, and the form in which the record keeps it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from gradverify.cases.materialise import dtype_named
from gradverify.errors import SpecError
from gradverify.records.case import Scalar
from gradverify.records.spec import Contract, Dim, Example, Times, Tolerance
from gradverify.records.vocabulary import ALL, one_of

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
    return {k: _FORMS[k](v) if k in _FORMS else v for k, v in given.items()}


def refuse_unknown(
    owner: str, field: str, given: Iterable[str], known: Iterable[str], *, near: Iterable[str] = ()
) -> None:
    """Raise SpecError, with a guess at what was meant, for the first word that is not known; `near` are guesses too."""
    options = list(known)
    for word in given:
        if word not in options:
            close = difflib.get_close_matches(word, [*options, *near], n=1)
            guess = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(options) or 'none'}."
            raise SpecError(f"{owner}: {field} does not know {word!r}{guess}")


def _dtype(value: Any) -> str:
    word = str(value).removeprefix("torch.")
    if dtype_named(word).is_complex:
        raise SpecError(
            f"dtypes names the precision under test, got {word}; name float64 or float32, and mark the arguments that "
            'are complex: Annotated[Tensor, "n", gv.complex].'
        )
    return word


def _layouts(value: Iterable[str]) -> tuple[str, ...]:
    names = _listed(value)
    refuse_unknown("spec", "layouts", names, ALL)
    return names


def _listed(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int) or not isinstance(value, Iterable) else tuple(value)


def values_of(value: Any) -> tuple[Scalar, ...]:
    """Documented values: a sequence of them, or one."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


_FORMS: Mapping[str, Callable[[Any], Any]] = {
    "kwargs": lambda v: {n: values_of(x) for n, x in v.items()},
    "dims": lambda v: {n: one_of(d) if isinstance(d, int) else d for n, d in v.items()},
    "nondiff": _listed,
    "dtypes": lambda v: tuple(_dtype(d) for d in _listed(v)),
    "devices": _listed,
    "layouts": _layouts,
    "tol": lambda v: {_dtype(d): t for d, t in v.items()},
    "examples": _listed,
}
