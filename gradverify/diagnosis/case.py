"""A case in the words of a reader: sizes, keywords, and what is special about the values and layouts of arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from gradverify.cases.crowded import CLOSE, SHIFTED
from gradverify.cases.layouts import LAZY
from gradverify.cases.regimes import EXTREME, SCALED
from gradverify.records.case import Case
from gradverify.records.spec import Spec

VALUES: Mapping[str, str] = MappingProxyType(
    {
        "normal": "",
        "decimals": "",
        "ones": "all ones",
        "ramp": "a ramp",
        "zeros": "with zeros",
        "minus zeros": "with zeros of minus sign",
        "ties": "with ties",
        "saturated": "of size 20 to 100",
        "overflow": "whose exp nearly overflows",
        "shifted": "near 1000",
        "constant": "constant along the last axis",
        "sorted": "rising along the last axis",
        "reversed": "falling along the last axis",
        "onehot": "one-hot",
        "lowest": "the lowest everywhere",
        "highest": "the highest everywhere",
        "masked": "with a row masked out",
        "none": "absent",
        # Values that are repeated along an axis come with the layout that says so.
        "repeated": "",
        **{name: f"near {2**k}" for name, k in SHIFTED.items()},
        **{name: f"relatively 1/{2**k} apart" for name, k in CLOSE.items()},
        **{name: f"of size 1e{round(math.log10(size))}" for name, size in {**SCALED, **EXTREME}.items()},
    }
)
"""What is special about values of a regime; nothing, where nothing is."""

_LAYOUTS: Mapping[str, str] = MappingProxyType(
    {"contiguous": "", "channels_last": "channels last", LAZY: "as a view not resolved"}
)


def recipe(spec: Spec, case: Case) -> Case:
    """The case without the data of its inputs, where its sizes and words give the same kind of inputs again.

    So is a case that is replayed from data like the one that was drawn; what the user's own code gives stays.
    """
    given = spec.inputs is not None or any(a.strategy is not None for a in spec.args)
    return case if given else replace(case, data=None)


def told(spec: Spec, case: Case) -> str:
    """`b=2x3  k=1  mode='sum'  x near 1000  w transposed`."""
    dims = [f"{k}={_size(v)}" for k, v in case.dims]
    kwargs = [f"{k}={v!r}" for k, v in case.kwargs]
    values = [(k, VALUES.get(v, v) if v != "bounds" else _bounds(spec, k)) for k, v in case.values]
    layouts = [(k, _LAYOUTS.get(v, v)) for k, v in case.layouts]
    return (
        "  ".join([*dims, *kwargs, *(f"{k} {words}" for k, words in values + layouts if words)]) or "the given inputs"
    )


def _bounds(spec: Spec, name: str) -> str:
    domain = next((a.domain for a in spec.args if a.name == name), None)
    bounded = domain is not None and (domain.lo is not None or domain.hi is not None)
    return "at its bounds" if bounded else "with 0, 1 and -1"


def _size(v: int | tuple[int, ...]) -> str:
    return "x".join(map(str, v)) if isinstance(v, tuple) and v else str(v)
