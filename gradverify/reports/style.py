"""How text reaches a terminal: colour or none, Unicode or ASCII, and how wide."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from gradverify.records.verdict import Outcome, Result

WIDTH = 88

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}
_UNICODE = {"pass": "✓", "fail": "✗", "unsure": "?", "skip": "-", "warn": "!"}
_ASCII = {"pass": "PASS", "fail": "FAIL", "unsure": "?", "skip": "-", "warn": "!"}
_MARKS = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "fail",
    Outcome.ERROR: "fail",
    Outcome.INCONCLUSIVE: "unsure",
    Outcome.SKIP: "skip",
}
_PAINT = {"pass": "green", "fail": "red", "unsure": "yellow", "skip": "dim", "warn": "yellow"}

# What our own texts contain beyond ASCII, and how each is written without it.
_TRANSLITERATED = str.maketrans(
    {"·": "-", "…": "...", "→": "->", "±": "+-", "×": "x", "█": "#", "▓": "+", "▒": "=", "░": ".", "—": "-", "–": "-",
     "≤": "<=", "≥": ">=", "≠": "!=", "∂": "d", "✓": "PASS", "✗": "FAIL"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What the reader's terminal can show. The default suits a file."""

    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, colour: str) -> str:
        """The text in `green`, `red`, `yellow`, `dim` or `bold`, where colours are shown."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.colour and text else text

    def mark(self, result: Result) -> str:
        """The sign of an outcome, in its colour."""
        return self.sign(mark_of(result))

    def sign(self, kind: str, *, wide: int = 0) -> str:
        """`pass`, `fail`, `unsure`, `skip` or `warn` as a sign, padded to `wide` columns (at least its alphabet's)."""
        sign = (_UNICODE if self.unicode else _ASCII)[kind]
        return self.paint(sign.ljust(max(wide, 1 if self.unicode else 4)), _PAINT[kind])

    @property
    def dot(self) -> str:
        """What separates the words of a line."""
        return "·" if self.unicode else "-"

    def plain(self, text: str) -> str:
        """The text in the reader's alphabet: as it is, or transliterated to ASCII, escaped where nothing fits."""
        if self.unicode:
            return text
        return text.translate(_TRANSLITERATED).encode("ascii", "backslashreplace").decode("ascii")


def mark_of(result: Result) -> str:
    """Which sign an outcome has: an expected failure and an imprecise pass are warnings."""
    if result.xfailed or (result.outcome is Outcome.PASS and result.code):
        return "warn"
    return _MARKS[result.outcome]


def wrapped(text: str, *, first: str = "", rest: str = "") -> list[str]:
    """The text in lines of at most WIDTH columns; long words (paths, targets) are never broken."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]
