"""Sizes that an op refuses: what it says so of aloud, in forward, is outside its domain and no wrong derivative."""

from __future__ import annotations

from collections.abc import Iterator

from gradverify.autodiff import calling
from gradverify.autodiff.calling import Called
from gradverify.cases.materialise import materialise
from gradverify.errors import OpError
from gradverify.records.case import Case, Point
from gradverify.records.spec import Spec

DELIBERATE = (ValueError, AssertionError, NotImplementedError)
"""What Python code raises on purpose. One element is refused so only; for an empty tensor any exception will do."""


def refuses(spec: Spec, case: Case, error: OpError) -> bool:
    """Whether an exception is the op's word that a size of 0 or 1 is not for it.

    Not where the spec declares each such size (`dims=`), nor where there is a reference that takes it.
    """
    if error.stage not in ("forward", "reference") or error.code != "GV902" or not _small(spec, case):
        return False
    point = materialise(spec, case)
    empty = any(t is not None and t.numel() == 0 for t in point.primals.values())
    return (empty or isinstance(error.__cause__, DELIBERATE)) and not any(_takes(c, point) for c in _both(spec))


def _small(spec: Spec, case: Case) -> bool:
    """Whether a letter that the spec says nothing of is 0 or 1."""
    free = [size for letter, size in case.dims if letter not in spec.dims]
    return any(s <= 1 for size in free for s in (size if isinstance(size, tuple) else (size,)))


def _both(spec: Spec) -> Iterator[Called]:
    """The op, and the reference where there is one."""
    yield calling.op_of(spec)
    if spec.reference is not None:
        yield calling.companion(spec, spec.reference)


def _takes(called: Called, point: Point) -> bool:
    try:
        called(calling.copies(point.primals), point.kwargs)
    except OpError:
        return False
    return True


def told(case: Case, error: OpError) -> str:
    """`n=0: ValueError: too few`, with the sizes of 0 and 1 alone."""
    sizes = [f"{letter}={size}" for letter, size in case.dims if size in (0, 1, (0,), (1,)) or size == ()]
    first = str(error).partition(" raised ")[2]
    return f"{', '.join(sizes)} ({first})"
