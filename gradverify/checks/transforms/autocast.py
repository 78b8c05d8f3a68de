"""TRANSFORMS.AUTOCAST: under autocast the gradients are those of plain eager, to the accuracy of the narrow dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff.calling import is_inexact
from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms import autocasted
from gradverify.autodiff.transforms.autocasted import InBothStates
from gradverify.autodiff.transforms.pure import TransformError, transforming
from gradverify.cases.modules import in_dtype
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Subject, at, scatter, shaken, shaken_cotangents
from gradverify.checks.transforms import beside
from gradverify.errors import NotApplicableError, OpError, UsageError
from gradverify.numerics.comparison import rounding_bar
from gradverify.numerics.noise import unit_roundoff
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.policy import Policy
from gradverify.records.spec import Spec

WIDE = "float32"
"""Autocast leaves float64 alone, and has nothing to do where the inputs are narrow already."""

UNIT = unit_roundoff("bfloat16")

DRAWS = 6
"""Points about the case's, moved by up to one rounding of the narrow dtype, at which the scatter is taken."""

OTHERS = (1, 2)
"""Points of other values at which a mismatch must show, too: a mask that one rounding flips does not."""

HOW = "autocast"
REMEDY = (
    "mark forward with torch.amp.custom_fwd(device_type=...) and backward with torch.amp.custom_bwd(device_type=...); "
    'or cast in backward what it multiplies; where autocast is not meant: supports={"autocast": False}'
)


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """The op in float32: forward under autocast, backward outside, as torch advises; then a Function's in both states.

    Then plain eager once more: what the op keeps of a narrow call shows there.
    """
    subject = _wide(spec, case)
    beside.unless_declared(subject, "autocast")
    if spec.stochastic:
        raise NotApplicableError("the op draws random numbers, and may draw others in a narrow dtype")
    yield from (msgspec.structs.replace(e, case=case) for e in _judged(subject))


def _wide(spec: Spec, case: Case) -> Subject:
    """The subject in float32."""
    if case.dtype not in ("float64", WIDE):
        raise NotApplicableError("the inputs are narrow already")
    if spec.dtypes and WIDE not in spec.dtypes:
        raise NotApplicableError(f"autocast leaves {case.dtype} alone, and the spec takes no {WIDE}")
    wide: Case = msgspec.structs.replace(case, dtype=WIDE)
    try:
        return at(in_dtype(spec, WIDE), wide)
    except UsageError as error:
        # The module was called before, and keeps something of that call: transforms.pickle says so.
        raise NotApplicableError(f"the module cannot be copied once it was called ({error.__cause__})") from error


