"""The judge beside gradcheck, slow and fast, in one run: right ops, planted bugs, calls and time.

`python -m ci.bench.judge [--only TEXT] [--small]`
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ci.bench.large import large_ops
from ci.bench.op import LEAST_FAULT, Op, complex_step_gap, fault_size, faulty
from ci.bench.ops import KINDS, small_ops
from ci.bench.rivals import RIVALS, Judged, judges
from ci.bench.tables import bullets, publish, ratio, table

# The complex step is exact; autograd may lose digits to cancellation, and an op with noise has its own.
LARGEST_GAP = 1e-10

# The classes between the easy one and the one where no derivative exists.
HARD = tuple(k for k in KINDS if k not in ("smooth", "on kink"))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One op, right (`bug` empty) or with a bug, before every judge."""

    op: str
    kind: str
    size: int
    bug: str
    said: dict[str, Judged]


def rows_of(op: Op) -> Iterable[Row]:
    """The right op, then each of its bugs. Raises AssertionError where the bench itself is wrong."""
    gap = complex_step_gap(op) if op.kind != "large" else None
    assert gap is None or gap < LARGEST_GAP, f"{op.name}: autograd is off by {gap:.1e}"
    yield Row(op=op.name, kind=op.kind, size=op.size, bug="", said=_ask(op.fn, op))
    for bug in op.bugs:
        size = fault_size(op, bug)
        assert size > LEAST_FAULT, f"{op.name}, {bug.name}: the fault is only {size:.1e}"
        yield Row(op=op.name, kind=op.kind, size=op.size, bug=bug.name, said=_ask(faulty(op.fn, bug), op))


def _ask(fn: object, op: Op) -> dict[str, Judged]:
    return {name: ask(fn, op.point()) for name, ask in judges().items()}  # type: ignore[arg-type]


def counts(rows: list[Row], judge: str) -> dict[str, float]:
    """What the tables show of one judge. An ERROR of ours counts as a false failure or an accepted bug."""
    right = [r.said[judge] for r in rows if not r.bug and r.said[judge].outcome != "not run"]
    wrong = [r.said[judge] for r in rows if r.bug and r.said[judge].outcome != "not run"]
    return {
        "right": len(right),
        "false": sum(j.outcome in ("FAIL", "ERROR") for j in right),
        "right inconclusive": sum(j.outcome == "INCONCLUSIVE" for j in right),
        "wrong": len(wrong),
        "accepted": sum(j.outcome in ("PASS", "ERROR") for j in wrong),
        "wrong inconclusive": sum(j.outcome == "INCONCLUSIVE" for j in wrong),
        "forwards": sum(r.said[judge].forwards for r in rows if not r.bug),
        "seconds": sum(r.said[judge].seconds for r in rows if not r.bug),
    }


def summary(rows: list[Row]) -> str:
    """One line for each class: false failures, accepted bugs, inconclusive, forwards of the right ops."""
    head = ["class", "right ops", "false FAIL: ours / slow / fast", "inconclusive", "bugs"]
    head += ["accepted: ours / slow / fast", "bugs inconclusive", "forwards: ours / slow / fast", "time, slow : ours"]
    small = [r for r in rows if r.kind != "large"]
    lines = [_line(kind, [r for r in rows if r.kind == kind]) for kind in KINDS]
    lines.insert(-1, _line("**hard, off kinks**", [r for r in rows if r.kind in HARD]))
    lines += [_line("**all small**", small), _line("large", [r for r in rows if r.kind == "large"])]
    return table(head, lines)


def _line(name: str, rows: list[Row]) -> list[object]:
    ours, slow, fast = (counts(rows, judge) for judge in RIVALS)
    computed = any(r.said["gradcheck slow"].outcome == "not run" for r in rows)
    run = "" if not computed else f" of {slow['right']:.0f}"
    caught = "" if not computed else f" of {slow['wrong']:.0f}"
    both = [r for r in rows if not r.bug and r.said["gradcheck slow"].outcome != "not run"]
    time = ratio(sum(r.said["gradcheck slow"].seconds for r in both), sum(r.said["gradverify"].seconds for r in both))
    return [
        name,
        f"{ours['right']:.0f}",
        f"**{ours['false']:.0f}** / {slow['false']:.0f}{run} / {fast['false']:.0f}",
        f"{ours['right inconclusive']:.0f}",
        f"{ours['wrong']:.0f}",
        f"**{ours['accepted']:.0f}** / {slow['accepted']:.0f}{caught} / {fast['accepted']:.0f}",
        f"{ours['wrong inconclusive']:.0f}",
        f"{ours['forwards']:,.0f} / {slow['forwards']:,.0f}{'*' if computed else ''} / {fast['forwards']:,.0f}",
        time,
    ]


def large_table(rows: list[Row]) -> str:
    """Every large op, right and wrong: outcome, forwards and seconds of each judge."""
    shown = [r for r in rows if r.kind == "large"]
    lines = [[r.op, f"{r.size:,}", r.bug or "right", *(_cell(r.said[j]) for j in RIVALS)] for r in shown]
    return table(["op", "n", "backward", *RIVALS], lines)


def _cell(j: Judged) -> str:
    mark = " computed" if j.outcome == "not run" else f", {j.seconds:.2g} s"
    return f"{j.outcome} {j.forwards:,}{mark}"


def doubts(rows: list[Row]) -> str:
    """Everything of ours that is not a plain PASS of a right op or a FAIL of a wrong one."""
    plain = {"": "PASS"}
    odd = [r for r in rows if r.said["gradverify"].outcome != plain.get(r.bug, "FAIL")]
    named = {
        f"{r.op} ({r.kind}), {r.bug or 'right'}": f"{r.said['gradverify'].outcome} {r.said['gradverify'].why}"
        for r in odd
    }
    return bullets(named) if named else "None."


def short(rows: list[Row]) -> str:
    """What the README shows."""
    notes = (
        "Inconclusive on a kink is the answer there: no derivative exists, and a claim among the subgradients is "
        "neither passed nor failed.\n\n"
        "\\* above n = 4,096 slow gradcheck is not run; its 2n + 2 forwards are computed. Forwards and time are "
        "those of the right ops."
    )
    return f"{summary(rows)}\n\n{notes}"


def full(rows: list[Row]) -> str:
    """Every large op, and every verdict of ours that is not plain."""
    outcomes = Counter(r.said["gradverify"].outcome for r in rows)
    words = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    return f"{large_table(rows)}\n\nOurs, all rows: {words}. Not a plain verdict:\n\n{doubts(rows)}"


def main() -> None:
    """Run it, print every row as it comes, and publish."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--only", default="", help="ops whose name contains this; nothing is published")
    parse.add_argument("--small", action="store_true", help="without the large ops; nothing is published")
    options = parse.parse_args()
    ops = [op for op in [*small_ops(), *([] if options.small else large_ops())] if options.only in op.name]
    rows = []
    for row in (row for op in ops for row in rows_of(op)):
        rows.append(row)
        said = " | ".join(f"{j.outcome:12} {j.forwards:>7}" for j in row.said.values())
        print(f"{row.kind:9} {row.op:30} {row.bug:28} {said}  {row.said['gradverify'].why[:110]}", flush=True)
    if options.only or options.small:
        print(f"{short(rows)}\n\n{full(rows)}")
    else:
        publish("judge", short(rows), {"rows": [asdict(r) for r in rows]}, more=full(rows))


if __name__ == "__main__":
    main()
