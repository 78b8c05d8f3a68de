"""What is wrong with a gradient, measured: each pattern is printed only where what it leaves is within the error bars.

A pattern predicts what backward returned, from the true Jacobian, at every sample and for every cotangent. With no more
than three numbers to choose freely and dozens of entries to fit to ten digits, none fits by luck.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gradverify.diagnosis.factors import SAFETY, Factor, alike, numbers
from gradverify.diagnosis.sample import Array, Sample, off, rounding
from gradverify.diagnosis.sizes import recognised

SEEN = 100.0
"""An entry is seen where it is so many bars large: what differs there by a tenth is told apart beyond SAFETY."""

INFORMATIVE = 3
"""A pattern needs so many entries that are seen, of one cotangent, beyond those that it was fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What fits. `residual`: the worst relative miss once the pattern is taken out; `hint`: what to look at."""

    code: str
    said: str
    residual: float
    hint: str = ""


def pattern_of(samples: Sequence[Sample], name: str, *, positions: bool = True) -> Pattern | None:
    """The first pattern that fits the gradient of an argument at all samples; None where none does.

    `positions`: whether a place in a tensor means something; indices and masks choose places at will.
    """
    seen = [s for s in samples if name in s.got]
    if not seen or not _finite(seen, name):
        return None
    finders = [f for f in FINDERS if positions or f not in OF_POSITIONS]
    return next((p for find in finders for p in [find(seen, name)] if p is not None), None)


def _finite(samples: Sequence[Sample], name: str) -> bool:
    return all(bool(np.isfinite(s.got[name]).all()) for s in samples)


# How well a prediction fits.


def residual(
    samples: Sequence[Sample], name: str, guesses: Sequence[tuple[Array, Array]], *, least: int = INFORMATIVE
) -> float | None:
    """The worst miss relative to the largest entry; None where a miss is beyond the error bars, or too little is seen.

    `guesses`: values and bars at each sample.
    """
    worst, seen = 0.0, 0
    for s, (value, bar) in zip(samples, guesses, strict=True):
        got = s.got[name]
        with np.errstate(all="ignore"):
            miss = np.abs(got - value)
            if value.shape != got.shape or not bool(np.all((miss <= SAFETY * bar) | ~np.isfinite(bar))):
                return None
        known = np.isfinite(bar)
        seen += int(np.max(np.sum(known & (np.abs(value) > SEEN * bar), axis=1), initial=0))
        top = float(np.max(np.abs(value[known]), initial=0.0))
        worst = max(worst, float(np.max(miss[known], initial=0.0)) / top if top else 0.0)
    return worst if seen >= least else None


def _fits(
    samples: Sequence[Sample], name: str, predict: Callable[[Sample], tuple[Array, Array] | None]
) -> float | None:
    guesses = [predict(s) for s in samples]
    return None if any(g is None for g in guesses) else residual(samples, name, [g for g in guesses if g is not None])


def _factor(value: Array, got: Array, bar: Array) -> Factor | None:
    """The least-squares factor of got beside value over the entries that are seen; None where none is."""
    seen = np.isfinite(bar) & (np.abs(value) > SEEN * bar)
    power = float(np.sum(value[seen] ** 2))
    if not power:
        return None
    c = float(np.sum(value[seen] * got[seen])) / power
    # <v, got> / <v, v> moves by this at most when v and got move by a bar each.
    return Factor(value=c, error=(1 + abs(c)) * float(np.sum(np.abs(value[seen]) * bar[seen])) / power)


# The patterns, the most specific first.


def missing(samples: Sequence[Sample], name: str) -> Pattern | None:
    """Zero throughout, where the truth is not."""
    zero = all(np.all(s.got[name] == 0) for s in samples)
    if not zero or sum(int(np.sum(np.any(off(s, name), axis=0))) for s in samples) < INFORMATIVE:
        return None
    none = all(name in s.missing for s in samples)
    what = "None" if none else "zeros"
    return Pattern(
        code="GV103", said=f"backward returns {what} for `{name}`, on which the output depends", residual=0.0,
        hint=f"return the gradient of `{name}`; where none is promised: Annotated[Tensor, ..., gv.no_grad]",
    )  # fmt: skip


def scaled(samples: Sequence[Sample], name: str) -> Pattern | None:
    """A constant times the truth."""
    factors = []
    for s in samples:
        value, bar = s.true(name)
        c = _factor(value, s.got[name], bar)
        if c is None or c.is_near(0):
            return None
        factors.append(c)
    left = residual(samples, name, [_times(s.true(name), c.value) for s, c in zip(samples, factors, strict=True)])
    if left is None:
        return None
    if all(c.is_near(-1) for c in factors):
        return Pattern(code="GV102", said=f"backward returns -1 x the true gradient of `{name}`", residual=left)
    word = recognised(samples, factors)
    return Pattern(
        code="GV101",
        said=f"backward returns {numbers(factors)} x the true gradient of `{name}`" + (f" ({word})" if word else ""),
        residual=left,
        hint="a factor applied twice, forgotten, or divided out of a mean?",
    )


def _times(pair: tuple[Array, Array], c: float) -> tuple[Array, Array]:
    value, bar = pair
    return c * value, (1 + abs(c)) * bar


def swapped(samples: Sequence[Sample], name: str) -> Pattern | None:
    """Two arguments have each other's gradients."""
    for other in _alike(samples, name):
        left = _fits(samples, name, lambda s, o=other: s.true(o))  # type: ignore[misc]
        back = _fits(samples, other, lambda s: s.true(name))
        if left is not None and back is not None:
            said = f"the gradients of `{name}` and `{other}` are returned in each other's places"
            hint = "return them in the order of forward's arguments"
            return Pattern(code="GV106", said=said, residual=max(left, back), hint=hint)
    return None


