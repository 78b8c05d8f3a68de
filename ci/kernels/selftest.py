"""Kernels that prove the strict interpreter: each breaks one rule, or does one piece of arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from ci.kernels.interpreter import Unsupported
from ci.kernels.memory import Memory, OutOfBounds, Race, Uninitialised


@triton.jit
def _copy(x, y, n, LOADED: tl.constexpr, STORED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < LOADED, other=0.0)
    tl.store(y + at, value, mask=at < STORED)


@triton.jit
def _copy_column(x, y, n, stride, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at * stride, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def _copy_undefined(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n))


@triton.jit
def _add_all(x, total, n, ATOMIC: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.sum(tl.load(x + at, mask=at < n, other=0.0), axis=0)
    if ATOMIC:
        tl.atomic_add(total, part)
    else:
        tl.store(total, tl.load(total) + part)


@triton.jit
def _add_in_turn(x, total, n):
    last = n + tl.program_id(0)
    found = 0.0
    for i in range(tl.program_id(0), last, 2):
        found += tl.load(x + i)
    tl.store(total, found)


@triton.jit
def _add_and_store(total, STORER: tl.constexpr):
    if tl.program_id(0) == STORER:
        tl.store(total, 1.0)
    else:
        tl.atomic_add(total, 1.0)


@triton.jit
def _add_rows(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.atomic_add(y + at, tl.load(x + at, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def _narrow(x, w, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    a, b = tl.load(x + at), tl.load(w + at)
    tl.store(y + at, tl.where(a > b, a + b, tl.abs(a * 0.5) - b))


@triton.jit
def _narrow_dot(x, w, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    out = tl.dot(tl.load(x + at), tl.load(w + at))
    tl.store(y + at, out.to(tl.bfloat16))


@triton.jit
def _cast(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at).to(y.dtype.element_ty))


def proven(memory: Memory) -> None:
    """Run every proof. Raises Unsupported naming the first that does not hold."""
    for proof in (
        *(_bounds, _views, _races, _additions, _loops, _undefined),
        *(_bfloat16_casts, _bfloat16_arithmetic, _float64),
    ):
        try:
            held = proof()
        except Exception as error:
            raise Unsupported(
                f"{_words(proof)} cannot be proven with triton {triton.__version__}: {error!r}"
            ) from error
        if not held:
            raise Unsupported(f"{_words(proof)} does not hold with triton {triton.__version__}: adapt ci/kernels.")
    memory.faults.clear()


def _words(proof: Callable[[], bool]) -> str:
    return f"the check {proof.__name__.strip('_')!r} of the strict interpreter"


def raises(kind: type[Exception], call: Callable[[], object]) -> str:
    """What a launch says that must raise, from whatever it was wrapped into; empty where it does not raise."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 (the interpreter wraps what a kernel raises)
        found: BaseException | None = error
        while found is not None and not isinstance(found, kind):
            found = found.__cause__
        return "" if found is None else str(found)
    return ""


def _bounds() -> bool:
    x, y = torch.ones(5), torch.zeros(5)
    _copy[(2,)](x, y, 5, 5, 5, 4)
    right = torch.equal(x, y)
    load = raises(OutOfBounds, lambda: _copy[(2,)](x, y, 5, 8, 5, 4))
    store = raises(OutOfBounds, lambda: _copy[(2,)](x, y, 5, 5, 6, 4))
    here = "selftest.py:"
    return right and load.startswith(here) and "(`x`)" in load and store.startswith(here) and "(`y`)" in store


def _views() -> bool:
    whole = torch.arange(12.0).view(4, 3)
    y = torch.zeros(4)
    _copy_column[(1,)](whole[:, 1], y, 4, 3, 4)
    right = torch.equal(y, whole[:, 1])
    return right and bool(raises(OutOfBounds, lambda: _copy_column[(1,)](whole[:, 1], y, 4, 1, 4)))


