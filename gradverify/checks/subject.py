"""What every check needs of a case: the op at a point, its tape, its cotangents, and comparisons in error bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff import calling, forward_mode, products
from gradverify.autodiff.calling import Called
from gradverify.autodiff.forward_mode import Dual, Tangents
from gradverify.autodiff.products import Tape
from gradverify.cases import materialise
from gradverify.cases.regimes import highest, lowest
from gradverify.checks.flat import Array, flat, parts, zeros
from gradverify.errors import OpError
from gradverify.numerics.comparison import rounding_bar, through_float32, worst_gap
from gradverify.numerics.directions import GROUP
from gradverify.numerics.draws import draws, looking_closely
from gradverify.numerics.noise import unit_roundoff
from gradverify.records.case import Case, Point
from gradverify.records.evidence import Estimate, Evidence, Fact, Mismatch
from gradverify.records.spec import Spec

Gradients = Mapping[str, Tensor | None]

WIGGLE = 8.0
"""Inputs are moved by up to so many roundings to see how far a result scatters."""


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

    def record(
        self,
        *,
        primals: Mapping[str, Tensor | None] | None = None,
        point: Point | None = None,
        same: tuple[str, str] | None = None,
    ) -> Tape:
        """One recorded call, from the same state of the global generator each time."""
        self.reseed()
        return products.record(self.spec, self.call, point or self.point, primals=primals, same=same)

    def values(self, called: Called, primals: Mapping[str, Tensor | None]) -> tuple[Tensor, ...]:
        """The outputs without gradient, from the same state of the global generator each time."""
        self.reseed()
        return products.values(called, primals, self.point.kwargs)

    def jvp(self, tangents: Tangents, *, point: Point | None = None) -> Dual:
        """One call in forward mode, from the same state of the global generator each time."""
        self.reseed()
        return forward_mode.jvp(self.spec, self.call, point or self.point, tangents)

    def tangents(self, draw: int = 0) -> dict[str, Tensor]:
        """Normal tangents of what is differentiated."""
        out = {}
        for name in self.point.differentiate:
            t = self.point.primals[name]
            assert t is not None
            g = materialise.generator(self.case, name, "tangent", str(draw))
            out[name] = materialise.normal(t, generator=g)
        return out

    def reseed(self) -> None:
        """A stochastic op draws the same numbers at every call."""
        if self.spec.stochastic:
            torch.default_generator.manual_seed(self.case.seed)

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
            part = next(p for p in parts({name: want}) if gap.index < p.stop)
            place = Mismatch(
                argument=part.name,
                index=part.index(gap.index),
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


def shaken(
    subject: Subject, primals: Mapping[str, Tensor | None], *, draw: int, by: float | None = None
) -> dict[str, Tensor | None]:
    """The primals, moved by a few roundings as `wiggled` does, but not out of their domains."""
    moved = wiggled(subject, primals, draw=draw, by=by)
    return {n: t if t is None else inside(subject, n, t, primals[n]) for n, t in moved.items()}


def wiggled(
    subject: Subject, tensors: Mapping[str, Tensor | None], *, draw: int, by: float | None = None
) -> dict[str, Tensor | None]:
    """Floating and complex tensors, each element moved by a random part of a few roundings, or of `by` of its size.

    Either part of a complex element moves on its own.
    """
    g = materialise.generator(subject.case, "shake", str(draw))
    by = WIGGLE * subject.unit if by is None else by
    return {n: t if t is None or not calling.is_inexact(t) else _shaken(t, by, g) for n, t in tensors.items()}


def inside(subject: Subject, name: str, moved: Tensor, before: Tensor | None) -> Tensor:
    """What was inside the bounds stays there: a loss may refuse a probability of 1 + 1e-16."""
    domain = subject.spec.arg(name).domain
    low, high = lowest(domain), highest(domain)
    if before is None or not moved.is_floating_point() or (np.isinf(low) and np.isinf(high)):
        return moved
    return torch.where((before >= low) & (before <= high), moved.clamp(low, high), moved)


def shaken_cotangents(
    subject: Subject, us: Sequence[Tensor | None], *, draw: int, by: float | None = None
) -> list[Tensor | None]:
    """Cotangents moved likewise."""
    g = materialise.generator(subject.case, "shake", "cotangent", str(draw))
    by = WIGGLE * subject.unit if by is None else by
    return [None if u is None else _shaken(u, by, g) for u in us]


def _shaken(t: Tensor, by: float, g: torch.Generator) -> Tensor:
    if t.is_complex():
        return torch.complex(_shaken(t.real, by, g), _shaken(t.imag, by, g))
    factor = torch.empty(t.shape, dtype=torch.float64).uniform_(1 - by, 1 + by, generator=g)
    return t.to(torch.float64).mul(factor.to(t.device)).to(t.dtype)


def scatter(base: Array, moved: Sequence[Array]) -> Array:
    """How far a result moves when its inputs do by a few roundings, [n]; at least what half its entries do.

    It holds the condition of the point, and the rounding inside the op, which is drawn anew at each moved input.
    """
    if base.size == 0:
        return np.zeros(0)
    with np.errstate(all="ignore"):
        far: Array = np.abs(np.asarray(moved) - base).max(axis=0)
    far[~np.isfinite(far)] = 0.0
    return np.maximum(far, np.median(far))


def gradient_bars(subject: Subject, cotangents: Sequence[Tensor | None], grads: Gradients) -> dict[str, Array]:
    """Error bars of a gradient computed in another order.

    Its scatter when inputs and cotangents move by roundings; and the rounding of terms that may have cancelled in it:
    of the size that the gradient has where the inputs are scaled to 1, and of <u, y> / x, which has its units.
    """
    again = [_moved(subject, cotangents, draw) for draw in range(draws())]
    ordinary = _ordinary_size(subject, cotangents)
    product = max((_product(cotangents, tape.outputs) for tape, _ in again), default=0.0)
    terms = sum(u.numel() for u in cotangents if u is not None)
    out = {}
    for name, grad in grads.items():
        if grad is not None:
            base = flat(grad)
            moved = [flat(g[name]) for _, g in again if g.get(name) is not None]  # type: ignore[arg-type]
            hidden = ordinary.get(name, 0.0) + product / _input_size(subject.point.primals[name], base.size)
            bar = rounding_bar(base, scatter(base, moved or [base]), unit=subject.unit, terms=terms)
            out[name] = bar + rounding_bar(hidden, np.zeros(base.size), unit=subject.unit, terms=1)
    return out


def order_bar(subject: Subject, t: Tensor) -> Array:
    """What another order of summation may change: the rounding of the largest entry."""
    top = np.full_like(zeros(t), float(np.max(np.abs(flat(t)), initial=0.0)))
    return rounding_bar(top, zeros(t), unit=subject.unit, terms=t.numel())


def _product(cotangents: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> float:
    """The largest max |u| max |y| over the outputs that are used and finite."""
    sizes = [0.0]
    for u, y in zip(cotangents, outputs, strict=False):
        if u is not None and y.numel():
            sizes.append(float(u.abs().max()) * float(y.detach().abs().max()))
    return max(x for x in sizes if np.isfinite(x))


def _input_size(t: Tensor | None, count: int) -> Array:
    """|x_i|, at least 2^-GROUP of the tensor's root mean square; infinite where all are zero.

    What is smaller by more has no size of its own: it is added to the others (numerics.directions).
    """
    if t is None or not t.numel():
        return np.full(count, np.inf)
    size = np.abs(flat(t))
    least = 2.0**-GROUP * float(np.sqrt(np.mean(size**2)))
    return np.maximum(size, least) if least > 0 else np.full(count, np.inf)


def _moved(subject: Subject, cotangents: Sequence[Tensor | None], draw: int) -> tuple[Tape, Gradients]:
    primals = shaken(subject, subject.point.primals, draw=draw)
    tape = subject.record(point=replace(subject.point, primals=primals))
    return tape, tape.vjp(shaken_cotangents(subject, cotangents, draw=draw))


def ordinary(subject: Subject) -> Subject | None:
    """The subject with its inputs scaled down to 1, and up to 1 where a fault is at stake; None where they are so."""
    tops = {n: top for n, top in _tops(subject).items() if top > 1 or (top < 1 and looking_closely())}
    primals = {n: t / tops[n] if t is not None and n in tops else t for n, t in subject.point.primals.items()}
    return replace(subject, point=replace(subject.point, primals=primals)) if tops else None


def _tops(subject: Subject) -> dict[str, float]:
    """The largest entry of every differentiated input that has a finite one above zero."""
    primals = {n: subject.point.primals[n] for n in subject.point.differentiate}
    tops = {n: float(t.abs().max()) for n, t in primals.items() if t is not None and t.numel()}
    return {n: top for n, top in tops.items() if 0 < top < np.inf}


def _ordinary_size(subject: Subject, cotangents: Sequence[Tensor | None]) -> dict[str, float]:
    """The largest entry of each gradient where the inputs are scaled to 1: the size of the terms that cancel.

    In saturation a gradient is what rounding leaves of terms that it does not show: by luck the same thrice. Where a
    fault is at stake, these terms are taken as large as the other inputs make them: the gradient of a query adds up
    keys, and a softmax that is saturated by large keys leaves roundings of these.
    """
    there = ordinary(subject)
    if there is None:
        return {}
    try:
        grads = there.record().vjp(cotangents)
    except OpError:
        return {}
    sizes = {n: float(g.abs().max()) for n, g in grads.items() if g is not None and g.numel()}
    large = {n: max(top, 1.0) for n, top in _tops(subject).items()} if looking_closely() else {}
    beside = {n: math.prod(top for other, top in large.items() if other != n) for n in sizes}
    return {n: size * beside[n] for n, size in sizes.items() if np.isfinite(size * beside[n])}


def compare_gradients(
    subject: Subject,
    got: Gradients,
    want: Gradients,
    bars: Mapping[str, Array],
    like: Mapping[str, Tensor],
    **facts: Fact,
) -> Iterator[Evidence]:
    """Evidence that two gradients are equal, argument by argument; a missing one stands for zeros."""
    for name in want:
        a, b = _zeros(got.get(name), like[name]), _zeros(want[name], like[name])
        bar = bars.get(name, zeros(b))
        quantity = f"the gradient of `{name}`"
        if a.shape != b.shape:
            yield subject.count(quantity, 1, kind="shape", found=str(list(a.shape)), wanted=str(list(b.shape)))
        else:
            yield subject.compare(quantity, name, a, b, bar, **facts)


def _zeros(t: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if t is None else t