def anothers(samples: Sequence[Sample], name: str) -> Pattern | None:
    """The gradient of another argument, which has its own right."""
    for other in _alike(samples, name):
        left = _fits(samples, name, lambda s, o=other: s.true(o))  # type: ignore[misc]
        if left is not None:
            said = f"backward returns the gradient of `{other}` for `{name}`"
            return Pattern(code="GV106", said=said, residual=left)
    return None


def _alike(samples: Sequence[Sample], name: str) -> list[str]:
    """The other arguments of the same shape at all samples."""
    others = [n for n in samples[0].names() if n != name and all(n in s.got for s in samples)]
    return [n for n in others if all(s.shape[n] == s.shape[name] for s in samples)]


_OTHER_COTANGENTS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("is ignored, as if it were 1", np.ones_like),
    ("is applied twice", np.square),
    ("loses its sign", np.abs),
    ("counts by its sign alone", np.sign),
    ("is clipped to [-1, 1]", lambda u: np.clip(u, -1, 1)),
    ("is replaced by its mean", lambda u: np.broadcast_to(u.mean(1, keepdims=True), u.shape)),
    ("is replaced by its sum", lambda u: np.broadcast_to(u.sum(1, keepdims=True), u.shape)),
)


def other_cotangent(samples: Sequence[Sample], name: str) -> Pattern | None:
    """The gradient under another cotangent than the one that was given, elementwise or as a whole."""
    for word, change in _OTHER_COTANGENTS:
        left = _fits(samples, name, lambda s, f=change: s.pulled(name, f(s.us)))  # type: ignore[misc]
        if left is not None:
            said = f"the cotangent {word}, in the gradient of `{name}`"
            return Pattern(code="GV108", said=said, residual=left, hint="multiply by grad_output, once")
    return _one_output(samples, name)


def _one_output(samples: Sequence[Sample], name: str) -> Pattern | None:
    """With several outputs: one cotangent left out, or two in each other's places."""
    parts = samples[0].outputs
    if len(parts) < 2:
        return None
    for k, part in enumerate(parts):
        left = _fits(samples, name, lambda s, k=k: s.pulled(name, _without(s, k)))  # type: ignore[misc]
        if left is not None:
            said = f"the cotangent of output {part.name} is left out of the gradient of `{name}`"
            return Pattern(code="GV108", said=said, residual=left)
    for i, j in itertools.combinations(range(len(parts)), 2):
        if all(s.outputs[i].shape == s.outputs[j].shape for s in samples):
            left = _fits(samples, name, lambda s, i=i, j=j: s.pulled(name, _exchanged(s, i, j)))  # type: ignore[misc]
            if left is not None:
                said = f"the cotangents of outputs {parts[i].name} and {parts[j].name} are taken for each other"
                return Pattern(code="GV108", said=said, residual=left)
    return None


