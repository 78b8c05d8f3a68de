"""One planted bug of a kernel: a small change of the source of an op, which must apply exactly once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A wrong kernel.

    Attributes:
        name: unique among the mutants of all ops.
        op: as ci/interpret names it.
        kind: class of bug, for the table.
        old: text that stands in the source of the op exactly once; `new`: what it becomes.
    """

    name: str
    op: str
    kind: str
    old: str
    new: str
