"""An op's backward beside the true Jacobian at one case, entry by entry, with error bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor

from gradverify.autodiff import calling, products
from gradverify.autodiff.frozen import Recorder
from gradverify.autodiff.products import Tape
from gradverify.cases import materialise, shapes, sizes
from gradverify.cases.strategies import allowed
from gradverify.diagnosis.case import recipe
from gradverify.errors import GradverifyError
from gradverify.numerics.comparison import ROUNDINGS
from gradverify.numerics.measurement import SAFETY
from gradverify.numerics.noise import unit_roundoff
from gradverify.records.case import Case, Point, Sizes
from gradverify.records.spec import Spec

Array = NDArray[np.float64]

DRAWS = 3
LEVELS = (5, 7, 9, 11)
"""Steps are 2^-level of an input's size; two neighbours are extrapolated, and two extrapolations give the error."""

MOST_INPUTS, MOST_ENTRIES = 400, 200_000
"""A Jacobian of more is not measured whole, nor are several of together twice as many inputs: an input costs eight
forwards, of some 20 microseconds each for a small op, so that all are had within a tenth of a second."""

SIZES = ((3, 5, 2, 7, 6), (4, 4, 4, 4, 4), (5, 2, 3, 6, 7))
"""Sizes that tell letters apart, and equal ones, at which axes may be taken for each other; each with another seed."""

