"""The op at a neighbour of a case: other data of the same shapes, or other sizes."""

from __future__ import annotations

from dataclasses import replace

from gradverify.cases.rescaled import grown, other_values
from gradverify.checks.subject import Subject, at


def with_other_values(subject: Subject) -> Subject:
    """The same shapes with other values of the domain."""
    return replace(subject, point=other_values(subject.spec, subject.case, subject.point))


def with_other_sizes(subject: Subject) -> Subject | None:
    """Larger sizes; None where the spec allows none."""
    case = grown(subject.spec, subject.case)
    return None if case is None else at(subject.spec, case)
