"""A call of an op by itself: what it gives, and how exactly a call among others must give the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from gradverify.autodiff.calling import clone_exactly
from gradverify.checks.flat import Array
from gradverify.checks.subject import Gradients, Subject, compare_gradients, gradient_bars, order_bar
from gradverify.records.evidence import Evidence

Cotangents = Sequence[Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A subject, and what one call of it gives by itself: outputs, gradients under cotangents, and their bars."""

    subject: Subject
    cotangents: Cotangents
    outputs: tuple[Tensor, ...]
    gradients: Gradients
    like: Mapping[str, Tensor]
    bars: Mapping[str, Array]

    def same(self, got: Gradients, *, kind: str, phase: str) -> Iterator[Evidence]:
        """Evidence that gradients are those of the call alone."""
        yield from compare_gradients(
            self.subject, got, self.gradients, self.bars, self.like, kind=kind, phase=phase, beside="the call alone"
        )


def of(subject: Subject, draw: int = 0) -> Alone:
    """One call and its gradients; `draw` tells cotangents apart."""
    tape = subject.record()
    us = subject.cotangents(tape, draw)
    gradients = clones(tape.vjp(handed(us)))
    return Alone(
        subject=subject,
        cotangents=us,
        outputs=tuple(y.detach().clone() for y in tape.outputs),
        gradients=gradients,
        bars=_bars(subject, us, gradients),
        like=tape.leaves,
    )


def handed(us: Cotangents) -> list[Tensor | None]:
    """Exact copies: a backward that writes to its cotangents spoils this call alone."""
    return [None if u is None else clone_exactly(u) for u in us]


def _bars(subject: Subject, us: Cotangents, gradients: Gradients) -> dict[str, Array]:
    """Scatter where calls may differ; else an order of summation, and none of the calls may have spoilt the others."""
    if subject.spec.nondeterministic:
        return gradient_bars(subject, us, gradients)
    return {n: order_bar(subject, g) for n, g in gradients.items() if g is not None}


def clones(gradients: Gradients) -> dict[str, Tensor | None]:
    """Copies, which a later call cannot write over."""
    return {n: None if g is None else g.clone() for n, g in gradients.items()}
