"""The random check: held-out torch functions at fresh points, right and with six errors, before all three judges.

`python -m ci.bench.fresh [--runs 1100] [--wrong-runs 330] [--seed 0] [--only NAME] [--no-gradcheck]`. Right gradients
are judged `runs` times; at the first `wrong-runs` of these points the six errors are, too.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ci.bench.drawn import Function, parse
from ci.bench.fresh_functions import TABLE
from ci.bench.op import Bug, Fn, Tensors, as_tuple, faulty, generator, gradients
from ci.bench.rivals import Judged, judges
from ci.bench.tables import bullets, publish, table

ALL_ENTRIES = (1e-2, 1e-3, 1e-4, 1e-5)
FAULTS = ("right", *(f"all entries off by {e:g}" for e in ALL_ENTRIES), "one entry zero", "one entry's sign")

# The spoilt entry is drawn among those above this share of the largest; below, nothing could see it.
SEEN = 1e-6


def spoil(change: Callable[[Tensor], Tensor]) -> Bug:
    """A bug that changes the gradient of the first argument."""
    return Bug(name="", tamper=lambda grads, inputs, cotangents: [change(grads[0]), *grads[1:]])


def variants(fn: Fn, inputs: Tensors, rng: torch.Generator) -> dict[str, Fn]:
    """Fault -> the function with it; the last two are left out where no entry has a gradient."""
    everywhere = {f"all entries off by {e:g}": _everywhere(fn, 1 + e) for e in ALL_ENTRIES}
    at = _entry(fn, inputs, rng)
    one = {} if at is None else {"one entry zero": _at(fn, at, 0.0), "one entry's sign": _at(fn, at, -1.0)}
    return {"right": fn, **everywhere, **one}


def _everywhere(fn: Fn, factor: float) -> Fn:
    return faulty(fn, Bug(name="", tamper=lambda grads, inputs, cotangents: [g * factor for g in grads]))


def _at(fn: Fn, index: int, factor: float) -> Fn:
    mask = torch.arange  # the factor at one flat index, 1 elsewhere
    return faulty(fn, spoil(lambda g: torch.where(mask(g.numel()).reshape(g.shape) == index, g * factor, g)))


def _entry(fn: Fn, inputs: Tensors, rng: torch.Generator) -> int | None:
    cotangents = tuple(torch.randn(y.shape, generator=rng, dtype=torch.float64) for y in as_tuple(fn(*inputs)))
    size = gradients(fn, inputs, cotangents)[0].abs().reshape(-1)
    seen = (size > SEEN * size.max()).nonzero().reshape(-1)
    return int(seen[int(torch.randint(len(seen), (), generator=rng))]) if len(seen) else None


def main() -> None:
    """Run it and publish: right runs and false failures, then each error and how many were found."""
    parse_args = argparse.ArgumentParser(description=__doc__)
    parse_args.add_argument("--runs", type=int, default=1100)
    parse_args.add_argument("--wrong-runs", type=int, default=330)
    parse_args.add_argument("--seed", type=int, default=0)
    parse_args.add_argument("--only", default="")
    parse_args.add_argument("--no-gradcheck", action="store_true")
    options = parse_args.parse_args()
    functions = [f for f in parse(TABLE) if options.only in f.name]
    asked = judges()
    if options.no_gradcheck:
        asked = {"gradverify": asked["gradverify"]}
    rounds = max(1, options.runs // len(functions))
    spoilt = min(rounds, options.wrong_runs // len(functions))
    tally: dict[tuple[str, str, bool], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    noted: dict[str, str] = {}
    for seed in range(options.seed, options.seed + rounds):
        for function in functions:
            _one(function, seed, asked, tally, noted, spoilt=seed < options.seed + spoilt)
        print(f"seed {seed} done, {len(noted)} noted", flush=True)
    text = report(tally, asked, len(functions), rounds, spoilt)
    more = f"{by_kind(tally, asked)}\n\nOurs, not a plain verdict:\n\n{bullets(noted) or 'None.'}"
    if options.only or options.no_gradcheck:
        print(f"{text}\n\n{more}")
    else:
        rows = [{"fault": f, "judge": j, "kinked": k, **dict(v)} for (f, j, k), v in tally.items()]
        publish(
            "random",
            text,
            {"seed": options.seed, "rounds": rounds, "spoilt": spoilt, "rows": rows, "noted": noted},
            more=more,
        )


def _one(
    function: Function, seed: int, asked: dict[str, Any], tally: Any, noted: dict[str, str], *, spoilt: bool
) -> None:
    rng = generator("fresh", function.name, seed)
    fn, inputs = function.draw(rng, scaled=seed % 2 == 1)
    for fault, variant in (variants(fn, inputs, rng) if spoilt else {"right": fn}).items():
        for name, ask in asked.items():
            said: Judged = ask(variant, tuple(x.clone().requires_grad_() for x in inputs))
            tally[fault, name, function.kinked][said.outcome] += 1
            if name == "gradverify" and _odd(fault, said, kinked=function.kinked):
                noted[f"{function.name}, seed {seed}, {fault}"] = f"{said.outcome} {said.why}"
                print(f"  {function.name} seed {seed} {fault}: {said.outcome} {said.why[:200]}", flush=True)


def _odd(fault: str, said: Judged, *, kinked: bool) -> bool:
    return said.outcome != ("PASS" if fault == "right" else "FAIL") and not (fault.endswith("1e-05") and kinked)


def report(tally: Any, asked: dict[str, Any], functions: int, rounds: int, spoilt: int) -> str:
    """What the README shows: one row for each gradient, ours for smooth and for kinked functions apart."""
    lines: list[list[object]] = []
    for fault in FAULTS:
        ours = [_cell([tally[fault, "gradverify", kinked]], fault) for kinked in (False, True)]
        others = [_cell([tally[fault, n, k] for k in (False, True)], fault) for n in asked if n != "gradverify"]
        lines.append([fault, *ours, *others])
    head = ["gradient", "ours, smooth", "ours, kinked", *(n for n in asked if n != "gradverify")]
    intro = (
        f"{functions} functions of torch, whose names were fixed before the judge was tuned, at {rounds} fresh points "
        f"each; wrong gradients at the first {spoilt} of them. "
        "PASS of all (FAIL, inconclusive) for right gradients; FAIL of all (PASS, inconclusive) for wrong ones."
    )
    return f"{intro}\n\n{table(head, lines)}"


def by_kind(tally: Any, asked: dict[str, Any]) -> str:
    """The same for every judge, smooth and kinked functions apart."""
    lines = [
        [fault, kind, *(_cell([tally[fault, name, kind == "kinked"]], fault) for name in asked)]
        for fault in FAULTS
        for kind in ("smooth", "kinked")
    ]
    return table(["gradient", "functions", *asked], lines)


def _cell(tallies: Sequence[dict[str, int]], fault: str) -> str:
    wanted, other = ("PASS", "FAIL") if fault == "right" else ("FAIL", "PASS")
    counts = {k: sum(t.get(k, 0) for t in tallies) for k in (wanted, other, "INCONCLUSIVE", "ERROR")}
    errors = f", {counts['ERROR']} errors" if counts["ERROR"] else ""
    return f"{counts[wanted]} of {sum(counts.values())} ({counts[other]}, {counts['INCONCLUSIVE']}{errors})"


if __name__ == "__main__":
    main()
