"""Numbers and counts as a reader says them."""

from __future__ import annotations

import math

from gradverify.records.case import Case


def size(value: float) -> str:
    """One significant digit, rounded up so that a promise stays true: 1.7e-9 is `2e-9`."""
    if not math.isfinite(value) or value <= 0:
        return repr(value)
    exponent = math.floor(math.log10(value))
    # Just above a round number is that number: 2.0000001e-9 must not become 3e-9.
    digit = math.ceil(round(value / 10**exponent, 6))
    return f"1e{exponent + 1}" if digit == 10 else f"{digit}e{exponent}"


def resolution(value: float) -> str:
    """What a passing claim would have seen; empty where that is unknown."""
    if not math.isfinite(value):
        return ""
    if value <= 0:
        return "any difference at all would have been seen"
    return f"any error above {size(value)} would have been seen"


def count(number: int, noun: str) -> str:
    """`1 case`, `2 cases`, `0 checks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """`0.31 s`, `1.4 s`, `2 min 5 s`, `1 h 3 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def number(value: float) -> str:
    """Ten significant digits, without padding."""
    return f"{value:.10g}"


def sizes_of(case: Case) -> str:
    """`b=2x3  k=0  eps=0.5`: the sizes and keywords of a case; `b=()` has no axis."""
    dims = [f"{k}={'x'.join(map(str, v)) if isinstance(v, tuple) and v else v}" for k, v in case.dims]
    return "  ".join([*dims, *(f"{k}={v!r}" for k, v in case.kwargs)]) or "the given inputs"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}" if words else ""
