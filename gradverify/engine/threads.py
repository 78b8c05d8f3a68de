"""How many threads torch gets: one where the tensors are small, else what the user has set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gradverify.cases import modules, shapes
from gradverify.records.case import Case
from gradverify.records.nested import leaves
from gradverify.records.spec import Spec

SMALL = 2**18
"""Elements of a tensor that one core works through in about a millisecond. torch splits work from 2^15 elements on; a
second thread gains less than that millisecond, and on a busy machine to wait for it costs ten."""


def largest(spec: Spec, case: Case) -> int:
    """Elements of the largest tensor of a case: among its inputs, and among those that the op itself holds."""
    given, sizes = dict(case.data or ()), dict(case.dims)
    recorded = [d.shape for d in given.values() if d is not None]
    drawn = [shapes.shape_of(a, sizes) for a in spec.args if a.name not in given]
    fixed = [t for _, t in leaves(dict(spec.nested), "") if isinstance(t, Tensor)]
    return max(most([*modules.held(spec.op), *fixed]), *map(math.prod, [*recorded, *drawn, (0,)]))


def most(tensors: Iterable[Tensor]) -> int:
    """Elements of the largest of some tensors."""
    return max((t.numel() for t in tensors), default=0)


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """One thread for tensors of fewer than SMALL elements; afterwards, whatever happened, as many as before."""
    before = torch.get_num_threads()
    if elements >= SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
