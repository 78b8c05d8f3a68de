"""REPEAT: the same call gives the same bits, again, after a call with other data, and on another stream."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import msgspec
import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff.settings import has_streams, side_stream
from gradverify.cases.materialise import dtype_named
from gradverify.checks.elsewhere import with_other_values
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Subject, at, gradient_bars, order_bar
from gradverify.numerics.comparison import rounding_bar, units_apart
from gradverify.numerics.ranges import percent
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence, Fact
from gradverify.records.spec import Spec

STREAM = (
    "it works on another stream than the current one: launch on torch.cuda.current_stream(), copy there, wait for it"
)

ON_A_SIDE_STREAM = ((True, True), (False, True), (True, False))
"""Whether forward, and whether backward, is called while another stream is current."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Compare outputs and gradients of a first call with: backward again; a second call; a call after other data.

    The call with other data comes once between forward and backward, and once before both. On a device with streams,
    also with forward, backward, and both on a side stream.
    """
    found = list(_repeated(at(spec, case)))
    apart = _apart(found)
    yield from (msgspec.structs.replace(e, facts={**e.facts, **apart}) for e in found)


def _repeated(subject: Subject) -> Iterator[Evidence]:
    first = subject.record()
    us = subject.cotangents(first)
    grads = first.vjp(us)
    outputs = {first.name(k): y.detach().clone() for k, y in enumerate(first.outputs)}
    bars = gradient_bars(subject, us, grads)
    yield from _same(subject, outputs, grads, first.outputs, first.vjp(us), bars, kind="backward again")
    second = subject.record()
    yield from _same(subject, outputs, grads, second.outputs, second.vjp(us), bars, kind="again")
    third = subject.record()
    _elsewhere(subject)
    yield from _same(subject, outputs, grads, third.outputs, third.vjp(us), bars, kind="after other data")
    fourth = subject.record()
    yield from _same(subject, outputs, grads, fourth.outputs, fourth.vjp(us), bars, kind="after other data")

    if has_streams(subject.case.device):
        for sides in ON_A_SIDE_STREAM:
            again, regrads = _streamed(subject, us, sides)
            words = " and ".join(w for w, side in zip(("forward", "backward"), sides, strict=True) if side)
            for e in _same(subject, outputs, grads, again, regrads, bars, kind="side stream"):
                yield msgspec.structs.replace(
                    e, facts={**e.facts, "phase": f"{words} on a side stream", "said": STREAM}
                )


Found = tuple[tuple[Tensor, ...], Mapping[str, Tensor | None]]


def _streamed(subject: Subject, us: tuple[Tensor | None, ...], sides: tuple[bool, bool]) -> Found:
    forward, backward = (side_stream(subject.case.device) if side else nullcontext() for side in sides)
    with forward:
        tape = subject.record()
    with backward:
        grads = tape.vjp(us)
    return tape.outputs, grads


def _apart(found: list[Evidence]) -> dict[str, Fact]:
    """How far equal calls lie apart at most, in words and in units in the last place; empty where bits are equal."""
    able = [e for e in found if e.facts.get("differ") and math.isfinite(float(e.facts.get("ulps", math.inf)))]
    if not able:
        return {}
    worst = max(able, key=lambda e: float(e.facts["ulps"]))
    units, share = float(worst.facts["ulps"]), float(worst.facts["share"])
    bits = math.ceil(math.log2(units + 1))
    said = (
        f"{worst.quantity} differs between equal calls in {percent(share)} of its entries, "
        f"by up to {units:.0f} unit{'s' * (units > 1)} in the last place ({bits} bit{'s' * (bits > 1)})"
    )
    return {"apart": said, "ulps": units}


def _elsewhere(subject: Subject) -> None:
    """A call with other values of the same shapes, forward and backward."""
    away = with_other_values(subject)
    tape = away.record()
    tape.vjp(away.cotangents(tape, 7))


def _same(
    subject: Subject,
    outputs: Mapping[str, Tensor],
    grads: Mapping[str, Tensor | None],
    again: tuple[Tensor, ...],
    regrads: Mapping[str, Tensor | None],
    bars: Mapping[str, Array],
    *,
    kind: str,
) -> Iterator[Evidence]:
    for name, a, b in zip(outputs, again, outputs.values(), strict=True):
        bar = rounding_bar(flat(b), zeros(b), unit=subject.unit, terms=b.numel())
        yield _graded(subject, f"output {name}", f"output {name}", a, b, bar, kind)
    for name, first in grads.items():
        quantity, second = f"the gradient of `{name}`", regrads[name]
        if (first is None) != (second is None):
            yield subject.count(quantity, 1, kind=kind, said="one call returns it, and an equal one returns None")
        elif first is not None and second is not None:
            own = bars[name] if subject.spec.nondeterministic else order_bar(subject, first)
            yield _graded(subject, quantity, name, second, first, own, kind)


def _graded(subject: Subject, quantity: str, argument: str, a: Tensor, b: Tensor, bar: Array, kind: str) -> Evidence:
    """Bitwise, unless the spec says that rounding may differ; how many elements differ, and by how much."""
    differ = int((~torch.isclose(a, b, rtol=0, atol=0, equal_nan=True)).sum())
    declared = subject.spec.nondeterministic
    e = subject.compare(quantity, argument, a, b, bar, kind=kind, differ=differ, declared=declared)
    return e if not differ else msgspec.structs.replace(e, facts={**e.facts, **_units(subject, a, b, differ)})


def _units(subject: Subject, a: Tensor, b: Tensor, differ: int) -> dict[str, Fact]:
    f = torch.finfo(dtype_named(subject.case.dtype))
    with np.errstate(all="ignore"):
        units = units_apart(flat(a), flat(b), unit=subject.unit, least=f.smallest_normal * f.eps)
    return {"ulps": units, "share": differ / max(a.numel(), 1)}
