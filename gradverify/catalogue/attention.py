"""Fused attention: softmax(scale q kᵀ + mask) v by tiles, in memory linear in the sequence; backward and JVP as well.

This file needs torch, and triton for CUDA: copy it as it is. Its sections: settings, kernels, launches, the same in
plain PyTorch, registered ops, autograd, the function `attention` with its checks.

Backends. A CUDA tensor runs the Triton kernels; any other device runs plain PyTorch through the same autograd
Functions, with the same saved tensors; meta tensors give shapes. The kernels are generic in the dtype and run in
Triton's interpreter on a CPU too (`backend="interpret"`), so that they can be verified in float64 without a GPU.

There is no dropout on the attention weights.

Source: Dao, FlashAttention-2, 2023, arXiv:2307.08691; Milakov, Gimelshein 2018, arXiv:1805.02867 (online softmax).
"""

# Kernels are not annotated but for their compile-time arguments: Triton evaluates annotations.
# ruff: noqa: ANN001, ANN202, FBT003
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

try:
    import triton
    import triton.language as tl
except ImportError:  # plain PyTorch remains
    triton = None

# ---------------------------------------------------------------------------------------------------- settings

LOG2E = math.log2(math.e)
"""The kernels take powers of 2, which is one instruction: logits are in units of log 2, the saved lse as well."""

LARGEST_HEAD = 256
"""Above, no tile of q, k and v fits into shared memory beside its accumulator."""

REACH = 2**31 // 512
"""Strides up to here are 32-bit inside a tile; tensors with longer ones are copied before a launch."""


@dataclass(frozen=True)
class Tiles:
    """Of each kernel: rows of q in a tile, rows of k in a tile, num_warps, num_stages."""

    forward: tuple[int, int, int, int]
    dkdv: tuple[int, int, int, int]
    dq: tuple[int, int, int, int]
    jvp: tuple[int, int, int, int]
    fused: tuple[int, int, int, int]

    @classmethod
    def same(cls, rows: int, columns: int, num_warps: int = 4, num_stages: int = 1) -> Tiles:
        """The same for every kernel; the interpreter takes tiles from 1 x 1 on, a GPU from 16 x 16 on."""
        return cls(*[(rows, columns, num_warps, num_stages)] * len(fields(cls)))


# (bytes of an element, head_dim up to) -> tiles; for half precision without spills on sm_90. Not yet timed on any GPU.
_TABLE: dict[tuple[int, int], Tiles] = {
    (2, 64): Tiles((128, 64, 4, 3), (64, 128, 8, 2), (128, 64, 8, 2), (128, 64, 8, 2), (64, 128, 8, 2)),
    (2, 128): Tiles((128, 64, 8, 2), (32, 64, 8, 2), (128, 64, 8, 2), (128, 32, 8, 2), (32, 128, 8, 2)),
    (2, 256): Tiles((64, 32, 8, 2), (32, 32, 8, 1), (32, 64, 8, 1), (32, 32, 8, 1), (32, 32, 8, 1)),
    (4, 64): Tiles((64, 32, 4, 2), (32, 32, 4, 1), (64, 32, 8, 1), (32, 32, 4, 1), (32, 32, 8, 1)),
    (4, 128): Tiles((64, 32, 8, 1), (32, 32, 8, 1), (32, 32, 8, 1), (32, 16, 4, 1), (32, 16, 8, 1)),
    (4, 256): Tiles((32, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1)),
    (8, 64): Tiles((32, 16, 4, 1), (16, 16, 4, 1), (32, 16, 4, 1), (16, 16, 4, 1), (16, 16, 4, 1)),
    (8, 128): Tiles((16, 16, 4, 1), (16, 16, 4, 1), (16, 16, 4, 1), (16, 16, 4, 1), (16, 16, 4, 1)),
    (8, 256): Tiles((16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1)),
}

# Where a warp multiplies from its own registers (before sm_90, and on sm_120), without spills on sm_80.
_FROM_REGISTERS: dict[tuple[int, int], Tiles] = {
    (2, 64): Tiles((128, 64, 8, 3), (32, 128, 8, 2), (128, 64, 8, 2), (128, 64, 8, 2), (32, 128, 8, 2)),
    (2, 128): Tiles((128, 32, 8, 2), (32, 64, 8, 2), (128, 32, 8, 2), (32, 32, 8, 2), (32, 64, 8, 2)),
    (4, 64): Tiles((64, 32, 8, 2), (32, 32, 4, 1), (32, 32, 8, 1), (32, 32, 4, 1), (32, 32, 8, 1)),
}

# Where head_dim is no power of 2: the masks of what is loaded ahead take registers, which these leave free.
_MASKED_FEATURES: dict[tuple[int, int], dict[str, tuple[int, int, int, int]]] = {
    (2, 64): {"dkdv": (32, 128, 8, 1), "fused": (16, 64, 8, 2)},
    (2, 128): {"dkdv": (32, 64, 8, 1), "fused": (16, 64, 8, 1)},
}


# ----------------------------------------------------------------------------------------------------- kernels
#
# A program of `_forward_kernel`, `_dq_kernel` and `_jvp_kernel` owns rows of q of one head, one of `_dkdv_kernel` rows
# of k of one head of k and v, over all heads of q in its group: nothing is added up by two programs, so that results do
# not depend on their order. Where `_dkdv_kernel` is to make dq, too, its programs add their parts to the same rows of
# it, in whatever order they come. Row i of q sees key j where i + lo <= j <= i + hi: causal and sliding windows alike.
# Tiles that lie inside that band are computed without looking at it. Positions of tiles are 64-bit where they multiply
# a stride.


def _jit(kernel: Callable[..., Any]) -> Any:
    return kernel if triton is None else triton.jit(kernel)


@_jit
def _load_rows(
    ptr, strides, first, n_rows, N: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, EDGE: tl.constexpr
):
    """Rows first ... first + ROWS - 1 of a matrix [n_rows, N], as [ROWS, COLS] with zeros beyond its edges."""
    row = tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    at = ptr + first * tl.cast(strides[0], tl.int64) + row * strides[0] + col * strides[1]
    if EDGE and N < COLS:
        x = tl.load(at, mask=(first + row < n_rows) & (col < N), other=0.0)
    elif EDGE:
        x = tl.load(at, mask=first + row < n_rows, other=0.0)
    elif N < COLS:
        x = tl.load(at, mask=col < N, other=0.0)
    else:
        x = tl.load(at)
    return x


