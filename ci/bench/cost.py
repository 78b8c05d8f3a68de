"""What a verdict costs: forwards by size, one wrong entry among a million, time beside slow and fast gradcheck.

`python -m ci.bench.cost`
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ci.bench.large import gate
from ci.bench.op import Bug, Fn, Tamper, Tensors, faulty
from ci.bench.ops import entry, normal, rms_norm, softmax
from ci.bench.rivals import Judged, gradcheck, gradverify
from ci.bench.tables import publish, table

SIZES = (16, 256, 4096, 65_536, 1_000_000)

# Times are the least of so many.
REPEATS = 5

# Relative errors of all entries that are tried, large to small, to measure what a judge still sees.
ERRORS = tuple(10.0**-k for k in range(12))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Ours with its details: `resolution` the largest of the point's, `named` the worst entry of the first failure."""

    judged: Judged
    backwards: int
    resolution: float
    named: str


def leaves(*inputs: Tensor) -> Tensors:
    """Fresh leaves."""
    return tuple(x.detach().clone().requires_grad_() for x in inputs)


def examined(fn: Fn, inputs: Tensors) -> Seen:
    """Our verdict with its resolution and the entry that it names."""
    from gradverify.engine.at import examine
    from gradverify.records.verdict import Outcome

    kept: dict[str, Any] = {}

    def keep(*args: Any, **kwargs: Any) -> Any:
        kept["examination"] = examine(*args, **kwargs)
        return kept["examination"]

    judged = gradverify(fn, leaves(*inputs), examine_with=keep)
    found = kept.get("examination")
    if found is None:
        return Seen(judged=judged, backwards=0, resolution=math.nan, named="")
    worst = next((v.evidence.worst for v in found.verdicts if v.outcome is Outcome.FAIL and v.evidence.worst), None)
    resolution = max((v.evidence.resolution for v in found.verdicts), default=math.nan)
    return Seen(
        judged=judged,
        backwards=found.backwards,
        resolution=resolution,
        named="" if worst is None else f"{worst.argument}{list(worst.index or ())}",
    )


