"""Where the time goes: wall time of all claims, and its shares inside the op, in generation and in judging.

`python -m ci.bench.shares`. Each row runs in a fresh interpreter, three times, of which the fastest counts; modules are
found compiled, as in an installed package. The clock starts after torch is imported, with what torch itself imports
later: sympy at the first cotangent, dynamo at the first second derivative in forward mode; they take a column of their
own. The ops define everything that a Function can, so that every claim applies but those of modules, registered
operators and complex numbers. `transforms.compile` has a line of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from torch import Tensor

from ci.bench.tables import ROOT, publish, table

MILLISECOND = 1e-3
RUNS = 3


class Silu(torch.autograd.Function):
    """x sigmoid(x): a small op of a few microseconds."""

    generate_vmap_rule = True
    pause = 0.0

    @classmethod
    def _spin(cls) -> None:
        until = time.perf_counter() + cls.pause
        while time.perf_counter() < until:
            pass

    @classmethod
    def forward(cls, x: Tensor) -> Tensor:  # type: ignore[override]
        """The value."""
        cls._spin()
        return x * torch.sigmoid(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Save the input, for both modes."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @classmethod
    def backward(cls, ctx: Any, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        """The derivative."""
        cls._spin()
        return cotangent * _slope(*ctx.saved_tensors)

    @classmethod
    def jvp(cls, ctx: Any, tangent: Tensor) -> Tensor:  # type: ignore[override]
        """The derivative, forwards."""
        cls._spin()
        return tangent * _slope(*ctx.saved_tensors)


def _slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


class SlowSilu(Silu):
    """The same, busy for one millisecond in forward, backward and jvp."""

    pause = MILLISECOND


OPS = {"small op": Silu, "op of 1 ms": SlowSilu}
FIRST_ORDER = "forward,vjp,linear,layout,purity,repeat,edges,partial"

ROWS = (
    ("small op", "dev", FIRST_ORDER),
    ("op of 1 ms", "dev", FIRST_ORDER),
    ("op of 1 ms", "ci", FIRST_ORDER),
    ("small op", "dev", ""),
    ("small op", "ci", ""),
    ("op of 1 ms", "dev", ""),
    ("op of 1 ms", "ci", ""),
    ("small op", "ci", "transforms.compile"),
)
"""Op, profile, and the claims, of which none means all but `transforms.compile`."""


def late_imports() -> float:
    """Seconds that torch takes for what it imports only when it is used."""
    start = time.perf_counter()
    x = torch.zeros(1, requires_grad=True)
    torch.autograd.grad(x * 2, x, torch.ones(1))
    importlib.import_module("torch._dynamo")
    return time.perf_counter() - start


def measure(name: str, profile: str, claims: str) -> dict[str, float]:
    """Wall seconds of one verification in this process, and the seconds by phase that its results name."""
    late = late_imports()
    start = time.perf_counter()
    from gradverify.config import BUILT_IN
    from gradverify.engine.verify import verify
    from gradverify.records.policy import Plan, Policy
    from gradverify.records.spec import Arg, Spec

    spec = Spec(name="silu", op=OPS[name], args=(Arg(name="x", shape="*b n"),))
    skip = () if claims else ("transforms.compile",)
    plan = Plan(
        claims=tuple(filter(None, claims.split(","))),
        skip=skip,
        examples=BUILT_IN[profile].examples or 0,
        profile=profile,
    )
    results = list(verify(spec, plan, Policy()))
    wall = time.perf_counter() - start
    phases: dict[str, float] = {}
    for result in results:
        for phase, seconds in result.seconds.items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    outcomes = {r.outcome.name: sum(s.outcome is r.outcome for s in results) for r in results}
    return {"wall": wall, "late imports": late, **phases, **{f"outcome {k}": float(v) for k, v in outcomes.items()}}


def runs(*arguments: str) -> list[dict[str, float]]:
    """What the fresh interpreters measure; one before them leaves its bytecode for the others."""
    command = [sys.executable, "-m", "ci.bench.shares", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": folder}
        done = [
            subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
            for _ in range(1 + RUNS)
        ]
    return [json.loads(d.stdout) for d in done[1:]]


def main() -> None:
    """Measure each row in a fresh interpreter, or (with op, profile and claims as arguments) one in this one."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:])))
        return
    rows: list[list[object]] = []
    data = {}
    for name, profile, claims in ROWS:
        best = min(runs(name, profile, claims), key=lambda m: m["wall"])
        data[f"{name}, {profile} {claims}".strip()] = best
        phases = [f"{100 * best.get(p, 0.0) / best['wall']:.0f} %" for p in ("op", "generation", "judging")]
        outcomes = ", ".join(
            f"{v:.0f} {k.removeprefix('outcome ')}" for k, v in best.items() if k.startswith("outcome")
        )
        rows.append(
            [
                name,
                profile,
                {"": "all but transforms.compile", FIRST_ORDER: "first-order VJPs (8)"}.get(claims, claims),
                f"{best['wall']:.2f} s",
                f"{best['late imports']:.1f} s",
                *phases,
                outcomes,
            ]
        )
    head = ["op", "profile", "claims", "wall", "torch's late imports", "in the op", "generation", "judging", "outcomes"]
    publish("time", table(head, rows), {"ops": data})


if __name__ == "__main__":
    main()
