"""Compile the kernels of the catalogue for GPUs that are not here: `ci/compile [--arch 80] [--op NAME] [--all]`.

The gate: a kernel compiles, its shared memory fits, nothing spills, no wgmma is serialised, and matrix products run on
tensor cores. What is allowed all the same stands in ALLOWED with its reason. Binaries are cached in .cache/triton, by a
hash of their sources.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ci.kernels.matrix import ENTRIES, Entry

if TYPE_CHECKING:
    from ci.kernels.aot import Facts

ARCHS = (80, 90, 100)
SHARED = {80: 166_912, 90: 232_448, 100: 232_448, 120: 101_376}
"""Bytes of shared memory that a block may have."""

TENSOR_CORES = {
    (80, "half"): ("HMMA",),
    (90, "half"): ("HGMMA",),
    (100, "half"): ("UTCHMMA", "HMMA"),
    (80, "fp64"): ("DMMA",),
    (90, "fp64"): ("DMMA",),
}
"""(architecture, dtype) -> the instructions of which a kernel with matrix products must have one. sm_100 multiplies
float64 in ordinary arithmetic; float32 may be either."""

MOST_KERNELS = 40
"""Of each architecture, without --all."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A breach of the gate that is known and kept: up to `spilled` bytes, or without tensor cores.

    `call`: how the name of the entry begins; `kernels`, `archs`: where it occurs.
    """

    call: str
    kernels: tuple[str, ...]
    archs: tuple[int, ...]
    reason: str
    spilled: int = 0
    no_tensor_cores: bool = False


WIDE = "float32 is three products of tf32, float64 has two registers a number; these are for accuracy, not for speed"

ALLOWED: tuple[Allowed, ...] = (
    Allowed(
        call="attention fp32",
        kernels=("_forward_kernel", "_dq_kernel", "_jvp_kernel"),
        archs=(80, 90, 100),
        spilled=788,
        reason=WIDE,
    ),
    Allowed(call="attention fp64", kernels=("_jvp_kernel",), archs=(90, 100), spilled=2160, reason=WIDE),
)


@dataclass(frozen=True)
class Row:
    """One kernel of one entry, and what the gate says of it."""

    entry: Entry
    facts: Facts
    wrong: tuple[str, ...]
    allowed: tuple[str, ...]


def gate(entry: Entry, facts: Facts) -> Row:
    """Hold a kernel's facts against what its GPU has."""
    wrong, allowed = [], []
    known = [a for a in ALLOWED if _covers(a, entry, facts)]
    for what, excused in _breaches(entry, facts):
        reasons = [a.reason for a in known if excused(a)]
        (allowed if reasons else wrong).append(f"{what} ({reasons[0]})" if reasons else what)
    return Row(entry, facts, tuple(wrong), tuple(allowed))


def _covers(allowed: Allowed, entry: Entry, facts: Facts) -> bool:
    return entry.name.startswith(allowed.call) and facts.kernel in allowed.kernels and facts.arch in allowed.archs


def _breaches(entry: Entry, facts: Facts) -> Iterator[tuple[str, Callable[[Allowed], bool]]]:
    limit = SHARED[facts.arch]
    if facts.shared > limit:
        yield f"{facts.shared} bytes of shared memory, a block has {limit}", lambda _: False
    if facts.spilled:
        yield f"{facts.spilled} bytes spilled", lambda a: facts.spilled <= a.spilled
    if facts.serialized:
        yield "wgmma serialised (C7512)", lambda _: False
    wanted = TENSOR_CORES.get((facts.arch, "half" if entry.dtype in ("bf16", "fp16") else entry.dtype), ())
    if facts.dots and wanted and not any(facts.instructions.get(i) for i in wanted):
        yield f"no {' or '.join(wanted)}", lambda a: a.no_tensor_cores