def _judged(subject: Subject) -> Iterator[Evidence]:
    try:
        plain = _plain(subject)
    except OpError as error:
        raise NotApplicableError(f"without autocast, in {WIDE}: {error}") from error
    beside.unless_writing(plain.tape)
    try:
        cast = _cast(plain)
    except TransformError as error:
        yield _advised(beside.raised(subject, error, HOW))
    else:
        yield from _values(plain, cast)
        yield from _states(plain, cast)
    again = _plain(subject)
    yield from beside.gradients(subject, again.grads, plain.grads, plain.us, plain.tape.leaves, "eager after autocast")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One call and its gradients.

    `narrow`: whether they may have the narrow dtype's accuracy only: forward computed in it, or backward is marked to.
    """

    subject: Subject
    tape: Tape
    us: beside.Used
    grads: beside.Named
    narrow: bool = False

    def named(self) -> dict[str, Tensor | None]:
        """Outputs and gradients by name. Integer outputs may turn at a rounding, and are left out."""
        floating = {n: y for n, y in beside.numbered(self.tape.outputs).items() if is_inexact(y)}
        return {**floating, **self.grads}


def _plain(subject: Subject, us: Sequence[Tensor | None] | None = None) -> _Call:
    tape = subject.record()
    us = beside.cotangents(subject, tape) if us is None else us
    # The same numbers in either dtype.
    us = tuple(None if u is None else _rounded(u) for u in us)
    return _Call(subject=subject, tape=tape, us=us, grads=tape.vjp(us))


def _rounded(u: Tensor) -> Tensor:
    if u.is_complex():
        return torch.complex(_rounded(u.real), _rounded(u.imag))
    return u.to(autocasted.NARROW).to(u.dtype)


def _cast(plain: _Call) -> _Call:
    """The forward under autocast, the backward outside. Raises TransformError where either does."""
    subject = plain.subject
    with transforming():
        with autocasted.autocast(subject.case.device), autocasted.narrowed() as seen:
            tape = subject.record()
        us = tuple(None if u is None else u.to(y.dtype) for u, y in zip(plain.us, tape.outputs, strict=False))
        return _Call(
            subject=subject, tape=tape, us=us, grads=tape.vjp(us), narrow=bool(seen) or autocasted.minded(tape)
        )


# Values.


def _values(plain: _Call, cast: _Call) -> Iterator[Evidence]:
    subject = plain.subject
    if not cast.narrow or len(plain.tape.outputs) != len(cast.tape.outputs):
        yield from beside.outputs(subject, cast.tape.outputs, plain.tape.outputs, HOW)
        yield from beside.gradients(subject, cast.grads, plain.grads, plain.us, plain.tape.leaves, HOW)
        return
    evidence = _compared(plain, cast)
    if any(map(_beyond, evidence.values())):
        elsewhere = [_wrong(beside.elsewhere(subject, k)) for k in OTHERS]
        lucky = {n for n, e in evidence.items() if not all(n in wrong for wrong in elsewhere)}
        evidence = {n: _by_chance(e) if n in lucky else e for n, e in evidence.items()}
    yield from evidence.values()


def _compared(plain: _Call, cast: _Call) -> dict[str, Evidence]:
    got, want = cast.named(), plain.named()
    bars = {} if beside.same_bits(got, want) else _bars(plain)
    found = {}
    for name, wanted in want.items():
        pair = beside.both(got.get(name), wanted)
        if pair is not None:
            quantity = name if name.startswith("output") else f"the gradient of `{name}`"
            bar = bars.get(name, zeros(pair[1]))
            found[name] = beside.one(plain.subject, quantity, name, *pair, bar, HOW)
    return found


def _bars(plain: _Call) -> dict[str, Array]:
    """How far both calls scatter when inputs and cotangents move by up to a rounding of the narrow dtype.

    The scatter of the call under autocast holds its own roundings, drawn anew at each point; a wrong factor is in it
    only to its own size.
    """
    eager = [_plain_near(plain, k) for k in range(DRAWS)]
    pairs = [(plain, eager), (_cast(plain), [_cast(c) for c in eager])]
    bars = {}
    for name, t in plain.named().items():
        if t is not None:
            spread = [_scatter(name, base, moved, t.numel()) for base, moved in pairs]
            bars[name] = rounding_bar(flat(t), np.maximum(*spread), unit=UNIT, terms=1)
    return bars


def _plain_near(plain: _Call, draw: int) -> _Call:
    subject = plain.subject
    primals = shaken(subject, subject.point.primals, draw=draw, by=UNIT)
    us = shaken_cotangents(subject, plain.us, draw=draw, by=UNIT)
    return _plain(replace(subject, point=replace(subject.point, primals=primals)), us)


def _scatter(name: str, base: _Call, moved: Sequence[_Call], size: int) -> Array:
    found = [t for t in (c.named().get(name) for c in (base, *moved)) if t is not None and t.numel() == size]
    return scatter(flat(found[0]), [flat(t) for t in found[1:]]) if len(found) > 1 else np.zeros(size)


def _beyond(e: Evidence) -> bool:
    gap = abs(e.analytic - e.numeric.value)
    return e.analytic != e.numeric.value and not gap <= Policy().safety * e.numeric.error


def _wrong(subject: Subject) -> set[str]:
    plain = _plain(subject)
    return {n for n, e in _compared(plain, _cast(plain)).items() if _beyond(e)}


def _by_chance(e: Evidence) -> Evidence:
    """A mask, a maximum or an index that one rounding turns shows at one point, a wrong gradient at all."""
    return msgspec.structs.replace(e, facts={**e.facts, "kink": True}) if _beyond(e) else e


# States.


def _states(plain: _Call, cast: _Call) -> Iterator[Evidence]:
    """Whoever calls backward may stand inside of autocast, or outside: what it computes is its forward's affair."""
    for found in autocasted.in_both_states(cast.tape, cast.us, plain.subject.case.device):
        yield _advised(_state(plain.subject, found))


def _state(subject: Subject, found: InBothStates) -> Evidence:
    quantity = f"the backward of {found.name}"
    if found.error is not None:
        said = f"called under autocast it raised {found.error}, and outside it does not"
        return subject.count(quantity, 1, kind="raised", said=said)
    said = f"called under autocast it gives {found.differ} other numbers than outside: it takes its caller's precision"
    kind = "state" if found.declared else "undeclared state"
    return subject.count(quantity, found.differ, kind=kind, **({"said": said} if found.differ else {}))


def _advised(e: Evidence) -> Evidence:
    return msgspec.structs.replace(e, facts={**e.facts, "remedy": REMEDY})
