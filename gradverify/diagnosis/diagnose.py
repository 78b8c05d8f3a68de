"""A wrong gradient looked at entry by entry: which arguments are off, by which pattern, and which are right."""

from __future__ import annotations

from dataclasses import dataclass

from gradverify.diagnosis.patterns import Pattern, pattern_of
from gradverify.diagnosis.sample import Sample, samples, wrong
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result

FAMILIES = {"vjp": "GV199", "edges": "GV206", "special": "GV215"}
"""Claims that hold a gradient against the truth, and the code of one that is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The samples in which an argument's gradient is wrong, the pattern of that, and the arguments that are right."""

    name: str
    samples: tuple[Sample, ...]
    pattern: Pattern | None
    right: tuple[str, ...]


def is_of_gradient(result: Result) -> bool:
    """Whether a failing result says that a gradient as a whole is not the true one."""
    return result.outcome is Outcome.FAIL and FAMILIES.get(result.claim) == result.code


def diagnosed(spec: Spec, result: Result) -> Diagnosis | None:
    """The diagnosis of a failing result; None where its claim is another, or its gradient cannot be measured whole."""
    if not is_of_gradient(result) or result.worst is None:
        return None
    found = samples(spec, result.worst.evidence.case)
    off = {n: [s for s in found if n in wrong(s)] for s in found for n in s.names()}
    place = result.worst.evidence.worst
    names = [n for n, hits in off.items() if hits]
    if not names:
        return None
    name = place.argument if place is not None and place.argument in names else names[0]
    right = tuple(n for n, hits in off.items() if not hits)
    positions = not any(a.role in ("integer", "mask") for a in spec.args)
    return Diagnosis(
        name=name, samples=tuple(off[name]), pattern=pattern_of(off[name], name, positions=positions), right=right
    )
