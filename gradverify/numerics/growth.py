"""How a number, of bytes or an error, grows with the sizes of a problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WHOLE = 0.02
"""An exponent this near to an integer is one: a term of another degree moves it by more at the sizes that are used."""


def exponent(sizes: Sequence[int], amounts: Sequence[float]) -> float:
    """The slope of log amount against log size, by least squares; NaN where fewer than two sizes or an amount is 0."""
    return fitted(sizes, amounts)[0]


def fitted(sizes: Sequence[int], amounts: Sequence[float]) -> tuple[float, float]:
    """The exponent and its standard error, from what the line leaves; that is NaN where there are but two sizes."""
    if len(set(sizes)) < 2 or not min(amounts) > 0 or min(sizes) <= 0:
        return math.nan, math.nan
    x, y = [math.log(n) for n in sizes], [math.log(a) for a in amounts]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mx) ** 2 for a in x)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / spread
    left = sum((b - my - slope * (a - mx)) ** 2 for a, b in zip(x, y, strict=True))
    known = len(set(sizes)) > 2
    return slope, math.sqrt(left / (len(x) - 2) / spread) if known else math.nan


def monomial(amount: float, sizes: Mapping[str, int], exponents: Mapping[str, float]) -> tuple[float, str] | None:
    """`amount` as a coefficient times a product of powers, `(8, "B H S^2")`; None where a power is no integer."""
    if any(not math.isfinite(e) or abs(e - round(e)) > WHOLE for e in exponents.values()):
        return None
    whole = {n: round(e) for n, e in exponents.items() if round(e)}
    return amount / math.prod(sizes[n] ** e for n, e in whole.items()), powers(whole)


def powers(exponents: Mapping[str, float]) -> str:
    """`B H S^2`; powers that are not integers with one decimal, and those that round to 0 left out."""
    rounded = {n: round(e, 1) for n, e in exponents.items() if math.isfinite(e)}
    return " ".join(n if e == 1 else f"{n}^{e:g}" for n, e in rounded.items() if e)
