"""Triton's interpreter made strict: bounds and races checked, what is undefined poisoned, bfloat16 computed rightly.

TRITON_INTERPRET=1 must be set before triton is imported. `install()` changes private parts of triton, once, and then
proves every change by a kernel of its own: where one does not hold it raises, with the version of triton.
"""

# ruff: noqa: SLF001 (what is changed here has no public name; selftest.py proves each change)
from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    raise ImportError("set TRITON_INTERPRET=1 before Python starts: triton decides at its import how kernels run.")

import triton
import triton.language as tl
import triton.runtime.interpreter as stock
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from ci.kernels.memory import Launch, Memory, Owned, Owner
from ci.kernels.narrow import is_narrow, narrowed, widened

MEMORY = Memory()

GARBAGE = {"f": np.nan, "i": -0x55, "u": 0x55, "b": True}
"""What a masked lane of a load without `other=` holds: anything, on a GPU."""


class Unsupported(RuntimeError):
    """This version of triton is not the one that the checks were written for."""


class Strict(InterpreterBuilder):
    """The interpreter's builder with every access checked and bfloat16 as numbers."""

    # Memory.

    def create_masked_load(self, ptrs: Any, mask: Any, other: Any, *how: Any, **named: Any) -> Any:
        MEMORY.check("load", ptrs, mask.data, self.grid_idx)
        if other is None and not np.all(mask.data):
            element = ptrs.get_element_ty()
            dtype = stock._get_np_dtype(element)
            filled = np.full(ptrs.data.shape, GARBAGE[dtype.kind], dtype=dtype)
            if element == tl.bfloat16:
                filled[...] = 0x7FC0
            other = TensorHandle(filled, element)
        return super().create_masked_load(ptrs, mask, other, *how, **named)

    def create_masked_store(self, ptrs: Any, value: Any, mask: Any, *how: Any) -> Any:
        MEMORY.check("store", ptrs, mask.data, self.grid_idx)
        return super().create_masked_store(ptrs, value, mask, *how)

    def create_atomic_rmw(self, op: Any, ptr: Any, val: Any, mask: Any, *how: Any) -> Any:
        new = MEMORY.unseen(ptr, mask.data)
        MEMORY.check("add", ptr, mask.data, self.grid_idx)
        if is_narrow(val):
            raise NotImplementedError("the interpreter has no atomics of bfloat16")
        found = super().create_masked_load(ptr, TensorHandle(new, tl.int1), None, None, None, False)
        MEMORY.check_written(ptr, found.data[new])
        return super().create_atomic_rmw(op, ptr, val, mask, *how)

    def create_atomic_cas(self, ptr: Any, *how: Any) -> Any:
        MEMORY.check("add", ptr, np.ones(ptr.data.shape, dtype=bool), self.grid_idx)
        return super().create_atomic_cas(ptr, *how)

    def create_bitcast(self, src: Any, dst_type: Any) -> Any:
        out = super().create_bitcast(src, dst_type)
        owner = getattr(src.dtype, "owner", None)
        if owner is not None and isinstance(out.dtype, tl.pointer_type):
            out.dtype = Owned(out.dtype.element_ty, owner)
        return out

    create_int_to_ptr = create_ptr_to_int = create_bitcast

    # bfloat16.

    def cast_impl(self, src: Any, dst_type: Any) -> Any:
        target = dst_type.scalar
        values = widened(src.data) if is_narrow(src) else src.data
        if target == tl.bfloat16:
            return TensorHandle(narrowed(values), target)
        return TensorHandle(values.astype(stock._get_np_dtype(target)), target)

    def create_fp_to_fp(self, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        if tl.bfloat16 in (src.dtype.scalar, dst_type.scalar) and rounding_mode != stock._ir.ROUNDING_MODE.RTZ:
            return self.cast_impl(src, dst_type)
        return super().create_fp_to_fp(src, dst_type, rounding_mode)

    def set_grid_idx(self, x: int, y: int, z: int) -> None:
        MEMORY.programs += 1
        super().set_grid_idx(x, y, z)

    def get_bf16(self, value: float) -> Any:
        return TensorHandle(narrowed(np.array([value])), tl.bfloat16)

    def binary_op(self, lhs: Any, rhs: Any, op: Any) -> Any:
        return _computed(super().binary_op, (lhs, rhs), op)

    def ternary_op(self, lhs: Any, rhs: Any, other: Any, op: Any) -> Any:
        return _computed(super().ternary_op, (lhs, rhs, other), op)

    def unary_op(self, arg: Any, op: Any) -> Any:
        return _computed(super().unary_op, (arg,), op)

    def create_fma(self, x: Any, y: Any, z: Any) -> Any:
        return _computed(super().create_fma, (x, y, z))

    def create_fabs(self, arg: Any) -> Any:
        return _computed(super().create_fabs, (arg,))

    def create_erf(self, arg: Any) -> Any:
        return _computed(super().create_erf, (arg,))

    def create_rsqrt(self, arg: Any) -> Any:
        return _computed(super().create_rsqrt, (arg,))

    def create_dot(self, a: Any, b: Any, d: Any, *how: Any) -> Any:
        """Products of narrow numbers are added up in the accumulator's type, as a tensor core does."""
        return _computed(super().create_dot, (a, b, d), *how)


def _computed(op: Callable[..., Any], handles: tuple[Any, ...], *more: Any) -> Any:
    """An operation in float32 where an operand is bfloat16; the result is narrow where the stock one's type is."""
    if not any(is_narrow(h) for h in handles):
        return op(*handles, *more)
    wide = tuple(TensorHandle(widened(h.data), tl.float32) if is_narrow(h) else h for h in handles)
    out = op(*wide, *more)
    if out.data.dtype == bool:
        return TensorHandle(out.data, tl.int1)
    kept = handles[-1] if len(handles) == 3 else handles[0]
    return TensorHandle(narrowed(out.data), tl.bfloat16) if is_narrow(kept) else out


def _converted(arg: Any) -> Any:
    """A kernel's argument; a pointer that knows its tensor where it is one."""
    out = _STOCK_CONVERT(arg)
    if hasattr(arg, "data_ptr"):
        base = stock._unwrap_tensor(arg)
        out.handle.dtype = Owned(out.handle.dtype.element_ty, Owner.of(base))
    return out


class _NoScope:
    """The language stays patched: this process only interprets."""

    def restore(self) -> None:
        return None


def kernels_in(module: ModuleType) -> dict[str, Any]:
    """The kernels and device functions that a file defines, by name."""
    mine = {k: v for k, v in vars(module).items() if isinstance(v, stock.InterpretedFunction)}
    return {k: v for k, v in mine.items() if v.fn.__module__ == module.__name__}


def _called(self: Any, *args: Any, **kwargs: Any) -> Any:
    MEMORY.ran.add(self.fn.__name__)
    return _STOCK_DEVICE(self, *args, **kwargs)


def _launched(self: Any, *args: Any, **kwargs: Any) -> Any:
    outer, MEMORY.launch = MEMORY.launch, Launch()
    MEMORY.ran.add(self.fn.__name__)
    try:
        # -inf - -inf and the like are NaN on a GPU without a word.
        with np.errstate(all="ignore"):
            return _STOCK_CALL(self, *args, **kwargs)
    finally:
        MEMORY.launch = outer


_STOCK_CONVERT = stock._implicit_cvt
_STOCK_CALL = stock.GridExecutor.__call__
_STOCK_DEVICE = stock.InterpretedFunction.__call__


def install() -> Memory:
    """Make the interpreter strict for the rest of this process, and prove it. Raises Unsupported where it is not.

    Memory that nothing has written yet is NaN, by torch's own switch.
    """
    if not isinstance(stock.interpreter_builder, Strict):
        if not isinstance(stock.interpreter_builder, InterpreterBuilder) or not triton.knobs.runtime.interpret:
            raise Unsupported("TRITON_INTERPRET=1 was not set when triton was imported.")
        _install()
        from ci.kernels.selftest import proven

        proven(MEMORY)
    return MEMORY


def _install() -> None:
    builder = stock.interpreter_builder
    builder.__class__ = Strict
    # Every index is computed a second time, wider, to look for overflow: half of the time.
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    stock._implicit_cvt = _converted
    stock.GridExecutor.__call__ = _launched
    stock.InterpretedFunction.__call__ = _called
    # Everything is on the CPU: nothing needs to be copied there and back.
    stock.GridExecutor._init_args_hst = lambda self, args, kwargs: (args, kwargs)
    stock.GridExecutor._restore_args_dev = lambda self, *_: None
    stock._get_np_dtype = _numpy_type
    _patch_language()
    # As torch.use_deterministic_algorithms does, which would import two seconds of compiler.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")


def _numpy_type(dtype: Any) -> np.dtype:
    """As the stock function, which makes its table anew at every call."""
    element = dtype.element_ty if isinstance(dtype, tl.block_type) else dtype
    return _POINTER if isinstance(element, tl.pointer_type) else _numpy_type_of(element)


_POINTER = np.dtype(np.uint64)
_numpy_type_of = functools.lru_cache(None)(stock._get_np_dtype)


def _patch_language() -> None:
    """Once instead of at every call of a device function, which is what most of the time goes into."""
    for module in (tl, tl.core):
        stub = type("stub", (), {"__globals__": {"lang": module}})
        stock._patch_lang(stub)
    stock._patch_lang = lambda fn: _NoScope()
    # triton 3.6 takes int() of an array of one element, which numpy 2.4 no longer allows: no loop would run.
    tl.tensor.__index__ = lambda self: int(self.handle.data.item())
