"""Where the time goes: wall time of profile dev, and its shares inside the op, in generation and in judging.

`python -m ci.bench.shares`. Each op runs in a fresh interpreter; the clock starts after torch is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from ci.bench.tables import ROOT, publish, table

MILLISECOND = 1e-3


class Silu(torch.autograd.Function):
    """x sigmoid(x): a small op of a few microseconds."""

    pause = 0.0

    @classmethod
    def _spin(cls) -> None:
        until = time.perf_counter() + cls.pause
        while time.perf_counter() < until:
            pass

    @classmethod
    def forward(cls, ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        """The value."""
        cls._spin()
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @classmethod
    def backward(cls, ctx: Any, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        """The derivative."""
        cls._spin()
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return cotangent * s * (1 + x * (1 - s))


class SlowSilu(Silu):
    """The same, busy for one millisecond in forward and in backward."""

    pause = MILLISECOND


OPS = {"small op": Silu, "op of 1 ms": SlowSilu}


def measure(name: str) -> dict[str, float]:
    """Wall seconds of one verification in this process, and the seconds by phase that its results name."""
    start = time.perf_counter()
    from gradverify.engine.verify import verify
    from gradverify.records.policy import Plan, Policy
    from gradverify.records.spec import Arg, Spec

    spec = Spec(name="silu", op=OPS[name], args=(Arg(name="x", shape="*b n"),))
    results = list(verify(spec, Plan(), Policy()))
    wall = time.perf_counter() - start
    phases: dict[str, float] = {}
    for result in results:
        for phase, seconds in result.seconds.items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    outcomes = {r.outcome.name: sum(s.outcome is r.outcome for s in results) for r in results}
    return {"wall": wall, **phases, **{f"outcome {k}": float(v) for k, v in outcomes.items()}}


def main() -> None:
    """Measure each op in a fresh interpreter, or (with its name as argument) in this one."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    rows: list[list[object]] = []
    data = {}
    for name in OPS:
        command = [sys.executable, "-m", "ci.bench.shares", name]
        done = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(3)]
        best = min((json.loads(d.stdout) for d in done), key=lambda m: m["wall"])
        data[name] = best
        phases = [f"{100 * best.get(p, 0.0) / best['wall']:.0f} %" for p in ("op", "generation", "judging")]
        outcomes = ", ".join(
            f"{v:.0f} {k.removeprefix('outcome ')}" for k, v in best.items() if k.startswith("outcome")
        )
        rows.append([name, f"{best['wall']:.2f} s", *phases, outcomes])
    head = ["op, profile dev", "wall, torch imported", "in the op", "generation", "judging", "claims"]
    publish("time", table(head, rows), {"ops": data})


if __name__ == "__main__":
    main()
