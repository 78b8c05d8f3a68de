"""The kernels on a GPU: `ci/gpu [verify precision repeat sanitize speed memory] [--device cpu]`; by default all.

It needs Python 3.10, torch 2.11, triton 3.6 and this repository: nothing is installed. What was found is written to
ci/bench/results/gpu.json and gpu.md after every piece, so that the pieces can be run one at a time. With `--device cpu`
plain PyTorch takes the kernels' place at small sizes: a rehearsal of the script that says nothing of a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

PIECES = ("verify", "precision", "repeat", "sanitize", "speed", "memory")
NEEDED = ("torch", "triton")
FURTHER = ("hypothesis", "msgspec")
"""With these the specs run on the device as well."""

VERIFIED, FAILED, UNUSABLE, UNVERIFIED = 0, 1, 2, 3
RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"


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
    rows = []
    for row in run(device):
        rows.append(dataclasses.asdict(row))
        print(f"  {line(rows[-1])}", flush=True)
    wrong = [f"{r['call']}: {r.get('what', '')} {r['wrong']}" for r in rows if r.get("wrong")]
    found: dict[str, Any] = {"rows": rows, "wrong": wrong}
    if name == "verify":
        found["wrong"] += _specs(device)
    if name == "speed":
        timings = [device_speed.Timing(**r) for r in rows]
        found["ratios"] = {n: {"ratio": r, "must": m} for n, (r, m) in device_speed.ratios(timings).items()}
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
        plan = Plan(claims=CLAIMS, devices=(device,), examples=6, max_seconds=60)
        for result in verify(specs_of(op)[op.name], plan, Policy()):
            print(f"  {op.name} {result.claim}: {result.outcome.value} {result.cases.run} cases", flush=True)
            if result.outcome.value in ("FAIL", "ERROR"):
                wrong.append(f"{op.name} {result.claim}: {result.code} {result.reason or result.finding}")
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
    """Earlier pieces of the same machine and revision."""
    file = folder / "gpu.json"
    if not file.exists():
        return {"machine": facts}
    old = json.loads(file.read_text())
    same = all(old["machine"].get(k) == facts.get(k) for k in ("device", "torch", "triton", "commit"))
    return {**old, "machine": facts} if same else {"machine": facts}


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ci/gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=f"of {', '.join(PIECES)}; default: all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.json and gpu.md")
    parser.add_argument("--strict", action="store_true", help="a speed that must be met and is missed fails")
    args = parser.parse_args(argv)
    unknown = [p for p in args.pieces if p not in (*PIECES, "tiny")]
    if unknown:
        parser.error(f"no piece {unknown[0]!r}; there are {', '.join(PIECES)}")
    args.pieces = args.pieces or list(PIECES)
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

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"ci/gpu: no CUDA device here (torch {torch.__version__}); --device cpu rehearses.", file=sys.stderr)
        return UNVERIFIED
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
        results[name] = piece(name, args.device)
        (args.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (args.out / "gpu.md").write_text(markdown(results))
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
