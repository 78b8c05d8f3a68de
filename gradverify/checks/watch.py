"""What tensors held before and hold now: bytes and versions, counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradverify.checks.subject import Subject
from gradverify.records.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One tensor as it was: a copy, and the version that its memory was at."""

    copy: Tensor
    version: int


def photograph(tensors: Mapping[str, Tensor]) -> dict[str, Picture]:
    """The tensors as they are now, by name."""
    return {n: Picture(copy=t.detach().clone(), version=version(t)) for n, t in tensors.items()}


def returned(given: Mapping[str, Tensor], outputs: tuple[Tensor, ...]) -> frozenset[str]:
    """Inputs that the op returns, marked dirty: changing them is what it says it does."""
    return frozenset(n for n, t in given.items() if any(y is t for y in outputs))


def changed(
    subject: Subject,
    before: Mapping[str, Picture],
    after: Mapping[str, Tensor],
    kind: str,
    phase: str,
    *,
    allowed: frozenset[str] = frozenset(),
    written: frozenset[str] | None = None,
) -> Iterator[Evidence]:
    """Elements that changed, tensor by tensor; where none did, whether the memory was written all the same.

    `written`: names of those whose version moved, where `after` are not the tensors that were photographed.
    Whoever saved a tensor for backward is refused once its version has moved, be its values the same as before.
    """
    for name, t in after.items():
        quantity = f"`{name}`" if kind == "input" else name
        wrong = 0 if name in allowed else different(before[name].copy, t.detach())
        moved = version(t) != before[name].version if written is None else name in written
        if moved and not wrong and name not in allowed:
            said = "written to in place, and put back: whoever saved it for backward is refused"
            yield subject.count(quantity, 1, kind="version", phase=phase, said=said)
        else:
            yield subject.count(quantity, wrong, kind=kind, phase=phase)


def version(t: Tensor) -> int:
    """How often the memory of a tensor was written in place; torch refuses a backward that saved an older one."""
    return t._version  # noqa: SLF001 torch shows it nowhere else


def different(a: Tensor, b: Tensor) -> int:
    """The number of elements that differ; NaN equals NaN."""
    if a.shape != b.shape:
        return max(a.numel(), 1)
    return int(((a != b) & ~((a != a) & (b != b))).sum())


def generator_moved(before: Tensor) -> int:
    """Whether the global generator is in another state than before."""
    return int((before != torch.random.get_rng_state()).any())