def built(name: str, arch: int) -> list[Row]:
    """The kernels of an entry, compiled for an architecture; in a worker process."""
    from ci.kernels.aot import compiling
    from ci.kernels.matrix import called
    from ci.kernels.ops import imported, known

    entry = next(e for e in ENTRIES if e.name == name)
    op = known(entry.op)
    module = imported(op.module)
    with compiling(module, arch) as found:
        called(getattr(module, op.name), entry)
    return [gate(entry, facts) for facts in {f.binary: f for f in found}.values()]


def all_built(entries: Sequence[Entry], archs: Sequence[int], *, jobs: int) -> tuple[list[Row], list[str]]:
    """The kernels of all entries, each binary once; and what did not compile."""
    rows: dict[tuple[int, str], Row] = {}
    failed = []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(built, e.name, arch): (e, arch) for e in entries for arch in archs if arch >= e.least}
        for done in as_completed(waiting):
            entry, arch = waiting[done]
            error = done.exception()
            if error is not None:
                failed.append(f"{entry.name} on sm_{arch} does not compile: {type(error).__name__}: {error}"[:2000])
            else:
                rows |= {(arch, r.facts.binary): r for r in done.result() if (arch, r.facts.binary) not in rows}
    order = [e.name for e in entries]
    return sorted(rows.values(), key=lambda r: (r.facts.arch, order.index(r.entry.name))), failed


def line(row: Row) -> str:
    """A kernel as a line of the table."""
    f = row.facts
    used = " ".join(f"{name} {count}" for name, count in f.instructions.items() if name not in ("LDL", "STL", "FFMA"))
    said = "; ".join([*(f"! {w}" for w in row.wrong), *(f"allowed: {a}" for a in row.allowed)])
    where = f"sm_{f.arch:<4}{row.entry.name:36} {f.kernel.strip('_').removesuffix('_kernel'):10}"
    return f"{where} {f.registers:4d} {f.spilled:6d} {f.shared:7d} {f.seconds:5.1f}  {used:24} {said}".rstrip()


HEAD = f"{'':7}{'call':36} {'kernel':10} {'regs':>4} {'spill':>6} {'shared':>7} {'s':>5}  instructions"


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ci/compile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", action="append", type=int, choices=sorted(SHARED), help="default: 80, 90 and 100")
    parser.add_argument("--op", action="append", choices=sorted({e.op for e in ENTRIES}), help="default: all")
    parser.add_argument("--only", default="", help="entries whose name contains this")
    parser.add_argument("--all", action="store_true", help="the whole matrix")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 2))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a shell."""
    args = parsed(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TRITON_CACHE_DIR", str(Path(__file__).resolve().parents[2] / ".cache" / "triton"))
    os.environ["TRITON_INTERPRET"] = "0"
    from ci.kernels.ops import OPS

    named = [e for e in ENTRIES if e.op in (args.op or OPS) and args.only in e.name]
    chosen = [e for e in named if args.all or not e.whole]
    if not chosen:
        print(f"ci/compile: no entry has {args.only!r} in its name.", file=sys.stderr)
        return 2
    archs = args.arch or ARCHS
    began = time.perf_counter()
    rows, failed = all_built(chosen, archs, jobs=args.jobs)
    print("\n".join([HEAD, *map(line, rows), *(f"! {f}" for f in failed)]))
    counts = {arch: sum(r.facts.arch == arch for r in rows) for arch in archs}
    wrong = sum(bool(r.wrong) for r in rows) + len(failed)
    excess = [a for a, n in counts.items() if n > MOST_KERNELS and not args.all]
    many = ", ".join(f"sm_{a} {n}" for a, n in counts.items())
    print(
        f"\nkernels: {many}; {wrong} do not pass the gate; {time.perf_counter() - began:.0f} s in {args.jobs} processes"
    )
    if excess:
        print(f"! more than {MOST_KERNELS} kernels on sm_{excess[0]}: mark entries of matrix.py as `whole`")
    return 1 if wrong or excess else 0


if __name__ == "__main__":
    sys.exit(main())