def _without(s: Sample, k: int) -> Array:
    us: Array = s.us.copy()
    us[:, s.outputs[k].at] = 0
    return us


def _exchanged(s: Sample, i: int, j: int) -> Array:
    us: Array = s.us.copy()
    us[:, s.outputs[i].at], us[:, s.outputs[j].at] = s.us[:, s.outputs[j].at], s.us[:, s.outputs[i].at]
    return us


def moved(samples: Sequence[Sample], name: str) -> Pattern | None:
    """The right numbers at wrong places: axes permuted, flipped or rolled."""
    for said, change in _moves(len(samples[-1].shape[name])):
        left = _fits(samples, name, lambda s, f=change: _rearranged(s, name, f))  # type: ignore[misc]
        if left is not None:
            return Pattern(code="GV105", said=f"the gradient of `{name}` is returned {said}", residual=left)
    return None


def _rearranged(s: Sample, name: str, change: Callable[[Array], Array]) -> tuple[Array, Array] | None:
    value, bar = s.true(name)
    shape = (len(value), *s.shape[name])
    if len(shape) - 1 != len(s.shape[name]):
        return None
    try:
        return tuple(change(t.reshape(shape)).reshape(value.shape) for t in (value, bar))  # type: ignore[return-value]
    except (ValueError, IndexError):
        return None


def _moves(ndim: int) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """Words and how to move an array [draws, ...]."""
    axes = tuple(range(1, ndim + 1))
    for order in itertools.permutations(axes) if ndim <= 4 else ():
        if order != axes:
            word = "transposed" if ndim == 2 else f"permuted by {tuple(a - 1 for a in order)}"
            yield word, lambda t, o=order: np.transpose(t, (0, *o))  # type: ignore[misc]
    for axis in axes:
        yield f"flipped along axis {axis - 1}", lambda t, a=axis: np.flip(t, a)  # type: ignore[misc]
        for by in (1, -1):
            way = "forth" if by == 1 else "back"
            word = f"shifted by one {way} along axis {axis - 1}"
            yield word, lambda t, a=axis, b=by: np.roll(t, b, a)  # type: ignore[misc]
            yield f"{word}, and zero at the end", lambda t, a=axis, b=by: _pushed(t, a, b)  # type: ignore[misc]


def _pushed(t: Array, axis: int, by: int) -> Array:
    out = np.roll(t, by, axis)
    where: list[slice | int] = [slice(None)] * t.ndim
    where[axis] = 0 if by == 1 else -1
    out[tuple(where)] = 0
    return out


def region(samples: Sequence[Sample], name: str) -> Pattern | None:
    """A box of entries is a constant times the truth (zero: dropped), all others are right."""
    boxes = [_box(s, name) for s in samples]
    if any(b is None for b in boxes) or all(_whole(b, s.shape[name]) for s, b in zip(samples, boxes, strict=True)):
        return None
    guesses, factors = [], []
    for s, box in zip(samples, boxes, strict=True):
        assert box is not None
        value, bar = s.true(name)
        shape = (len(value), *s.shape[name])
        inside = np.zeros(shape, dtype=bool)
        where: tuple[slice, ...] = (slice(None), *box)
        inside[where] = True
        inside = inside.reshape(value.shape)
        c = _factor(value[inside], s.got[name][inside], bar[inside])
        if c is None:
            return None
        c = Factor(value=0.0, error=c.error) if c.is_near(0) else c
        factors.append(c)
        guesses.append((np.where(inside, c.value * value, value), bar * (1 + abs(c.value))))
    left = residual(samples, name, guesses)
    if left is None or not alike(factors):
        return None
    s, box = max(zip(samples, boxes, strict=True), key=lambda p: p[0].x[name].size)
    assert box is not None
    dropped = factors[0].value == 0
    what = "zeros" if dropped else f"{numbers(factors[:1])} x the truth"
    said = f"{_box_said(box, s.shape[name])} of the gradient of `{name}`: {what}; all else is right"
    hint = "a region is not written, or masked away" if dropped else "a region is counted more than once"
    return Pattern(code="GV104", said=said, residual=left, hint=hint)


