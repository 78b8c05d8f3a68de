"""At which sizes a failure is seen: each letter varied alone around the smallest failing case, and the rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby

from msgspec.structs import replace

from gradverify.cases import shapes, sizes
from gradverify.cases.sizes import MAX_ELEMENTS
from gradverify.cases.strategies import allowed
from gradverify.diagnosis.case import recipe
from gradverify.records.case import Case, Sizes
from gradverify.records.spec import Dim, Spec

Fails = Callable[[Case], bool | None]
"""Whether a case fails likewise; None where it cannot be judged."""

UP_TO = 9
"""All sizes up to it are tried, whatever it is that fails."""

AGAIN = 2
"""Further draws of the values at a size that does not fail although a smaller one does."""

LEAST_BLOCK = 4
"""Multiples of a block are tried from this size on; those of a smaller one are among the small sizes."""

BLOCKS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FAILS, PASSES = "█", "·"


def fails_for(spec: Spec, case: Case, fails: Fails) -> tuple[str, ...]:
    """Lines that say for which sizes it fails; empty where no letter has sizes to vary."""
    case = recipe(spec, case)
    if case.data is not None:
        return ()
    outline = sizes.outline(spec)
    seen = {
        letter: found
        for letter, several in outline.variadic.items()
        if not several and len(found := _ruled(spec, case, letter, outline.dims[letter], fails)) > 1
    }
    telling = {n: found for n, found in seen.items() if len(set(found.values())) == 2}
    free = [n for n, found in seen.items() if all(found.values())]
    if not seen or len(telling) + len(free) < len(seen):
        return ()
    return tuple(_said(telling, free))


def _said(telling: Mapping[str, Mapping[int, bool]], free: list[str]) -> Iterator[str]:
    if not telling:
        yield f"fails for      every size that was tried of {', '.join(free)}"
    for letter, found in telling.items():
        whatever = f"; any {', '.join(free)}" if free else ""
        yield f"fails for      {rule(letter, found) or 'these sizes'}{whatever}"
        yield f"  {letter}  {strip(found)}"


def _ruled(spec: Spec, case: Case, letter: str, dim: Dim, fails: Fails) -> dict[int, bool]:
    """What becomes of each size; where no rule tells them apart, with other values at each that does not fail."""
    found = dict(_tried(spec, case, letter, dim, fails))
    if len(set(found.values())) < 2 or rule(letter, found):
        return found
    return found | dict(
        _tried(spec, case, letter, dim, lambda c: found.get(_size(c, letter)) or fails(c), everywhere=True)
    )


def _size(case: Case, letter: str) -> int:
    size = dict(case.dims).get(letter, 0)
    assert isinstance(size, int)
    return size


def _tried(
    spec: Spec, case: Case, letter: str, dim: Dim, fails: Fails, *, everywhere: bool = False
) -> Iterator[tuple[int, bool]]:
    known = dict(case.dims)
    failing = _size(case, letter)
    for size in _sizes(failing, dim):
        dims = known | {letter: size} | {n: size for n, s in known.items() if n.partition("#")[2] == letter and s != 1}
        one = replace(case, dims=tuple(sorted(dims.items())))
        if _small(spec, dims) and allowed(spec, one):
            said = _said_of(one, fails, again=everywhere or size > failing)
            if said is not None:
                yield size, said


def _said_of(case: Case, fails: Fails, *, again: bool) -> bool | None:
    """Whether a case fails, or, with other values, one like it does.

    `again`: it is larger than one that fails, so that it would be expected to, too; its values may hide it.
    """
    others = [replace(case, seed=case.seed + k) for k in range(1, AGAIN + 1)] if again else []
    said = None
    for one in (case, *others):
        found = fails(one)
        if found:
            return True
        said = found if said is None else said
    return said


def _sizes(failing: int, dim: Dim) -> list[int]:
    """Small sizes; around one that is larger, and where its block would end again."""
    wanted = set(range(1, UP_TO + 1))
    if failing >= LEAST_BLOCK:
        block = max(b for b in BLOCKS if b <= failing)
        ends = (block // 2, block, 2 * block, 3 * block)
        wanted |= {failing, *(e + k for e in ends for k in (-1, 0, 1))}
    low, high = dim.lo, dim.hi if dim.hi is not None else max(wanted)
    found = sorted(n for n in wanted if max(low, 1) <= n <= high)
    return [n for n in found if dim.choices is None or n in dim.choices]


def _small(spec: Spec, dims: Mapping[str, Sizes]) -> bool:
    count = 0
    for arg in spec.args:
        whole = 1
        for n in shapes.shape_of(arg, dict(dims)):
            whole *= n
        count = max(count, whole)
    return count <= MAX_ELEMENTS


def rule(letter: str, found: Mapping[int, bool]) -> str:
    """The simplest rule that tells all failing sizes from all others; empty where none of ours does."""
    for said, holds in (*_plain_rules(letter, found), *_block_rules(letter, found)):
        if all(holds(n) == fails for n, fails in found.items()):
            return said
    return ""


Rule = tuple[str, Callable[[int], bool]]


def _plain_rules(letter: str, found: Mapping[int, bool]) -> Iterator[Rule]:
    """From, up to or at a size."""
    first = min(n for n, fails in found.items() if fails)
    last = max(n for n, fails in found.items() if fails)
    below = max((n for n in found if n < first), default=0)
    above = min((n for n in found if n > last), default=0)
    yield f"{letter} = {first}", lambda n: n == first
    if below:
        yield f"{letter} > {below}", lambda n: n > below
    if above:
        yield f"{letter} < {above}", lambda n: n < above
    if below and above:
        yield f"{below} < {letter} < {above}", lambda n: below < n < above


def _block_rules(letter: str, found: Mapping[int, bool]) -> Iterator[Rule]:
    """By multiples of a block, of which two were tried: of one size it is not known why it stands apart."""
    for block in (*BLOCKS, 3):
        if sum(n % block == 0 for n in found) > 1:
            yield f"{letter} % {block} != 0", lambda n, b=block: n % b != 0  # type: ignore[misc]
            yield f"{letter} % {block} = 0", lambda n, b=block: n % b == 0  # type: ignore[misc]
            yield f"{letter} > {block} and {letter} % {block} != 0", lambda n, b=block: n > b and n % b != 0  # type: ignore[misc]
    yield f"{letter} no power of 2", lambda n: n & (n - 1) != 0


def strip(found: Mapping[int, bool]) -> str:
    """`1·········9  63··64  65█`: runs of sizes that were tried, by what became of them."""
    runs: list[list[int]] = []
    for _, group in groupby(enumerate(sorted(found)), key=lambda p: (p[1] - p[0], found[p[1]])):
        runs.append([n for _, n in group])
    marks = {True: FAILS, False: PASSES}
    return "  ".join(f"{run[0]}{marks[found[run[0]]] * len(run)}{run[-1] if len(run) > 1 else ''}" for run in runs)
