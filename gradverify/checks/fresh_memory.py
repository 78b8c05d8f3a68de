"""Memory that an op hands out and never wrote: what a call gives where torch fills fresh memory with NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradverify.autodiff.calling import is_inexact
from gradverify.autodiff.modes import Ones, deterministic
from gradverify.checks.alone import Alone, handed
from gradverify.checks.flat import Array, flat, zeros
from gradverify.checks.subject import Subject, order_bar
from gradverify.errors import OpError
from gradverify.numerics.measurement import SAFETY
from gradverify.records.evidence import Evidence

UNWRITTEN = "never written"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """Outputs and gradients of one call by name, detached; or what it raised."""

    named: Mapping[str, Tensor | None]
    error: OpError | None = None


def never_written(alone: Alone) -> Iterator[Evidence]:
    """Outputs and gradients where fresh memory holds NaN, beside those where it holds ones.

    NaN that shows in the first alone is proof, and so is another difference that comes again: what follows the fill was
    never written. Where both fills give the same, and the call alone something else, it is torch's mode, or chance.
    """
    filled, ones = _call(alone, fill=True), _call(alone, fill=False)
    if filled.error is not None:
        yield _raised(alone, filled.error, ones)
        return
    own = _Result(named=_by_name(alone.outputs, alone.gradients))
    base = own if ones.error is not None else ones
    shown = [_shown(alone.subject, name, filled.named.get(name), want) for name, want in base.named.items()]
    yield from (e for e in shown if e is not None)
    if any(e.analytic for e in shown if e is not None):
        return
    bars = _bars(alone)
    if not _same(filled, base, bars):
        yield from _differing(alone, filled, base, bars, UNWRITTEN, "fresh memory held NaN")
    elif not _same(filled, own, bars):
        yield from _differing(alone, filled, own, bars, "mode", "torch's deterministic algorithms")


def _differing(
    alone: Alone, filled: _Result, base: _Result, bars: Mapping[str, Array], kind: str, phase: str
) -> Iterator[Evidence]:
    """What differs, under the name of its cause, or of none where an equal call differs as well."""
    if not _same(_call(alone, fill=True), filled, bars):
        kind, phase = "not repeatable", "two equal calls"
    for name, want in base.named.items():
        if want is not None:
            got = filled.named.get(name)
            got = torch.zeros_like(want) if got is None else got
            yield _beside(alone.subject, name, got, want, bars[name], kind, phase)


def _beside(subject: Subject, name: str, got: Tensor, want: Tensor, bar: Array, kind: str, phase: str) -> Evidence:
    if got.shape != want.shape:
        return subject.count(name, 1, kind=kind, phase=phase, found=str(list(got.shape)), wanted=str(list(want.shape)))
    return subject.compare(name, _short(name), got, want, bar, kind=kind, phase=phase, beside="the call alone")


def stands(found: list[Evidence]) -> bool:
    """Whether nothing was off: what differs from call to call can be held against nothing further."""
    return all(e.analytic == e.numeric.value or _gap(e) <= SAFETY * e.numeric.error for e in found)


def _gap(e: Evidence) -> float:
    return abs(e.analytic - e.numeric.value)


def _short(name: str) -> str:
    return name.removeprefix("the gradient of `").removesuffix("`")


def _by_name(outputs: tuple[Tensor, ...], gradients: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    found: dict[str, Tensor | None] = {f"output {k}": y.detach() for k, y in enumerate(outputs)}
    return found | {f"the gradient of `{n}`": g for n, g in gradients.items()}


def _call(alone: Alone, *, fill: bool) -> _Result:
    """One call under torch's deterministic algorithms, with their fill or with ones."""
    try:
        with deterministic(fill=fill), nullcontext() if fill else Ones():
            tape = alone.subject.record()
            gradients = tape.vjp(handed(alone.cotangents))
    except OpError as error:
        return _Result(named={}, error=error)
    return _Result(named=_by_name(tape.outputs, gradients))


def _raised(alone: Alone, error: OpError, ones: _Result) -> Evidence:
    """What raises where fresh memory holds NaN, and not where it holds ones, has read what nobody wrote."""
    if ones.error is not None:
        kind, said = "mode", f"with torch's deterministic algorithms {error}"
    elif _call(alone, fill=True).error is None:
        kind, said = "not repeatable", f"in one of two equal calls {error}"
    else:
        kind, said = UNWRITTEN, f"with NaN in fresh memory {error}"
    return alone.subject.count("the call", 1, kind=kind, said=said)


def _shown(subject: Subject, name: str, got: Tensor | None, want: Tensor | None) -> Evidence | None:
    """The count of the elements that are NaN and were not."""
    if got is None or want is None or got.shape != want.shape or not is_inexact(got):
        return None
    wrong = (torch.isnan(got) & ~torch.isnan(want)).nonzero()
    count = len(wrong)
    first = ", ".join(map(str, wrong[0].tolist())) if count and want.ndim else ""
    said = f"{count} of {want.numel()} elements are never written" + (f", [{first}] the first" if first else "")
    return subject.count(name, count, kind=UNWRITTEN, **({"said": said} if count else {}))


def _bars(alone: Alone) -> dict[str, Array]:
    """Those of the call alone; an output may be summed in another order, and an integer changes by nothing."""
    bars = {f"the gradient of `{n}`": bar for n, bar in alone.bars.items()}
    for k, y in enumerate(alone.outputs):
        bars[f"output {k}"] = order_bar(alone.subject, y) if is_inexact(y) else zeros(y)
    return bars


def _same(a: _Result, b: _Result, bars: Mapping[str, Array]) -> bool:
    if a.error is not None or a.named.keys() != b.named.keys():
        return False
    return all(_within(a.named[n], b.named[n], bars.get(n)) for n in a.named)


def _within(a: Tensor | None, b: Tensor | None, bar: Array | None) -> bool:
    """Whether two tensors agree within three bars; a missing one is zero."""
    if a is None or b is None:
        given = b if a is None else a
        return given is None or not bool(given.any())
    if a.shape != b.shape:
        return False
    x, y = flat(a), flat(b)
    with np.errstate(invalid="ignore"):
        near = np.abs(x - y) <= SAFETY * (0.0 if bar is None else bar)
    return bool(np.all(near | (x == y) | (np.isnan(x) & np.isnan(y))))
