"""The names that a user may write, and the nearest one to what was written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gradverify.errors import SpecError
from gradverify.records.claims import CLAIMS, FAMILIES
from gradverify.records.codes import TITLES

DTYPES = ("float64", "float32", "float16", "bfloat16")
DEVICES = ("cpu", "cuda", "mps", "xpu")

LAYOUTS = ("contiguous", "transposed", "permuted", "sliced", "offset", "expanded", "channels_last")
"""Every memory layout of a strided tensor."""

FEATURES = ("double_backward", *(claim.partition(".")[2] for claim in CLAIMS if "." in claim))
"""What `supports=` may speak of."""

EXPECTED = (*TITLES, *dict.fromkeys(f"{code[:3]}xx" for code in TITLES), *CLAIMS, *FAMILIES)
"""What `xfail=` may speak of: a code, a family of codes, a claim, a family of claims."""

_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "double": "float64",
        "fp64": "float64",
        "f64": "float64",
        "float": "float32",
        "fp32": "float32",
        "f32": "float32",
        "half": "float16",
        "fp16": "float16",
        "f16": "float16",
        "bf16": "bfloat16",
        "gpu": "cuda",
    }
)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was most likely meant, whatever its capitals; None where none is near."""
    spelled: dict[str, str] = {}
    for word in known:
        spelled.setdefault(word.lower(), word)
    alias = _ALIASES.get(name.lower())
    near = [alias] if alias in spelled else difflib.get_close_matches(name.lower(), spelled, n=1)
    return spelled[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no known name is near."""
    near = nearest(name, known)
    return f" (did you mean {near!r}?)" if near else ""


def refuse_unknown(
    owner: str, field: str, given: Iterable[str], known: Iterable[str], *, near: Iterable[str] = ()
) -> None:
    """Raise SpecError, with a guess at what was meant, for the first word that is not known; `near` are guesses too."""
    options = list(known)
    for word in given:
        if word not in options:
            close = nearest(word, [*options, *near])
            guess = f"; did you mean {close!r}?" if close else f"; known: {', '.join(options) or 'none'}."
            raise SpecError(f"{owner}: {field} does not know {word!r}{guess}")
