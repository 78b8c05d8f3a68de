"""The judges beside each other: gradverify, and `torch.autograd.gradcheck` slow and fast, with default arguments."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ci.bench.op import Fn, Tensors

RIVALS = ("gradverify", "gradcheck slow", "gradcheck fast")

# Slow gradcheck calls the op 2n + 2 times and keeps two m x n Jacobians; above this its calls are computed, not made.
SLOW_LIMIT = 4096
# Fast gradcheck that fails runs slow gradcheck for its message. It has failed once it calls this often.
FAST_CALLS = 64


class Enough(Exception):
    """The op has been called more often than the judge may."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one judge said: PASS, FAIL, INCONCLUSIVE or `not run`; why; the op's forward calls; wall seconds."""

    outcome: str
    why: str = ""
    forwards: int = 0
    seconds: float = 0.0


class Counter:
    """`fn`, counting its calls."""

    def __init__(self, fn: Fn, limit: float = float("inf")) -> None:
        self.fn, self.limit, self.calls = fn, limit, 0

    def __call__(self, *args: Any) -> Any:
        """Call `fn`. Raises Enough beyond the limit."""
        self.calls += 1
        if self.calls > self.limit:
            raise Enough
        return self.fn(*args)


def gradcheck(fn: Fn, inputs: Tensors, *, fast: bool, **flags: Any) -> Judged:
    """Torch's own verdict; any error that it raises is a FAIL, as it is for its user."""
    n = sum(x.numel() for x in inputs)
    if not fast and n > SLOW_LIMIT:
        return Judged(outcome="not run", why="2n + 2 forwards, computed", forwards=2 * n + 2)
    counted = Counter(fn, FAST_CALLS if fast and n > SLOW_LIMIT else float("inf"))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            passed = torch.autograd.gradcheck(counted, inputs, fast_mode=fast, **flags)
        outcome, why = ("PASS", "") if passed else ("FAIL", "")
    except Enough:
        outcome, why = "FAIL", "stopped in its slow rerun"
    except Exception as error:  # noqa: BLE001 - whatever it raises is its verdict
        outcome, why = "FAIL", _first_line(error)
    return Judged(outcome=outcome, why=why, forwards=counted.calls, seconds=time.perf_counter() - start)


def gradverify(fn: Fn, inputs: Tensors, *, seed: int = 0, examine_with: Callable[..., Any] | None = None) -> Judged:
    """Our verdict at this one point. An exception is an ERROR, which no table hides."""
    from gradverify.engine.at import examine

    ask = examine_with or examine
    counted = Counter(fn)
    start = time.perf_counter()
    try:
        found = ask(counted, inputs, seed=seed, every=False)
        outcome, why = found.outcome.name, _cause(found.code, found.reason)
    except Exception as error:  # noqa: BLE001 - the benchmark goes on and shows it
        outcome, why = "ERROR", f"{type(error).__name__}: {_first_line(error)}"
    return Judged(outcome=outcome, why=why, forwards=counted.calls, seconds=time.perf_counter() - start)


def judges(seed: int = 0) -> dict[str, Callable[[Fn, Tensors], Judged]]:
    """Name -> judge, in the order of RIVALS."""
    return {
        "gradverify": lambda fn, x: gradverify(fn, x, seed=seed),
        "gradcheck slow": lambda fn, x: gradcheck(fn, x, fast=False),
        "gradcheck fast": lambda fn, x: gradcheck(fn, x, fast=True),
    }


def _cause(code: str, reason: str) -> str:
    """The summary of a finding: its first line without the outcome, claim and device that stand before the code."""
    line = (reason.splitlines() or [""])[0]
    return line[line.index(code) :] if code and code in line else f"{code} {line}".strip()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
