"""Verify the kernels of the catalogue in float64, interpreted: `ci/interpret [--op NAME] [--claim NAME] [--mutants]`.

Every claim of an op's spec that a kernel can break runs through Triton's interpreter made strict (interpreter.py), in
two processes. An op passes when each claim passes, no kernel touched what is not its own, every kernel of its file ran,
and its error in narrow dtypes is no larger than that of plain PyTorch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradverify.errors import OpError

if TYPE_CHECKING:
    from ci.kernels.memory import Memory
    from gradverify.records.spec import Spec

NAN = float("nan")

CLAIMS = ("forward", "vjp", "edges", "layout", "partial", "special", "jvp")
"""The claims that a kernel, and not the plumbing around it, can break; in the order in which a mutant meets them, the
dearest last."""

PRECISION = ("bfloat16", "float16", "float32")
"""Dtypes in which a kernel's error is held against that of plain PyTorch."""

DEAR = {"layout": 2, "jvp": 3}
"""Claims of which a case costs so many times as much, and that have so many times fewer of them."""

LEAST_CASES = 100
NARROW_CASES = 12
SECONDS = 150.0
"""A claim ends after so long; a failure is then as small as it has become."""
VERIFIED, FAILED, UNUSABLE, UNVERIFIED = 0, 1, 2, 3


@dataclass(frozen=True)
class Row:
    """What one claim said of one spec, from the process that tried it."""

    spec: str
    claim: str
    outcome: str
    code: str
    cases: int
    resolution: float
    seconds: float
    said: str
    faults: tuple[str, ...]
    ran: frozenset[str]
    programs: int


@dataclass(frozen=True)
class Task:
    """One claim, or one narrow dtype, of one spec of an op."""

    op: str
    spec: str
    claim: str
    examples: int
    seed: int


def judged(task: Task) -> Row:
    """The row of a task; in a worker process."""
    from ci.kernels.interpreter import install

    memory = install()
    from ci.kernels.ops import imported, interpreted, known

    op = known(task.op)
    spec = interpreted(op, imported(op.module), task.spec, task.claim)
    if task.claim in PRECISION:
        return precision_of(spec, task.claim, memory)
    return verdict_on(spec, task.claim, memory, examples=task.examples, seed=task.seed)


def precision_of(spec: Spec, dtype: str, memory: Memory) -> Row:
    """The error in a narrow dtype beside that of plain PyTorch."""
    from ci.kernels.precision import drawn, losses, too_large, words

    memory.clear()
    began = time.perf_counter()
    cases = drawn(spec, dtype, count=NARROW_CASES)
    try:
        found = losses(spec, cases)
        wrong = too_large(found) if found else ["no case of ordinary values could be drawn"]
        outcome, code, said = ("FAIL", "", "; ".join(wrong)) if wrong else ("PASS", "", words(found))
    except OpError as error:
        outcome, code, said = "ERROR", error.code, str(error)
    return row(
        spec, dtype, memory, outcome=outcome, code=code, cases=len(cases), began=began, said=said, resolution=NAN
    )


def verdict_on(spec: Spec, claim: str, memory: Memory, *, examples: int, seed: int) -> Row:
    """One claim of a spec whose kernels are interpreted, with what the strict interpreter noted meanwhile."""
    from gradverify.engine.verify import verify
    from gradverify.records.policy import Plan, Policy

    memory.clear()
    began = time.perf_counter()
    plan = Plan(examples=examples, claims=(claim,), devices=("cpu",), seed=seed, max_seconds=SECONDS)
    (result,) = verify(spec, plan, Policy())
    said = result.finding.summary if result.finding else result.reason
    return row(
        spec,
        claim,
        memory,
        outcome=result.outcome.value,
        code=result.code,
        cases=result.cases.run,
        began=began,
        said=said,
        resolution=result.resolution,
    )


def row(spec: Spec, claim: str, memory: Memory, *, began: float, **fields: Any) -> Row:
    """A row with what the strict interpreter noted since `memory` was cleared."""
    return Row(
        spec=spec.name,
        claim=claim,
        seconds=time.perf_counter() - began,
        faults=tuple(map(str, memory.faults.values())),
        ran=frozenset(memory.ran),
        programs=memory.programs,
        **fields,
    )


def trouble(rows: Sequence[Row]) -> Iterator[str]:
    """What is wrong with an op, one sentence each."""
    for row in rows:
        if row.outcome not in ("PASS", "SKIP"):
            yield f"{row.spec}, {row.claim}: {row.outcome} {row.code} {row.said}"
        yield from (f"{row.spec}, {row.claim}: {fault}" for fault in row.faults)