def _box(s: Sample, name: str) -> tuple[slice, ...] | None:
    """The bounding box of the wrong entries; None where none is wrong."""
    shape = s.shape[name]
    bad = np.any(off(s, name), axis=0).reshape(shape)
    if not shape or not bad.any():
        return None
    return tuple(slice(int(w.min()), int(w.max()) + 1) for w in np.nonzero(bad))


def _whole(box: tuple[slice, ...] | None, shape: tuple[int, ...]) -> bool:
    """Whether a box holds everything: of a tensor that is all tail, it does not say where."""
    return box is not None and all(b.stop - b.start == n for b, n in zip(box, shape, strict=True))


def _box_said(box: tuple[slice, ...], shape: tuple[int, ...]) -> str:
    """`rows 64...`, `column 1`, `entries 0...3`, of an axis that is not covered whole."""
    words = []
    for axis, (b, n) in enumerate(zip(box, shape, strict=True)):
        if b.stop - b.start == n:
            continue
        one = b.stop - b.start == 1
        nouns = {1: ("entry", "entries"), 2: (("row", "rows"), ("column", "columns"))[axis]}
        noun = nouns.get(len(shape), ("index", "indices"))[0 if one else 1]
        where = "" if len(shape) < 3 else f" of axis {axis}"
        words.append(f"{noun} {b.start}{'' if one else f'...{b.stop - 1}' if b.stop < n else '...'}{where}")
    return ", ".join(words)


def output_region(samples: Sequence[Sample], name: str) -> Pattern | None:
    """The gradient of a part of the outputs alone: the cotangents at either end of an axis are left out."""
    for k, part in enumerate(samples[0].outputs):
        for axis in range(len(part.shape)):
            for slab in _SLABS:
                found = _slab(samples, name, k, axis, slab)
                if found is not None:
                    return found
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slab:
    """Which indices along an axis of size n count, and that in words; `t` is a number of indices that is tried."""

    said: str
    code: str
    keep: Callable[[int, int], slice]
    most: Callable[[int], int] = lambda n: 1  # noqa: ARG005


_SLABS = (
    _Slab(said="only the first index of {axis} counts", code="GV107", keep=lambda n, t: slice(0, 1)),  # noqa: ARG005
    _Slab(said="only the last index of {axis} counts", code="GV107", keep=lambda n, t: slice(n - 1, n)),  # noqa: ARG005
    _Slab(said="indices {last}... of {axis} are left out", code="GV104", keep=lambda n, t: slice(0, n - t),
          most=lambda n: n - 2),
    _Slab(said="indices 0...{first} of {axis} are left out", code="GV104", keep=lambda n, t: slice(t, n),
          most=lambda n: n - 2),
)  # fmt: skip


def _slab(samples: Sequence[Sample], name: str, k: int, axis: int, slab: _Slab) -> Pattern | None:
    """The slab that fits at each sample, if any does."""
    chosen, left = [], 0.0
    for s in samples:
        n = s.outputs[k].shape[axis] if axis < len(s.outputs[k].shape) else 0
        fits = ((t, _fits_one(s, name, _kept(s, name, k, axis, slab.keep(n, t)))) for t in range(1, slab.most(n) + 1))
        hit = next(((t, r) for t, r in fits if r is not None), None)
        if hit is None:
            return None
        chosen.append((n, hit[0]))
        left = max(left, hit[1])
    if not chosen or sum(s.x[name].size for s in samples) < INFORMATIVE:
        return None
    n, t = max(chosen)
    of = f"output {samples[0].outputs[k].name}" if len(samples[0].outputs) > 1 else "the output"
    words = slab.said.format(axis=f"axis {axis} of {of}", last=n - t, first=t - 1)
    hint = "sum over the axes along which it was broadcast: g.sum_to_size(shape)" if slab.code == "GV107" else ""
    return Pattern(code=slab.code, said=f"{words} in the gradient of `{name}`", residual=left, hint=hint)


def _fits_one(s: Sample, name: str, guess: tuple[Array, Array] | None) -> float | None:
    return None if guess is None else residual([s], name, [guess], least=1)


def _kept(s: Sample, name: str, k: int, axis: int, keep: slice) -> tuple[Array, Array] | None:
    part = s.outputs[k]
    if axis >= len(part.shape) or part.shape[axis] < 3:
        return None
    us = s.us.copy()
    piece = np.zeros((len(us), *part.shape))
    where: list[slice] = [slice(None)] * piece.ndim
    where[axis + 1] = keep
    piece[tuple(where)] = us[:, part.at].reshape(piece.shape)[tuple(where)]
    us[:, part.at] = piece.reshape(len(us), -1)
    return s.pulled(name, us)