def _races() -> bool:
    x, total = torch.ones(8), torch.zeros(1)
    _add_all[(2,)](x, total, 8, True, 4)
    return float(total) == 8 and bool(raises(Race, lambda: _add_all[(2,)](x, total, 8, False, 4)))


def _loops() -> bool:
    total = torch.zeros(1)
    _add_in_turn[(1,)](torch.arange(5.0), total, 5)
    return float(total) == 6


def _additions() -> bool:
    """Shared by those that add, not with one that stores, before or after; and only to what was written."""
    mixed = all(raises(Race, lambda k=k: _add_and_store[(3,)](torch.zeros(1), k)) for k in range(3))
    x, y, part = torch.tensor([1.0, torch.nan, 3.0]), torch.zeros(3), torch.empty(4)
    _add_rows[(2,)](x, y, 3, 4)
    part[:2] = 0.0
    fresh = raises(Uninitialised, lambda: _add_rows[(1,)](x, part, 3, 4))
    right = torch.equal(y.nan_to_num(7.0), torch.tensor([2.0, 7.0, 6.0]))
    return right and mixed and "adds to 1 elements" in fresh and "(`y`)" in fresh


def _undefined() -> bool:
    y = torch.zeros(4)
    _copy_undefined[(1,)](torch.ones(3), y, 3, 4)
    lanes = bool(torch.equal(y[:3], torch.ones(3))) and bool(y[3].isnan())
    fresh = (torch.empty(3), torch.empty_like(y), y.new_empty(2), torch.empty(2, dtype=torch.bfloat16))
    return lanes and all(bool(t.isnan().all()) for t in fresh)


def _sample(dtype: torch.dtype) -> Tensor:
    """Numbers of all sizes, ties of the rounding, and what is not finite."""
    spread = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ties = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 0.0, torch.inf, -torch.inf, torch.nan, 3e38])
    tiny = spread[:16] * 2.0**-130
    return torch.cat([spread * 10 ** (spread * 3), ties.double(), tiny]).to(dtype)[:1024]


def _bfloat16_casts() -> bool:
    for source, target in ((torch.float32, torch.bfloat16), (torch.float64, torch.bfloat16)):
        x = _sample(source)
        y = torch.zeros(1024, dtype=target)
        _cast[(1,)](x, y, 1024)
        if not torch.equal(y.isnan(), x.isnan()) or not torch.equal(y.nan_to_num(), x.to(target).nan_to_num()):
            return False
    back = torch.zeros(1024)
    _cast[(1,)](_sample(torch.bfloat16), back, 1024)
    # Rounded twice, by way of float32, the first would be 1.
    odd = torch.tensor([1 + 2.0**-8 + 2.0**-40], dtype=torch.float64)
    y = torch.zeros(1, dtype=torch.bfloat16)
    _cast[(1,)](odd, y, 1)
    return torch.equal(back.nan_to_num(), _sample(torch.bfloat16).float().nan_to_num()) and float(y) == 1 + 2.0**-7


def _bfloat16_arithmetic() -> bool:
    x, w = _sample(torch.bfloat16)[:256], _sample(torch.bfloat16)[256:512]
    y = torch.zeros(256, dtype=torch.bfloat16)
    _narrow[(1,)](x, w, y, 256)
    elementwise = torch.equal(y, torch.where(x > w, x + w, (x * 0.5).abs() - w))
    a, b = x[:64].view(8, 8).contiguous(), w[:64].view(8, 8).contiguous()
    out = torch.zeros(8, 8, dtype=torch.bfloat16)
    _narrow_dot[(1,)](a, b, out, 8)
    return elementwise and torch.equal(out, (a.float() @ b.float()).bfloat16())


def _float64() -> bool:
    x = torch.full((4,), 1 / 3, dtype=torch.float64)
    y = torch.zeros(4, dtype=torch.float64)
    _cast[(1,)](x, y, 4)
    return torch.equal(x, y)
