"""The kernels on a GPU: `ci/gpu [verify precision repeat sanitize speed memory] [--device cpu]`; by default all.

It needs Python 3.10, torch 2.11, triton 3.6 and this repository: nothing is installed. What was found is written to
ci/bench/results/gpu.json and gpu.md after every piece, so that pieces can be run one at a time; what another machine or
revision left there is kept as gpu.old.json and gpu.old.md. A piece that breaks off is a failure, and the next one
runs. With `--device cpu` plain PyTorch takes the kernels' place at small sizes: a rehearsal of the script, which says
nothing of a GPU and writes to .cache/gpu.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

PIECES = ("verify", "precision", "repeat", "sanitize", "speed", "memory")
NEEDED = ("torch", "triton")
FURTHER = ("hypothesis", "msgspec")
"""With these the specs run on the device as well."""

VERIFIED, FAILED, UNUSABLE, UNVERIFIED = 0, 1, 2, 3
INTERRUPTED = 130
RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"
REHEARSED = Path(__file__).resolve().parents[2] / ".cache" / "gpu"


def missing(names: Iterable[str]) -> list[str]:
    """The packages that are not installed."""
    return [n for n in names if importlib.util.find_spec(n) is None]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    from ci.bench import tables

    return tables.table(head, [[_cell(c) for c in row] for row in rows])


def _cell(value: object) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value


def machine(device: str) -> dict[str, str]:
    """What the numbers depend on."""
    import torch

    from ci.bench import tables

    facts = tables.machine() | {"device": "cpu: a rehearsal"}
    if device.startswith("cuda"):
        import triton

        facts |= {"device": torch.cuda.get_device_name(), "triton": triton.__version__, "cuda": str(torch.version.cuda)}
        facts["driver"] = _driver()
    return facts


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def piece(name: str, device: str) -> dict[str, Any]:
    """Run a piece: its rows, what is wrong, and how long it took."""
    from ci.kernels import device_checks, device_speed

    began = time.perf_counter()
    run: Callable[[str], Iterable[Any]] = getattr(device_checks, name, None) or getattr(device_speed, name)
    rows: list[dict[str, Any]] = []
    broken = []
    try:
        for row in run(device):
            rows.append(dataclasses.asdict(row))
            print(f"  {line(rows[-1])}", flush=True)
        broken = _specs(device) if name == "verify" else []
    except Exception as error:  # noqa: BLE001 (the pieces after it are worth their time)
        traceback.print_exc()
        broken.append(f"{name} broke off: {type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}")
    wrong = [f"{r['call']}: {r.get('what', '')} {r['wrong']}" for r in rows if r.get("wrong")]
    found: dict[str, Any] = {"rows": rows, "wrong": wrong + broken}
    if name == "speed":
        timings = [device_speed.Timing(**r) for r in rows]
        found["ratios"] = {n: {"ratio": r, "must": m} for n, (r, m) in device_speed.ratios(timings).items()}
        found["wrong"] += device_speed.not_measured(timings) if device.startswith("cuda") else []
    return found | {"seconds": time.perf_counter() - began}


def _specs(device: str) -> list[str]:
    """The specs themselves on the device, by the engine, where its packages are installed."""
    absent = missing(FURTHER)
    if absent or not device.startswith("cuda"):
        print(f"  the specs are not run: {', '.join(absent) + ' is not installed' if absent else 'no GPU'}")
        return []
    from ci.kernels.interpret import CLAIMS
    from ci.kernels.ops import OPS, specs_of
    from gradverify.engine.verify import verify
    from gradverify.records.policy import Plan, Policy

    wrong = []
    for op in OPS.values():
        plan = Plan(claims=(*CLAIMS, "repeat"), devices=(device,), examples=6, max_seconds=60)
        for spec in (s for s in specs_of(op).values() if s.name == op.name or s.nondeterministic):
            for result in verify(spec, plan, Policy()):
                print(f"  {spec.name} {result.claim}: {result.outcome.value} {result.cases.run} cases", flush=True)
                if result.outcome.value in ("FAIL", "ERROR"):
                    wrong.append(f"{spec.name} {result.claim}: {result.code} {result.reason or result.finding}")
    return wrong


def line(row: dict[str, Any]) -> str:
    """A row on the terminal."""
    return "  ".join(str(_cell(v)) for v in row.values() if v != "")


HEADS = {
    "speed": ("call", "group", "rows", "who", "milliseconds", "teraflops"),
    "memory": ("call", "what", "bytes_short", "bytes_long", "per_row"),
}


def markdown(results: dict[str, Any]) -> str:
    """All pieces as tables."""
    facts = results["machine"]
    parts = ["*" + ", ".join(f"{k} {v}" for k, v in facts.items()) + ".*"]
    for name in (p for p in PIECES if p in results):
        found = results[name]
        head = HEADS.get(name, ("call", "what", "value", "beside", "ratio"))
        state = f"{len(found['wrong'])} wrong" if found["wrong"] else "nothing wrong"
        parts.append(f"### {name}\n\n{state}, {found['seconds']:.0f} s.")
        if found.get("ratios"):
            rows = [(n, r["ratio"], r["must"], _met(r)) for n, r in found["ratios"].items()]
            parts.append(table(("our speed / rival's", "ratio", "must", ""), rows))
        parts.append(table(head, [[r[h] for h in head] for r in found["rows"]]))
    return "\n\n".join(parts) + "\n"


def _met(ratio: dict[str, float]) -> str:
    if ratio["must"] != ratio["must"]:
        return ""
    return "met" if ratio["ratio"] >= ratio["must"] else "missed"


def kept(folder: Path, facts: dict[str, str]) -> dict[str, Any]:
    """Earlier pieces of the same machine and revision; those of another are put aside."""
    file = folder / "gpu.json"
    if not file.exists():
        return {"machine": facts}
    try:
        old = json.loads(file.read_text())
        if all(old["machine"].get(k) == facts.get(k) for k in ("device", "torch", "triton", "commit")):
            return {**old, "machine": facts}
    except (ValueError, KeyError, TypeError):  # cut short, or none of ours
        pass
    for name in ("gpu.json", "gpu.md"):
        if (folder / name).exists():
            (folder / name).replace(folder / name.replace("gpu.", "gpu.old."))
    print(f"{file} is of another machine or revision: kept as gpu.old.json")
    return {"machine": facts}


def written(folder: Path, results: dict[str, Any]) -> None:
    """Write gpu.json and gpu.md, each whole or not at all."""
    for name, text in (("gpu.json", json.dumps(results, indent=1) + "\n"), ("gpu.md", markdown(results))):
        part = folder / f"{name}.part"
        part.write_text(text)
        part.replace(folder / name)


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ci/gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=f"of {', '.join(PIECES)}; default: all")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ..., or cpu for a rehearsal")
    parser.add_argument("--out", type=Path, help="folder of gpu.json and gpu.md; default: ci/bench/results")
    parser.add_argument("--strict", action="store_true", help="a speed that must be met and is missed fails")
    args = parser.parse_args(argv)
    unknown = [p for p in args.pieces if p not in PIECES and args.pieces != ["tiny"]]
    if args.device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", args.device):
        parser.error(f"no device {args.device!r}; there are cuda, cuda:N and cpu")
    if unknown:
        parser.error(f"no piece {unknown[0]!r}; there are {', '.join(PIECES)}")
    args.pieces = args.pieces or list(PIECES)
    args.out = args.out or (REHEARSED if args.device == "cpu" else RESULTS)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a shell."""
    args = parsed(sys.argv[1:] if argv is None else argv)
    absent = missing(NEEDED if args.device != "cpu" else NEEDED[:1])
    if absent:
        print(
            f"ci/gpu: {', '.join(absent)} is not installed for {sys.executable}; name another: PYTHON=...",
            file=sys.stderr,
        )
        return UNUSABLE
    import torch

    if args.device.startswith("cuda"):
        number = int(args.device.partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            count = f"only {torch.cuda.device_count()} CUDA devices" if number else "no CUDA device"
            print(f"ci/gpu: {count} here (torch {torch.__version__}); --device cpu rehearses.", file=sys.stderr)
            return UNVERIFIED
        torch.cuda.set_device(number)
    if args.pieces == ["tiny"]:
        from ci.kernels.device_checks import tiny

        tiny(args.device)
        return VERIFIED
    facts = machine(args.device)
    print(f"Python {platform.python_version()}, " + ", ".join(f"{k} {v}" for k, v in facts.items()))
    args.out.mkdir(parents=True, exist_ok=True)
    results = kept(args.out, facts)
    for name in args.pieces:
        print(f"\n{name}", flush=True)
        try:
            results[name] = piece(name, args.device)
        except KeyboardInterrupt:
            print(f"\nci/gpu: interrupted in {name}; the pieces before it are in {args.out}.", file=sys.stderr)
            return INTERRUPTED
        written(args.out, results)
    wrong = [w for name in args.pieces for w in results[name]["wrong"]]
    wrong += [
        f"{n}: {_met(r)}"
        for n, r in results.get("speed", {}).get("ratios", {}).items()
        if args.strict and _met(r) == "missed"
    ]
    print("\n".join(["", *(f"! {w}" for w in wrong)]) or "")
    return FAILED if wrong else VERIFIED


if __name__ == "__main__":
    sys.exit(main())
