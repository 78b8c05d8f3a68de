"""The op at several points of one shape, one call each: what a batch of them is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff.products import Tape
from gradverify.autodiff.transforms.pure import Gradients
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Subject, gradient_bars
from gradverify.checks.transforms import beside
from gradverify.errors import NotApplicableError
from gradverify.numerics.comparison import rounding_bar

BATCH = 3
"""Samples in a batch: more than two, so that one that is used for another shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Samples, their recorded calls, their cotangents and gradients."""

    subjects: tuple[Subject, ...]
    tapes: tuple[Tape, ...]
    us: tuple[tuple[Tensor | None, ...], ...]
    grads: tuple[Gradients, ...]

    @property
    def stacked_us(self) -> tuple[Tensor | None, ...]:
        """The cotangents of each output with the batch in front."""
        return tuple(None if u[0] is None else torch.stack(u) for u in zip(*self.us, strict=True))

    def outputs(self) -> list[Tensor]:
        """Each output with the batch in front."""
        return [torch.stack(ys).detach() for ys in zip(*(t.outputs for t in self.tapes), strict=True)]

    def gradient(self, name: str, *, summed: bool) -> Tensor:
        """The gradients of an argument that all samples share, added up; of another, with the batch in front."""
        like = self.tapes[0].leaves[name]
        parts = [g[name] for g in self.grads]
        every = torch.stack([torch.zeros_like(like) if g is None else g for g in parts])
        return every.sum(0) if summed else every

    def bar(self, name: str, *, summed: bool) -> Array:
        """The error bar of that, from those of the samples."""
        bars = [self._bar(k, name) for k in range(len(self.subjects))]
        if not summed:
            return np.concatenate(bars)
        largest = np.abs(flat(self.gradient(name, summed=False))).reshape(len(bars), -1).max(0, initial=0.0)
        rounding = rounding_bar(largest, np.zeros(largest.size), unit=self.subjects[0].unit, terms=len(bars))
        return np.asarray(np.sum(bars, axis=0) + rounding)

    def _bar(self, k: int, name: str) -> Array:
        found = gradient_bars(self.subjects[k], self.us[k], self.grads[k])
        return found.get(name, zeros(self.tapes[k].leaves[name]))


def loop_of(subject: Subject, batched: Sequence[str]) -> Loop:
    """Points at seeds that follow the case's; what is not batched is that of the first everywhere."""
    every = [beside.elsewhere(subject, k).point for k in range(BATCH)]
    first = every[0].primals
    mixed = [{n: t if n in batched else first[n] for n, t in p.primals.items()} for p in every]
    subjects = tuple(replace(subject, point=replace(subject.point, primals=m)) for m in mixed)
    tapes = tuple(s.record() for s in subjects)
    if len({tuple(y.shape for y in t.outputs) for t in tapes}) > 1:
        raise NotApplicableError("the shapes of the outputs depend on the values")
    us = tuple(beside.cotangents(subject, t, k) for k, t in enumerate(tapes))
    grads = tuple(t.vjp(u) for t, u in zip(tapes, us, strict=True))
    return Loop(subjects=subjects, tapes=tapes, us=us, grads=grads)
