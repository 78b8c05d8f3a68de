"""A Case is the recipe of one trial: hashable, JSON, replayable. A Point is what it materialises into."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

Scalar = bool | int | float | str | None
Sizes = int | tuple[int, ...]
"""A letter `n` has one size; a variadic letter `*b` has a tuple of sizes."""


class Datum(msgspec.Struct, frozen=True, kw_only=True):
    """One concrete tensor: logical shape, strides in elements, and exact values in row-major order.

    Floating values are `float.hex()` strings, integers and booleans decimal strings.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    values: tuple[str, ...]

    def __repr__(self) -> str:
        """Without the values: Hypothesis writes out what it found, and warns on stderr where that is long."""
        return f"Datum({self.dtype}, shape={self.shape}, stride={self.stride})"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """The recipe of one trial of one claim: everything that determines the tensors that the op is called with.

    Attributes:
        spec: the spec's name.
        claim: which claim drew it.
        seed: seeds one generator per named draw (argument, cotangent, direction); never the global one.
        dims: sizes of the shape letters, sorted by letter.
        dtype: floating dtype of the primals (`float64`).
        device: torch device string.
        layouts: argument -> layout name; an argument that is not named is contiguous.
        kwargs: value of each keyword that the spec documents.
        values: argument -> regime of its values; an argument that is not named is `normal`.
        differentiate: names of the primals that require grad, or carry a tangent in forward mode.
        cotangents: one word per floating output: a layout name, `none` (undefined), or `unused`; cycled where
            there are more outputs than words. Empty: contiguous cotangents for all outputs.
        data: concrete inputs, argument -> Datum, where `inputs=`, an example or a replay gave them.
    """

    spec: str
    claim: str
    seed: int = 0
    dims: tuple[tuple[str, Sizes], ...] = ()
    dtype: str = "float64"
    device: str = "cpu"
    layouts: tuple[tuple[str, str], ...] = ()
    kwargs: tuple[tuple[str, Scalar], ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    differentiate: tuple[str, ...] = ()
    cotangents: tuple[str, ...] = ()
    data: tuple[tuple[str, Datum | None], ...] | None = None

    @property
    def canonical(self) -> bytes:
        """The JSON that is the same for equal cases, on every machine."""
        return msgspec.json.encode(self, order="deterministic")

    @property
    def id(self) -> str:
        """Six hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical).hexdigest()[:6]


def tally(cases: Iterable[Case]) -> dict[str, dict[str, int]]:
    """How often the cases had each size, layout, word of values, keyword and cotangent; the commonest first."""
    counts: dict[str, Counter[str]] = {}
    for case in cases:
        sizes = [(f"size {k}", "x".join(map(str, v)) or "()" if isinstance(v, tuple) else str(v)) for k, v in case.dims]
        words = [("layout", word) for _, word in case.layouts] or [("layout", "contiguous")]
        words += [("values", word) for _, word in case.values] or [("values", "normal")]
        words += [(f"keyword {k}", repr(v)) for k, v in case.kwargs]
        words += [("cotangent", word) for word in case.cotangents] or [("cotangent", "contiguous")]
        for kind, word in [*sizes, *words]:
            counts.setdefault(kind, Counter())[word] += 1
    return {kind: dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))) for kind, found in counts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The tensors of a case. Never stored in a report.

    Attributes:
        primals: argument -> tensor (or None for an absent optional argument), in the order of the spec's arguments.
            Detached; none requires grad.
        kwargs: keyword -> value.
        differentiate: names of the primals to differentiate with respect to, in the order of `primals`.
    """

    primals: Mapping[str, Tensor | None]
    kwargs: Mapping[str, Any]
    differentiate: tuple[str, ...]