def by_size() -> tuple[str, list[Any]]:
    """Forwards of right smooth ops as n grows; all inputs of one magnitude but in the last row."""
    rows: list[list[object]] = []
    for n in SIZES:
        side = math.isqrt(n)
        line: list[object] = [f"{n:,}", f"{2 * n + 2:,}"]
        ops: list[tuple[Fn, Tensors]] = [
            (gate, (normal(f"cost {n}", n),)),
            (rms_norm, (normal(f"cost {n}", n),)),
            (softmax, (normal(f"cost {n}", side, n // side),)),
        ]
        rows.append([*line, *(_forwards(examined(fn, x)) for fn, x in ops)])
    head = ["n", "slow gradcheck", "elementwise", "each output from all inputs", "rows"]
    return table(head, rows), rows


def by_magnitudes() -> tuple[str, list[Any]]:
    """Forwards as the inputs of one op spread over more groups of magnitudes; all of one size n = 4,096."""
    rows: list[list[object]] = []
    for decades in (1, 4, 8, 12):
        exponent = torch.rand(4096, generator=torch.Generator().manual_seed(decades), dtype=torch.float64) - 0.5
        x = normal("cost wide", 4096).sign() * 10 ** (exponent * decades)
        rows.append([decades, math.ceil(decades * math.log2(10) / 10), _forwards(examined(torch.arctan, (x,)))])
    return table(["decades of input size", "groups of 2^10", "arctan, n = 4,096"], rows), rows


def _forwards(seen: Seen) -> str:
    return f"{seen.judged.forwards} ({seen.judged.outcome}, {seen.resolution:.0e})"


def one_wrong_entry() -> tuple[str, list[Any]]:
    """One entry of the gradient set to 0, or times 1.01: found, named, at what cost."""
    million = normal("cost million", 1_000_000)
    ops: list[tuple[str, Fn, Tensor, int]] = [
        ("elementwise gate", gate, million, 150),
        ("rms norm, each output from all inputs", rms_norm, million, 300),
        ("logsumexp, one output", lambda x: torch.logsumexp(x, 0), million[:100_000], 300),
        ("logsumexp, one output", lambda x: torch.logsumexp(x, 0), million, 300),
        ("sum of cubes, one output", lambda x: (x * x * x).sum(), million, 300),
    ]
    rows: list[list[object]] = []
    for (name, fn, x, most), factor in [(op, f) for op in ops for f in (0.0, 1.01)]:
        at = x.numel() * 123 // 1000 + 456
        seen = examined(faulty(fn, entry(at, factor)), (x,))
        outcome = f"{seen.judged.outcome} {seen.judged.why}"[:90]
        named = "yes" if seen.named.endswith(f"[{at}]") else f"no ({seen.named})"
        cost = [seen.judged.forwards, most, seen.backwards, f"{seen.judged.seconds:.1f}"]
        rows.append([name, f"{x.numel():,}", f"times {factor:g}", outcome, named, *cost])
    head = ["op", "n", "entry", "verdict", "named", "forwards", "at most", "backwards", "s"]
    return table(head, rows), rows


def one_wrong_entry_short(rows: list[Any]) -> str:
    """One row for each op of `one_wrong_entry`: its two faults together."""
    lines = []
    for zero, scaled in zip(rows[::2], rows[1::2], strict=True):
        found = sum(r[3].startswith("FAIL") and r[4] == "yes" for r in (zero, scaled))
        lines.append([zero[0], zero[1], f"{found} of 2", f"{zero[5]}, {scaled[5]}", zero[6]])
    head = ["one entry times 0, times 1.01", "n", "found and named", "forwards", "at most"]
    return table(head, lines)


def beside_slow() -> tuple[str, list[Any]]:
    """Wall time at n = 4,096: slow gradcheck over ours."""
    flat, square = normal("slow flat", 4096), normal("slow square", 64, 64)
    kernel = normal("slow kernel", 64, 64)
    ops: list[tuple[str, Fn, Tensors]] = [
        ("gate", gate, (flat,)),
        ("softmax 64 x 64", softmax, (square,)),
        ("rms norm", rms_norm, (flat,)),
        ("x @ w, w fixed", lambda x: x @ kernel, (square,)),
    ]
    rows: list[list[object]] = []
    for name, fn, x in ops:
        ours = min((gradverify(fn, leaves(*x)) for _ in range(REPEATS)), key=lambda j: j.seconds)
        slow = gradcheck(fn, leaves(*x), fast=False)
        cells = [f"{j.outcome} {j.forwards:,}, {j.seconds:.3g} s" for j in (slow, ours)]
        rows.append([name, *cells, f"{slow.seconds / ours.seconds:.0f}"])
    return table(["op, n = 4,096", "slow gradcheck", "ours", "times faster"], rows), rows


def beside_fast() -> tuple[str, list[Any]]:
    """Ops of 1 ms and more: our time over fast gradcheck's, and the smallest error of all entries that each fails."""
    image, kernel = normal("fast image", 1, 8, 64, 64), normal("fast kernel", 8, 8, 3, 3)
    ops: list[tuple[str, Fn, Tensors]] = [
        ("gate of 400,000", gate, (normal("fast gate", 400_000),)),
        ("matmul 384", torch.matmul, (normal("fast a", 384, 384), normal("fast b", 384, 384))),
        ("softmax 512 x 512", softmax, (normal("fast sm", 512, 512),)),
        ("convolution 8 x 64 x 64", lambda x, w: functional.conv2d(x, w, padding=1), (image, kernel)),
    ]
    rows: list[list[object]] = []
    for name, fn, x in ops:
        fast = min((gradcheck(fn, leaves(*x), fast=True) for _ in range(REPEATS)), key=lambda j: j.seconds)
        ours = min((gradverify(fn, leaves(*x)) for _ in range(REPEATS)), key=lambda j: j.seconds)
        sees_fast = smallest_error(fn, x, lambda f, y: gradcheck(f, y, fast=True))
        sees_ours = smallest_error(fn, x, gradverify)
        cells = [f"{j.outcome} {j.forwards}, {j.seconds * 1e3:.0f} ms" for j in (fast, ours)]
        finer = "-" if not sees_ours else f"{'> ' if not sees_fast else ''}{(sees_fast or 1.0) / sees_ours:.0e}"
        times = f"{ours.seconds / fast.seconds:.1f}"
        rows.append([name, *cells, times, _seen(sees_fast), _seen(sees_ours), finer])
    head = ["op", "fast gradcheck", "ours", "our time : fast's", "least error seen: fast", "ours", "times finer"]
    return table(head, rows), rows


def _seen(error: float) -> str:
    return f"{error:.0e}" if error else "none up to 1"


def smallest_error(fn: Fn, inputs: Tensors, judge: Any) -> float:
    """The smallest of ERRORS, in all entries of all gradients, that is failed or called imprecise; 0 if none is."""
    least = 0.0
    for error in ERRORS:
        wrong = faulty(fn, Bug(name="", tamper=_everywhere(1 + error)))
        said = judge(wrong, leaves(*inputs))
        if said.outcome != "FAIL" and "GV602" not in said.why:
            break
        least = error
    return least


def _everywhere(factor: float) -> Tamper:
    return lambda grads, inputs, cotangents: [g * factor for g in grads]


def main() -> None:
    """Make all five tables; the README shows three of them whole and one in short."""
    parts = {
        "Forwards for a right smooth op (verdict, resolution)": by_size,
        "Forwards by magnitudes": by_magnitudes,
        "One wrong entry": one_wrong_entry,
        "Wall time beside slow gradcheck": beside_slow,
        "Wall time beside fast gradcheck, ops of 1 ms and more": beside_fast,
    }
    shown, more, data = [], [], {}
    for title, make in parts.items():
        text, rows = make()
        print(f"{title}\n{text}\n", flush=True)
        data[title] = rows
        if make is not by_magnitudes:
            shown.append(f"{title}:\n\n{one_wrong_entry_short(rows) if make is one_wrong_entry else text}")
        if make in (by_magnitudes, one_wrong_entry):
            more.append(f"{title}:\n\n{text}")
    publish("cost", "\n\n".join(shown), {"tables": data}, more="\n\n".join(more))


if __name__ == "__main__":
    main()