LARGE, SLIM = 16, ((2,), (1,), (3,))
"""Where it takes a size from LARGE on to fail, the other letters are slim: the Jacobian is measured whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A tensor's stretch of a flat vector."""

    name: str
    shape: tuple[int, ...]
    at: slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What backward returned, and what it should have.

    Attributes:
        us: cotangents of all outputs, [draws, outputs].
        outputs: where each output lies in them.
        y: the outputs' values, [outputs].
        x, shape: values and shape of each differentiated argument.
        got: what backward returned, [draws, entries]; `missing` names arguments for which None came back.
        jacobian, error: d output / d entry by differences, and the bar of that, [outputs, entries].
    """

    case: Case
    us: Array
    outputs: tuple[Part, ...]
    y: Array
    x: Mapping[str, Array]
    shape: Mapping[str, tuple[int, ...]]
    got: Mapping[str, Array]
    missing: frozenset[str]
    jacobian: Mapping[str, Array]
    error: Mapping[str, Array]

    def pulled(self, name: str, us: Array) -> tuple[Array, Array]:
        """J^T u and its error bar for any cotangents, [draws, entries]."""
        with np.errstate(all="ignore"):
            value = us @ self.jacobian[name]
            terms = np.abs(us) @ np.abs(self.jacobian[name])
            return value, np.abs(us) @ self.error[name] + rounding(terms, us.shape[1])

    def true(self, name: str) -> tuple[Array, Array]:
        """The true gradient and its error bar."""
        return self.pulled(name, self.us)

    def names(self) -> tuple[str, ...]:
        """The differentiated arguments."""
        return tuple(self.got)


def rounding(terms: Array, count: int) -> Array:
    """How far two sums of `count` terms may lie apart that are added up in another order; `terms`: of their sizes.

    Twice so far, for the sum that backward makes and for ours.
    """
    return np.asarray(2 * ROUNDINGS * unit_roundoff("float64") * np.sqrt(max(count, 1)) * terms)


def samples(spec: Spec, failing: Case) -> list[Sample]:
    """The op at ordinary values and telling sizes, or, where that shows nothing, at the failing case."""
    unknown = spec.stochastic or spec.contract.kind == "vjp" or failing.dtype != "float64"
    if unknown or (spec.inputs is not None and failing.data is None):
        return []
    found: list[Sample] = []
    for case in _cases(spec, recipe(spec, failing)):
        spent = sum(x.size for s in found for x in s.x.values())
        one = sample(spec, case) if spent <= MOST_INPUTS else None
        found += [one] if one is not None else []
    return [s for s in found if wrong(s)] or [s for s in [sample(spec, failing)] if s is not None and wrong(s)]


def wrong(sample: Sample) -> list[str]:
    """The arguments whose gradient is off by more than its error."""
    return [n for n in sample.names() if bool(np.any(off(sample, n)))]


def off(sample: Sample, name: str) -> NDArray[np.bool_]:
    """Which entries are off, [draws, entries]; one that is not finite is."""
    value, bar = sample.true(name)
    with np.errstate(all="ignore"):
        return np.asarray(np.isfinite(bar) & ~(np.abs(sample.got[name] - value) <= SAFETY * bar))


def _cases(spec: Spec, failing: Case) -> Iterator[Case]:
    """Sizes that differ from letter to letter, then equal ones; what fails at larger sizes keeps those."""
    if spec.inputs is not None or failing.data is not None:
        yield failing
        return
    outline = sizes.outline(spec)
    known = dict(failing.dims)
    absent = tuple((n, r) for n, r in failing.values if r == "none")
    large = any(isinstance(n, int) and n >= LARGE for n in known.values())
    for draw, sequence in enumerate(SLIM if large else SIZES):
        dims: dict[str, Sizes] = {}
        for k, (name, several) in enumerate(outline.variadic.items()):
            wanted = sequence[k % len(sequence)]
            fits = [n for n in outline.ordinary[name] if n >= wanted] or list(outline.ordinary[name][-1:])
            least = known.get(name, 0)
            if several:
                given = least if isinstance(least, tuple) else ()
                dims[name] = given if len(given) > 1 or max(given, default=0) > wanted else (fits[0],)
            else:
                dims[name] = max(fits[0], least) if isinstance(least, int) else fits[0]
        dims |= {n: _broadcast(n, s, dims) for n, s in known.items() if n not in dims}
        case = replace(
            failing,
            seed=failing.seed + draw,
            dims=tuple(sorted(dims.items())),
            values=absent,
            layouts=(),
            cotangents=(),
            differentiate=tuple(n for n in spec.differentiable() if n not in dict(absent)),
        )
        if allowed(spec, case):
            yield case


def _broadcast(name: str, size: Sizes, dims: Mapping[str, Sizes]) -> Sizes:
    """The size of an axis that may be broadcast: 1 where it was, else that of its letter."""
    letter = dims.get(name.partition("#")[2], size)
    ones = size == 1 or (isinstance(size, tuple) and size != () and set(size) == {1})
    if not ones:
        return letter
    return (1,) * len(letter) if isinstance(letter, tuple) else 1


def sample(spec: Spec, case: Case) -> Sample | None:
    """The sample at a case; None where it would be too large, complex, or the op does not run there."""
    try:
        if sum(int(np.prod(shapes.shape_of(a, dict(case.dims)))) for a in spec.args if case.data is None) > 4096:
            return None
        point = materialise.materialise(spec, case)
        tape = products.record(spec, calling.op_of(spec), point)
        leaves = {n: t for n, t in tape.leaves.items() if t.numel()}
        return _measured(spec, case, point, tape, leaves) if _fits(tape, leaves) else None
    except GradverifyError:
        return None


def _fits(tape: Tape, leaves: Mapping[str, Tensor]) -> bool:
    outputs = sum(tape.outputs[k].numel() for k in tape.active)
    inputs = sum(t.numel() for t in leaves.values())
    tensors = [*leaves.values(), *(tape.outputs[k] for k in tape.active)]
    plain = not any(t.is_complex() for t in tensors) and all(t.layout == torch.strided for t in tensors)
    return plain and 0 < inputs <= MOST_INPUTS and 0 < outputs * inputs <= MOST_ENTRIES


def _measured(spec: Spec, case: Case, point: Point, tape: Tape, leaves: Mapping[str, Tensor]) -> Sample:
    outputs = [tape.outputs[k] for k in tape.active]
    flat = tuple(_parts([tape.name(k) for k in tape.active], outputs))
    drawn = [materialise.cotangents(replace(case, cotangents=()), tape.outputs, draw=7 + d) for d in range(DRAWS)]
    us = np.stack([_flat([row[k] for k in tape.active]) for row in drawn])
    found = [tape.vjp([u if k in tape.active else None for k, u in enumerate(row)]) for row in drawn]
    got = {n: np.stack([_one(g[n], t) for g in found]) for n, t in leaves.items()}
    function = _truth(spec, point, tape)
    jacobian, error = {}, {}
    for name, leaf in leaves.items():
        jacobian[name], error[name] = _columns(function, name, leaf.detach())
    return Sample(
        case=case,
        us=us,
        outputs=flat,
        y=_flat([y.detach() for y in outputs]),
        x={n: _one(t.detach(), t) for n, t in leaves.items()},
        shape={n: tuple(t.shape) for n, t in leaves.items()},
        got=got,
        missing=frozenset(n for n in leaves if all(g[n] is None for g in found)),
        jacobian=jacobian,
        error=error,
    )


Function = Callable[[Mapping[str, Tensor]], Array]


def _truth(spec: Spec, point: Point, tape: Tape) -> Function:
    """The function whose Jacobian backward must return, of changed primals; its flat outputs."""
    contract, active = spec.contract, tape.active
    called = calling.op_of(spec)
    if contract.kind == "backward_of" and contract.formula is not None:
        called = calling.companion(spec, Recorder().around(contract.formula), stage="surrogate")

    def function(changed: Mapping[str, Tensor]) -> Array:
        primals: dict[str, Any] = {**point.primals, **changed}
        out = products.values(called, calling.copies(primals) if tape.written else primals, point.kwargs)
        return _flat([out[k] for k in active])

    # A recorder takes its frozen values at the point itself.
    function({})
    return function


def _columns(function: Function, name: str, leaf: Tensor) -> tuple[Array, Array]:
    """The columns of the Jacobian by one argument, and their bars."""
    values, errors = [], []
    for i, x in enumerate(leaf.reshape(-1).tolist()):
        size = 2.0 ** np.floor(np.log2(abs(x))) if x else 1.0
        with np.errstate(all="ignore"):
            value, error = _slope(lambda h, i=i: function({name: _shifted(leaf, i, h)}), size)  # type: ignore[misc]
        values.append(value)
        errors.append(error)
    return np.stack(values, axis=1), np.stack(errors, axis=1)


def _slope(at: Callable[[float], Array], size: float) -> tuple[Array, Array]:
    """The best of the extrapolated central differences of every output, by how well it agrees with the next."""
    steps = [size * 2.0**-k for k in LEVELS]
    pairs = [(at(h), at(-h)) for h in steps]
    d = [(p - m) / (2 * h) for (p, m), h in zip(pairs, steps, strict=True)]
    r = [fine + (fine - coarse) / 15 for coarse, fine in pairwise(d)]
    level = np.max(np.abs(np.stack([v for pair in pairs for v in pair])), axis=0)
    rounding = [8 * np.finfo(float).eps * level / h for h in steps[2:]]
    errors = np.stack([np.abs(a - b) + e for a, b, e in zip(r, r[1:], rounding, strict=False)])
    errors = np.where(np.isfinite(errors), errors, np.inf)
    best = np.argmin(errors, axis=0)
    pick = np.arange(errors.shape[1])
    return np.nan_to_num(np.stack(r[1:])[best, pick], posinf=0.0, neginf=0.0), errors[best, pick]


def _shifted(leaf: Tensor, i: int, h: float) -> Tensor:
    moved = leaf.clone(memory_format=torch.contiguous_format)
    moved.view(-1)[i] += h
    return moved


def _parts(names: list[str], tensors: list[Tensor]) -> Iterator[Part]:
    start = 0
    for name, t in zip(names, tensors, strict=True):
        yield Part(name=name, shape=tuple(t.shape), at=slice(start, start + t.numel()))
        start += t.numel()


def _flat(tensors: list[Any]) -> Array:
    return np.concatenate([_one(t, t) for t in tensors])


def _one(t: Tensor | None, like: Tensor) -> Array:
    if t is None:
        return np.zeros(like.numel())
    return np.asarray(t.detach().to(torch.float64).reshape(-1).cpu().numpy(), dtype=np.float64)
