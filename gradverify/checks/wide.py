"""An op at the same inputs in another precision: the truth in float64, and plain computations in the dtype itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor

from gradverify.autodiff import calling, products
from gradverify.autodiff.calling import Called
from gradverify.autodiff.frozen import Recorder
from gradverify.autodiff.products import Tape
from gradverify.autodiff.rounded import in_float64
from gradverify.cases import materialise
from gradverify.cases.materialise import dtype_named
from gradverify.cases.modules import in_dtype
from gradverify.checks.gradient import differentiated, formula_of, matching
from gradverify.checks.subject import Subject, shaken, shaken_cotangents
from gradverify.errors import OpError
from gradverify.numerics.noise import TF32
from gradverify.records.evidence import Evidence
from gradverify.records.policy import Policy
from gradverify.records.spec import Spec

FINE = "float64"

Results = Mapping[str, Tensor]
"""Outputs (`output 0`) and gradients (by argument) of one call."""


class NoTruth(Exception):
    """Neither the reference nor the op runs in float64, with what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The same promise in two precisions: the spec as it is, and with its modules in float64."""

    narrow: Spec
    wide: Spec

    @classmethod
    def of(cls, spec: Spec) -> Sides:
        """Both sides of a spec."""
        return cls(narrow=spec, wide=in_dtype(spec, FINE))

    def truth(
        self,
        subject: Subject,
        us: Sequence[Tensor | None],
        *,
        steps: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Results:
        """What is promised, in float64 on the CPU, at the subject's own inputs and cotangents.

        An op that is the truth itself and refuses the CPU is called where it is.

        `steps`: each step is rounded to that dtype instead. Raises NoTruth where reference or op refuses float64.
        """
        try:
            return self._at(subject, us, "cpu", steps, generator)
        except OpError as error:
            if subject.case.device == "cpu":
                raise NoTruth(str(error)) from error
        try:
            return self._at(subject, us, subject.case.device, steps, generator)
        except OpError as error:
            raise NoTruth(str(error)) from error

    def _at(
        self,
        subject: Subject,
        us: Sequence[Tensor | None],
        device: str,
        steps: str | None,
        generator: torch.Generator | None,
    ) -> Results:
        with in_float64(rounded_to=None if steps is None else dtype_named(steps), generator=generator):
            return promised(self.widened(subject, device), [None if u is None else u.to(device) for u in us])

    def plain(self, subject: Subject, us: Sequence[Tensor | None], *, draw: int | None = None) -> Results:
        """What is promised, computed plainly in the dtype: by the reference, or by the op's steps, each rounded.

        `draw`: rounded up or down at random, where that can be.
        """
        if self.narrow.reference is not None:
            return promised(subject, us)
        generator = None if draw is None else materialise.generator(subject.case, "roundings", str(draw))
        return self.truth(subject, us, steps=subject.case.dtype, generator=generator)

    @property
    def word(self) -> str:
        """What the truth is."""
        return f"the {'op itself' if self.narrow.reference is None else 'reference'} in float64"

    @property
    def plain_word(self) -> str:
        """What the plain computation is."""
        return "the op, each step rounded," if self.narrow.reference is None else "the reference"

    def promising(self, wide: Subject) -> Called:
        """The function whose derivative is promised, in float64."""
        spec = wide.spec
        if spec.contract.kind == "exact":
            return wide.call if spec.reference is None else calling.companion(spec, spec.reference)
        return differentiated(wide)

    def rounded_keywords(self, subject: Subject) -> Subject | None:
        """The subject with its floating keywords as the dtype has them; None where that changes nothing."""
        dtype = dtype_named(subject.case.dtype)
        floats = {k: v for k, v in subject.point.kwargs.items() if isinstance(v, float)}
        rounded = {k: torch.tensor(v, dtype=torch.float64).to(dtype).item() for k, v in floats.items()}
        if all(rounded[k] == v for k, v in floats.items()):
            return None
        return replace(subject, point=replace(subject.point, kwargs={**subject.point.kwargs, **rounded}))

    def widened(self, subject: Subject, device: str = "cpu") -> Subject:
        """The subject in float64 on a device, with the same numbers."""
        primals = {a.name: _widened(subject.point.primals[a.name], a.dtype, device) for a in self.wide.args}
        return replace(
            subject,
            spec=self.wide,
            case=msgspec.structs.replace(subject.case, dtype=FINE, device=device),
            point=replace(subject.point, primals=primals),
            call=calling.op_of(self.wide),
        )


def _widened(t: Tensor | None, fixed: str | None, device: str) -> Tensor | None:
    if t is None or fixed is not None or not calling.is_inexact(t):
        return t if t is None else t.to(device)
    return t.to(device, torch.complex128 if t.is_complex() else torch.float64)


def promised(subject: Subject, us: Sequence[Tensor | None]) -> Results:
    """Outputs of the reference, of the op where there is none; gradients as the contract says."""
    spec = subject.spec
    called = subject.call if spec.reference is None else calling.companion(spec, spec.reference)
    tape = _recorded(subject, called)
    contract = spec.contract
    if contract.formula is None:
        return named(tape, us, tape.vjp(_fitting(us, tape.outputs)))
    if contract.kind == "vjp":
        return named(tape, us, formula_of(subject, contract.formula, _fitting(us, tape.outputs)))
    surrogate = _recorded(subject, calling.companion(spec, Recorder().around(contract.formula), stage="surrogate"))
    return named(tape, us, surrogate.vjp(_fitting(us, surrogate.outputs)))


def _fitting(us: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The cotangents of outputs in another dtype; none where the shapes differ, which is told of the outputs."""
    pairs = zip(matching(us, outputs), outputs, strict=False)
    fitting = tuple(None if u is None or u.shape != y.shape else u for u, y in pairs)
    return (*fitting, *[None] * (len(outputs) - len(fitting)))


