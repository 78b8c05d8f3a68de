"""A measured factor as a number that a reader knows: 2, 1/N, sqrt(d), a size, or a keyword's value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gradverify.diagnosis.factors import SAFETY, Factor, alike, numbers
from gradverify.diagnosis.sample import Sample

LUCK = 0.01
"""The chance at which some number of ours may lie as close to a factor as its error reaches."""

_PLAIN: tuple[tuple[str, float], ...] = (
    *((str(k), float(k)) for k in (2, 3, 4, 8, 16)),
    *((f"1/{k}", 1 / k) for k in (2, 3, 4, 8, 16)),
    ("sqrt(2)", math.sqrt(2)),
    ("1/sqrt(2)", math.sqrt(0.5)),
    ("log 2", math.log(2)),
    ("1/log 2", 1 / math.log(2)),
    ("pi", math.pi),
    ("2/pi", 2 / math.pi),
    ("sqrt(2/pi)", math.sqrt(2 / math.pi)),
)
_SHAPES: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("{n}", lambda n: n),
    ("1/{n}", lambda n: 1 / n),
    ("sqrt({n})", math.sqrt),
    ("1/sqrt({n})", lambda n: 1 / math.sqrt(n)),
    ("({n}-1)/{n}", lambda n: (n - 1) / n),
    ("{n}/({n}-1)", lambda n: n / (n - 1) if n > 1 else math.nan),
    ("{n}^2", lambda n: n * n),
    ("1/{n}^2", lambda n: 1 / (n * n)),
)


def recognised(samples: Sequence[Sample], factors: Sequence[Factor]) -> str:
    """The number that equals the factors at all samples, in words; empty where there is none, or several might be.

    A size is named only where samples of different sizes tell it from a plain number. Nothing is where the factors are
    known so badly that one of the numbers may be equal by luck: they lie within an octave or two of each other.
    """
    sign = "-" if all(c.value < 0 for c in factors) else ""
    sizes = [_sizes(s) for s in samples]
    names = [n for n in sizes[0] if all(n in found for found in sizes)]
    varying = [n for n in names if len({found[n] for found in sizes}) > 1]
    tried = len(_PLAIN) + len(names) * len(_SHAPES)
    if min(c.error / abs(c.value) for c in factors) * 2 * SAFETY * tried > LUCK:
        return ""
    sizeless = [replace(c, value=abs(c.value)) for c in factors]
    hits = []
    if alike(factors):
        hits = [word for word, value in _PLAIN if all(c.is_near(value) for c in sizeless)]
        hits = [h for h in hits if numbers(sizeless[:1]) != h]
        names = [n for n in names if n.startswith("keyword")]
    else:
        names = varying
    for name, (word, of) in itertools.product(names, _SHAPES):
        if all(c.is_near(of(found[name])) for c, found in zip(sizeless, sizes, strict=True)):
            hits.append(word.format(n=name.removeprefix("keyword ")))
    return sign + hits[0] if len(hits) == 1 else ""


def _sizes(s: Sample) -> dict[str, float]:
    """Sizes of letters, their products in pairs, numbers of elements, and numeric keywords."""
    letters = dict(_letters(s))
    pairs = {f"({a} {b})": letters[a] * letters[b] for a, b in itertools.combinations(letters, 2)}
    keywords = {f"keyword {k}": abs(float(v)) for k, v in s.case.kwargs if _is_number(v) and v}
    return {**letters, **pairs, **keywords}


def _letters(s: Sample) -> Iterator[tuple[str, float]]:
    for name, size in s.case.dims:
        if "#" not in name:
            yield name, float(math.prod(size) if isinstance(size, tuple) else size)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
