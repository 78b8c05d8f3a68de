"""What a failure depends on beside the sizes: keywords, values, layouts, the mask of gradients; each varied alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from gradverify.cases import shapes, sizes
from gradverify.cases.strategies import allowed, offered_layouts
from gradverify.diagnosis.boundary import Fails
from gradverify.diagnosis.case import VALUES, recipe
from gradverify.records.case import Case
from gradverify.records.spec import Spec

OTHERS = 3
"""Other draws of the values, and other values of a keyword, that are tried."""

BATCHES = ((1,), (2,), (3,), (2, 2))
"""Sizes that are tried of a letter for any number of axes."""

MEMORY = ("sliced", "transposed")
"""Layouts that are tried where the smallest case is contiguous: gaps in a row, and rows beside each other."""


def matters(spec: Spec, case: Case, fails: Fails) -> tuple[str, ...]:
    """A line that says what it hangs on and what not; empty where nothing could be varied.

    Something matters where the smallest case without it, or with another, does not fail; it does not where all that
    were tried fail likewise.
    """
    case = recipe(spec, case)
    if case.data is not None:
        return ()
    seen = {name: _still(spec, cases, fails) for name, cases in _varied(spec, case)}
    needed = [name for name, still in seen.items() if still is False]
    free = [name for name, still in seen.items() if still]
    if not needed and not free:
        return ()
    if not needed:
        return (f"matters        none of {', '.join(free)}",)
    return (f"matters        {', '.join(needed)}{'; not ' if free else ''}{', '.join(free)}",)


def _still(spec: Spec, cases: list[Case], fails: Fails) -> bool | None:
    """Whether all of them fail; None where none of them can be judged."""
    found = [said for one in cases if allowed(spec, one) and (said := fails(one)) is not None]
    return all(found) if found else None


def _varied(spec: Spec, case: Case) -> Iterator[tuple[str, list[Case]]]:
    yield from _batches(spec, case)
    yield from _keywords(spec, case)
    words = dict.fromkeys(VALUES.get(w, w) for _, w in case.values)
    peculiar = " and ".join(filter(None, words))
    others = [replace(case, seed=case.seed + k, values=()) for k in range(1, OTHERS + 1)]
    yield f"values {peculiar}".strip(), others
    if case.layouts:
        yield "layout of " + ", ".join(n for n, _ in case.layouts), [replace(case, layouts=())]
    else:
        yield "layouts", list(_laid(spec, case))
    if case.cotangents:
        yield "layout of the cotangent", [replace(case, cotangents=())]
    if case.differentiate != spec.differentiable():
        yield "which inputs require grad", [replace(case, differentiate=spec.differentiable())]


def _batches(spec: Spec, case: Case) -> Iterator[tuple[str, list[Case]]]:
    """Letters that stand for any number of axes, of which no rule of sizes is told."""
    given = dict(case.dims)
    for letter, several in sizes.outline(spec).variadic.items():
        if several and letter in given:
            others = [s for s in BATCHES if s != given[letter]]
            yield letter, [replace(case, dims=tuple(sorted((given | {letter: s}).items()))) for s in others]


def _keywords(spec: Spec, case: Case) -> Iterator[tuple[str, list[Case]]]:
    given = dict(case.kwargs)
    for name, documented in spec.kwargs.items():
        others = [v for v in documented if (type(v), v) != (type(given.get(name)), given.get(name))][:OTHERS]
        if name in given and others:
            yield name, [replace(case, kwargs=tuple((given | {name: v}).items())) for v in others]


def _laid(spec: Spec, case: Case) -> Iterator[Case]:
    """The case with every argument that may be in a layout in it."""
    found: Mapping[str, tuple[int, ...]] = {a.name: shapes.shape_of(a, dict(case.dims)) for a in spec.args}
    for layout in MEMORY:
        laid = tuple((a.name, layout) for a in spec.args if layout in offered_layouts(spec, a, found[a.name]))
        if laid:
            yield replace(case, layouts=laid)
