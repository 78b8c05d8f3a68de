"""The fields of a spec in the form that the record keeps, however they were written; unknown names are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gradverify.errors import SpecError
from gradverify.records.case import Scalar
from gradverify.records.names import DEVICES, DTYPES, EXPECTED, FEATURES, LAYOUTS, refuse_unknown
from gradverify.records.parts import Dim, Times, Tolerance

TRUTHS = ("differences", "reference")


def form(owner: str, field: str, value: Any) -> Any:
    """A field of a spec as the record keeps it. Raises SpecError, in the name of the owner, for a name of nothing."""
    return _FORMS[field](owner, value) if field in _FORMS else value


def values_of(value: Any) -> tuple[Scalar, ...]:
    """Documented values: a sequence of them, or one."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _listed(_: str, value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int) or not isinstance(value, Iterable) else tuple(value)


def _dtypes(owner: str, value: Any) -> tuple[str, ...]:
    return tuple(_dtype(owner, "dtypes", d) for d in _listed(owner, value))


def _dtype(owner: str, field: str, value: Any) -> str:
    word = str(value).removeprefix("torch.")
    if word.startswith("complex"):
        raise SpecError(
            f"{owner}: {field} names the precision under test, got {word}; name float64 or float32, and mark the "
            'arguments that are complex: Annotated[Tensor, "n", gv.complex].'
        )
    refuse_unknown(owner, field, [word], DTYPES)
    return word


def _devices(owner: str, value: Any) -> tuple[str, ...]:
    if value == "auto":
        return ()
    names = tuple(str(d) for d in _listed(owner, value))
    refuse_unknown(owner, "devices", [re.sub(r":\d+$", "", n) for n in names], DEVICES)
    return names


def _layouts(owner: str, value: Any) -> tuple[str, ...]:
    names = _listed(owner, value)
    refuse_unknown(owner, "layouts", names, LAYOUTS)
    return names


def _tolerances(owner: str, value: Mapping[Any, Any]) -> dict[str, Times | Tolerance]:
    odd = next((t for t in value.values() if not isinstance(t, Times | Tolerance)), None)
    if odd is not None:
        raise SpecError(f"{owner}: tol gives {odd!r}; give gv.times(factor), or gv.tol(rtol=..., atol=...).")
    return {_dtype(owner, "tol", d): t for d, t in value.items()}


def _keys(field: str, known: Iterable[str]) -> Callable[[str, Any], Any]:
    def checked(owner: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        refuse_unknown(owner, field, value, known)
        return value

    return checked


def _truth(owner: str, value: str) -> str:
    refuse_unknown(owner, "truth", [value], TRUTHS)
    return value


def _sizes(_: str, value: Mapping[str, Any]) -> dict[str, Dim]:
    return {n: Dim(lo=d, hi=d, choices=(d,)) if isinstance(d, int) else d for n, d in value.items()}


_FORMS: Mapping[str, Callable[[str, Any], Any]] = {
    "kwargs": lambda _, v: {n: values_of(x) for n, x in v.items()},
    "dims": _sizes,
    "truth": _truth,
    "supports": _keys("supports", FEATURES),
    "nondiff": _listed,
    "dtypes": _dtypes,
    "devices": _devices,
    "layouts": _layouts,
    "tol": _tolerances,
    "examples": _listed,
    "xfail": _keys("xfail", EXPECTED),
}