@_jit
def _store_rows(ptr, x, strides, first, n_rows, N: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Write x [ROWS, COLS] to rows first ... of a matrix [n_rows, N], leaving out what is beyond its edges."""
    row = tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    at = ptr + first * tl.cast(strides[0], tl.int64) + row * strides[0] + col * strides[1]
    tl.store(at, x.to(ptr.dtype.element_ty), mask=(first + row < n_rows) & (col < N))


@_jit
def _logits(s, mask, mask_strides, row, col, sq, sk, band, MASK: tl.constexpr, EDGE: tl.constexpr,
            HAS_LO: tl.constexpr, HAS_HI: tl.constexpr):  # fmt: skip
    """Base-2 logits s with the mask; -inf where row i does not see column j. row, col: [M, 1], [1, N] or transposed."""
    if MASK != 0:
        at = mask + row.to(tl.int64) * mask_strides[0] + col.to(tl.int64) * mask_strides[1]
        inside = (row < sq) & (col < sk)
        if MASK == 1:
            s = tl.where(tl.load(at, mask=inside, other=0) != 0, s, float("-inf"))
        else:
            s += tl.load(at, mask=inside, other=0.0).to(s.dtype) * 1.4426950408889634
    if EDGE:
        keep = col < sk
        if HAS_LO:
            keep = keep & (row + band[0] <= col)
        if HAS_HI:
            keep = keep & (col <= row + band[1])
        s = tl.where(keep, s, float("-inf"))
    return s


@_jit
def _columns_seen(first, sk, band, M: tl.constexpr, N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr):
    """Of rows first ... first + M - 1: begin <= full_begin <= full_end, end, the columns that they see.

    Between the full ones every tile is seen whole. begin and both full ones are multiples of N.
    """
    begin = first * 0
    end = begin + sk
    full_begin = begin
    full_end = end // N * N
    if HAS_HI:
        end = tl.minimum(end, tl.maximum(first + M + band[1], 0))
        full_end = tl.minimum(full_end, tl.maximum(first + 1 + band[1], 0) // N * N)
    if HAS_LO:
        begin = tl.maximum(first + band[0], 0) // N * N
        full_begin = (tl.maximum(first + M - 1 + band[0], 0) + N - 1) // N * N
    return begin, full_begin, tl.maximum(full_end, full_begin), end


@_jit
def _rows_seeing(first, sq, sk, band, M: tl.constexpr, N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr):
    """Of columns first ... first + N - 1: begin <= full_begin <= full_end, end, as in `_columns_seen`, of rows.

    The last tile of rows may be among the full ones: whoever loads lse as +inf beyond sq need not look at rows.
    """
    begin = first * 0
    end = begin + sq
    full_begin = begin
    full_end = (end + M - 1) // M * M
    if HAS_LO:
        end = tl.minimum(end, tl.maximum(first + N - band[0], 0))
        full_end = tl.minimum(full_end, tl.maximum(first + 1 - band[0], 0) // M * M)
    if HAS_HI:
        begin = tl.maximum(first - band[1], 0) // M * M
        full_begin = (tl.maximum(first + N - 1 - band[1], 0) + M - 1) // M * M
    # The last columns may lie beyond sk: none of their tiles is full.
    full_begin = tl.where(first + N > sk, (end + M - 1) // M * M, full_begin)
    return begin, full_begin, tl.maximum(full_end, full_begin), end


@_jit
def _program(n_rows, heads, M: tl.constexpr, LAST_FIRST: tl.constexpr):
    """The tile that this program owns: first row, batch, head. Where later rows see more, they are started first."""
    tiles = tl.cdiv(n_rows, M)
    pid = tl.program_id(0)
    tile = pid % tiles
    if LAST_FIRST:
        tile = tiles - 1 - tile
    which = pid // tiles
    return tile * M, (which // heads).to(tl.int64), (which % heads).to(tl.int64)


@_jit
def _weights_of(s, lse):
    """2^(s - lse). Of an lse in float64, what float32 cannot hold is taken off after the rest of it has cancelled."""
    high = lse.to(s.dtype)
    s -= high
    if lse.dtype != s.dtype:
        seen = high != float("inf")
        s -= (tl.where(seen, lse, 0.0) - tl.where(seen, high, 0.0)).to(s.dtype)
    return tl.math.exp2(s)


@_jit
def _forward_loop(acc, total, top, q, k, v, mask, ks, vs, ms, row, begin, end, sq, sk, band, scale2,
                  EDGE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr,
                  BLOCK_DV: tl.constexpr, BLOCK_N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr,
                  MASK: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """One pass of the online softmax: acc = sum 2^(s - top) v, total = sum 2^(s - top), top = max s so far."""
    for start in range(begin, end, BLOCK_N):
        kt = _load_rows(k, ks, start, sk, D, BLOCK_N, BLOCK_D, EDGE)
        s = tl.dot(q, tl.trans(kt), out_dtype=acc.dtype, input_precision=PRECISION) * scale2
        col = start + tl.arange(0, BLOCK_N)[None, :]
        s = _logits(s, mask, ms, row, col, sq, sk, band, MASK, EDGE, HAS_LO, HAS_HI)
        new = tl.maximum(top, tl.max(s, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)  # nothing seen yet: -inf - -inf would be NaN
        p = tl.math.exp2(s - safe[:, None])
        shrink = tl.math.exp2(top - safe)
        total = total * shrink + tl.sum(p, 1)
        vt = _load_rows(v, vs, start, sk, DV, BLOCK_N, BLOCK_DV, EDGE)
        acc = acc * shrink[:, None]
        acc += tl.dot(p.to(vt.dtype), vt, out_dtype=acc.dtype, input_precision=PRECISION)
        top = new
    return acc, total, top


@_jit
def _forward_kernel(q, k, v, mask, o, lse, qs, ks, vs, ms, os, sizes, band, scale2: tl.float64,
                    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
                    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr,
                    MASK: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Store o [b, h, m, dv] and lse [b, h, m], contiguous, +inf for a row that sees nothing."""
    heads, group, sq, sk = sizes
    first, b, h = _program(sq, heads, BLOCK_M, HAS_HI)
    q += b * qs[0] + h * qs[1]
    k += b * ks[0] + h // group * ks[1]
    v += b * vs[0] + h // group * vs[1]
    if MASK != 0:
        mask += b * ms[0] + h * ms[1]
    rows = first + tl.arange(0, BLOCK_M)
    row = rows[:, None]
    scale = tl.full((), scale2, ACC)
    qt = _load_rows(q, (qs[2], qs[3]), first, sq, D, BLOCK_M, BLOCK_D, True)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], ACC)
    total = tl.zeros([BLOCK_M], ACC)
    top = tl.full([BLOCK_M], float("-inf"), ACC)
    begin, full_begin, full_end, end = _columns_seen(first, sk, band, BLOCK_M, BLOCK_N, HAS_LO, HAS_HI)
    kn = (ks[2], ks[3])
    vn = (vs[2], vs[3])
    mn = (ms[2], ms[3])
    if HAS_LO:
        acc, total, top = _forward_loop(
            acc, total, top, qt, k, v, mask, kn, vn, mn, row, begin, tl.minimum(full_begin, end), sq, sk, band, scale,
            True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, PRECISION)  # fmt: skip
    acc, total, top = _forward_loop(
        acc, total, top, qt, k, v, mask, kn, vn, mn, row, full_begin, full_end, sq, sk, band, scale,
        False, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, PRECISION)  # fmt: skip
    acc, total, top = _forward_loop(
        acc, total, top, qt, k, v, mask, kn, vn, mn, row, full_end, end, sq, sk, band, scale,
        True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, PRECISION)  # fmt: skip
    dead = total == 0
    acc = acc / tl.where(dead, 1.0, total)[:, None]
    _store_rows(o + b * os[0] + h * os[1], acc, (os[2], os[3]), first, sq, DV, BLOCK_M, BLOCK_DV)
    # +inf makes 2^(s - lse) zero in the kernels below, whatever s is.
    kept = lse.dtype.element_ty
    found = tl.where(dead, float("inf"), top.to(kept) + tl.math.log2(tl.where(dead, 1.0, total).to(kept)))
    tl.store(lse + (b * heads + h) * sq + rows, found, mask=rows < sq)


