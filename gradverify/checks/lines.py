"""PRECISION without a truth: the gradient beside the op's own change along lines, in its own dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from gradverify.cases import materialise
from gradverify.checks.flat import Array, flat
from gradverify.checks.subject import Subject, at, inside
from gradverify.checks.wide import over
from gradverify.numerics.budget import FLOOR, SIGMAS, Mean, mean_of, quartile
from gradverify.numerics.comparison import inner
from gradverify.records.case import Case
from gradverify.records.evidence import Estimate, Evidence
from gradverify.records.policy import Policy
from gradverify.records.spec import Spec

LINES = 12
"""Lines that a mean is taken over; twice as many others confirm it."""

REACH = 0.25
"""Half of a line, relative to each input: far beyond its rounding, and short beside what the function varies on."""

FINE, COARSE = 5, 3
"""Nodes of the two Gauss-Legendre sums; their distance bounds the error of the finer one."""

MIDWAY = 0.7
"""Where the signs of the cotangent are taken from: not from the ends, whose own rounding they would follow."""

STEPS = 8.0
"""An output that moves by fewer roundings than this moves in steps, whose rounding is not drawn at random."""

APART = 6007
"""Between the seeds of two lines."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """For each argument the mean, over lines, of sum_k w_k <vjp(x_k; v), h> / <v, f(x + h) - f(x - h)>.

    It is 1 where the gradient is right: by the fundamental theorem both are the integral of <v, J h> along the line.
    """
    for name in case.differentiate:
        e = _mean(spec, case, name, range(LINES))
        if over(e):
            again = _mean(spec, case, name, range(LINES, 3 * LINES))
            e = msgspec.structs.replace(again, confirmed=over(again))
        yield e


def _mean(spec: Spec, case: Case, name: str, numbers: range) -> Evidence:
    subjects = [at(spec, msgspec.structs.replace(case, seed=case.seed + APART * k)) for k in numbers]
    sums = [_sums(s, name) for s in subjects]
    known = [s for s in sums if s is not None]
    mean = mean_of([fine for fine, _ in known])
    return _evidence(at(spec, case), name, mean, [abs(fine - coarse) for fine, coarse in known], len(numbers))


def _evidence(here: Subject, name: str, mean: Mean, truncation: list[float], lines: int) -> Evidence:
    dtype = here.case.dtype
    bar = SIGMAS * mean.error + here.unit / FLOOR + quartile(truncation, 0.75)
    known = bool(np.isfinite(mean.value) and np.isfinite(bar))
    said = f"over {lines} lines, where the roundings of the op in {dtype} make {mean.error:.1e}"
    return here.evidence(
        f"the mean of the gradient of `{name}` along lines",
        analytic=1 + mean.value if known else float("nan"),
        numeric=Estimate(value=1.0, error=bar if known else float("nan")),
        scale=1.0,
        resolution=Policy().safety * bar if known else float("inf"),
        facts={
            "kind": "line",
            "truth": f"its own values in {dtype}",
            "budget": said,
            "common": Policy().safety * bar if known else float("nan"),
            "cause": "the roundings of the op hide the gradient, and it has no reference",
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """x + t h for t in [-1, 1], in one argument; both ends are numbers of the dtype."""

    subject: Subject
    name: str
    centre: Tensor
    half: Tensor

    def at(self, t: float) -> Subject:
        """The subject at t, rounded to the dtype."""
        x = self.subject.point.primals[self.name]
        assert x is not None
        moved: Mapping[str, Tensor | None] = {
            **self.subject.point.primals,
            self.name: (self.centre + t * self.half).to(x.dtype),
        }
        return replace(self.subject, point=replace(self.subject.point, primals=moved))

    def values(self, t: float) -> list[Array]:
        """The outputs at t."""
        there = self.at(t)
        return [flat(y) for y in there.values(there.call, there.point.primals)]

    def integral(self, nodes: int, v: list[Array]) -> float:
        """The Gauss-Legendre sum of <vjp(x_k; v), h>."""
        places, weights = np.polynomial.legendre.leggauss(nodes)
        return float(sum(w * self._slope(float(t), v) for t, w in zip(places, weights, strict=True)))

    def _slope(self, t: float, v: list[Array]) -> float:
        tape = self.at(t).record()
        us = [
            torch.from_numpy(v[k]).reshape(y.shape).to(y) if k in tape.active else None
            for k, y in enumerate(tape.outputs)
        ]
        grad = tape.vjp(us)[self.name]
        return 0.0 if grad is None else inner(flat(grad), flat(self.half))


def _line(subject: Subject, name: str) -> _Line | None:
    x = subject.point.primals[name]
    if x is None or x.is_complex() or x.numel() == 0:
        return None
    g = materialise.generator(subject.case, name, "line")
    signs = 2.0 * torch.randint(0, 2, x.shape, generator=g, dtype=torch.float64) - 1
    far = (signs.to(x.device) * REACH * x.double().abs()).to(x.dtype)
    ends = [inside(subject, name, x + s * far, x).double() for s in (1, -1)]
    return _Line(subject=subject, name=name, centre=(ends[0] + ends[1]) / 2, half=(ends[0] - ends[1]) / 2)


def _hardly_moves(ends: list[tuple[Array, Array]], unit: float) -> bool:
    """Whether half of the outputs move by a few roundings only: these are then no noise, but steps."""
    a, b = (np.concatenate(side) for side in zip(*ends, strict=True))
    size = np.maximum(np.abs(a), np.abs(b))
    return bool(np.mean(np.abs(b - a)[size > 0] < STEPS * unit * size[size > 0]) > 0.5) if size.any() else True


def _sums(subject: Subject, name: str) -> tuple[float, float] | None:
    """The finer and the coarser sum relative to the difference, less 1; None where hardly anything moves."""
    line = _line(subject, name)
    if line is None:
        return None
    tape = subject.record()
    signs = [np.sign(b - a) for a, b in zip(line.values(-MIDWAY), line.values(MIDWAY), strict=True)]
    ends = [pair for k, pair in enumerate(zip(line.values(-1.0), line.values(1.0), strict=True)) if k in tape.active]
    change = sum(inner(signs[k], b - a) for k, (a, b) in zip(tape.active, ends, strict=True))
    if not np.isfinite(change) or change <= 0 or _hardly_moves(ends, subject.unit):
        return None
    return line.integral(FINE, signs) / change - 1, line.integral(COARSE, signs) / change - 1
