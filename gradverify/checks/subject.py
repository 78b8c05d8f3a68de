"""What every check needs of a case: the op at a point, its tape, its cotangents, and comparisons in error bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff import calling, products
from gradverify.autodiff.calling import Called
from gradverify.autodiff.products import Tape
from gradverify.cases import materialise
from gradverify.checks.flat import Array, flat
from gradverify.numerics.comparison import rounding_bar, through_float32, worst_gap
from gradverify.numerics.noise import unit_roundoff
from gradverify.records.case import Case, Point
from gradverify.records.evidence import Estimate, Evidence, Fact, Mismatch
from gradverify.records.spec import Spec

Gradients = Mapping[str, Tensor | None]

PROBE = 2.0**-30
"""Relative size of the random perturbation that measures condition: far above rounding, far below curvature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An op at the point of a case."""

    spec: Spec
    case: Case
    point: Point
    call: Called

    @property
    def unit(self) -> float:
        """Unit roundoff of the dtype under test."""
        return unit_roundoff(self.case.dtype)

    def record(self, *, primals: Mapping[str, Tensor | None] | None = None, point: Point | None = None) -> Tape:
        """One recorded call, from the same state of the global generator each time."""
        self.reseed()
        return products.record(self.spec, self.call, point or self.point, primals=primals)

    def values(self, called: Called, primals: Mapping[str, Tensor | None]) -> tuple[Tensor, ...]:
        """The outputs without gradient, from the same state of the global generator each time."""
        self.reseed()
        return products.values(called, primals, self.point.kwargs)

    def reseed(self) -> None:
        """A stochastic op draws the same numbers at every call."""
        if self.spec.stochastic:
            torch.random.default_generator.manual_seed(self.case.seed)

    def cotangents(self, tape: Tape, draw: int = 0) -> tuple[Tensor | None, ...]:
        """Random cotangents in the layouts of the case; None for outputs that carry no gradient."""
        drawn = materialise.cotangents(self.case, tape.outputs, draw=draw)
        return tuple(u if i in tape.active else None for i, u in enumerate(drawn))

    def evidence(self, quantity: str, **fields: Any) -> Evidence:
        """Evidence of this claim at this case."""
        return Evidence(claim=self.case.claim, case=self.case, quantity=quantity, **fields)

    def count(self, quantity: str, wrong: int, *, kind: str, **facts: Fact) -> Evidence:
        """Evidence that is a count, and should be zero: it is exact, so it is its own confirmation."""
        return self.evidence(
            quantity,
            analytic=float(wrong),
            numeric=Estimate(value=0.0, error=0.0),
            scale=float(max(wrong, 1)),
            resolution=0.0,
            confirmed=True,
            facts={"kind": kind, **facts},
        )

    def compare(self, quantity: str, name: str, got: Tensor, want: Tensor, bar: Array, **facts: Fact) -> Evidence:
        """Evidence that two tensors of one shape are equal within an error bar per element."""
        a, b = flat(got), flat(want)
        gap = worst_gap(a, b, bar)
        place = None
        if gap.index >= 0:
            index = tuple(int(i) for i in np.unravel_index(gap.index, tuple(want.shape))) if want.ndim else ()
            place = Mismatch(
                argument=name,
                index=index,
                output=None,
                output_index=None,
                analytic=gap.analytic,
                numeric=gap.numeric,
                error=gap.error,
            )
        return self.evidence(
            quantity,
            analytic=gap.analytic,
            numeric=Estimate(value=gap.numeric, error=gap.error),
            scale=gap.scale,
            resolution=gap.resolution,
            confirmed=True,
            worst=place,
            facts={"float32": through_float32(a) and not through_float32(b), **facts},
        )


def at(spec: Spec, case: Case) -> Subject:
    """The subject of a case."""
    return Subject(spec=spec, case=case, point=materialise.materialise(spec, case), call=calling.op_of(spec))


def shaken(subject: Subject, primals: Mapping[str, Tensor | None], *, draw: int) -> dict[str, Tensor | None]:
    """The floating primals, each element moved by a random part of PROBE of its size."""
    g = materialise.generator(subject.case, "shake", str(draw))
    return {n: t if t is None or not t.is_floating_point() else _shaken(t, g) for n, t in primals.items()}


def _shaken(t: Tensor, g: torch.Generator) -> Tensor:
    factor = 1 + PROBE * (2 * torch.rand(t.shape, generator=g, dtype=torch.float64) - 1)
    return (t.to(torch.float64) * factor.to(t.device)).to(t.dtype)


def spreads(subject: Subject, base: Sequence[Array], moved: Sequence[Sequence[Array]], *, probe: float) -> list[Array]:
    """How far each result moves for a perturbation of `probe`, scaled down to one rounding: [n] per result."""
    out = []
    for k, b in enumerate(base):
        with np.errstate(all="ignore"):
            far = np.max(np.stack([np.abs(m[k] - b) for m in moved]), axis=0)
            # A perturbation of some 2^23 roundings; what does not scale with it (internal rounding) stays as it is.
            out.append(np.where(np.isfinite(far), far * (subject.unit / probe), 0.0) + _internal(far, b, subject.unit))
    return out


def _internal(far: Array, base: Array, unit: float) -> Array:
    """A movement of a few roundings of the largest entry is rounding inside, whatever the perturbation was."""
    top = np.max(np.abs(base[np.isfinite(base)]), initial=0.0)
    return np.where(far <= 64 * unit * top, far, 0.0)


def gradient_bars(subject: Subject, tape: Tape, cotangents: Sequence[Tensor | None], grads: Gradients) -> dict[str, Array]:
    """Error bars of a gradient that is computed in another order: from its scatter under a shaken cotangent and input."""
    g = materialise.generator(subject.case, "shake", "cotangent")
    us = [None if u is None else _shaken(u, g) for u in cotangents]
    again = tape.vjp(us)
    names = [n for n, t in grads.items() if t is not None]
    base = [flat(grads[n]) for n in names]  # type: ignore[arg-type]
    moved = [[flat(again[n]) if again[n] is not None else b for n, b in zip(names, base, strict=True)]]  # type: ignore[arg-type]
    terms = sum(y.numel() for y in tape.outputs)
    spread = spreads(subject, base, moved, probe=PROBE)
    return {
        n: rounding_bar(_typical(b), s, unit=subject.unit, terms=terms)
        for n, b, s in zip(names, base, spread, strict=True)
    }


def _typical(a: Array) -> Array:
    """Each entry, but at least a thousandth of the largest: small entries are what is left of larger terms."""
    finite = np.where(np.isfinite(a), np.abs(a), 0.0)
    return np.maximum(finite, 1e-3 * np.max(finite, initial=0.0))


def compare_gradients(
    subject: Subject, got: Gradients, want: Gradients, bars: Mapping[str, Array], like: Mapping[str, Tensor], **facts: Fact
) -> Iterator[Evidence]:
    """Evidence that two gradients are equal, argument by argument; a missing one stands for zeros."""
    for name in want:
        a, b = _zeros(got.get(name), like[name]), _zeros(want[name], like[name])
        bar = bars.get(name, np.zeros(b.numel()))
        quantity = f"the gradient of `{name}`"
        if a.shape != b.shape:
            yield subject.count(quantity, 1, kind="shape", found=str(list(a.shape)), wanted=str(list(b.shape)))
        else:
            yield subject.compare(quantity, name, a, b, bar, **facts)


def _zeros(t: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if t is None else t
