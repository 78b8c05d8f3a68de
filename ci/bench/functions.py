"""Right ops under all claims of the profile ci: the catalogue, functions of torch, the twins of the faults.

`python -m ci.bench.functions [--skip CLAIM ...] [--again NAME ... | --rest] [--only NAME] [--examples N] [--jobs N]`.
Every result that is no plain PASS or SKIP is an alarm and named; so is what torch itself gets wrong, which the specs
mark (`xfail`). What is skipped is said; with --only or --examples nothing is published. It takes hours of one core:
what was done when it is interrupted is published as a part, --rest does the others, --again single ops; every row keeps
the revision that it was measured at.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any

from ci.bench.tables import RESULTS, ROOT, bullets, machine, publish, table
from gradverify.discovery.files import spec_files
from gradverify.discovery.loading import from_file
from gradverify.engine.verify import verify
from gradverify.records.claims import CLAIMS
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result
from tests.faults.table import FAULTS, IMPRECISE
from tests.torch_specs import TORCH_FUNCTIONS

CI = 100
PLAIN = ("PASS", "SKIP")
COLUMNS = (*PLAIN, "marked", "alarm", "INCONCLUSIVE")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One claim of one right op. `said`: PASS, SKIP, marked (a defect that the spec names), alarm or INCONCLUSIVE."""

    source: str
    name: str
    claim: str
    said: str
    code: str
    why: str
    revision: str = ""


def specs() -> Iterator[tuple[str, Spec]]:
    """Every right op, with where it comes from."""
    for file in spec_files(ROOT / "specs"):
        yield from (("catalogue", s) for s in from_file(file, name=None))
    yield from (("functions", s) for s in TORCH_FUNCTIONS)
    yield from (("twins", f.right) for f in (*FAULTS, *IMPRECISE))


def said(result: Result) -> str:
    """The column that a result stands in; a PASS with a warning is an alarm."""
    if result.outcome is Outcome.SKIP:
        return "marked" if result.xfailed else "SKIP"
    if result.outcome is Outcome.INCONCLUSIVE:
        return "INCONCLUSIVE"
    return "PASS" if result.outcome is Outcome.PASS and not result.code else "alarm"


@cache
def _specs() -> tuple[tuple[str, Spec], ...]:
    return tuple(specs())


def rows_of(place: int, plan: Plan) -> list[Row]:
    """All claims of the op at that place: a worker is told the place, as an op may be a lambda."""
    warnings.simplefilter("ignore")
    source, spec = _specs()[place]
    revision = machine()["commit"]
    try:
        results = list(verify(spec, plan, Policy()))
    except Exception as error:  # noqa: BLE001 a crash is the worst alarm, and no reason to lose the other rows
        why = f"{type(error).__name__}: {error}"
        return [Row(source=source, name=spec.name, claim="", said="alarm", code="crash", why=why, revision=revision)]
    return [
        Row(
            source=source,
            name=spec.name,
            claim=r.claim,
            said=said(r),
            code=r.xfailed or r.code,
            why=r.reason,
            revision=revision,
        )
        for r in results
    ]


def summary(rows: list[Row]) -> str:
    """How many ops of each source, and their results by column; then claim by claim."""
    lines = []
    for source in dict.fromkeys(r.source for r in rows):
        own = [r for r in rows if r.source == source]
        lines.append([source, len({r.name for r in own}), *_counts(own)])
    lines.append(["**all**", len({(r.source, r.name) for r in rows}), *_counts(rows)])
    return table(["right ops", "number", *COLUMNS], lines)


def by_claim(rows: list[Row]) -> str:
    """The same, claim by claim."""
    return table(["claim", *COLUMNS], [[c, *_counts([r for r in rows if r.claim == c])] for c in CLAIMS])


def _counts(rows: list[Row]) -> list[int]:
    found = Counter(r.said for r in rows)
    return [found[c] for c in COLUMNS]