@_jit
def _delta_kernel(do, o, delta, dos, os, heads, sq,
                  DV: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Store delta [b, h, m] = <do, o>, row by row."""
    first, b, h = _program(sq, heads, BLOCK_M, False)
    rows = first + tl.arange(0, BLOCK_M)
    u = _load_rows(do + b * dos[0] + h * dos[1], (dos[2], dos[3]), first, sq, DV, BLOCK_M, BLOCK_DV, True).to(ACC)
    y = _load_rows(o + b * os[0] + h * os[1], (os[2], os[3]), first, sq, DV, BLOCK_M, BLOCK_DV, True).to(ACC)
    tl.store(delta + (b * heads + h) * sq + rows, tl.sum(u * y, 1), mask=rows < sq)


@_jit
def _dkdv_loop(dk, dv, k, v, q, do, lse, delta, mask, dq, dmask, qs, dos, ms, col, begin, end, sq, sk, band, scale2,
               EDGE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr,
               BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr,
               MASK: tl.constexpr, ADD_DQ: tl.constexpr, DMASK: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Add dv += pᵀ do and dk += dsᵀ q over rows begin ... end - 1; tiles are [N, M]: transposed.

    Where ADD_DQ, add ds k to the rows of dq [sq, D], contiguous; where DMASK, store ds to dmask [sq, sk], contiguous.
    """
    for start in range(begin, end, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        row = rows[None, :]
        qt = _load_rows(q, qs, start, sq, D, BLOCK_M, BLOCK_D, True)
        # A row beyond sq has lse = +inf, hence p = 0.
        top = tl.load(lse + rows, mask=rows < sq, other=float("inf"))
        mean = tl.load(delta + rows, mask=rows < sq, other=0.0)
        s = tl.dot(k, tl.trans(qt), out_dtype=dk.dtype, input_precision=PRECISION) * scale2
        s = _logits(s, mask, ms, row, col, sq, sk, band, MASK, EDGE, HAS_LO, HAS_HI)
        p = _weights_of(s, top[None, :])
        dot = _load_rows(do, dos, start, sq, DV, BLOCK_M, BLOCK_DV, True)
        dv += tl.dot(p.to(dot.dtype), dot, out_dtype=dv.dtype, input_precision=PRECISION)
        dp = tl.dot(v, tl.trans(dot), out_dtype=dk.dtype, input_precision=PRECISION)
        ds = p * (dp - mean[None, :])
        dk += tl.dot(ds.to(qt.dtype), qt, out_dtype=dk.dtype, input_precision=PRECISION)
        if DMASK:
            at = dmask + row.to(tl.int64) * sk + col
            tl.store(at, ds.to(dmask.dtype.element_ty), mask=(row < sq) & (col < sk))
        if ADD_DQ:
            part = tl.dot(tl.trans(ds).to(k.dtype), k, out_dtype=dk.dtype, input_precision=PRECISION)
            feature = tl.arange(0, BLOCK_D)[None, :]
            at = dq + rows[:, None].to(tl.int64) * D + feature
            tl.atomic_add(at, part, mask=(rows[:, None] < sq) & (feature < D), sem="relaxed")
    return dk, dv


@_jit
def _dkdv_kernel(q, k, v, mask, do, lse, delta, dk, dv, dq, dmask, qs, ks, vs, ms, dos, dks, dvs, sizes, band,
                 scale: tl.float64, scale2: tl.float64,
                 D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
                 BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr,
                 MASK: tl.constexpr, ADD_DQ: tl.constexpr, DMASK: tl.constexpr, ACC: tl.constexpr,
                 PRECISION: tl.constexpr):  # fmt: skip
    """Store dk [b, hk, n, d] and dv [b, hk, n, dv], summed over the heads of q in the group.

    Where ADD_DQ, add dq / scale to dq [b, h, m, d], in the accumulator's dtype; where DMASK, store ds to dmask
    [b, h, m, n]. Both are contiguous, and zero before.
    """
    heads, group, sq, sk = sizes
    first, b, hk = _program(sk, heads // group, BLOCK_N, False)
    k += b * ks[0] + hk * ks[1]
    v += b * vs[0] + hk * vs[1]
    kt = _load_rows(k, (ks[2], ks[3]), first, sk, D, BLOCK_N, BLOCK_D, True)
    vt = _load_rows(v, (vs[2], vs[3]), first, sk, DV, BLOCK_N, BLOCK_DV, True)
    col = (first + tl.arange(0, BLOCK_N))[:, None]
    scale_2 = tl.full((), scale2, ACC)
    dkt = tl.zeros([BLOCK_N, BLOCK_D], ACC)
    dvt = tl.zeros([BLOCK_N, BLOCK_DV], ACC)
    begin, full_begin, full_end, end = _rows_seeing(first, sq, sk, band, BLOCK_M, BLOCK_N, HAS_LO, HAS_HI)
    qm = (qs[2], qs[3])
    dom = (dos[2], dos[3])
    mm = (ms[2], ms[3])
    at = (b * heads + hk * group) * sq
    q += b * qs[0] + hk * group * qs[1]
    do += b * dos[0] + hk * group * dos[1]
    lse += at
    delta += at
    if MASK != 0:
        mask += b * ms[0] + hk * group * ms[1]
    if ADD_DQ:
        dq += at * D
    if DMASK:
        dmask += at * sk
    for _ in range(group):
        dkt, dvt = _dkdv_loop(
            dkt, dvt, kt, vt, q, do, lse, delta, mask, dq, dmask, qm, dom, mm, col, begin,
            tl.minimum(full_begin, end), sq, sk, band, scale_2,
            True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_M, HAS_LO, HAS_HI, MASK, ADD_DQ, DMASK, PRECISION)  # fmt: skip
        dkt, dvt = _dkdv_loop(
            dkt, dvt, kt, vt, q, do, lse, delta, mask, dq, dmask, qm, dom, mm, col, full_begin,
            full_end, sq, sk, band, scale_2,
            False, D, DV, BLOCK_D, BLOCK_DV, BLOCK_M, HAS_LO, HAS_HI, MASK, ADD_DQ, DMASK, PRECISION)  # fmt: skip
        if HAS_LO:
            dkt, dvt = _dkdv_loop(
                dkt, dvt, kt, vt, q, do, lse, delta, mask, dq, dmask, qm, dom, mm, col, full_end, end,
                sq, sk, band, scale_2,
                True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_M, HAS_LO, HAS_HI, MASK, ADD_DQ, DMASK, PRECISION)  # fmt: skip
        q += qs[1]
        do += dos[1]
        lse += sq
        delta += sq
        if MASK != 0:
            mask += ms[1]
        if ADD_DQ:
            dq += sq * D
        if DMASK:
            dmask += tl.cast(sq, tl.int64) * sk
    dkt *= tl.full((), scale, ACC)
    _store_rows(dk + b * dks[0] + hk * dks[1], dkt, (dks[2], dks[3]), first, sk, D, BLOCK_N, BLOCK_D)
    _store_rows(dv + b * dvs[0] + hk * dvs[1], dvt, (dvs[2], dvs[3]), first, sk, DV, BLOCK_N, BLOCK_DV)


@_jit
def _dq_loop(dq, q, do, top, mean, k, v, mask, dmask, ks, vs, ms, row, begin, end, sq, sk, band, scale2,
             EDGE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
             BLOCK_N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr, MASK: tl.constexpr,
             DMASK: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Add dq += ds k over columns begin ... end - 1, and write ds where the mask's gradient is wanted."""
    for start in range(begin, end, BLOCK_N):
        col = start + tl.arange(0, BLOCK_N)[None, :]
        kt = _load_rows(k, ks, start, sk, D, BLOCK_N, BLOCK_D, EDGE)
        vt = _load_rows(v, vs, start, sk, DV, BLOCK_N, BLOCK_DV, EDGE)
        s = tl.dot(q, tl.trans(kt), out_dtype=dq.dtype, input_precision=PRECISION) * scale2
        s = _logits(s, mask, ms, row, col, sq, sk, band, MASK, EDGE, HAS_LO, HAS_HI)
        p = _weights_of(s, top[:, None])
        dp = tl.dot(do, tl.trans(vt), out_dtype=dq.dtype, input_precision=PRECISION)
        ds = p * (dp - mean[:, None])
        if DMASK:
            at = dmask + row.to(tl.int64) * sk + col
            tl.store(at, ds.to(dmask.dtype.element_ty), mask=(row < sq) & (col < sk))
        dq += tl.dot(ds.to(kt.dtype), kt, out_dtype=dq.dtype, input_precision=PRECISION)
    return dq


@_jit
def _dq_kernel(q, k, v, mask, do, lse, delta, dq, dmask, qs, ks, vs, ms, dos, dqs, sizes, band,
               scale: tl.float64, scale2: tl.float64,
               D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
               BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr,
               MASK: tl.constexpr, DMASK: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Store dq [b, h, m, d]; ds into dmask [b, h, m, n], contiguous and zero before, where DMASK."""
    heads, group, sq, sk = sizes
    first, b, h = _program(sq, heads, BLOCK_M, HAS_HI)
    q += b * qs[0] + h * qs[1]
    k += b * ks[0] + h // group * ks[1]
    v += b * vs[0] + h // group * vs[1]
    do += b * dos[0] + h * dos[1]
    if MASK != 0:
        mask += b * ms[0] + h * ms[1]
    at = (b * heads + h) * sq
    if DMASK:
        dmask += at * sk
    rows = first + tl.arange(0, BLOCK_M)
    row = rows[:, None]
    top = tl.load(lse + at + rows, mask=rows < sq, other=float("inf"))
    mean = tl.load(delta + at + rows, mask=rows < sq, other=0.0)
    qt = _load_rows(q, (qs[2], qs[3]), first, sq, D, BLOCK_M, BLOCK_D, True)
    dot = _load_rows(do, (dos[2], dos[3]), first, sq, DV, BLOCK_M, BLOCK_DV, True)
    scale_2 = tl.full((), scale2, ACC)
    dqt = tl.zeros([BLOCK_M, BLOCK_D], ACC)
    begin, full_begin, full_end, end = _columns_seen(first, sk, band, BLOCK_M, BLOCK_N, HAS_LO, HAS_HI)
    kn = (ks[2], ks[3])
    vn = (vs[2], vs[3])
    mn = (ms[2], ms[3])
    if HAS_LO:
        dqt = _dq_loop(
            dqt, qt, dot, top, mean, k, v, mask, dmask, kn, vn, mn, row, begin, tl.minimum(full_begin, end), sq, sk,
            band, scale_2,
            True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, DMASK, PRECISION)  # fmt: skip
    dqt = _dq_loop(
        dqt, qt, dot, top, mean, k, v, mask, dmask, kn, vn, mn, row, full_begin, full_end, sq, sk, band, scale_2,
        False, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, DMASK, PRECISION)  # fmt: skip
    dqt = _dq_loop(
        dqt, qt, dot, top, mean, k, v, mask, dmask, kn, vn, mn, row, full_end, end, sq, sk, band, scale_2,
        True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, DMASK, PRECISION)  # fmt: skip
    dqt *= tl.full((), scale, ACC)
    _store_rows(dq + b * dqs[0] + h * dqs[1], dqt, (dqs[2], dqs[3]), first, sq, D, BLOCK_M, BLOCK_D)


@_jit
def _jvp_loop(acc, mean, q, tq, top, k, v, tk, tv, mask, tmask, ks, vs, tks, tvs, ms, tms, row, begin, end, sq, sk,
              band, scale, scale2,
              EDGE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
              BLOCK_N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr, MASK: tl.constexpr,
              TMASK: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Add acc += (p s') v + p v' and mean += sum p s' over columns begin ... end - 1."""
    for start in range(begin, end, BLOCK_N):
        col = start + tl.arange(0, BLOCK_N)[None, :]
        kt = _load_rows(k, ks, start, sk, D, BLOCK_N, BLOCK_D, EDGE)
        tkt = _load_rows(tk, tks, start, sk, D, BLOCK_N, BLOCK_D, EDGE)
        s = tl.dot(q, tl.trans(kt), out_dtype=acc.dtype, input_precision=PRECISION) * scale2
        s = _logits(s, mask, ms, row, col, sq, sk, band, MASK, EDGE, HAS_LO, HAS_HI)
        p = _weights_of(s, top[:, None])
        ts = tl.dot(tq, tl.trans(kt), out_dtype=acc.dtype, input_precision=PRECISION)
        ts += tl.dot(q, tl.trans(tkt), out_dtype=acc.dtype, input_precision=PRECISION)
        ts *= scale
        if TMASK:
            at = tmask + row.to(tl.int64) * tms[0] + col.to(tl.int64) * tms[1]
            ts += tl.load(at, mask=(row < sq) & (col < sk), other=0.0).to(ts.dtype)
        ts *= p
        mean += tl.sum(ts, 1)
        vt = _load_rows(v, vs, start, sk, DV, BLOCK_N, BLOCK_DV, EDGE)
        tvt = _load_rows(tv, tvs, start, sk, DV, BLOCK_N, BLOCK_DV, EDGE)
        acc += tl.dot(ts.to(vt.dtype), vt, out_dtype=acc.dtype, input_precision=PRECISION)
        acc += tl.dot(p.to(tvt.dtype), tvt, out_dtype=acc.dtype, input_precision=PRECISION)
    return acc, mean


@_jit
def _jvp_kernel(q, k, v, mask, o, lse, tq, tk, tv, tmask, to, qs, ks, vs, ms, os, tqs, tks, tvs, tms, tos, sizes, band,
                scale: tl.float64, scale2: tl.float64,
                D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
                BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_LO: tl.constexpr, HAS_HI: tl.constexpr,
                MASK: tl.constexpr, TMASK: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Store o' [b, h, m, dv] = (p (s' - sum p s')) v + p v', with p = 2^(s - lse) from the saved lse."""
    heads, group, sq, sk = sizes
    first, b, h = _program(sq, heads, BLOCK_M, HAS_HI)
    q += b * qs[0] + h * qs[1]
    tq += b * tqs[0] + h * tqs[1]
    k += b * ks[0] + h // group * ks[1]
    tk += b * tks[0] + h // group * tks[1]
    v += b * vs[0] + h // group * vs[1]
    tv += b * tvs[0] + h // group * tvs[1]
    if MASK != 0:
        mask += b * ms[0] + h * ms[1]
    if TMASK:
        tmask += b * tms[0] + h * tms[1]
    rows = first + tl.arange(0, BLOCK_M)
    row = rows[:, None]
    top = tl.load(lse + (b * heads + h) * sq + rows, mask=rows < sq, other=float("inf"))
    qt = _load_rows(q, (qs[2], qs[3]), first, sq, D, BLOCK_M, BLOCK_D, True)
    tqt = _load_rows(tq, (tqs[2], tqs[3]), first, sq, D, BLOCK_M, BLOCK_D, True)
    scale_1 = tl.full((), scale, ACC)
    scale_2 = tl.full((), scale2, ACC)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], ACC)
    mean = tl.zeros([BLOCK_M], ACC)
    begin, full_begin, full_end, end = _columns_seen(first, sk, band, BLOCK_M, BLOCK_N, HAS_LO, HAS_HI)
    kn = (ks[2], ks[3])
    vn = (vs[2], vs[3])
    tkn = (tks[2], tks[3])
    tvn = (tvs[2], tvs[3])
    mn = (ms[2], ms[3])
    tmn = (tms[2], tms[3])
    if HAS_LO:
        acc, mean = _jvp_loop(
            acc, mean, qt, tqt, top, k, v, tk, tv, mask, tmask, kn, vn, tkn, tvn, mn, tmn, row, begin,
            tl.minimum(full_begin, end), sq, sk, band, scale_1, scale_2,
            True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, TMASK, PRECISION)  # fmt: skip
    acc, mean = _jvp_loop(
        acc, mean, qt, tqt, top, k, v, tk, tv, mask, tmask, kn, vn, tkn, tvn, mn, tmn, row, full_begin, full_end, sq,
        sk, band, scale_1, scale_2,
        False, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, TMASK, PRECISION)  # fmt: skip
    acc, mean = _jvp_loop(
        acc, mean, qt, tqt, top, k, v, tk, tv, mask, tmask, kn, vn, tkn, tvn, mn, tmn, row, full_end, end, sq, sk,
        band, scale_1, scale_2,
        True, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, HAS_LO, HAS_HI, MASK, TMASK, PRECISION)  # fmt: skip
    y = _load_rows(o + b * os[0] + h * os[1], (os[2], os[3]), first, sq, DV, BLOCK_M, BLOCK_DV, True)
    acc -= mean[:, None] * y.to(ACC)
    _store_rows(to + b * tos[0] + h * tos[1], acc, (tos[2], tos[3]), first, sq, DV, BLOCK_M, BLOCK_DV)


INTERPRETED = triton is not None and not isinstance(_forward_kernel, triton.runtime.JITFunction)
"""Whether triton was imported with TRITON_INTERPRET=1, so that the kernels above run on a CPU."""


# ---------------------------------------------------------------------------------------------------- launches


@dataclass(frozen=True)
class _Call:
    """What the tensors of a call do not say, in the form in which registered ops take it: see `_Call.flat`."""

    scale: float
    lo: int | None
    hi: int | None
    backend: str
    tiles: tuple[int, ...]
    deterministic: bool

    def flat(self) -> tuple[float, int | None, int | None, str, list[int], bool]:
        return self.scale, self.lo, self.hi, self.backend, list(self.tiles), self.deterministic


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Run a kernel; on meta tensors only compile it. Every launch of this file goes through here, to be watched."""
    device = args[0].device
    if not math.prod(grid):
        return
    if device.type == "meta":  # a launch would read at address 0
        kernel.warmup(*args, grid=grid, **meta)
        return
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*args, **meta)


def _shared(kernel: str, tile: tuple[int, int, int, int], size: int, d: int, dv: int) -> int:
    """Bytes of shared memory at most: the tiles that a program owns, and as many stages of those that stream by."""
    (rows, columns, _, stages), both = tile, d + dv
    own, streamed = {
        "forward": (rows * d, columns * both),
        "dkdv": (columns * both, rows * both),
        "dq": (rows * both, columns * both),
        "jvp": (2 * rows * d, 2 * columns * both),
        # Its operands are wanted in two layouts, in float64 those of k and v in one.
        "fused": ((1 if size == 8 else 2) * columns * both + rows * (both + columns), rows * both),
    }[kernel]
    return size * (own + stages * streamed)


def _capacity(device: torch.device) -> int:
    """Bytes of shared memory that a program may have; what is compiled only is taken for a Hopper GPU."""
    if device.type != "cuda":
        return 232448
    return int(triton.runtime.driver.active.utils.get_device_properties(device.index)["max_shared_mem"])


def _from_registers() -> bool:
    """Whether the GPU that is compiled for has no matrix unit that reads shared memory."""
    arch = triton.runtime.driver.active.get_current_target().arch
    return not isinstance(arch, int) or not 90 <= arch < 120


@lru_cache
def _default(size: int, d: int, dv: int, capacity: int, *, from_registers: bool, masked: bool) -> Tiles:
    """The tiles of the table, made smaller where they would not fit: first what is loaded ahead, then the tiles.

    d, dv: padded to powers of 2; `masked`: one of them is.
    """
    widest = next(w for s, w in _TABLE if s == size and w >= max(d, dv))
    own = _FROM_REGISTERS if from_registers else {}
    table = vars(own.get((size, widest), _TABLE[size, widest]))
    fitted = {}
    for kernel, tile in (table | (_MASKED_FEATURES.get((size, widest), {}) if masked else {})).items():
        while _shared(kernel, tile, size, d, dv) > capacity and tile != (smaller := _smaller(tile)):
            tile = smaller  # noqa: PLW2901
        fitted[kernel] = tile
    return Tiles(**fitted)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and of the softmax."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _lse_dtype(q: Tensor) -> torch.dtype:
    """The dtype of lse. Its rounding multiplies a whole row of weights by 1 ± |lse| u: too much for float32 inputs.

    In half precision their own rounding hides it. Where no kernel runs, lse is of no use, and there may be no float64.
    """
    exact = q.dtype == torch.float32 and q.device.type in ("cpu", "cuda", "meta")
    return torch.float64 if exact else _accumulator(q.dtype)


def _smaller(tile: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    rows, columns, warps, stages = tile
    if stages > 1:
        return rows, columns, warps, stages - 1
    if rows >= columns:
        return max(rows // 2, 16), columns, warps, 1
    return rows, max(columns // 2, 16), warps, 1


def _tiles(flat: Sequence[int], q: Tensor, v: Tensor) -> Tiles:
    if flat:
        return Tiles(*(tuple(flat[i : i + 4]) for i in range(0, len(flat), 4)))  # type: ignore[arg-type]
    if INTERPRETED:
        return Tiles.same(16, 16)
    return _fitting(q, v)


def _fitting(q: Tensor, v: Tensor) -> Tiles:
    padded = _padded(q, v)
    masked = padded != (q.shape[-1], v.shape[-1])
    return _default(q.element_size(), *padded, _capacity(q.device), from_registers=_from_registers(), masked=masked)


def _padded(q: Tensor, v: Tensor) -> tuple[int, int]:
    """Return d and dv as tiles have them: powers of 2, on a GPU at least 16."""
    least = 1 if INTERPRETED else 16
    return tuple(max(triton.next_power_of_2(t.shape[-1]), least) for t in (q, v))


def _meta(q: Tensor, v: Tensor, tile: tuple[int, int, int, int], call: _Call, mask: Tensor | None) -> dict[str, Any]:
    """The compile-time arguments that all kernels but delta share."""
    rows, columns, num_warps, num_stages = tile
    block_d, block_dv = _padded(q, v)
    return {
        "D": q.shape[-1],
        "DV": v.shape[-1],
        "BLOCK_D": block_d,
        "BLOCK_DV": block_dv,
        "BLOCK_M": rows,
        "BLOCK_N": columns,
        "HAS_LO": call.lo is not None,
        "HAS_HI": call.hi is not None,
        "MASK": 0 if mask is None else 2 if mask.is_floating_point() else 1,
        "ACC": tl.float64 if q.dtype == torch.float64 else tl.float32,
        # tf32 alone loses half of the digits of float32; the interpreter ignores this.
        "PRECISION": "tf32x3" if q.dtype == torch.float32 and torch.version.hip is None else "ieee",
        "num_warps": num_warps,
        "num_stages": num_stages,
    }


def _reachable(t: Tensor) -> Tensor:
    """The tensor, or a copy where offsets inside a tile would not fit into 32 bits."""
    far = any(abs(s) >= REACH for s in t.stride()[-2:])
    return _like(t, t.shape[1], t.shape[3]).copy_(t) if far else t


def _addressed(mask: Tensor | None, q: Tensor) -> tuple[Tensor | None, tuple[int, ...]]:
    """A mask as the kernels read it: booleans as bytes, and stride 0 along axes of size 1.

    Triton packs operands of a product as the narrowest load that went into them, which for float64 must not be a byte.
    """
    if mask is None:
        return None, (0, 0, 0, 0)
    if mask.dtype == torch.bool:
        mask = mask.int() if q.dtype == torch.float64 else mask.view(torch.uint8)
    return mask, tuple(0 if n == 1 else s for n, s in zip(mask.shape, mask.stride(), strict=True))


def _like(t: Tensor, heads: int, last: int) -> Tensor:
    """Uninitialised [b, heads, t.shape[2], last], with heads next to the features in memory where t has them so."""
    b, _, s, _ = t.shape
    if t.stride(1) < t.stride(2):
        return t.new_empty((b, s, heads, last)).transpose(1, 2)
    return t.new_empty((b, heads, s, last))


def _sizes(q: Tensor, k: Tensor) -> tuple[int, int, int, int]:
    """Heads of q, heads of q per head of k, rows of q, rows of k."""
    return q.shape[1], q.shape[1] // k.shape[1], q.shape[2], k.shape[2]


def _grid(rows: int, tile: int, batch: int, heads: int) -> tuple[int]:
    return (-(-rows // tile) * batch * heads,)


def _triton_forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: _Call) -> tuple[Tensor, Tensor]:
    tile = _tiles(call.tiles, q, v).forward
    q, k, v = map(_reachable, (q, k, v))
    mask, ms = _addressed(mask, q)
    o = _like(q, q.shape[1], v.shape[-1])
    lse = q.new_empty(q.shape[:3], dtype=_lse_dtype(q))
    launch(
        _forward_kernel,
        _grid(q.shape[2], tile[0], q.shape[0], q.shape[1]),
        *(q, k, v, mask, o, lse),
        *(q.stride(), k.stride(), v.stride(), ms, o.stride()),
        _sizes(q, k),
        (call.lo or 0, call.hi or 0),
        call.scale * LOG2E,
        **_meta(q, v, tile, call, mask),
    )
    return o, lse


def _triton_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, o: Tensor, lse: Tensor, call: _Call, wants: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    fused = not call.deterministic and bool(wants & _WANT_KV and wants & (_WANT_Q | _WANT_MASK))
    adding = fused and bool(wants & _WANT_Q)
    if adding:
        _alert_not_deterministic(call)
    tiles = _tiles(call.tiles, q, v)
    do, q, k, v, o = map(_reachable, (do, q, k, v, o))
    addressed, ms = _addressed(mask, q)
    b, heads, sq, _ = q.shape
    acc = _accumulator(q.dtype)
    delta = q.new_empty(q.shape[:3], dtype=acc)
    meta = _meta(q, v, tiles.dq, call, addressed)
    launch(
        _delta_kernel,
        _grid(sq, meta["BLOCK_M"], b, heads),
        *(do, o, delta, do.stride(), o.stride(), heads, sq),
        **{name: meta[name] for name in ("DV", "BLOCK_DV", "BLOCK_M", "ACC", "num_warps")},
    )
    common = (_sizes(q, k), (call.lo or 0, call.hi or 0), call.scale, call.scale * LOG2E)
    inputs = (q, k, v, addressed, do, lse, delta)
    strides = (q.stride(), k.stride(), v.stride(), ms, do.stride())
    dq, dk, dv, dmask = (q.new_empty(0) for _ in range(4))
    ds = total = None
    if mask is not None and wants & _WANT_MASK:
        full = mask.shape == (b, heads, sq, k.shape[2])
        ds = q.new_zeros((b, heads, sq, k.shape[2]), dtype=mask.dtype if full else acc)
    if wants & (_WANT_Q | _WANT_MASK):
        dq = _like(q, heads, q.shape[3])
    if adding:
        total = q.new_zeros(q.shape, dtype=acc)
    if wants & _WANT_KV:
        tile = tiles.fused if fused else tiles.dkdv
        dk, dv = _like(k, k.shape[1], k.shape[3]), _like(v, v.shape[1], v.shape[3])
        launch(
            _dkdv_kernel,
            _grid(k.shape[2], tile[1], b, k.shape[1]),
            *inputs,
            *(dk, dv, total, ds if fused else None),
            *strides,
            *(dk.stride(), dv.stride()),
            *common,
            ADD_DQ=adding,
            DMASK=fused and ds is not None,
            **_meta(q, v, tile, call, addressed),
        )
    if total is not None:
        torch.mul(total, call.scale, out=dq)
    if wants & (_WANT_Q | _WANT_MASK) and not fused:
        launch(
            _dq_kernel,
            _grid(sq, tiles.dq[0], b, heads),
            *inputs,
            *(dq, ds),
            *strides,
            dq.stride(),
            *common,
            DMASK=ds is not None,
            **meta,
        )
    if mask is not None and ds is not None:
        dmask = ds.sum_to_size(mask.shape).to(mask.dtype)
    return dq if wants & _WANT_Q else q.new_empty(0), dk, dv, dmask


def _alert_not_deterministic(call: _Call) -> None:
    """As torch's own kernels that add in any order: raise, or warn, under torch.use_deterministic_algorithms."""
    if call.backend != "triton" or not torch.are_deterministic_algorithms_enabled():
        return
    said = (
        "attention: the backward of deterministic=False does not have a deterministic implementation, but "
        "torch.use_deterministic_algorithms(True) is set"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(f"{said}; pass deterministic=True, whose backward adds in one order.")
    warnings.warn(f"{said} with warn_only.", UserWarning, stacklevel=2)


def _triton_jvp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    o: Tensor,
    lse: Tensor,
    tangents: tuple[Tensor, Tensor, Tensor, Tensor | None],
    call: _Call,
) -> Tensor:
    tile = _tiles(call.tiles, q, v).jvp
    q, k, v, o, tq, tk, tv = map(_reachable, (q, k, v, o, *tangents[:3]))
    (mask, ms), (tmask, tms) = _addressed(mask, q), _addressed(tangents[3], q)
    to = _like(q, q.shape[1], v.shape[-1])
    launch(
        _jvp_kernel,
        _grid(q.shape[2], tile[0], q.shape[0], q.shape[1]),
        *(q, k, v, mask, o, lse, tq, tk, tv, tmask, to),
        *(q.stride(), k.stride(), v.stride(), ms, o.stride(), tq.stride(), tk.stride(), tv.stride(), tms, to.stride()),
        _sizes(q, k),
        (call.lo or 0, call.hi or 0),
        call.scale,
        call.scale * LOG2E,
        TMASK=tmask is not None,
        **_meta(q, v, tile, call, mask),
    )
    return to


# -------------------------------------------------------------------------------------- the same in plain PyTorch
#
# [b, h, m, n] scores in memory, and otherwise what the kernels do: lse in units of log 2, +inf where nothing is seen.


def _exactly(t: Tensor) -> AbstractContextManager[Any]:
    """No autocast: what is computed here is in the dtype that it is given."""
    able = t.device.type in ("cpu", "cuda", "xpu", "mps")
    return torch.autocast(t.device.type, enabled=False) if able else nullcontext()


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, call: _Call) -> Tensor:
    """Scale q kᵀ + mask, -inf where row i does not see column j; q and k of as many heads."""
    s = call.scale * (q @ k.mT)
    if mask is not None:
        s = s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + mask
    apart = torch.arange(k.shape[2], device=q.device) - torch.arange(q.shape[2], device=q.device)[:, None]
    if call.lo is not None:
        s = s.masked_fill(apart < call.lo, -math.inf)
    return s if call.hi is None else s.masked_fill(apart > call.hi, -math.inf)


def _spread(t: Tensor, q: Tensor) -> Tensor:
    """Return k or v in the accumulator's dtype, its heads repeated to those of q."""
    return t.to(_accumulator(q.dtype)).repeat_interleave(q.shape[1] // t.shape[1], 1)


def _gathered(t: Tensor, k: Tensor) -> Tensor:
    """A gradient by spread heads as one by those of k: the sum over each group, in k's dtype."""
    b, heads, rows, features = t.shape
    return t.reshape(b, k.shape[1], heads // k.shape[1], rows, features).sum(2).to(k.dtype)


def _weights(s: Tensor) -> Tensor:
    """Softmax of scores, 0 where nothing is seen. Relative to each row's largest score and to their sum, not to lse.

    Who has all scores needs no lse, of which rounding would be lost: see `_lse_dtype`.
    """
    dead = (s == -math.inf).all(-1, keepdim=True)
    return s.masked_fill(dead, 0).softmax(-1).masked_fill(dead, 0)


def _centred(p: Tensor, t: Tensor) -> Tensor:
    """Return p (t - <p, t>), row by row: the softmax's derivative. t is taken relative to where p is largest.

    So nothing cancels where the softmax is saturated: neither in t - <p, t> at the largest p, nor in <p, t>.
    """
    if not p.shape[-1]:
        return p
    t = t - t.gather(-1, p.detach().argmax(-1, keepdim=True))
    return p * (t - (p * t).sum(-1, keepdim=True))


def _differentiable(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: _Call) -> Tensor:
    """Return o by differentiable operations of torch, which keep all scores."""
    with _exactly(q):
        p = _weights(_scores(q.to(_accumulator(q.dtype)), _spread(k, q), mask, call))
        return (p @ _spread(v, q)).to(q.dtype)


def _plain_forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: _Call) -> tuple[Tensor, Tensor]:
    o = _like(q, q.shape[1], v.shape[-1])
    with _exactly(q):
        s = _scores(q.to(_accumulator(q.dtype)), _spread(k, q), mask, call)
        lse = torch.logsumexp(s, -1)
        lse = torch.where(lse == -math.inf, math.inf, lse)
        o.copy_(_weights(s) @ _spread(v, q))
    return o, lse.to(_lse_dtype(q)) * LOG2E


def _plain_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, _o: Tensor, _lse: Tensor, call: _Call, wants: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dmask = (q.new_empty(0) for _ in range(4))
    with _exactly(q):
        acc = _accumulator(q.dtype)
        u, x, y, z = do.to(acc), q.to(acc), _spread(k, q), _spread(v, q)
        p = _weights(_scores(x, y, mask, call))
        ds = _centred(p, u @ z.mT)
        if wants & _WANT_Q:
            dq = _like(q, q.shape[1], q.shape[3]).copy_(call.scale * (ds @ y))
        if wants & _WANT_KV:
            dk = _like(k, k.shape[1], k.shape[3]).copy_(_gathered(call.scale * (ds.mT @ x), k))
            dv = _like(v, v.shape[1], v.shape[3]).copy_(_gathered(p.mT @ u, v))
        if mask is not None and wants & _WANT_MASK:
            dmask = ds.sum_to_size(mask.shape).to(mask.dtype)
    return dq, dk, dv, dmask


def _plain_jvp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    _o: Tensor,
    _lse: Tensor,
    tangents: tuple[Tensor, Tensor, Tensor, Tensor | None],
    call: _Call,
) -> Tensor:
    tq, tk, tv, tmask = tangents
    with _exactly(q):
        acc = _accumulator(q.dtype)
        x, y = q.to(acc), _spread(k, q)
        p = _weights(_scores(x, y, mask, call))
        ts = call.scale * (tq.to(acc) @ y.mT + x @ _spread(tk, q).mT)
        to = _centred(p, ts if tmask is None else ts + tmask) @ _spread(v, q) + p @ _spread(tv, q)
    return _like(q, q.shape[1], v.shape[-1]).copy_(to)


def _second(
    primals: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor],
    tangents: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    call: _Call,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Output and gradients (o, dq, dk, dv, dmask), differentiated along a direction of q, k, v, mask and do.

    Both derivatives of backward are this one: forward mode by definition, and reverse mode because the gradient of
    <g, backward> by the primals is the derivative of backward along g (second derivatives are symmetric), and that by
    do the derivative of o along g. Made of differentiable operations of torch, so that third derivatives are right.
    """
    (q, k, v, mask, do), (tq, tk, tv, tmask, tdo) = primals, tangents
    acc, a = _accumulator(q.dtype), call.scale
    with _exactly(q):
        x, y, z, u = q.to(acc), _spread(k, q), _spread(v, q), do.to(acc)
        tx, ty, tz = tq.to(acc), _spread(tk, q), _spread(tv, q)
        tu = torch.zeros_like(u) if tdo is None else tdo.to(acc)
        p = _weights(_scores(x, y, mask, call))
        ts = a * (tx @ y.mT + x @ ty.mT)
        tp = _centred(p, ts if tmask is None else ts + tmask)
        dp = u @ z.mT
        ds = _centred(p, dp)
        turned = tp * (dp - (p * dp).sum(-1, keepdim=True))
        tds = turned - p * turned.sum(-1, keepdim=True) + _centred(p, tu @ z.mT + u @ tz.mT)
        to = tp @ z + p @ tz
        tdq = a * (tds @ y + ds @ ty)
        tdk, tdv = a * (tds.mT @ x + ds.mT @ tx), tp.mT @ u + p.mT @ tu
        by_mask = None if mask is None or mask.dtype == torch.bool else tds.sum_to_size(mask.shape).to(mask.dtype)
    return to.to(q.dtype), tdq.to(q.dtype), _gathered(tdk, k), _gathered(tdv, v), by_mask


# ---------------------------------------------------------------------------------------------- registered ops
#
# What torch.compile, torch.export and fake tensors see. Their names end in the name of this module once it is copied,
# so that the copy and the original can be loaded side by side.

_WANT_Q, _WANT_KV, _WANT_MASK = 1, 2, 4


def _suffix() -> str:
    """What tells these operators from those of copies, and of earlier loads of this file, which may still be called.

    To register an operator again frees the memory of the one before.
    """
    own = (
        ""
        if __name__ == "gradverify.catalogue.attention"
        else "_" + "".join(c if c.isalnum() else "_" for c in __name__)
    )
    numbered = (own if n == 1 else f"{own}_{n}" for n in itertools.count(1))
    return next(s for s in numbered if not hasattr(torch.ops.gradverify_catalogue, f"attention_forward{s}"))


_SUFFIX = _suffix()


def _operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    return torch.library.custom_op(f"gradverify_catalogue::attention_{name}{_SUFFIX}", mutates_args=())


def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    lo: int | None,
    hi: int | None,
    backend: str,
    tiles: list[int],
    deterministic: bool,  # noqa: FBT001 (the schema of the op)
) -> tuple[Tensor, Tensor]:
    """Return o and lse."""
    run = _plain_forward if backend == "torch" else _triton_forward
    return run(q, k, v, mask, _Call(scale, lo, hi, backend, tuple(tiles), deterministic))


def _backward_op(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    o: Tensor,
    lse: Tensor,
    scale: float,
    lo: int | None,
    hi: int | None,
    backend: str,
    tiles: list[int],
    deterministic: bool,  # noqa: FBT001
    wants: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, dmask; those that are not wanted are empty."""
    run = _plain_backward if backend == "torch" else _triton_backward
    return run(do, q, k, v, mask, o, lse, _Call(scale, lo, hi, backend, tuple(tiles), deterministic), wants)


def _jvp_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    o: Tensor,
    lse: Tensor,
    tq: Tensor,
    tk: Tensor,
    tv: Tensor,
    tmask: Tensor | None,
    scale: float,
    lo: int | None,
    hi: int | None,
    backend: str,
    tiles: list[int],
    deterministic: bool,  # noqa: FBT001 (the schema of the op)
) -> Tensor:
    """The tangent of o."""
    run = _plain_jvp if backend == "torch" else _triton_jvp
    return run(q, k, v, mask, o, lse, (tq, tk, tv, tmask), _Call(scale, lo, hi, backend, tuple(tiles), deterministic))


_forward = _operator("forward")(_forward_op)
_backward = _operator("backward")(_backward_op)
_jvp = _operator("jvp")(_jvp_op)


@_forward.register_fake
def _forward_fake(q: Tensor, _k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(q, q.shape[1], v.shape[-1]), q.new_empty(q.shape[:3], dtype=_lse_dtype(q))


@_backward.register_fake
def _backward_fake(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *others: Any
) -> tuple[Tensor, ...]:
    del do
    wants, none = others[-1], lambda: q.new_empty(0)
    dq = _like(q, q.shape[1], q.shape[3]) if wants & _WANT_Q else none()
    dk = _like(k, k.shape[1], k.shape[3]) if wants & _WANT_KV else none()
    dv = _like(v, v.shape[1], v.shape[3]) if wants & _WANT_KV else none()
    dmask = mask.new_empty(mask.shape) if mask is not None and wants & _WANT_MASK else none()
    return dq, dk, dv, dmask


@_jvp.register_fake
def _jvp_fake(q: Tensor, _k: Tensor, v: Tensor, *_: Any) -> Tensor:
    return _like(q, q.shape[1], v.shape[-1])


# A batch of calls is one call of a larger batch: the kernels know no other way, and need none.


def _fold(n: int, t: Tensor | None, axis: int | None) -> Tensor | None:
    """[n, b, ...] as [n b, ...]; an unbatched tensor counts n times."""
    if t is None:
        return None
    return (t.expand(n, *t.shape) if axis is None else t.movedim(axis, 0)).flatten(0, 1)


def _fold_mask(n: int, b: int, mask: Tensor | None, axis: int | None) -> Tensor | None:
    """A mask [n, 1 or b, ...] as [n b, ...]."""
    if mask is None:
        return None
    mask = mask.expand(n, *mask.shape) if axis is None else mask.movedim(axis, 0)
    return mask.expand(n, b, *mask.shape[2:]).flatten(0, 1)


@_forward.register_vmap
def _forward_vmap(info: Any, axes: Sequence[Any], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    n, q = info.batch_size, _fold(info.batch_size, args[0], axes[0])
    assert q is not None
    k, v = (_fold(n, t, axis) for t, axis in zip(args[1:3], axes[1:3], strict=True))
    found = _forward(q, k, v, _fold_mask(n, q.shape[0] // n, args[3], axes[3]), *args[4:])
    return tuple(t.unflatten(0, (n, q.shape[0] // n)) for t in found), (0, 0)


@_backward.register_vmap
def _backward_vmap(info: Any, axes: Sequence[Any], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    n, mask = info.batch_size, args[4]
    do, q, k, v, o, lse = (_fold(n, args[i], axes[i]) for i in (0, 1, 2, 3, 5, 6))
    assert q is not None
    b, wants = q.shape[0] // n, args[-1]
    dq, dk, dv, dmask = _backward(do, q, k, v, _fold_mask(n, b, mask, axes[4]), o, lse, *args[7:])
    wanted = [wants & _WANT_Q, wants & _WANT_KV, wants & _WANT_KV, mask is not None and wants & _WANT_MASK]
    found = [t.unflatten(0, (n, b)) if w else t for t, w in zip((dq, dk, dv, dmask), wanted, strict=True)]
    if wanted[3]:
        own = mask.shape[0] if axes[4] is None else mask.movedim(axes[4], 0).shape[1]
        found[3] = found[3] if own == b else found[3].sum(1, keepdim=True)
    return tuple(found), tuple(0 if w else None for w in wanted)


@_jvp.register_vmap
def _jvp_vmap(info: Any, axes: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
    n = info.batch_size
    q, k, v, o, lse, tq, tk, tv = (_fold(n, args[i], axes[i]) for i in (0, 1, 2, 4, 5, 6, 7, 8))
    assert q is not None
    b = q.shape[0] // n
    mask, tmask = (_fold_mask(n, b, args[i], axes[i]) for i in (3, 9))
    return _jvp(q, k, v, mask, o, lse, tq, tk, tv, tmask, *args[10:]).unflatten(0, (n, b)), 0


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """What backward of the registered op needs; lse is not meant to be differentiated."""
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.call = inputs[4:]
    ctx.set_materialize_grads(False)


def _registered_backward(ctx: Any, do: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
    if dlse is not None:
        raise NotImplementedError(
            "attention: the saved lse has no gradient; differentiate the output, or torch.logsumexp of the scores."
        )
    if do is None:
        return (None,) * 10
    wants = _wants(ctx.needs_input_grad[:4])
    found = _backward(do, *ctx.saved_tensors, *ctx.call, wants)
    return (*_asked(found, ctx.needs_input_grad[:4]), *[None] * 6)


_forward.register_autograd(_registered_backward, setup_context=_keep)


def _wants(needs: Sequence[bool]) -> int:
    q, k, v, mask = needs
    return _WANT_Q * q | _WANT_KV * (k or v) | _WANT_MASK * mask


def _asked(found: Sequence[Tensor | None], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    return tuple(t if need else None for t, need in zip(found, needs, strict=True))


# ---------------------------------------------------------------------------------------------------- autograd


def _run(op: Any, function: Callable[..., Any], q: Tensor, call: _Call, *args: Any) -> Any:
    """The registered op; but what is to be compiled only, on meta tensors, goes to the launches themselves."""
    return (function if q.is_meta and call.backend == "triton" else op)(*args)


class Attention(torch.autograd.Function):
    """o = p v with p = softmax(s), s = scale q kᵀ + mask, and lse of s, which carries no gradient.

        backward   dv = pᵀ u     ds = p (u vᵀ - <u, o>)     dq = scale ds k     dk = scale dsᵀ q     dmask = ds
        jvp        o' = (p (s' - <p, s'>)) v + p v'          s' = scale (q' kᵀ + q k'ᵀ) + mask'

    Kept: q, k, v, mask, o and lse; p is computed again from s and lse. Rows that see nothing have p = 0.

    Shapes: as in `attention`, the mask with all four axes; lse [b, h, m].
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: _Call) -> tuple[Tensor, Tensor]:
        """Return o and lse."""
        return cast("tuple[Tensor, Tensor]", _run(_forward, _forward_op, q, call, q, k, v, mask, *call.flat()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep all of them."""
        *tensors, ctx.call = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Return dq, dk, dv, dmask."""
        needs = ctx.needs_input_grad[:4]
        found = AttentionBackward.apply(cotangents[0], *ctx.saved_tensors, ctx.call, _wants(needs))
        return (*_asked(found, needs), None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None]:
        """Return the tangent of o."""
        saved = ctx.saved_tensors
        found = AttentionJvp.apply(*saved, *_tangents(saved[:4], tangents[:4]), ctx.call)
        return cast("Tensor", found), None


class AttentionBackward(torch.autograd.Function):
    """The gradients of `Attention` as a function of u, q, k, v and mask; its own derivatives are plain PyTorch.

    They need memory for all scores. o and lse are taken for what they are, functions of the others, so that they get no
    gradient here.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        u: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        o: Tensor,
        lse: Tensor,
        call: _Call,
        wants: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return dq, dk, dv, dmask, empty where they are not wanted."""
        found = _run(_backward, _backward_op, q, call, u, q, k, v, mask, o, lse, *call.flat(), wants)
        return cast("tuple[Tensor, Tensor, Tensor, Tensor]", found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep u, q, k, v and mask."""
        *tensors, _, _, ctx.call, wants = inputs
        ctx.wanted = [bool(wants & w) for w in (_WANT_Q, _WANT_KV, _WANT_KV, _WANT_MASK)]
        ctx.mark_non_differentiable(*[t for t, wanted in zip(output, ctx.wanted, strict=True) if not wanted])
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by u, q, k, v and mask."""
        u, *primals = ctx.saved_tensors
        along = _tangents(primals, _asked(cotangents, ctx.wanted))
        found = _second((*primals, u), (*along, None), ctx.call)
        return (*_asked(found, ctx.needs_input_grad[:5]), None, None, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the tangents of dq, dk, dv and dmask."""
        u, *primals = ctx.saved_tensors
        along = _tangents(primals, tangents[1:5])
        return _asked(_second((*primals, u), (*along, tangents[0]), ctx.call)[1:], ctx.wanted)


class AttentionJvp(torch.autograd.Function):
    """The tangent of o as a function of q, k, v, mask and their tangents; forward mode over it is refused."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        o: Tensor,
        lse: Tensor,
        tq: Tensor,
        tk: Tensor,
        tv: Tensor,
        tmask: Tensor | None,
        call: _Call,
    ) -> Tensor:
        """Return o'."""
        found = _run(_jvp, _jvp_op, q, call, q, k, v, mask, o, lse, tq, tk, tv, tmask, *call.flat())
        return cast("Tensor", found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Tensor) -> None:
        """Keep all of them."""
        *tensors, ctx.call = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by q, k, v, mask (of second order) and by their tangents (those of `Attention`)."""
        (u,), saved, needs = cotangents, ctx.saved_tensors, ctx.needs_input_grad
        primals, along = saved[:4], saved[6:10]
        first: tuple[Tensor | None, ...] = (None,) * 4
        second: tuple[Tensor | None, ...] = (None,) * 4
        if any(needs[:4]):
            second = _asked(_second((*primals, u), (*along, None), ctx.call)[1:], needs[:4])
        if any(needs[6:10]):
            found = AttentionBackward.apply(u, *saved[:6], ctx.call, _wants(needs[6:10]))
            first = _asked(found, needs[6:10])
        return (*second, None, None, *first, None)

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Tensor) -> Tensor:
        """Refuse."""
        raise NotImplementedError(
            "attention: forward mode over forward mode is not implemented; take one of the two in reverse mode, "
            "as torch.func.jacfwd(torch.func.grad(f)) does."
        )


def _tangents(
    primals: Sequence[Tensor | None], tangents: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Tangents of q, k, v and mask: zeros where there is none, None for a mask that has none."""
    *qkv, mask = tangents
    filled = [torch.zeros_like(cast("Tensor", p)) if t is None else t for p, t in zip(primals, qkv, strict=False)]
    kept = None if primals[3] is None or primals[3].dtype == torch.bool else mask
    return filled[0], filled[1], filled[2], kept


# ---------------------------------------------------------------------------------------- the function, and its checks


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    align: Literal["lower_right", "upper_left"] = "lower_right",
    window: int | tuple[int | None, int | None] | None = None,
    scale: float | None = None,
    deterministic: bool = True,
    backend: Literal["auto", "torch", "triton", "interpret"] = "auto",
    tiles: Tiles | None = None,
) -> Tensor:
    """Softmax attention, o = softmax(scale q kᵀ + mask) v, keeping only o and one number per row for backward.

    Row i sees key j where the mask, `causal` and `window` all allow it. A row that sees nothing gives 0, and gradients
    0. The diagonal is j = i + c with c = 0 (`upper_left`) or c = n - m (`lower_right`):

        causal           j <= i + c
        window (l, r)    i + c - l <= j <= i + c + r; None is no bound; an int w is (w, w), and (w, 0) where causal

    Both alignments agree for as many rows as keys. `lower_right` is that of decoding with cached keys (the last row
    sees all keys), `upper_left` that of `is_causal=True` of torch's scaled_dot_product_attention.

    Deterministic, unless `deterministic=False`: backward makes dk and dv in one kernel and dq in another, and nothing
    is added up in an order that varies. Extra memory is O(m) beside the gradients; a mask that requires grad costs its
    own gradient in full, [b, h, m, n], also where it broadcasts. Second derivatives are right, but made in plain
    PyTorch with all scores in memory; so is forward mode inside of torch.compile. Forward mode over forward mode is
    refused. Under autocast q, k and v are cast to its dtype, unless they are float64.

    Args:
        q: [b, h, m, d], float16, bfloat16, float32 or float64; any strides. h is a multiple of hk: grouped queries.
        k: [b, hk, n, d].
        v: [b, hk, n, dv].
        mask: boolean (True: may be seen), or floating and added to the scores, -inf included, in q's dtype or float32;
            anything that broadcasts to [b, h, m, n]. Floating ones are differentiable.
        causal: see above.
        align: where the diagonal of `causal` and `window` lies if m != n.
        window: see above; counts are at least 0.
        scale: finite; None for 1 / sqrt(d).
        deterministic: False lets the kernels make dq beside dk and dv: 5 products of matrices instead of 7, and dq not
            deterministic. Its T parts, one for each tile of keys, are then added in the order in which programs come by
            (`atomic_add`), so that two backward calls on equal inputs may differ in dq, before it is rounded to q's
            dtype, by up to 2 (T - 1) u Σ|part|, u being the unit roundoff of the sums (2⁻²⁴; of float64 2⁻⁵³). All else
            keeps its bits: the output, dk, dv, the mask's gradient, the forward mode, and dq itself where neither k nor
            v requires grad. Extra memory: dq once more in the dtype of the sums, [b, h, m, d]. Second derivatives and
            plain PyTorch do not change.
        backend: `auto` is `triton` for CUDA tensors and `torch` otherwise. `interpret` runs the kernels in Triton's
            interpreter, for verification: start Python with TRITON_INTERPRET=1.
        tiles: tile sizes, warps and stages of the kernels; None for those of a table.

    Returns:
        o [b, h, m, dv] in q's dtype. Sums are taken in float32, of float64 in float64.

    Raises:
        TypeError: something is no dense tensor, a dtype or the kind of an option is not as said, or q, k and v differ
            in dtype.
        ValueError: a shape or an option does not fit, devices differ, or the kernels cannot take this head_dim.
        RuntimeError: the backend is not to be had: Triton is missing, or the device has none; and in backward, where
            `deterministic=False` meets torch.use_deterministic_algorithms(True), which with warn_only warns.

    Source: Dao 2023, arXiv:2307.08691; Shazeer 2019, arXiv:1911.02150; Ainslie et al. 2023, arXiv:2305.13245 (groups).
    """
    for name, t in (("q", q), ("k", k), ("v", v), ("mask", mask)):
        _check_kind(name, t)
    q, k, v = map(_autocast, (q, k, v))
    _check_tensors(q, k, v)
    _check_mask(mask, q, k)
    lo, hi = _band(q.shape[2], k.shape[2], causal=causal, align=align, window=window)
    _check_scale(scale)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    _check_bool("deterministic", deterministic)
    chosen = _backend(backend, q, v, tiles, deterministic=deterministic)
    flat = () if tiles is None else sum(astuple(tiles), ())
    call = _Call(float(scale), lo, hi, chosen, flat, deterministic)
    mask = None if mask is None else mask[(None,) * (4 - mask.ndim)]
    if torch.compiler.is_compiling():  # it cannot trace a Function with a jvp
        # A registered op has no forward mode: its output would have no tangent.
        if forward_ad._current_level >= 0:  # noqa: SLF001
            return _differentiable(q, k, v, mask, call)
        return cast("Tensor", _forward(q, k, v, mask, *call.flat())[0])
    return cast("Tensor", Attention.apply(q, k, v, mask, call)[0])


def _autocast(t: Tensor) -> Tensor:
    """The tensor as autocast wants it: in its dtype where it is on and t neither float64 nor integer."""
    device = t.device.type
    if device == "meta" or t.dtype == torch.float64 or not t.is_floating_point():
        return t
    return t.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else t


def _band(
    rows: int, columns: int, *, causal: bool, align: str, window: int | tuple[int | None, int | None] | None
) -> tuple[int | None, int | None]:
    """(lo, hi): row i sees j where i + lo <= j <= i + hi, None for no bound."""
    if align not in ("lower_right", "upper_left"):
        raise ValueError(f"attention: align must be lower_right or upper_left, got {align!r}; choose one of them.")
    _check_bool("causal", causal)
    given: object = window
    sides = tuple(given) if isinstance(given, tuple | list) else (given, 0 if causal else given)
    if len(sides) != 2 or not all(w is None or (_is_int(w) and w >= 0) for w in sides):
        raise ValueError(
            f"attention: window must count keys from 0 on, got {sides}; None is no bound on that side, and (left, "
            "right) are two Python integers."
        )
    # Farther than all rows and columns is everywhere, and bounds fit into 32 bits.
    left, right = (None if w is None else min(w, rows + columns) for w in cast("tuple[int | None, ...]", sides))
    if causal and right:
        raise ValueError(
            f"attention: causal shows no key right of the diagonal, but window is {window}; pass "
            f"window=({left}, 0), or causal=False."
        )
    right = 0 if causal else right
    offset = columns - rows if align == "lower_right" else 0
    return None if left is None else offset - left, None if right is None else offset + right


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"attention: {name} must be True or False, got {value!r}; choose one of them.")


def _check_kind(name: str, t: object) -> None:
    if name == "mask" and t is None:
        return
    if not isinstance(t, Tensor):
        raise TypeError(f"attention: {name} must be a tensor, got {type(t).__name__}; pass torch.as_tensor({name}).")
    if t.is_nested or t.layout != torch.strided:
        kind = "nested" if t.is_nested else t.layout
        raise TypeError(
            f"attention: {name} must be dense, but it is {kind}; pass "
            f"{f'torch.nested.to_padded_tensor({name}, 0.0) and a mask' if t.is_nested else f'{name}.to_dense()'}."
        )


def _check_scale(scale: object) -> None:
    number = isinstance(scale, float | int) and not isinstance(scale, bool)
    if scale is not None and not (number and abs(cast("float", scale)) <= sys.float_info.max):
        raise ValueError(f"attention: scale must be a finite number, got {scale!r}; None is 1 / sqrt(d).")


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise TypeError(
                f"attention: {name} must be float16, bfloat16, float32 or float64, but its dtype is {t.dtype}; cast it."
            )
        if t.ndim != 4:
            raise ValueError(
                f"attention: {name} must be [batch, heads, rows, features], got {tuple(t.shape)}; add axes of size 1, "
                "and for [batch, rows, heads, features] pass the transpose(1, 2)."
            )
    for name, t in (("k", k), ("v", v)):
        if t.dtype != q.dtype:
            raise TypeError(f"attention: {name} must be {q.dtype} as q, but is {t.dtype}; cast one of them.")
        if t.device != q.device:
            raise ValueError(f"attention: {name} must be on {q.device} as q, but is on {t.device}; move one of them.")
    if q.shape[-1] == 0 or k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"attention: q and k must have the same features, at least 1, got {tuple(q.shape)} and {tuple(k.shape)}; "
            "project them to the same head_dim."
        )
    if v.shape[-1] == 0 or k.shape[0] != q.shape[0] or v.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"attention: q [b, h, m, d], k [b, hk, n, d] and v [b, hk, n, dv >= 1] must agree in b, hk and n, got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}; expand the batch axis where one is shared."
        )
    if k.shape[1] == 0 or q.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"attention: the heads of q must be a multiple of those of k and v, got {q.shape[1]} and {k.shape[1]}; "
            "each head of k serves as many of q in a row."
        )


def _check_mask(mask: Tensor | None, q: Tensor, k: Tensor) -> None:
    if mask is None:
        return
    if mask.dtype not in (torch.bool, torch.float32, q.dtype):
        raise TypeError(
            f"attention: mask must be bool, float32 or {q.dtype} as q, but its dtype is {mask.dtype}; pass mask.bool() "
            "for one of zeros and ones, where 1 may be seen."
        )
    if mask.device != q.device:
        raise ValueError(f"attention: mask must be on {q.device} as q, but is on {mask.device}; move one of them.")
    shape = (*q.shape[:3], k.shape[2])
    if mask.ndim > 4 or any(n not in (1, s) for n, s in zip(reversed(mask.shape), reversed(shape), strict=False)):
        raise ValueError(
            f"attention: mask {tuple(mask.shape)} must broadcast to the scores {tuple(shape)}; for one of "
            "keys per batch pass mask[:, None, None, :]."
        )


def _backend(backend: str, q: Tensor, v: Tensor, tiles: Tiles | None, *, deterministic: bool) -> str:
    """torch, triton or interpret. Raises what the user should know before anything is launched."""
    if backend not in ("auto", "torch", "triton", "interpret"):
        raise ValueError(
            f"attention: backend must be auto, torch, triton or interpret, got {backend!r}; choose one of them."
        )
    _check_tiles(tiles, 16 if backend == "triton" or (triton is not None and not INTERPRETED) else 1)
    device = q.device.type
    if backend == "auto":
        backend = "torch" if device != "cuda" else "interpret" if INTERPRETED else "triton"
    if backend == "torch":
        return backend
    if triton is None:
        raise RuntimeError(
            f"attention: backend {backend!r} needs triton, which is not installed; `pip install triton`, or pass "
            "backend='torch', which keeps all scores in memory."
        )
    if (backend == "interpret") != INTERPRETED:
        raise RuntimeError(
            f"attention: backend {backend!r}, but triton was imported with{'' if INTERPRETED else 'out'} "
            f"TRITON_INTERPRET=1; {'unset it' if INTERPRETED else 'set it'} before Python starts, or pass "
            "backend='torch'."
        )
    if backend == "triton" and device not in ("cuda", "meta"):
        raise RuntimeError(
            f"attention: backend 'triton' needs a CUDA device, but q is on {q.device}; move q, k and v there, or pass "
            "backend='torch'."
        )
    for name, t in (("q", q), ("v", v)):
        if t.shape[-1] > LARGEST_HEAD:
            raise ValueError(
                f"attention: the kernels take head_dim up to {LARGEST_HEAD}, which fits into shared memory, but {name} "
                f"is {tuple(t.shape)}; pass backend='torch', or split the head."
            )
    if torch.compiler.is_compiling():  # it cannot trace what asks the driver; Triton says what does not fit
        return backend
    if device == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(q.device) < (8, 0):
        raise RuntimeError(
            f"attention: Triton needs compute capability 8.0, but {q.device} has "
            f"{'.'.join(map(str, torch.cuda.get_device_capability(q.device)))}; pass backend='torch'."
        )
    if backend == "triton":
        if device == "meta" and tiles is None:
            _check_driver()
        _check_shared(q, v, tiles or _fitting(q, v), deterministic=deterministic)
    return backend


def _check_driver() -> None:
    """Meta tensors are compiled for whatever GPU Triton's driver names."""
    try:
        triton.runtime.driver.active.get_current_target()
    except RuntimeError as error:
        raise RuntimeError(
            "attention: backend 'triton' compiles for meta tensors, but Triton finds no GPU to compile for; name one "
            "by triton.runtime.driver.set_active, or pass backend='auto' for shapes alone."
        ) from error


def _check_tiles(tiles: object, least: int) -> None:
    if tiles is None:
        return
    if not isinstance(tiles, Tiles):
        raise TypeError(f"attention: tiles must be this file's Tiles, got {tiles!r}; None takes those of a table.")
    for name, tile in vars(tiles).items():
        if not (isinstance(tile, tuple) and len(tile) == 4 and all(map(_is_int, tile)) and _is_tile(tile, least)):
            raise ValueError(
                f"attention: tiles.{name} must be (rows, columns, num_warps, num_stages), the first three powers "
                f"of 2 and tiles from {least} on, got {tile}; None takes those of the table."
            )


def _is_tile(tile: tuple[int, ...], least: int) -> bool:
    powers = all(n > 0 and not n & (n - 1) for n in tile[:3])
    return powers and min(tile[:2]) >= least and tile[2] <= 32 and tile[3] >= 1


def _check_shared(q: Tensor, v: Tensor, tiles: Tiles, *, deterministic: bool) -> None:
    size, padded, capacity = q.element_size(), _padded(q, v), _capacity(q.device)
    for name, tile in vars(tiles).items():
        needed = _shared(name, tile, size, *padded)
        if needed > capacity and not (name == "fused" and deterministic):
            raise ValueError(
                f"attention: {name} with tiles {tile} needs {needed} bytes of shared memory for q {tuple(q.shape)} "
                f"in {q.dtype}, but a program has {capacity}; pass smaller tiles, "
                f"{'deterministic=True, ' if name == 'fused' else ''}or backend='torch'."
            )
