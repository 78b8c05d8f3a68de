"""A measured factor as a number that a reader knows: 2, 1/N, sqrt(d), a size, or a keyword's value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from gradverify.diagnosis.sample import Sample

CLOSE = 1e-7
"""Relative distance at which a measured factor is a known number. Factors are measured to ten digits."""

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


def recognised(samples: Sequence[Sample], factors: Sequence[float]) -> str:
    """The number that equals the factors at all samples, in words; empty where there is none, or several might be.

    A size is named only where samples of different sizes tell it from a plain number.
    """
    same = max(factors) - min(factors) <= CLOSE * max(map(abs, factors))
    sign = "-" if all(c < 0 for c in factors) else ""
    sizes = [_sizes(s) for s in samples]
    names = [n for n in sizes[0] if all(n in found for found in sizes)]
    varying = [n for n in names if len({found[n] for found in sizes}) > 1]
    hits = []
    if same:
        hits = [word for word, value in _PLAIN if _close(abs(factors[0]), value)]
        hits = [h for h in hits if f"{abs(factors[0]):.4g}" != h]
        names = [n for n in names if n.startswith("keyword")]
    else:
        names = varying
    for name, (word, of) in itertools.product(names, _SHAPES):
        if all(_close(abs(c), of(found[name])) for c, found in zip(factors, sizes, strict=True)):
            hits.append(word.format(n=name.removeprefix("keyword ")))
    return sign + hits[0] if len(hits) == 1 else ""


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * abs(b)


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