def uncovered(name: str, rows: Sequence[Row]) -> Iterator[str]:
    """What of an op the claims together have not tried."""
    from ci.kernels.interpreter import kernels_in
    from ci.kernels.ops import imported, known

    cases = verified_cases(rows)
    if cases < LEAST_CASES:
        yield f"only {cases} cases were judged; {LEAST_CASES} are wanted"
    yield from (f"{row.spec}, {row.claim}: skipped, {row.said}" for row in rows if row.outcome == "SKIP")
    if not sum(row.programs for row in rows):
        yield "no kernel ran: the op did not take backend='interpret'"
    idle = sorted(set(kernels_in(imported(known(name).module))) - frozenset().union(*(row.ran for row in rows)))
    if idle:
        yield f"kernels that never ran: {', '.join(idle)}"


def verified_cases(rows: Sequence[Row]) -> int:
    """Cases in float64."""
    return sum(row.cases for row in rows if row.claim in CLAIMS)


def line(row: Row) -> str:
    """A claim as a line of the report, with the smallest fault that it would have seen, or the ratios of errors."""
    resolution = f"{row.resolution:.1e}" if row.outcome == "PASS" and row.claim in CLAIMS else ""
    resolution = (
        f"error beside plain PyTorch's: {row.said}" if row.claim in PRECISION and row.outcome == "PASS" else resolution
    )
    return (
        f"  {row.spec:22} {row.claim:9} {row.outcome:12} {row.code:6} {row.cases:4d} cases {row.programs:7d} programs "
        f"{row.seconds:6.1f} s  {resolution}"
    )


def tasks(name: str, claims: Sequence[str], *, examples: int, seed: int) -> list[Task]:
    """All that is to be tried of an op: its own spec, and the others with a third of the cases."""
    from ci.kernels.ops import known, specs_of

    op = known(name)
    share = {spec: 1 if spec == op.name else 3 for spec in specs_of(op)}
    return [
        Task(name, spec, claim, -(-examples // (share[spec] * DEAR.get(claim, 1))), seed)
        for spec in share
        for claim in claims
    ]


def verified(todo: Sequence[Task], *, jobs: int) -> dict[str, list[Row]]:
    """The rows of all tasks by op, in `jobs` processes; the dearest claims go first."""
    rows: dict[str, list[Row]] = {task.op: [] for task in todo}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(judged, task): task for task in sorted(todo, key=_price)}
        for done in as_completed(waiting):
            rows[waiting[done].op].append(done.result())
    order = {(task.spec, task.claim): k for k, task in enumerate(todo)}
    return {op: sorted(found, key=lambda row: order[row.spec, row.claim]) for op, found in rows.items()}


def _price(task: Task) -> tuple[int, int]:
    order = ("jvp", "layout", "vjp", "edges", "special", "partial", "forward", *PRECISION)
    return -task.examples, order.index(task.claim)


def report(rows: dict[str, list[Row]], *, whole: bool) -> int:
    """Print what was found; the exit code."""
    code = VERIFIED
    for name, found in rows.items():
        print(f"\n{name}, interpreted in float64: {verified_cases(found)} cases")
        print("\n".join(map(line, found)))
        wrong = [*trouble(found), *(uncovered(name, found) if whole else ())]
        print("\n".join(f"  ! {t}" for t in wrong) or "  verified")
        failed = any(r.outcome in ("FAIL", "ERROR") or r.faults for r in found)
        code = max(code, FAILED) if failed else max(code, UNVERIFIED if wrong else VERIFIED, key=_precedence)
    return code


def _precedence(code: int) -> int:
    return (VERIFIED, UNVERIFIED, UNUSABLE, FAILED).index(code)


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ci/interpret", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--op", action="append", help="name in the catalogue, or FILE.py:NAME; default: all")
    parser.add_argument("--claim", action="append", choices=(*CLAIMS, *PRECISION), help="default: all")
    parser.add_argument("--examples", type=int, default=12, help="cases drawn for each claim, beside the swept ones")
    parser.add_argument("--mutants", action="store_true", help="which claim catches each planted bug of the kernels")
    parser.add_argument("--publish", action="store_true", help="with --mutants: write the table to ci/bench/results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 2))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a shell."""
    args = parsed(sys.argv[1:] if argv is None else argv)
    from ci.kernels.ops import OPS

    names = args.op or list(OPS)
    unknown = [n for n in names if ":" not in n and n not in OPS]
    if unknown:
        print(f"ci/interpret: no op {unknown[0]!r}; there are {', '.join(OPS) or 'none'}.", file=sys.stderr)
        return UNUSABLE
    if args.mutants:
        from ci.kernels import mutants

        return mutants.main(names, jobs=args.jobs, publish=args.publish)
    began = time.perf_counter()
    claims = args.claim or [*CLAIMS, *PRECISION]
    todo = [task for name in names for task in tasks(name, claims, examples=args.examples, seed=args.seed)]
    rows = verified(todo, jobs=args.jobs)
    code = report(rows, whole=not args.claim)
    print(f"\n{time.perf_counter() - began:.0f} s in {args.jobs} processes")
    return code


if __name__ == "__main__":
    sys.exit(main())