def named(rows: list[Row], *columns: str) -> str:
    """What stands in these columns, one line each."""
    shown = {f"{r.name}, {r.claim}": f"{r.said} {r.code} {r.why}".strip() for r in rows if r.said in columns}
    return bullets(shown) if shown else "None."


def kept(again: Sequence[str]) -> list[Row]:
    """The rows of the last run but those of the ops that are run again."""
    file = RESULTS / "functions.json"
    ops = json.loads(file.read_text())["ops"] if file.exists() else []
    return [row for op in ops for row in opened(op) if row.name not in again]


def closed(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows op by op: the claims of each column in a line, and what is no plain PASS or SKIP with its reason."""
    ops: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        ops.setdefault((r.source, r.name), []).append(r)
    return [
        {
            "source": source,
            "name": name,
            "revision": own[0].revision,
            **{c: " ".join(r.claim for r in own if r.said == c) for c in PLAIN},
            "others": [asdict(r) for r in own if r.said not in PLAIN],
        }
        for (source, name), own in ops.items()
    ]


def opened(op: Mapping[str, Any]) -> list[Row]:
    """The rows that `closed` put together; why a claim was skipped is not kept."""
    one = {k: op[k] for k in ("source", "name", "revision")}
    plain = [Row(**one, claim=claim, said=c, code="", why="") for c in PLAIN for claim in op[c].split()]
    return plain + [Row(**r) for r in op["others"]]


def revisions(rows: list[Row]) -> str:
    """Which revision how many ops were measured at."""
    counts = Counter({(r.source, r.name): r.revision for r in rows}.values())
    return ", ".join(f"{n} at {revision}" for revision, n in counts.most_common())


def run(places: list[int], plan: Plan, jobs: int) -> Iterator[list[Row]]:
    """The rows of each op as it is done."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(rows_of, place, plan) for place in places]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def main() -> None:
    """Run it, print what is not plain as it comes, and publish."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--only", default="", help="ops whose name contains this; nothing is published")
    parse.add_argument("--examples", type=int, default=CI, help="cases a claim; nothing is published")
    parse.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parse.add_argument("--skip", nargs="*", default=[], help="claims that are left out, such as transforms.compile")
    parse.add_argument("--again", nargs="*", default=[], help="only these ops; the other rows stay as they are")
    parse.add_argument("--rest", action="store_true", help="only the ops that have no row yet")
    options = parse.parse_args()
    plan = Plan(examples=options.examples, profile="ci", skip=tuple(options.skip))
    rows = kept(options.again) if options.again or options.rest else []
    done = {(r.source, r.name) for r in rows}
    places = [
        k
        for k, (source, spec) in enumerate(_specs())
        if options.only in spec.name
        and (not options.again or spec.name in options.again)
        and (source, spec.name) not in done
    ]
    try:
        for own in run(places, plan, options.jobs):
            rows += own
            print(f"{own[0].source:10} {own[0].name:30} {named(own, 'alarm', 'INCONCLUSIVE', 'marked')}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: what was done is kept; --rest does the others", flush=True)
    without = f" without {', '.join(options.skip)}" if options.skip else ""
    ops = len({(r.source, r.name) for r in rows})
    head = (
        f"All claims{without}, {options.examples} cases each, {ops} of {len(_specs())} right ops "
        f"({revisions(rows)}). Marked: what torch itself gets wrong."
    )
    body = f"{head}\n\n{summary(rows)}\n\nAlarms:\n\n{named(rows, 'alarm')}"
    more = f"{by_claim(rows)}\n\nOpen:\n\n{named(rows, 'INCONCLUSIVE')}\n\nMarked:\n\n{named(rows, 'marked')}"
    if options.only or options.examples != CI:
        print(f"\n{body}\n\n{more}")
    else:
        publish("functions", body, {"ops": closed(rows)}, more=more)


if __name__ == "__main__":
    main()
