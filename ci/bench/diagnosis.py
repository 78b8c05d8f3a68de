"""How failures are explained: code and pattern, right or wrong, lines of output, seconds, size of the smallest case.

    python -m ci.bench.diagnosis [--only vjp]

Two sets: right gradients made wrong in known ways (tests/diagnosis/injected.py), where a machine tells whether the
pattern is right; and the fault suite, whose patterns were read one by one (READ): all faults of a gradient, and one in
EVERY of the others, which have no pattern, so that a slow core is done within ten minutes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from ci.bench.tables import publish, table
from gradverify.cases.shapes import shape_of
from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import result_lines
from gradverify.reports.style import Style
from tests.diagnosis.injected import INJECTIONS, OPS, spec_of
from tests.faults.record import Fault
from tests.faults.table import FAULTS

READ = {
    "softmax_diagonal": "diagonal of the Jacobian",
    "conic_off_diagonal_halved": "column 1 of the gradient of `conic`: 0.5 x",
    "bilinear_transposed": "transposed",
    "mean_over_ignored_rows": "0.6666667 x",
    "weighted_mean_by_count": "x the true gradient of `x`",
    "ranks_divided_twice": "(1/ranks)",
    "expert_not_averaged": "(ranks)",
    "tree_of_odd_height": "are left out",
    "broadcast_cut_to_shape": "only the first index",
    "one_block_of_128_rows": "are left out",
    "values_wider_than_keys": "columns 2...",
    "group_overwrites_key": "only the last index",
    "all_off_by_1e-4": "1.0001 x",
    "bias_summed_in_bfloat16": "bfloat16 number",
    "rounded_through_bfloat16": "bfloat16 number",
    "sign_below_atol": "-1 x",
    "logsumexp_gradient_dropped": "output 1 is left out",
    "second_output_overwrites": "output 0 is left out",
    "cotangents_swapped": "taken for each other",
    "surrogate_returns_zero": "returns zeros",
    "reversal_not_reversed": "-1 x",
}
"""Faults whose printed pattern was read beside their source and found right -> what it says."""


OF_A_GRADIENT = ("vjp", "edges", "special")
EVERY = 6


@dataclass(frozen=True, kw_only=True)
class Row:
    """One failure. `right`: of the pattern; None where none was printed. `seconds`: of the CPU, search and all.

    `nameable`: whether there is a name for it.
    """

    name: str
    claim: str
    code: str
    pattern: str
    right: bool | None
    lines: int
    seconds: float
    elements: int
    nameable: bool = True


def injected() -> Iterator[Row]:
    """Known ways to be wrong, in each op that they make sense for."""
    for op in OPS:
        for injection in INJECTIONS:
            if injection.where(op):
                spec = spec_of(op, injection)
                result, seconds = _timed(spec, "vjp")
                pattern = result.finding.pattern if result.finding else ""
                right = injection.said in pattern and bool(injection.said) if pattern else None
                yield _row(spec, result, seconds, right, nameable=bool(injection.code))


def suite(only: str) -> Iterator[Row]:
    """The fault suite, each under the claim that leads."""
    for fault in chosen(only):
        result, seconds = _timed(fault.wrong, fault.primary)
        pattern = result.finding.pattern if result.finding else ""
        right = READ.get(fault.name, "\0") in pattern if pattern else None
        yield _row(fault.wrong, result, seconds, right, name=fault.name)


def chosen(only: str) -> list[Fault]:
    """The faults of one claim; or those of a gradient, and an even sample of the others."""
    if only:
        return [f for f in FAULTS if f.primary == only]
    others = [f for f in FAULTS if f.primary not in OF_A_GRADIENT]
    return [*(f for f in FAULTS if f.primary in OF_A_GRADIENT), *others[::EVERY]]


def _timed(spec, claim: str) -> tuple[Result, float]:
    began = time.process_time()
    result = next(iter(verify(spec, Plan(examples=20, claims=(claim,), profile="ci"), Policy())))
    return result, time.process_time() - began


def _row(spec, result: Result, seconds: float, right: bool | None, *, name: str = "", nameable: bool = True) -> Row:
    case = result.finding.minimal if result.finding else None
    drawn = [shape_of(a, dict(case.dims)) for a in spec.args] if case is not None and case.data is None else []
    return Row(
        name=name or spec.name,
        claim=result.claim,
        code=result.code if result.outcome is not Outcome.PASS else "",
        pattern=result.finding.pattern if result.finding else "",
        right=right,
        lines=len(result_lines(result, style=Style())),
        seconds=round(seconds, 2),
        elements=max((math.prod(s) for s in drawn), default=0),
        nameable=nameable,
    )


def summary(name: str, rows: list[Row], *, named: bool = True) -> list[object]:
    """One line of the table."""
    told = [r for r in rows if r.right is not None]
    of = sum(r.nameable for r in rows)
    return [
        name,
        len(rows),
        f"{len(told)} of {of} ({len(told) / of:.0%})" if named else "-",
        sum(r.right is False for r in told) if named else "-",
        f"{statistics.median(r.seconds for r in rows):.2f} s",
        f"{max(r.seconds for r in rows):.1f} s",
        f"{statistics.median(r.elements for r in rows):g}",
        f"{statistics.median(r.lines for r in rows):g}, at most {max(r.lines for r in rows)}",
    ]


def report(known: list[Row], found: list[Row]) -> str:
    """Both sets in one table."""
    head = ["set", "failures", "pattern named", "of these wrong", "seconds, median", "most", "elements of the smallest"]
    gradient = [r for r in found if r.claim in OF_A_GRADIENT]
    others = [r for r in found if r not in gradient]
    ways = f"made wrong in {len(INJECTIONS)} ways, {len(OPS)} ops"
    lines = [summary(ways, known)] if known else []
    lines += [summary("fault suite, wrong gradients", gradient)] if gradient else []
    lines += [summary(f"fault suite, other claims, one in {EVERY}", others, named=False)] if others else []
    return table([*head, "lines of output"], lines)


def rows_of(rows: list[Row]) -> str:
    """Every failure."""
    head = ["fault", "claim", "code", "pattern", "right", "lines", "seconds", "elements"]
    words = {None: "-", True: "right", False: "WRONG"}
    cells = [[r.name, r.claim, r.code, r.pattern or "-", words[r.right], r.lines, r.seconds, r.elements] for r in rows]
    return table(head, cells)


def main() -> None:
    """Run both sets and publish."""
    warnings.simplefilter("ignore")
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--only", default="", help="a claim of the fault suite")
    options = parse.parse_args()
    known = [] if options.only else list(injected())
    found = list(suite(options.only))
    if options.only:
        print(f"{report(known, found)}\n\n{rows_of(found)}")
        return
    data = {"injected": [vars(r) for r in known], "faults": [vars(r) for r in found]}
    publish("diagnosis", report(known, found), data, more=rows_of([*known, *found]))


if __name__ == "__main__":
    main()
