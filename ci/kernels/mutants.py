"""Planted kernel bugs: which claim of ci/interpret catches each. `ci/interpret --mutants [--op NAME] [--publish]`."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ci.bench import tables
from ci.kernels.interpret import CLAIMS, NAN, Row, row
from ci.kernels.memory import Memory
from ci.kernels.ops import OPS, imported, interpreted, known, specs_of
from gradverify.cases.strategies import allowed, cases, pinned
from gradverify.cases.sweep import spread, sweep
from gradverify.checks import CHECKS
from gradverify.engine.search import search
from gradverify.engine.verify import WHOLE
from gradverify.errors import CannotJudgeError, OpError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.evidence import Estimate, Evidence
from gradverify.records.policy import Policy
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Verdict
from tests.faults.kernels.record import Mutant

EXAMPLES = (4, 12)
"""Cases drawn for each claim, and that share of 20 of the swept ones: few, then as many as ci/interpret draws."""


OUTSIDE, RACE = "out of bounds", "race"
MEMORY_FAULTS = {"a race on a GPU": RACE, "that nothing has written": "uninitialised"}
"""Words of a fault of the memory -> how the table names it."""


@dataclass(frozen=True)
class Caught:
    """What became of a mutant; `row` is the first claim that failed, None where all passed."""

    mutant: Mutant
    row: Row | None

    @property
    def how(self) -> str:
        """What caught it."""
        if self.row is None:
            return "survived"
        if self.row.faults:
            return next((how for words, how in MEMORY_FAULTS.items() if words in self.row.faults[0]), OUTSIDE)
        return f"{self.row.code or self.row.outcome}"


def all_mutants(ops: Sequence[str]) -> list[Mutant]:
    """The mutants of some ops of the catalogue, from tests/faults/kernels."""
    return [m for op in ops for m in importlib.import_module(f"tests.faults.kernels.{op}").MUTANTS]


def patched(mutant: Mutant) -> str:
    """The source of the op with the bug. Raises LookupError where the patch no longer applies."""
    return mutant.planted_in(known(mutant.op).module.read_text())


def planted(mutant: Mutant, folder: Path) -> ModuleType:
    """The op with the bug, as a module of its own: a file, since kernels are read from their source."""
    file = folder / f"{mutant.name}.py"
    file.write_text(patched(mutant))
    return imported(file, f"mutant_{mutant.name}")


def hunted(mutant: Mutant) -> Caught:
    """Try the claims in their order until one fails; in a worker process."""
    from ci.kernels.interpreter import install

    memory = install()
    with tempfile.TemporaryDirectory() as folder:
        op, module = known(mutant.op), planted(mutant, Path(folder))
        for examples, claim, name in itertools.product(EXAMPLES, CLAIMS, specs_of(op)):
            found = tried(interpreted(op, module, name, claim), claim, memory, examples=examples)
            if found.outcome in ("FAIL", "ERROR") or found.faults:
                return Caught(mutant, found)
    return Caught(mutant, None)


def tried(spec: Spec, claim: str, memory: Memory, *, examples: int) -> Row:
    """A claim as the engine tries it, up to the first failure: nothing is shrunk or explained."""
    memory.clear()
    began = time.perf_counter()
    swept = sweep(spec, claim, dtype="float64", device="cpu", seed=0)
    found = search(
        lambda pins: cases(spec, claim, pins=pins),
        lambda case: _judged(spec, claim, case),
        pinned=pinned(spec, claim),
        swept=spread(swept, max(len(swept) * examples // WHOLE, 1)),
        examples=examples,
        seed=0,
        deadline=None,
        shrinks=0,
    )
    worst = found.failing
    outcome = worst.outcome.value if worst else "PASS"
    said = str(worst.evidence.facts.get("said", worst.evidence.quantity)) if worst else ""
    return row(
        spec,
        claim,
        memory,
        began=began,
        outcome=outcome,
        code=worst.code if worst else "",
        said=said,
        cases=len(found.verdicts),
        resolution=NAN,
    )


def _judged(spec: Spec, claim: str, case: Case) -> Verdict | None:
    if not allowed(spec, case):
        return None
    try:
        evidence = list(CHECKS[claim](spec, case))
    except CannotJudgeError:
        return None
    except OpError as error:
        said = Evidence(
            claim=claim,
            case=case,
            quantity="the call",
            analytic=NAN,
            numeric=Estimate(value=NAN, error=NAN),
            scale=0.0,
            resolution=NAN,
            facts={"said": str(error)},
        )
        return Verdict(outcome=Outcome.ERROR, code=error.code, evidence=said)
    return of_case([judge(e, Policy()) for e in evidence]) if evidence else None


def hunt(mutants: Sequence[Mutant], *, jobs: int) -> Iterator[Caught]:
    """What catches each mutant, in order."""
    for mutant in mutants:
        patched(mutant)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(hunted, mutants)


def main(ops: Sequence[str], *, jobs: int, publish: bool) -> int:
    """Hunt, print what caught each, and the table by kind; exit code 1 where one survives."""
    found = []
    for one in hunt(all_mutants(ops or list(OPS)), jobs=jobs):
        found.append(line_of(one))
        print("  " + "  ".join(found[-1]), flush=True)
    summary, every = by_kind(found), tables.table(HEAD, found)
    print(f"\n{summary}")
    if publish:
        tables.publish("kernels", summary, {"mutants": [dict(zip(HEAD, f, strict=True)) for f in found]}, more=every)
    return 1 if any(f[3] == NOBODY for f in found) else 0


HEAD = ("op", "kind", "planted bug", "first claim that fails", "how")
NOBODY = "none"


def line_of(caught: Caught) -> tuple[str, ...]:
    """A mutant as a line of the whole table."""
    m = caught.mutant
    name = m.name.removeprefix(f"{m.op}_").replace("_", " ")
    return m.op, m.kind, name, f"`{caught.row.claim}`" if caught.row else NOBODY, caught.how


def by_kind(found: Sequence[tuple[str, ...]]) -> str:
    """How many of each kind are caught, under which claims, and how many of them by the memory that they touch."""
    kinds: dict[str, list[tuple[str, ...]]] = {}
    for f in found:
        kinds.setdefault(f[1], []).append(f)
    rows = []
    for kind, group in sorted(kinds.items()):
        claims = Counter(f[3] for f in group if f[3] != NOBODY)
        touched = sum(f[4] in (OUTSIDE, RACE) for f in group)
        words = ", ".join(f"{c} {n}" for c, n in claims.most_common())
        rows.append((kind, len(group), sum(claims.values()), touched or "", words))
    caught = sum(r[2] for r in rows)
    head = ("kind of bug", "planted", "caught", "of them by bounds or races", "under the claim")
    return f"{caught} of {len(found)} planted bugs of the kernels are caught.\n\n{tables.table(head, rows)}"
