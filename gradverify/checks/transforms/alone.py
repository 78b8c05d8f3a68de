"""A plain call by itself, with the error bars of its gradients, before anything can have been left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms.pure import Gradients
from gradverify.checks.flat import Array
from gradverify.checks.subject import Subject, compare_gradients, gradient_bars
from gradverify.checks.transforms import beside
from gradverify.records.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A recorded call, the gradients under its cotangents, and their bars."""

    subject: Subject
    tape: Tape
    us: beside.Used
    grads: Gradients
    bars: Mapping[str, Array]

    @classmethod
    def of(cls, subject: Subject) -> Alone:
        """Raises NotApplicableError where the op writes to its input, or no output carries a gradient."""
        tape = subject.record()
        beside.unless_writing(tape)
        us = beside.cotangents(subject, tape)
        grads = tape.vjp(us)
        return cls(subject=subject, tape=tape, us=us, grads=grads, bars=gradient_bars(subject, us, grads))

    def beside(self, got: Gradients, how: str) -> Iterator[Evidence]:
        """Evidence that gradients are those of the plain call."""
        bars = {} if beside.same_bits(got, self.grads) else self.bars
        yield from compare_gradients(self.subject, got, self.grads, bars, self.tape.leaves, **beside.facts(how))
