"""Second derivatives beside each other: forward over reverse, reverse over forward, and the symmetry of the Hessian."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff import second
from gradverify.autodiff.second import Pushed, Twice
from gradverify.autodiff.substituted import ByReverse
from gradverify.cases import materialise
from gradverify.checks.flat import flat
from gradverify.checks.subject import Subject, shaken
from gradverify.numerics.comparison import ROUNDINGS
from gradverify.numerics.draws import draws
from gradverify.numerics.measurement import SAFETY
from gradverify.records.evidence import Estimate, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two numbers that should be equal, and the rounding of the products that they are sums of."""

    ours: float
    theirs: float
    rounding: float

    @property
    def gap(self) -> float:
        """The mismatch; not finite where a number is not."""
        return abs(self.ours - self.theirs)


def forward(subject: Subject) -> Iterator[Evidence]:
    """Hold forward over reverse and reverse over forward against reverse over reverse, where the op has forward mode.

    A jvp that is not the transpose of backward is JVP's and ADJOINT's business: then nothing is said.
    """
    remedy = "let {} keep what has history: inputs and outputs, by {}"
    yield from _held(
        subject,
        "forward over reverse against reverse over reverse",
        _forward_over_reverse,
        remedy=remedy.format("backward", "ctx.save_for_backward"),
    )
    yield from _held(
        subject,
        "reverse over forward against reverse over reverse",
        _reverse_over_forward,
        remedy=remedy.format("jvp", "ctx.save_for_forward"),
    )


def symmetric(subject: Subject) -> Iterator[Evidence]:
    """Hold <w, H v> against <v, H w>, with H the derivative of B by x; a declared formula need not be symmetric."""
    if subject.spec.contract.kind != "vjp":
        yield from _held(subject, "<w, H v> against <v, H w>", _symmetry)


def _held(
    subject: Subject, relation: str, compared: Callable[[Subject], Pair | None], **facts: str
) -> Iterator[Evidence]:
    """Evidence that both numbers of a pair are equal but for their rounding, and their scatter where that is asked."""
    pair = compared(subject)
    if pair is None or not np.isfinite(pair.gap):
        return
    bar = pair.rounding
    if pair.gap > SAFETY * bar:
        bar += ROUNDINGS * max(_moved(compared, subject, pair, draw) for draw in range(draws()))
    if pair.gap > SAFETY * bar and compared is _reverse_over_forward:
        facts = _of_torch(subject, bar) or facts
    scale = max(abs(pair.ours), abs(pair.theirs))
    yield subject.evidence(
        "the second derivative",
        analytic=pair.ours,
        numeric=Estimate(value=pair.theirs, error=bar),
        scale=scale,
        resolution=SAFETY * bar / scale if scale > 0 else float("nan"),
        confirmed=True,
        facts={"relation": relation, **facts},
    )


def _moved(compared: Callable[[Subject], Pair | None], subject: Subject, pair: Pair, draw: int) -> float:
    primals = shaken(subject, subject.point.primals, draw=draw)
    again = compared(replace(subject, point=replace(subject.point, primals=primals)))
    if again is None:
        return 0.0
    far = max(abs(again.ours - pair.ours), abs(again.theirs - pair.theirs))
    return far if np.isfinite(far) else 0.0


def _forward_over_reverse(subject: Subject) -> Pair | None:
    """<w, dB(d)> beside <d<w, B>/d(x, u), d>."""
    recorded = _recorded(subject)
    d = _drawn(subject, "tangent", recorded.inputs)
    subject.reseed()
    pushed = second.forward_over_reverse(subject.call, subject.point, recorded.cotangents, d)
    if pushed is None or not _transposed(subject, recorded, pushed, d):
        return None
    w = _weights(subject, recorded)
    theirs = _inner(recorded.vjp(w), d)
    ours = _inner([pushed.grads[n] for n in w], list(w.values()))
    return _pair(subject, ours, theirs)


def _of_torch(subject: Subject, bar: float) -> dict[str, str]:
    """Which of torch's functions have a wrong forward mode: with that of theirs replaced, both sides agree."""
    every = ByReverse()
    if not _repaired(subject, every, bar):
        return {}
    names = tuple(every.seen)
    for name in every.seen:
        fewer = tuple(n for n in names if n != name)
        names = fewer if _repaired(subject, ByReverse(fewer), bar) else names
    return {
        "kind": "of torch",
        "torch": ", ".join(names),
        "remedy": "differentiate in reverse twice, or forward over reverse",
    }


