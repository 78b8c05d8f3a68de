"""A Finding says what is wrong, where, and how to see it."""

from __future__ import annotations

import msgspec

from gradverify.records.case import Case


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the user's source: 1-based line; columns are 1-based, 0 where unknown."""

    file: str
    line: int
    col: int = 0
    end_col: int = 0


class Gradient(msgspec.Struct, frozen=True, kw_only=True):
    """The gradient of an argument entry by entry, row-major: the op's own, the true one, and the error of that."""

    argument: str
    shape: tuple[int, ...]
    analytic: tuple[float, ...]
    numeric: tuple[float, ...]
    error: tuple[float, ...]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Why a claim failed or could not be judged, for people and machines.

    `lines` are the measured facts in words, one a line, in the order in which they are printed. `pattern`: what was
    measured of a wrong gradient as a whole, in words; empty where nothing fits. `caret`: lines of source with a caret
    under what backward returns wrongly. `repro`: plain torch that prints the wrong and the true number, or is empty.

    Figures, where they could be measured: `frame` are numbered lines of source around the location, `curve` pairs of
    step and error of central differences at the worst entry, `gradient` a wrong gradient as a whole.
    """

    code: str
    summary: str
    lines: tuple[str, ...] = ()
    remedy: str | None = None
    location: Location | None = None
    minimal: Case | None = None
    replay_id: str | None = None
    pattern: str = ""
    frame: tuple[tuple[int, str], ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    gradient: Gradient | None = None
    caret: tuple[str, ...] = ()
    repro: str = ""
