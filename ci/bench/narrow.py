"""`precision` in float32, bfloat16 and float16: the catalogue, functions of torch, planted faults and their twins.

`python -m ci.bench.narrow`: some ten minutes of one core. The Triton kernels run through the strict interpreter, in a
process of their own. Every verdict has its budget and where that comes from in `results/narrow.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ci.bench.functions import said
from ci.bench.tables import ROOT, bullets, publish, table
from gradverify.discovery.files import spec_files
from gradverify.discovery.loading import from_file
from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Spec
from gradverify.records.verdict import Result
from gradverify.reports.words import size

DTYPES = ("float32", "bfloat16", "float16")
INTERPRETED = ("matmul", "attention")
FEW = 2
"""Cases of what is slow, and of functions of which there are many; those that are swept come on top."""

COLUMNS = ("PASS", "alarm", "INCONCLUSIVE", "SKIP")


@dataclass(frozen=True, kw_only=True)
class Row:
    """`precision` of one op in one dtype. `noted`: what was measured beside the verdict."""

    source: str
    name: str
    dtype: str
    said: str
    code: str
    cases: int
    entry: str
    common: str
    derived: str
    noted: str


def rows_of(source: str, spec: Spec, dtypes: Sequence[str], *, examples: int = 20) -> Iterator[Row]:
    """One row a dtype."""
    plan = Plan(claims=("precision",), dtypes=tuple(dtypes), devices=("cpu",), examples=examples)
    for result in verify(spec, plan, Policy()):
        row = _row(source, spec, result)
        print(f"{row.source:12} {row.name:32} {row.dtype:9} {row.said:12} {row.code}", file=sys.stderr, flush=True)
        yield row


def _row(source: str, spec: Spec, r: Result) -> Row:
    b = r.budget
    return Row(
        source=source,
        name=spec.name,
        dtype=r.dtype,
        said=said(r),
        code=r.code,
        cases=r.cases.run,
        entry=size(b.value) if b else "",
        common=size(b.common) if b else "",
        derived=b.derived_from if b else r.reason,
        noted="; ".join(str(r.measured[k]) for k in ("lost", "subnormals", "growth") if k in r.measured),
    )


def catalogue() -> Iterator[Row]:
    """Every spec of the catalogue, on the CPU's own path."""
    for file in spec_files(ROOT / "specs"):
        for spec in from_file(file, name=None):
            yield from rows_of("catalogue", spec, DTYPES)


def kernels() -> Iterator[Row]:
    """The Triton kernels, interpreted: Triton reads its variable when it is imported."""
    command = [sys.executable, "-m", "ci.bench.narrow", "--interpreted"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    yield from (Row(**row) for row in json.loads(done.stdout.splitlines()[-1]))


def interpreted() -> Iterator[Row]:
    """The same within that process."""
    from ci.kernels.interpreter import install

    install()
    from ci.kernels.ops import imported, interpreted, known, specs_of

    for op in map(known, INTERPRETED):
        for name in specs_of(op):
            yield from rows_of("kernels", interpreted(op, imported(op.module), name, "vjp"), DTYPES, examples=FEW)


def functions() -> Iterator[Row]:
    """Functions of torch that are as good as the dtype allows."""
    from tests.test_functional_narrow import FUNCTIONS

    for spec in FUNCTIONS:
        yield from rows_of("functions", spec, DTYPES, examples=FEW)


def faults() -> Iterator[Row]:
    """Planted faults of narrow dtypes, and their twins, each in its own dtype."""
    from tests.faults.table import FAULTS

    for fault in (f for f in FAULTS if f.primary == "precision"):
        yield from rows_of("faults", fault.wrong, ())
        yield from rows_of("twins", fault.right, ())


def summary(rows: Sequence[Row]) -> str:
    """How many of each source and dtype stand in which column."""
    groups = dict.fromkeys((r.source, r.dtype) for r in rows if r.source != "faults")
    lines = []
    for source, dtype in sorted(groups, key=lambda g: (_ORDER.index(g[0]), DTYPES.index(g[1]))):
        own = [r for r in rows if (r.source, r.dtype) == (source, dtype)]
        found = Counter(r.said for r in own)
        lines.append([_WORDS[source], dtype, len(own), *(found[c] for c in COLUMNS)])
    return table(["right ops", "dtype", "number", *COLUMNS], lines)


_ORDER = ("catalogue", "kernels", "functions", "twins")
_WORDS = {
    "catalogue": "the catalogue",
    "kernels": "its Triton kernels, interpreted",
    "functions": "functions of torch",
    "twins": "twins of the planted faults",
}


def planted(rows: Sequence[Row]) -> str:
    """How many of the planted faults are caught, and under which codes."""
    wrong = [r for r in rows if r.source == "faults"]
    caught = [r for r in wrong if r.said == "alarm"]
    codes = Counter(r.code for r in caught)
    under = ", ".join(f"`{code}` {n}" for code, n in sorted(codes.items()))
    return f"{len(caught)} of {len(wrong)} planted faults of narrow dtypes are caught ({under})."


def budgets(rows: Sequence[Row]) -> str:
    """The budget of every op of the catalogue, and what it was derived from."""
    head = ["op", "dtype", "verdict", "cases", "an entry within", "all alike within", "where it came from", "beside it"]
    return table(head, [_shown(r) for r in rows if r.source in ("catalogue", "kernels")])


def _shown(r: Row) -> list[object]:
    name = f"{r.name} (interpreted)" if r.source == "kernels" else r.name
    return [name, r.dtype, f"{r.said} {r.code}".strip(), r.cases, r.entry, r.common, r.derived, r.noted]


def alarms(rows: Sequence[Row]) -> str:
    """Everything that is no plain PASS, but for the faults that are caught."""
    odd = [r for r in rows if (r.said != "PASS" if r.source != "faults" else r.said != "alarm")]
    return bullets({f"{r.source} {r.name}, {r.dtype}": f"{r.said} {r.code} {r.derived}" for r in odd}) or "None."


def main() -> None:
    """Run all parts and publish."""
    warnings.simplefilter("ignore")
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--interpreted", action="store_true", help="only the kernels, as one line of JSON")
    if parse.parse_args().interpreted:
        print(json.dumps([asdict(r) for r in interpreted()]))
        return
    rows = [*catalogue(), *kernels(), *functions(), *faults()]
    body = f"{summary(rows)}\n\n{planted(rows)} On a CPU; nothing of it has run on a GPU."
    more = f"Not plain:\n\n{alarms(rows)}\n\n{budgets(rows)}"
    publish("narrow", body, {"rows": [asdict(r) for r in rows]}, more=more)


if __name__ == "__main__":
    main()
