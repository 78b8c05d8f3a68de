"""One planted bug of a kernel: a small change of one function of an op, which must apply exactly once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A wrong kernel.

    Attributes:
        name: unique among the mutants of all ops.
        op: as ci/interpret names it.
        kind: class of bug, for the table.
        function: where the text stands.
        old: text that stands in that function exactly once; `new`: what it becomes.
    """

    name: str
    op: str
    kind: str
    function: str
    old: str
    new: str

    def planted_in(self, source: str) -> str:
        """The source with the bug. Raises LookupError where the text does not stand in the function exactly once."""
        start = source.find(f"def {self.function}(")
        end = source.find("\n\n\n", start) if start >= 0 else -1
        body = source[start:end]
        if start < 0 or body.count(self.old) != 1:
            count = 0 if start < 0 else body.count(self.old)
            raise LookupError(
                f"mutant {self.name!r}: its text stands {count} times in {self.function}, not once; adapt it."
            )
        return source[:start] + body.replace(self.old, self.new) + source[end:]