def _recorded(subject: Subject, called: Called) -> Tape:
    subject.reseed()
    return products.record(subject.spec, called, subject.point)


def named(tape: Tape, us: Sequence[Tensor | None], gradients: Mapping[str, Tensor | None]) -> Results:
    """Outputs that are used and gradients that came back, by name."""
    used = [k for k, u in enumerate(us) if u is not None and k < len(tape.outputs)]
    outputs = {calling.label(tape.outputs, k): tape.outputs[k].detach() for k in used}
    return outputs | {n: g if g is not None else torch.zeros_like(tape.leaves[n]) for n, g in gradients.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The op at one point, and what was promised there."""

    sides: Sides
    subject: Subject
    us: tuple[Tensor | None, ...]
    got: Results
    truth: Results

    def near(self, count: int, *, by: float, draw: int = 0) -> Iterator[tuple[Subject, list[Tensor | None]]]:
        """Neighbouring points: each input and cotangent is moved by up to `by` of its size."""
        for k in range(draw, draw + count):
            primals = shaken(self.subject, self.subject.point.primals, draw=k, by=by)
            us = shaken_cotangents(self.subject, self.us, draw=k, by=by)
            yield replace(self.subject, point=replace(self.subject.point, primals=primals)), us

    def recalled(self) -> Results:
        """The op called once more."""
        return _own(self.subject, self.us)

    def widened(self) -> Compared:
        """The same in float64 where the truth is, so that neighbours are as near as asked for."""
        home = next((str(t.device) for t in self.truth.values()), "cpu")
        wide = [None if u is None else u.to(home, torch.promote_types(u.dtype, torch.float64)) for u in self.us]
        return replace(self, subject=self.sides.widened(self.subject, home), us=tuple(wide))

    @property
    def order(self) -> float:
        """By how much another order of summation multiplies what one rounding of the inputs does.

        Roundings of partial sums of n terms add up to sqrt(n) of them. In narrower dtypes, and in tf32, sums belong in
        float32.
        """
        sizes = (t.numel() for t in self.subject.point.primals.values() if t is not None)
        own = self.subject.case.dtype == "float32" and self.subject.unit < TF32
        return float(max([*sizes, 1])) ** 0.5 if own else 1.0

    @property
    def least(self) -> float:
        """Half of the smallest number above zero, to which all below it are rounded."""
        return torch.finfo(dtype_named(self.subject.case.dtype)).smallest_normal * self.subject.unit


def compared(sides: Sides, subject: Subject) -> Compared:
    """The op called at a point, beside its truth there."""
    us = subject.cotangents(subject.record())
    return Compared(sides=sides, subject=subject, us=us, got=_own(subject, us), truth=sides.truth(subject, us))


def compared_at(here: Compared, power: int) -> Compared:
    """The same with cotangents multiplied by 2^power, and rounded where they leave the range, for a linear backward."""
    wide = [None if u is None else u.to(torch.promote_types(u.dtype, torch.float64)) * 2.0**power for u in here.us]
    us = tuple(None if w is None or u is None else w.to(u.dtype) for w, u in zip(wide, here.us, strict=True))
    exact = all(w is None or u is None or bool((w == u).all()) for w, u in zip(wide, us, strict=True))
    gradients = {n: t * 2.0**power for n, t in here.truth.items() if n in here.subject.point.primals}
    truth = {**here.truth, **gradients} if exact else here.sides.truth(here.subject, us)
    return replace(here, us=us, got=_own(here.subject, us), truth=truth)


def _own(subject: Subject, us: Sequence[Tensor | None]) -> Results:
    tape = subject.record()
    return named(tape, us, tape.vjp(us))


def over(e: Evidence, *, times: float = 1.0) -> bool:
    """Whether the judge would see a mismatch, or one so many times as large."""
    gap = abs(e.analytic - e.numeric.value)
    return e.analytic != e.numeric.value and not gap <= times * Policy().safety * e.numeric.error


def quantity(name: str) -> str:
    """What a name among the results stands for, in words."""
    return name if name.startswith("output") else f"the gradient of `{name}`"
