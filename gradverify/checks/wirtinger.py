"""A wrong gradient between complex numbers, told as complex numbers."""

from __future__ import annotations

import msgspec
import numpy as np

from gradverify.checks.flat import PARTS, Array
from gradverify.numerics.duality import opinion
from gradverify.numerics.measurement import SAFETY
from gradverify.numerics.problem import Part, Problem, axis
from gradverify.numerics.wirtinger import Block, numbers, relation
from gradverify.records.evidence import Evidence, Fact, Mismatch


def told(problem: Problem, e: Evidence) -> Evidence:
    """The evidence with the complex numbers behind an entry that is off, and what the claimed is to the true one."""
    place = e.worst
    if place is None or not e.confirmed or e.interval is not None or not np.isfinite(e.analytic):
        return e
    block = _block(problem, place) if abs(e.analytic - e.numeric.value) > SAFETY * e.numeric.error else None
    if block is None:
        return e
    name = place.argument.rpartition(" ")[2]
    found, wanted = (_spoken(b, name, block.slack) for b in (block.claimed, block.true))
    facts: dict[str, Fact] = {"found": found, "wanted": wanted}
    said = relation(block)
    return msgspec.structs.replace(e, facts={**e.facts, **facts, **({"said": said} if said else {})})


def _block(problem: Problem, place: Mismatch) -> Block | None:
    """All real entries between one element of an input and one of an output; None where there is one, or none known."""
    columns = _positions(problem.parts, place.argument, place.index)
    name = place.output_name or str(place.output)
    rows = _positions(problem.outputs, name, place.output_index)
    if len(rows) * len(columns) < 2:
        return None
    claimed = np.array([problem.vjp(axis(problem.centre.size, j))[columns] for j in rows])
    truth = [[opinion(problem, i, j) for i in columns] for j in rows]
    if any(m.code not in ("smooth", "flat") or not np.isfinite(m.value + m.error) for row in truth for m in row):
        return None
    value, error = (np.array([[getattr(m, f) for m in row] for row in truth]) for f in ("value", "error"))
    return Block(claimed=claimed, true=value, error=error)


def _positions(parts: tuple[Part, ...], name: str, index: tuple[int, ...] | None) -> list[int]:
    """Where an element lies in the flat vector: once, or once for each part of a complex one."""
    if index is None:
        return []
    prefix, _, bare = name.partition(" ")
    words = [f"{p} {bare}" for p in PARTS] if prefix in PARTS else [name]
    return [p.position(index) for p in parts if p.name in words]


def _spoken(block: Array, name: str, least: float) -> str:
    """The complex numbers of a block of the argument `name`; what lies below `least` is zero."""
    found = {n: [0.0 if abs(v) <= least else v for v in (z.real, z.imag)] for n, z in numbers(block).items()}
    return ", ".join(
        f"{n.replace('dz', f'd{name}')} = {re:.6g} {'-' if im < 0 else '+'} {abs(im):.6g}i"
        for n, (re, im) in found.items()
    )