def wrong_axis(samples: Sequence[Sample], name: str) -> Pattern | None:
    """Where each output depends on one entry alone: the terms of the sums, added up over other axes."""
    ndim = len(samples[-1].outputs[0].shape)
    shape = len(samples[-1].shape[name])
    if len(samples[0].outputs) != 1 or ndim <= shape or ndim > 4:
        return None
    for axes in itertools.combinations(range(ndim), ndim - shape):
        left = _fits(samples, name, lambda s, a=axes: _summed(s, name, a))  # type: ignore[misc]
        if left is not None:
            said = (
                f"the gradient of `{name}` is summed over {_axes(axes)} of the output, which it is not broadcast along"
            )
            return Pattern(code="GV107", said=said, residual=left, hint="sum over the axes that were broadcast alone")
    return None


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def _summed(s: Sample, name: str, axes: tuple[int, ...]) -> tuple[Array, Array] | None:
    j, e = s.jacobian[name], s.error[name]
    if np.any(np.sum(np.abs(j) > SEEN * e, axis=1) > 1) or not s.outputs[0].shape:
        return None
    shape = (len(s.us), *s.outputs[0].shape)
    pick = np.abs(j) > SEEN * e
    terms = (s.us * np.where(pick, j, 0).sum(1)).reshape(shape)
    bars = (np.abs(s.us) * np.max(e, axis=1)).reshape(shape)
    over = tuple(a + 1 for a in axes)
    value, bar = terms.sum(over), bars.sum(over)
    if value.shape[1:] != s.shape[name]:
        return None
    added = np.prod([shape[a] for a in over])
    bar = bar + rounding(np.abs(terms).sum(over), int(added))
    return value.reshape(len(s.us), -1), bar.reshape(len(s.us), -1)


def diagonal(samples: Sequence[Sample], name: str) -> Pattern | None:
    """Each output is taken to depend on its own input alone."""
    left = _fits(samples, name, lambda s: _of_diagonal(s, name))
    if left is None:
        return None
    said = f"the gradient of `{name}` takes each output to depend on its own entry alone: the diagonal of the Jacobian"
    return Pattern(code="GV199", said=said, residual=left, hint="outputs depend on the other entries, too")


def _of_diagonal(s: Sample, name: str) -> tuple[Array, Array] | None:
    if len(s.outputs) != 1 or s.outputs[0].shape != s.shape[name] or s.us.shape[1] < 2:
        return None
    j, e = np.diagonal(s.jacobian[name]), np.diagonal(s.error[name])
    return s.us * j, np.abs(s.us) * e + rounding(np.abs(s.us * j), 1)


def reordered(samples: Sequence[Sample], name: str) -> Pattern | None:
    """The right rows in another order along an axis."""
    for axis in range(len(samples[0].shape[name])):
        orders = [_order(s, name, axis) for s in samples]
        if all(o is not None for o in orders) and max(map(len, (o for o in orders if o is not None))) > 2:
            left = _fits(samples, name, lambda s, a=axis: _rearranged(s, name, _by(_order(s, name, a), a)))  # type: ignore[misc]
            if left is not None:
                said = f"the gradient of `{name}` has the right entries in another order along axis {axis}"
                hint = "a permutation, or its inverse?"
                return Pattern(code="GV105", said=said, residual=left, hint=hint)
    return None


def _by(order: list[int] | None, axis: int) -> Callable[[Array], Array]:
    return lambda t: np.take(t, order or [], axis + 1)


def _order(s: Sample, name: str, axis: int) -> list[int] | None:
    """Which true row each returned one is; None where one is none, or several."""
    value, bar = (np.moveaxis(t.reshape(len(t), *s.shape[name]), axis + 1, 0) for t in s.true(name))
    got = np.moveaxis(s.got[name].reshape(len(s.us), *s.shape[name]), axis + 1, 0)
    alike = [[bool(np.all(np.abs(g - v) <= SAFETY * b)) for v, b in zip(value, bar, strict=True)] for g in got]
    order = [row.index(True) for row in alike if sum(row) == 1]
    return order if sorted(order) == list(range(len(got))) else None


