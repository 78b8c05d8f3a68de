"""An op under a transform beside plain eager: to the bit, or within the rounding of another order of summation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec
import torch
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms.pure import Gradients, TransformError
from gradverify.cases import materialise
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Subject, compare_gradients, gradient_bars, scatter, shaken
from gradverify.errors import NotApplicableError, OpError
from gradverify.numerics.comparison import rounding_bar
from gradverify.numerics.draws import draws
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact

Named = Mapping[str, Tensor | None]
Used = tuple[Tensor | None, ...]


def unless_declared(subject: Subject, feature: str) -> None:
    """Raise NotApplicableError where the spec says that the op has no such feature."""
    if subject.spec.supports.get(feature) is False:
        raise NotApplicableError(f"the spec says that {feature} is not supported")


def unless_writing(tape: Tape) -> None:
    """Raise NotApplicableError where the op writes to its input: what it is given is then not what it was given."""
    if tape.written:
        raise NotApplicableError("the op writes to its input")


def cotangents(subject: Subject, tape: Tape, draw: int = 0) -> Used:
    """Cotangents of the outputs that are connected to an input. Raises NotApplicableError where none is."""
    us = subject.cotangents(tape, draw)
    used = tuple(u if y.requires_grad else None for u, y in zip(us, tape.outputs, strict=True))
    if all(u is None for u in used):
        raise NotApplicableError("no output carries a gradient")
    return used


def elsewhere(subject: Subject, k: int) -> Subject:
    """The subject at other values of the same sizes: those of the k-th seed after the case's."""
    case: Case = msgspec.structs.replace(subject.case, seed=subject.case.seed + k)
    return replace(subject, point=materialise.materialise(subject.spec, case))


def gradients(
    subject: Subject, got: Gradients, want: Gradients, us: Used, like: Mapping[str, Tensor], how: str
) -> Iterator[Evidence]:
    """Evidence that two gradients at the subject's point are equal. Bars are measured only where the bits differ."""
    bars = {} if same_bits(got, want) else gradient_bars(subject, us, want)
    yield from compare_gradients(subject, got, want, bars, like, **facts(how))


def outputs(subject: Subject, got: Sequence[Tensor], want: Sequence[Tensor], how: str) -> Iterator[Evidence]:
    """Evidence that outputs are equal, in number, shape and value."""
    if len(got) != len(want):
        yield subject.count("the number of outputs", 1, kind="count", found=len(got), wanted=len(want), **facts(how))
        return
    yield from measured(
        subject, numbered(got), numbered(want), lambda p: numbered(subject.values(subject.call, p)), how
    )


def measured(
    subject: Subject, got: Named, want: Named, again: Callable[[Named], Named], how: str
) -> Iterator[Evidence]:
    """Evidence that named tensors are equal; the bar is the scatter of `again` at inputs moved by roundings."""
    bars = {} if same_bits(got, want) else _scattered(subject, want, again)
    for name, wanted in want.items():
        pair = both(got.get(name), wanted)
        if pair is not None:
            yield one(subject, name, name, *pair, bars.get(name, zeros(pair[1])), how)


def one(subject: Subject, quantity: str, name: str, got: Tensor, want: Tensor, bar: Array, how: str) -> Evidence:
    """Evidence that two tensors are equal in shape and value."""
    if got.shape != want.shape:
        shapes = {"found": str(list(got.shape)), "wanted": str(list(want.shape))}
        return subject.count(quantity, 1, kind="shape", **shapes, **facts(how))
    return subject.compare(quantity, name, got, want, bar, **facts(how))


def raised(subject: Subject, error: TransformError, how: str) -> Evidence:
    """Evidence that the op raises under the transform, and does not in plain eager."""
    cause = error.__cause__
    stage = cause.stage if isinstance(cause, OpError) else "call"
    return subject.count(f"the {stage}", 1, kind="raised", said=f"it raised {error}", **facts(how))


def off(evidence: Sequence[Evidence]) -> bool:
    """Whether any of it lies outside of its error bar."""
    return any(e.analytic != e.numeric.value and not _within(e) for e in evidence)


def _within(e: Evidence) -> bool:
    return abs(e.analytic - e.numeric.value) <= e.numeric.error


def same_bits(got: Named, want: Named) -> bool:
    """Whether named tensors are equal to the bit; a missing one stands for zeros."""
    pairs = (both(got.get(n), w) for n, w in want.items())
    return all(pair is None or equal(*pair) for pair in pairs)


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN being itself."""
    if a.shape != b.shape:
        return False
    a, b = (t.detach() if t.layout == torch.strided else t.detach().to_dense() for t in (a, b))
    return bool(((a == b) | ((a != a) & (b != b))).all())


def numbered(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors as `output 0`, `output 1`, ..."""
    return {f"output {k}": t.detach() for k, t in enumerate(tensors)}


def facts(how: str) -> dict[str, Fact]:
    """What is beside what."""
    return {"relation": how, "truth": "plain eager"}


def _scattered(subject: Subject, want: Named, again: Callable[[Named], Named]) -> dict[str, Array]:
    moved = [again(shaken(subject, subject.point.primals, draw=k)) for k in range(draws())]
    terms = max((t.numel() for t in subject.point.primals.values() if t is not None), default=1)
    bars = {}
    for name, t in want.items():
        near = [flat(m) for m in (x.get(name) for x in moved) if m is not None and t is not None and m.shape == t.shape]
        if t is not None:
            bars[name] = rounding_bar(flat(t), scatter(flat(t), near or [flat(t)]), unit=subject.unit, terms=terms)
    return bars


def both(a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Both, a missing one as zeros of the other; None where both are missing."""
    if a is None:
        return None if b is None else (torch.zeros_like(b), b)
    return a, torch.zeros_like(a) if b is None else b