def _repaired(subject: Subject, mode: ByReverse, bar: float) -> bool:
    pair = _reverse_over_forward(subject, mode)
    return pair is not None and pair.gap <= SAFETY * max(bar, pair.rounding)


def _reverse_over_forward(subject: Subject, mode: ByReverse | None = None) -> Pair | None:
    """d<u, J w>/dx beside d<w, B>/dx, both along a direction; or d<u, J w>/dw beside B, where that is off."""
    recorded = _recorded(subject)
    w = _weights(subject, recorded)
    v = {n: w.get(n, torch.zeros_like(t)) for n, t in recorded.tape.leaves.items()}
    us = [None if u is None else u.detach() for u in recorded.cotangents]
    subject.reseed()
    found = second.reverse_over_forward(subject.call, subject.point, us, v, mode)
    if found is None:
        return None
    used = [(t, u) for t, u in zip(found.outputs, us, strict=True) if u is not None]
    value = _inner([t for t, _ in used], [u for _, u in used])
    if _off(_pair(subject, value, _inner([recorded.grads[n] for n in v], list(v.values())))):
        return None
    d = _drawn(subject, "tangent", list(recorded.tape.leaves.values()))
    by_v = _pair(subject, _inner(list(found.by_v.values()), d), _inner([recorded.grads[n] for n in v], d))
    by_x = _pair(subject, _inner(list(found.by_x.values()), d), _inner(recorded.vjp(w)[: len(d)], d))
    return by_v if _off(by_v) else by_x


def _off(pair: Pair) -> bool:
    return pair.gap > SAFETY * pair.rounding


def _symmetry(subject: Subject) -> Pair | None:
    recorded = _recorded(subject)
    if not all(g is None or bool(g.isfinite().all()) for g in recorded.grads.values()):
        # A gradient that is not finite is VJP's business.
        return None
    w, v = _weights(subject, recorded), _weights(subject, recorded, draw=1)
    leaves = recorded.tape.leaves
    by_w, by_v = (dict(zip(leaves, recorded.vjp(t)[: len(leaves)], strict=True)) for t in (w, v))
    return _pair(
        subject, _inner([by_v[n] for n in w], list(w.values())), _inner([by_w[n] for n in v], list(v.values()))
    )


def _recorded(subject: Subject) -> Twice:
    tape = subject.record()
    return second.twice(tape, subject.cotangents(tape))


def _transposed(subject: Subject, recorded: Twice, pushed: Pushed, d: Sequence[Tensor]) -> bool:
    """Whether forward mode is the transpose of backward at first order: <u, J d> = <B(u), d>."""
    used = [(t, u) for t, u in zip(pushed.outputs, recorded.cotangents, strict=True) if u is not None]
    ours = _inner([t for t, _ in used], [u for _, u in used])
    theirs = _inner([recorded.grads[n] for n in recorded.tape.leaves], d[: len(recorded.tape.leaves)])
    pair = _pair(subject, ours, theirs)
    return pair.gap <= SAFETY * pair.rounding


def _drawn(subject: Subject, name: str, like: Sequence[Tensor]) -> list[Tensor]:
    g = materialise.generator(subject.case, "second order", name)
    return [materialise.normal(t, generator=g) for t in like]


def _weights(subject: Subject, recorded: Twice, draw: int = 0) -> dict[str, Tensor]:
    """Weights of the gradients that came back."""
    known = {n: g for n, g in recorded.grads.items() if g is not None}
    return dict(zip(known, _drawn(subject, f"weights {draw}", list(known.values())), strict=True))


def _inner(found: Sequence[Tensor | None], weights: Sequence[Tensor]) -> tuple[float, float, int]:
    """The sum of <a_k, b_k>, that of the products' sizes, and their number; a missing tensor is zero."""
    products = [flat(a) * flat(b) for a, b in zip(found, weights, strict=True) if a is not None]
    every = np.concatenate(products) if products else np.zeros(0)
    return float(every.sum()), float(np.abs(every).sum()), every.size


def _pair(subject: Subject, ours: tuple[float, float, int], theirs: tuple[float, float, int]) -> Pair:
    terms = max(ours[2], theirs[2], 1)
    rounding = ROUNDINGS * subject.unit * float(np.sqrt(terms)) * (ours[1] + theirs[1])
    return Pair(ours=ours[0], theirs=theirs[0], rounding=rounding)
