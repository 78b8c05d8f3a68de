"""Numbers in words."""

from __future__ import annotations

import math

import pytest

from gradverify.reports import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.3e-9, "2e-9"), (2e-9, "2e-9"), (9.5e-9, "1e-8"), (1e-12, "1e-12"), (0.31, "4e-1"), (3.0, "3e0"), (95, "1e2")],
)
def test_a_resolution_is_never_promised_finer_than_it_is(value: float, text: str) -> None:
    assert words.size(value) == text
    assert float(text) >= value * (1 - 1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_unknown_resolution_promises_nothing(value: float) -> None:
    assert words.resolution(value) == ""


def test_a_comparison_of_bits_has_seen_everything() -> None:
    assert words.resolution(0.0) == "any difference at all would have been seen"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.21, "0.21 s"), (1.44, "1.4 s"), (75, "1 min 15 s"), (3720, "1 h 2 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_plurals() -> None:
    assert [words.count(n, "case") for n in (0, 1, 1200)] == ["0 cases", "1 case", "1,200 cases"]
