"""Which of several claims that fail says what is wrong, and which only follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gradverify.records.claims import CLAIMS
from gradverify.records.verdict import Outcome, Result

_CAUSES = (
    ("lifetime", "GV211"),
    ("purity", ""),
    ("repeat", ""),
    ("lifetime", "GV209"),
    ("forward", ""),
    ("linear", ""),
    ("transforms.opcheck", ""),
)
"""Claims, some under one code only, that say why others fail: memory that is never written; an op that changes what it
is given, is no function of its inputs, or keeps state; other values; a backward that is no linear map; an operator that
is registered wrongly."""

_ROUNDED = 2.0**-6
"""What rounds to bfloat16 is off by 2^-8 and no linear map either: the wrong gradient says more."""
_OF_VALUES = frozenset({"forward", "vjp", "linear", "edges", "special", "jvp", "adjoint", "double_backward"})
"""Claims that numbers of too few digits fail, too."""

_ORDINARY = frozenset({"normal", "decimals", "ones", "ramp"})
"""Words of values that are nothing special; a failure shrinks to them where it can."""


def led(results: Iterable[Result]) -> list[Result]:
    """The results in claims' order, but what explains another failure before it.

    What _CAUSES names comes first; then `special` before `vjp` where the gradient is wrong at special values only;
    and a tensor on the context before what a change of it does. Numbers of a narrow dtype that have lost digits, and no
    more, are a matter of `precision`.
    """
    found = list(results)
    failing = {r.claim: r for r in found if r.outcome is Outcome.FAIL}
    digits = "precision" in failing and _lost_digits(found)
    return sorted(found, key=lambda r: _rank(r, failing, digits=digits))


def _rank(result: Result, failing: dict[str, Result], *, digits: bool) -> tuple[int, float]:
    place = tuple(CLAIMS).index(result.claim) if result.claim in CLAIMS else len(CLAIMS)
    if result.outcome is not Outcome.FAIL:
        return (1 if result.outcome is Outcome.ERROR else 2, place)
    if digits and (result.claim == "precision" or result.claim in _OF_VALUES):
        return (0, len(_CAUSES)) if result.claim == "precision" else (1, place)
    cause = next(
        (k for k, (claim, code) in enumerate(_CAUSES) if result.claim == claim and result.code.endswith(code)), -1
    )
    if cause >= 0 and not (result.claim == "linear" and _off(result) < _ROUNDED):
        return (0, cause)
    if result.claim == "special" and _only_special(failing):
        return (0, len(_CAUSES))
    held_too = result.claim == "memory" and "lifetime" in failing and failing["lifetime"].code == "GV212"
    return (1, tuple(CLAIMS).index("lifetime") - 0.5 if held_too else place)


def _lost_digits(found: Iterable[Result]) -> bool:
    """Whether values and derivatives fail in a narrow dtype only, where the op is right in float64.

    Or off by roundings at most.
    """
    failing = [r for r in found if r.outcome is Outcome.FAIL]
    wrong = [r for r in failing if r.claim in _OF_VALUES]
    right = any(r.worst is not None and r.worst.evidence.facts.get("digits lost") for r in failing)
    return all(r.dtype != "float64" and (right or _off(r) < _ROUNDED) for r in wrong)


def _off(result: Result) -> float:
    """The worst gap relative to the size of what is compared; infinite where nothing was measured."""
    e = result.worst.evidence if result.worst else None
    return abs(e.analytic - e.numeric.value) / e.scale if e is not None and e.scale > 0 else math.inf


def _only_special(failing: dict[str, Result]) -> bool:
    """Whether vjp passes, or fails at special values alone: its smallest failure still has some."""
    vjp = failing.get("vjp")
    if vjp is None or vjp.worst is None:
        return vjp is None
    return any(word not in _ORDINARY for _, word in vjp.worst.evidence.case.values)