ROUNDS = 16
"""Roundings of the largest entry within which a number of a narrow dtype is near the true one: of a sum of terms."""

_NARROW = (("bfloat16", 2.0**-8), ("float16", 2.0**-11), ("float32", 2.0**-24))


def rounded(samples: Sequence[Sample], name: str) -> Pattern | None:
    """Every entry is a number of a narrower dtype, near the true one."""
    for word, unit in _NARROW:
        dtype = getattr(torch, word)
        got = [torch.from_numpy(s.got[name]) for s in samples]
        if (
            not all(bool((t == t.to(dtype).double()).all()) for t in got)
            or sum(t[0].numel() for t in got) < INFORMATIVE
        ):
            continue
        sizes = [np.max(np.abs(s.true(name)[0])) for s in samples]
        misses = [np.max(np.abs(s.got[name] - s.true(name)[0])) for s in samples]
        if all(m <= ROUNDS * unit * size for m, size in zip(misses, sizes, strict=True)):
            said = f"every entry of the gradient of `{name}` is a {word} number, near the true one"
            hint = f"something is rounded to {word} on the way"
            return Pattern(code="GV199", said=said, residual=unit, hint=hint)
    return None


def added(samples: Sequence[Sample], name: str) -> Pattern | None:
    """A term too much or too little that is a constant times a known quantity."""
    for said in _quantities(samples[-1], name):
        guesses, factors = [], []
        for s in samples:
            q = _quantities(s, name).get(said)
            value, bar = s.true(name)
            c = None if q is None else _factor(q, s.got[name] - value, bar)
            if q is None or c is None or c.is_near(0):
                break
            factors.append(c)
            guesses.append((value + c.value * q, bar))
        if len(guesses) < len(samples) or len(samples) < 1:
            continue
        left = residual(samples, name, guesses)
        word = recognised(samples, [replace(c, value=abs(c.value)) for c in factors])
        if left is None or not (word or (alike(factors) and len(samples) > 1)):
            continue
        way = "too little" if factors[0].value < 0 else "too much"
        one = all(c.is_near(1) or c.is_near(-1) for c in factors)
        size = "" if one else f"{word or numbers([replace(factors[0], value=abs(factors[0].value))])} x "
        return Pattern(
            code="GV199", said=f"the gradient of `{name}` has {size}{said} {way}", residual=left,
            hint="a term of the derivative is missing, or stands there twice",
        )  # fmt: skip
    return None


def _quantities(s: Sample, name: str) -> dict[str, Array]:
    """Known quantities in the shape of an argument, [draws, entries], by their names."""
    shape = s.shape[name]
    x = np.broadcast_to(s.x[name], s.got[name].shape)
    found = {f"`{name}`": x}
    one = len(s.outputs) == 1 and s.outputs[0].shape == shape
    if one:
        u, y = s.us, np.broadcast_to(s.y, s.us.shape)
        found |= {"u": u, "u * y": u * y, "y": y, f"u * `{name}`": u * x}
        if shape:
            found |= {
                f"{f} * {word} of {g} along the last axis": factor * _rows(inner, shape, how)
                for f, factor in ((f"`{name}`", x), ("y", y), ("1", np.ones_like(x)))
                for g, inner in ((f"u * `{name}`", u * x), ("u * y", u * y), ("u", u))
                for word, how in (("the sum", np.sum), ("the mean", np.mean))
            }
    for other, value in s.x.items():
        if other != name and s.shape[other] == shape:
            w = np.broadcast_to(value, s.got[name].shape)
            found |= {f"`{other}`": w} | ({f"u * `{other}`": s.us * w} if one else {})
    return found


def _rows(inner: Array, shape: tuple[int, ...], how: Callable[..., Array]) -> Array:
    whole = inner.reshape(len(inner), *shape)
    return np.broadcast_to(how(whole, axis=-1, keepdims=True), whole.shape).reshape(inner.shape)


FINDERS: tuple[Callable[[Sequence[Sample], str], Pattern | None], ...] = (
    missing,
    swapped,
    scaled,
    anothers,
    other_cotangent,
    moved,
    region,
    output_region,
    wrong_axis,
    diagonal,
    reordered,
    added,
    rounded,
)

OF_POSITIONS = (moved, region, output_region)
"""Patterns that name a place."""
