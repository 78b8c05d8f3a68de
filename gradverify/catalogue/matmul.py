"""Matrix product, bias and activation in one kernel: y = act(x @ w + b), with fused backward and forward mode.

This file needs torch and, for its kernels, triton; nothing else: copy it as it is. On CUDA tensors it runs Triton
kernels, elsewhere plain PyTorch with the same Functions, and on request (TRITON_INTERPRET=1) the kernels on a CPU.

Notation: z = x @ w + b, a = act, u the cotangent of y, x' w' b' tangents, z' = x' w + x w' + b'.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

try:
    import triton
    import triton.language as tl
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # plain PyTorch remains
    triton = tl = TensorDescriptor = None

Activation = Literal["none", "relu", "gelu", "gelu_tanh", "silu"]
Backend = Literal["auto", "torch", "triton", "interpret"]
Kernel = Literal["forward", "slope", "tangent"]

ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu")
SAVES = ("input", "preactivation")
BACKENDS = ("auto", "torch", "triton", "interpret")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

_jit: Callable[[Any], Any] = (lambda kernel: kernel) if triton is None else triton.jit


class Tiles(NamedTuple):
    """How a launch is cut: tiles of m x n outputs, k products at a time, `group` rows of tiles side by side in L2.

    m, n and k are powers of 2, at least 16 on a GPU; warps and stages are Triton's num_warps and num_stages. With `tma`
    products go through tensor descriptors wherever strides allow it, in one program per multiprocessor (Hopper on).
    """

    m: int
    n: int
    k: int
    group: int = 8
    warps: int = 4
    stages: int = 3
    tma: bool = False


# Kernels. Outputs are contiguous; inputs have any strides. ACC is float64 for float64, else float32; WIDE says that
# offsets need 64 bits. Outside of a matrix counts as 0, and nothing is loaded or stored there.


@_jit
def _sigmoid(z: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(-z)) without overflow."""
    e = tl.exp(-tl.abs(z))
    return tl.where(z >= 0, 1.0, e) / (1.0 + e)


@_jit
def _near(z: tl.tensor) -> tl.tensor:
    """Return z within -50 ... 50, beyond which densities are 0, the sigmoid is 0 or 1, and powers might overflow."""
    return tl.minimum(tl.maximum(z, -50.0), 50.0)


@_jit
def _gate(z: tl.tensor) -> tl.tensor:
    """Return 2 sqrt(2 / pi) (z + 0.044715 z^3)."""
    near = _near(z)
    return 1.5957691216057308 * (near + 0.044715 * near * near * near)


@_jit
def _normal(z: tl.tensor) -> tl.tensor:
    """Return the normal distribution's Phi(z), accurate also where it is small, and exp(-z^2 / 2).

    1 + erf(z) has no digits left far below 0. Phi(-|z|) exp(z^2 / 2) / t is smooth in t = 1 / (1 + |z| / 4),
    and interpolated here at Chebyshev nodes, in float64 to 3 roundings and in float32 to 3.
    """
    near = _near(z)
    e, t = tl.exp(-0.5 * near * near), 1.0 / (1.0 + 0.25 * tl.abs(z))
    s = 2.0 * t - 1.0
    if z.dtype == tl.float64:
        p = -4.434351260987277e-10 * s + 3.211454717481317e-10
        p = (p * s + 4.1340111938766006e-09) * s - 4.9020847852348786e-09
        p = (p * s - 1.997462688140565e-08) * s + 4.0579794201183914e-08
        p = (p * s + 6.655819747208905e-08) * s - 2.5677372017785853e-07
        p = (p * s - 1.5655171917399e-07) * s + 1.4807449569186901e-06
        p = (p * s + 1.7881843773272038e-07) * s - 8.786411146455962e-06
        p = (p * s - 4.769768720984189e-07) * s + 5.777378769692185e-05
        p = (p * s + 3.3336064725932094e-05) * s - 0.0004077046219705911
        p = (p * s - 0.0008699230907225889) * s + 0.0018850472422843282
        p = (p * s + 0.0150991437226906) * s + 0.0466304644898918
        p = (p * s + 0.09678435018555413) * s + 0.15197416049297327
        p = p * s + 0.18882128260393788
    else:
        p = 4.06540789120999e-05 * s + 3.2335030768351044e-05
        p = (p * s - 0.00039393802029191136) * s - 0.0008690491150621521
        p = (p * s + 0.001880313882530566) * s + 0.015098828357548532
        p = (p * s + 0.04663104607903099) * s + 0.09678438987361293
        p = (p * s + 0.15197414889943234) * s + 0.18882128180910995
    tail = e * t * p
    return tl.where(z < 0, tail, 1.0 - tail), e


@_jit
def _value(z: tl.tensor, ACT: tl.constexpr) -> tl.tensor:
    """a(z). tanh t is 2 sigmoid(2 t) - 1, so gelu_tanh is z sigmoid(2 t)."""
    y = z
    if ACT == "relu":
        y = tl.where(z <= 0, 0.0, z)  # NaN stays
    elif ACT == "gelu":
        phi, _ = _normal(z)
        y = z * phi
    elif ACT == "gelu_tanh":
        y = z * _sigmoid(_gate(z))
    elif ACT == "silu":
        y = z * _sigmoid(z)
    return y


@_jit
def _sloped(t: tl.tensor, z: tl.tensor, ACT: tl.constexpr) -> tl.tensor:
    """Return t a'(z)."""
    r = t
    if ACT == "relu":
        r = tl.where(z <= 0, 0.0, t)
    elif ACT == "gelu":
        phi, e = _normal(z)
        r = t * (phi + _near(z) * e * 0.3989422804014327)
    elif ACT == "gelu_tanh":
        s, near = _sigmoid(_gate(z)), _near(z)
        r = t * (s + near * s * (1.0 - s) * (1.5957691216057308 + 0.21406444881780076 * near * near))
    elif ACT == "silu":
        s = _sigmoid(z)
        r = t * (s + z * s * (1.0 - s))
    return r


@_jit
def _order(
    tile: tl.tensor, M: tl.tensor, N: tl.tensor, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr
) -> tl.tensor:
    """Return the row and the column of a tile: GROUP tiles down, then one to the right."""
    down, right = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    first = tile // (GROUP * right) * GROUP
    height = tl.minimum(down - first, GROUP)
    return first + tile % (GROUP * right) % height, tile % (GROUP * right) // height


@_jit
def _place(
    M: tl.tensor,
    N: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """Return the row of tiles, the rows and the columns of this program."""
    tile_m, tile_n = _order(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP)
    if WIDE:
        tile_m, tile_n = tile_m.to(tl.int64), tile_n.to(tl.int64)
    return tile_m, tile_m * BLOCK_M + tl.arange(0, BLOCK_M), tile_n * BLOCK_N + tl.arange(0, BLOCK_N)


@_jit
def _add_product(
    acc: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
    rows: tl.tensor,
    cols: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    a_row: tl.tensor,
    a_col: tl.tensor,
    b_row: tl.tensor,
    b_col: tl.tensor,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Return acc + a[rows, :] @ b[:, cols] of a [M, K] and b [K, N]."""
    inner = tl.arange(0, BLOCK_K).to(rows.dtype)
    step = tl.full([], BLOCK_K, rows.dtype)
    a_at = a + rows[:, None] * a_row + inner[None, :] * a_col
    b_at = b + inner[:, None] * b_row + cols[None, :] * b_col
    in_rows, in_cols = (rows < M)[:, None], (cols < N)[None, :]
    for done in range(0, K, BLOCK_K):
        if EVEN_K:
            a_tile = tl.load(a_at, mask=in_rows, other=0.0)
            b_tile = tl.load(b_at, mask=in_cols, other=0.0)
        else:
            left = inner < K - done
            a_tile = tl.load(a_at, mask=in_rows & left[None, :], other=0.0)
            b_tile = tl.load(b_at, mask=in_cols & left[:, None], other=0.0)
        acc = tl.dot(a_tile, b_tile, acc, input_precision=PRECISION, out_dtype=acc.dtype)
        a_at += step * a_col
        b_at += step * b_row
    return acc


@_jit
def forward_kernel(
    x: tl.tensor,
    w: tl.tensor,
    b: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    x_row: tl.tensor,
    x_col: tl.tensor,
    w_row: tl.tensor,
    w_col: tl.tensor,
    b_col: tl.tensor,
    ACT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_K: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Store y [M, N] = a(x @ w + b), and the argument of a in z unless that is None. b may be None, too."""
    _, rows, cols = _place(M, N, BLOCK_M, BLOCK_N, GROUP, WIDE)
    acc = tl.zeros([BLOCK_M, BLOCK_N], ACC)
    acc = _add_product(acc, x, w, rows, cols, M, N, K, x_row, x_col, w_row, w_col, BLOCK_K, EVEN_K, PRECISION)
    if b is not None:
        acc += tl.load(b + cols * b_col, mask=cols < N, other=0.0).to(ACC)[None, :]
    inside = (rows < M)[:, None] & (cols < N)[None, :]
    at = rows[:, None] * N + cols[None, :]
    if z is not None:
        tl.store(z + at, acc.to(z.dtype.element_ty), mask=inside)
    tl.store(y + at, _value(acc, ACT).to(y.dtype.element_ty), mask=inside)


@_jit
def _finish(
    acc: tl.tensor,
    u: tl.tensor,
    b: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    sums: tl.tensor,
    row: tl.tensor,
    col: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    b_col: tl.tensor,
    ACT: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Store a tile of `persistent_kernel`."""
    cols = col + tl.arange(0, WIDTH)
    if b is not None:
        acc += tl.load(b + cols * b_col, mask=cols < N, other=0.0).to(acc.dtype)[None, :]
    if u is not None:
        t = _sloped(u.load([row, col]).to(acc.dtype), acc, ACT)
        y.store([row, col], t.to(y.dtype))
        if sums is not None:
            inside = (row + tl.arange(0, HEIGHT) < M)[:, None]
            tl.store(sums + row // HEIGHT * N + cols, tl.sum(tl.where(inside, t, 0.0), 0), mask=cols < N)
    else:
        if z is not None:
            z.store([row, col], acc.to(z.dtype))
        y.store([row, col], _value(acc, ACT).to(y.dtype))


@_jit
def persistent_kernel(
    u: tl.tensor,
    x: tl.tensor,
    w: tl.tensor,
    b: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    sums: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    b_col: tl.tensor,
    X_FLIPPED: tl.constexpr,
    W_FLIPPED: tl.constexpr,
    SPLIT: tl.constexpr,
    PROGRAMS: tl.constexpr,
    ACT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    """Do what `forward_kernel` does, or given u what `slope_kernel` does, by tensor descriptors of all matrices.

    Each program takes tile after tile, and loads for the next while it stores. SPLIT stores the left and the right half
    of a tile one after the other, which needs fewer registers.
    """
    tiles = tl.cdiv(M, BLOCK_M) * tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=True):
        tile_m, tile_n = _order(tile, M, N, BLOCK_M, BLOCK_N, GROUP)
        row, col = tile_m * BLOCK_M, tile_n * BLOCK_N
        acc = tl.zeros([BLOCK_M, BLOCK_N], ACC)
        for done in range(0, K, BLOCK_K):
            x_tile = x.load([done, row]).T if X_FLIPPED else x.load([row, done])
            w_tile = w.load([col, done]).T if W_FLIPPED else w.load([done, col])
            acc = tl.dot(x_tile, w_tile, acc, input_precision=PRECISION, out_dtype=acc.dtype)
        if SPLIT:
            half: tl.constexpr = BLOCK_N // 2
            left, right = tl.split(tl.permute(tl.reshape(acc, [BLOCK_M, 2, half]), [0, 2, 1]))
            _finish(left, u, b, y, z, sums, row, col, M, N, b_col, ACT, BLOCK_M, half)
            _finish(right, u, b, y, z, sums, row, col + half, M, N, b_col, ACT, BLOCK_M, half)
        else:
            _finish(acc, u, b, y, z, sums, row, col, M, N, b_col, ACT, BLOCK_M, BLOCK_N)


@_jit
def slope_kernel(
    u: tl.tensor,
    x: tl.tensor,
    w: tl.tensor,
    b: tl.tensor,
    z: tl.tensor,
    dz: tl.tensor,
    sums: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    u_row: tl.tensor,
    u_col: tl.tensor,
    x_row: tl.tensor,
    x_col: tl.tensor,
    w_row: tl.tensor,
    w_col: tl.tensor,
    b_col: tl.tensor,
    z_row: tl.tensor,
    z_col: tl.tensor,
    ACT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_K: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Store dz [M, N] = u a'(z), z recomputed where it is None; in sums [tiles, N] what each tile's rows add to db."""
    tile, rows, cols = _place(M, N, BLOCK_M, BLOCK_N, GROUP, WIDE)
    inside = (rows < M)[:, None] & (cols < N)[None, :]
    if z is not None:
        acc = tl.load(z + rows[:, None] * z_row + cols[None, :] * z_col, mask=inside, other=0.0).to(ACC)
    else:
        acc = tl.zeros([BLOCK_M, BLOCK_N], ACC)
        acc = _add_product(acc, x, w, rows, cols, M, N, K, x_row, x_col, w_row, w_col, BLOCK_K, EVEN_K, PRECISION)
        if b is not None:
            acc += tl.load(b + cols * b_col, mask=cols < N, other=0.0).to(ACC)[None, :]
    t = tl.load(u + rows[:, None] * u_row + cols[None, :] * u_col, mask=inside, other=0.0).to(ACC)
    t = _sloped(t, acc, ACT)
    tl.store(dz + rows[:, None] * N + cols[None, :], t.to(dz.dtype.element_ty), mask=inside)
    if sums is not None:
        tl.store(sums + tile * N + cols, tl.sum(tl.where(inside, t, 0.0), 0), mask=cols < N)


@_jit
def tangent_kernel(
    x: tl.tensor,
    w: tl.tensor,
    b: tl.tensor,
    z: tl.tensor,
    dx: tl.tensor,
    dw: tl.tensor,
    db: tl.tensor,
    y: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    x_row: tl.tensor,
    x_col: tl.tensor,
    w_row: tl.tensor,
    w_col: tl.tensor,
    b_col: tl.tensor,
    z_row: tl.tensor,
    z_col: tl.tensor,
    dx_row: tl.tensor,
    dx_col: tl.tensor,
    dw_row: tl.tensor,
    dw_col: tl.tensor,
    db_col: tl.tensor,
    ACT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_K: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Store y [M, N] = a'(z) (dx @ w + x @ dw + db) for tangents dx, dw and db, each of which may be None."""
    _, rows, cols = _place(M, N, BLOCK_M, BLOCK_N, GROUP, WIDE)
    inside = (rows < M)[:, None] & (cols < N)[None, :]
    t = tl.zeros([BLOCK_M, BLOCK_N], ACC)
    if dx is not None:
        t = _add_product(t, dx, w, rows, cols, M, N, K, dx_row, dx_col, w_row, w_col, BLOCK_K, EVEN_K, PRECISION)
    if dw is not None:
        t = _add_product(t, x, dw, rows, cols, M, N, K, x_row, x_col, dw_row, dw_col, BLOCK_K, EVEN_K, PRECISION)
    if db is not None:
        t += tl.load(db + cols * db_col, mask=cols < N, other=0.0).to(ACC)[None, :]
    if ACT != "none":
        if z is not None:
            acc = tl.load(z + rows[:, None] * z_row + cols[None, :] * z_col, mask=inside, other=0.0).to(ACC)
        else:
            acc = tl.zeros([BLOCK_M, BLOCK_N], ACC)
            acc = _add_product(acc, x, w, rows, cols, M, N, K, x_row, x_col, w_row, w_col, BLOCK_K, EVEN_K, PRECISION)
            if b is not None:
                acc += tl.load(b + cols * b_col, mask=cols < N, other=0.0).to(ACC)[None, :]
        t = _sloped(t, acc, ACT)
    tl.store(y + rows[:, None] * N + cols[None, :], t.to(y.dtype.element_ty), mask=inside)


# Launches


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Run a kernel over a grid; on meta tensors only compile it. Every launch of this file goes through here."""
    if any(getattr(a, "base", a).is_meta for a in args if isinstance(a, (Tensor, TensorDescriptor))):
        kernel.warmup(*args, grid=grid, **options)
    else:
        kernel[grid](*args, **options)


def interpreted() -> bool:
    """Whether the kernels were made for Triton's interpreter: TRITON_INTERPRET=1 stood when this file was imported."""
    return triton is not None and not isinstance(forward_kernel, triton.JITFunction)


def default_tiles(kernel: Kernel, dtype: torch.dtype, arch: int, *, even: bool = True) -> Tiles:
    """The tiles that a kernel gets for operands of a dtype: conservative ones, which compile without spills.

    arch is 10 major + minor of the compute capability, or 0 for the interpreter, whose cost is the number of programs.
    Where rows are not even, in multiples of 16 elements, each element has an address of its own, in registers.
    """
    if arch == 0:
        return Tiles(32, 32, 32)
    if dtype == torch.float64:
        m, n = 32 if kernel == "tangent" else 64, 64 if kernel == "forward" and even else 32
        return Tiles(m, n, 16, warps=4, stages=3)
    halves = 2 if kernel == "tangent" else 1  # it has two accumulators
    if dtype == torch.float32:
        return Tiles(64, 64 // halves, 32, warps=4 if even else 8, stages=2)
    if not even:
        return Tiles(64, 64, 32, warps=8, stages=2)
    return Tiles(128, 128 // halves, 64 if arch >= 90 else 32, warps=8, stages=3)


def _chosen(
    kernel: Kernel, inputs: tuple[Tensor | None, ...], sizes: tuple[int, int, int], tiles: Sequence[int] | None
) -> Tiles:
    """The tiles of a launch: those that were asked for, or the default ones."""
    like = next(a for a in inputs if a is not None)
    arch = _arch(like)
    if tiles is None:
        even = all(_is_even(a) for a in inputs if a is not None and a.ndim == 2)
        t = _fitted(default_tiles(kernel, like.dtype, arch, even=even), sizes)
    else:
        t = _tiles(tiles)
    return _affordable(t, kernel, like.element_size(), arch)


def _is_even(t: Tensor) -> bool:
    """Whether a row, or a column, is 16 elements at a time, with all its vectors at multiples of 16."""
    return any(t.stride(i) == 1 and t.shape[i] % 16 == 0 and t.stride(1 - i) % 16 == 0 for i in (0, 1))


def _affordable(t: Tiles, kernel: Kernel, size: int, arch: int) -> Tiles:
    """Fewer stages where shared memory is short of them; for `tangent` half of n where two accumulators are too many.

    Raises ValueError where not even one stage fits.
    """
    if arch == 0:
        return t
    while kernel == "tangent" and t.m * t.n > 64 * 32 * t.warps and t.n > 16:
        t = t._replace(n=t.n // 2)
    limit = _SHARED.get(arch, 101376)
    stored = t.m * min(t.n, 128) * (2 if kernel == "slope" else 1) * size if t.tma and arch >= 90 else 0
    one = (t.m + t.n) * t.k * size
    stages = min(t.stages, (limit - stored - 1024) // one)
    if stages < 1:
        raise ValueError(
            f"matmul: tiles {t.m} x {t.n} x {t.k} need {one + stored} bytes of shared memory, and there are {limit}; "
            "halve one of them."
        )
    return t._replace(stages=stages)


_SHARED = {80: 166912, 87: 166912, 90: 232448, 100: 232448, 103: 232448}
"""Bytes of shared memory for a block, by compute capability; 101376 on the others."""


def _tiles(members: Sequence[int]) -> Tiles:
    """Return them as named ones; an operator is given a list."""
    m, n, k, group, warps, stages, tma = members
    return Tiles(m, n, k, group, warps, stages, bool(tma))


def _arch(x: Tensor) -> int:
    """10 major + minor of the compute capability; 0 for the interpreter."""
    if interpreted():
        return 0
    if x.is_meta:
        arch = triton.runtime.driver.active.get_current_target().arch
        return arch if isinstance(arch, int) else 80
    major, minor = torch.cuda.get_device_capability(x.device)
    return 10 * major + minor


def _fitted(tiles: Tiles, sizes: tuple[int, int, int]) -> Tiles:
    """Tiles no larger than the sizes need, and no smaller than 16, the least that tensor cores take."""
    m, n, k = (min(t, max(16, 1 << max(s - 1, 0).bit_length())) for t, s in zip(tiles, sizes, strict=False))
    return tiles._replace(m=m, n=n, k=k)


_KERNELS: dict[Kernel, tuple[Any, tuple[int, ...]]] = {
    "forward": (forward_kernel, (2, 2, 1)),
    "slope": (slope_kernel, (2, 2, 2, 1, 2)),
    "tangent": (tangent_kernel, (2, 2, 1, 2, 2, 2, 1)),
}
"""Each kernel with the axes of its inputs. It takes inputs, outputs, M, N, K, and the strides of the inputs."""


def _run(
    name: Kernel,
    inputs: tuple[Tensor | None, ...],
    outputs: tuple[Tensor | None, ...],
    *,
    sizes: tuple[int, int, int],
    act: str,
    tiles: Sequence[int] | None,
) -> None:
    """Launch a kernel for m x n outputs, each a sum of k products."""
    m, n, k = sizes
    if m == 0 or n == 0:
        return
    like = cast("Tensor", outputs[0])
    arch = _arch(like)
    t = _chosen(name, inputs, sizes, tiles)
    options = {
        "ACT": act,
        "ACC": tl.float64 if like.dtype == torch.float64 else tl.float32,
        # Never plain tf32, which keeps 10 bits. Three of it keep float32's and still run on tensor cores.
        "PRECISION": "tf32x3" if arch >= 80 and torch.version.hip is None else "ieee",
        "BLOCK_M": t.m,
        "BLOCK_N": t.n,
        "BLOCK_K": t.k,
        "GROUP": t.group,
        "num_warps": t.warps,
        "num_stages": t.stages,
    }
    # What is empty has no address of its own, and nothing of it is read.
    given = [like if a is not None and a.numel() == 0 else a for a in inputs]
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        if t.tma and (arch == 0 or arch >= 90) and _run_persistent(name, inputs, outputs, sizes, t, options):
            return
        kernel, axes = _KERNELS[name]
        strides = (a.stride() if a is not None else (0,) * rank for a, rank in zip(inputs, axes, strict=True))
        launch(
            kernel,
            (_cut(m, t.m) * _cut(n, t.n),),
            *given,
            *outputs,
            *sizes,
            *(s for of_one in strides for s in of_one),
            EVEN_K=k % t.k == 0,
            WIDE=max(_reach(a) for a in (*inputs, *outputs) if a is not None) >= 2**31,
            **options,
        )


def _run_persistent(
    name: Kernel,
    inputs: tuple[Tensor | None, ...],
    outputs: tuple[Tensor | None, ...],
    sizes: tuple[int, int, int],
    t: Tiles,
    options: dict[str, Any],
) -> bool:
    """Launch `persistent_kernel` where it can do this, and every matrix has a descriptor; return whether it did."""
    if name == "tangent" or (name == "slope" and inputs[4] is not None):
        return False
    u, x, w, b = inputs[:4] if name == "slope" else (None, *inputs)
    y, z, sums = (outputs[0], None, outputs[1]) if name == "slope" else (*outputs, None)
    width = t.n // 2 if t.n > 128 else t.n
    stored = [None if a is None else _described(a, (t.m, width)) for a in (u, y, z)]
    x_described, x_flipped = _described_or_turned(cast("Tensor", x), (t.m, t.k))
    w_described, w_flipped = _described_or_turned(cast("Tensor", w), (t.k, t.n))
    lacking = any(a is not None and d is None for a, d in zip((u, y, z), stored, strict=True))
    if lacking or x_described is None or w_described is None:
        return False
    programs = min(_cut(sizes[0], t.m) * _cut(sizes[1], t.n), _multiprocessors(cast("Tensor", y)))
    launch(
        persistent_kernel,
        (programs,),
        stored[0],
        x_described,
        w_described,
        b,
        *stored[1:],
        sums,
        *sizes,
        0 if b is None else b.stride(0),
        X_FLIPPED=x_flipped,
        W_FLIPPED=w_flipped,
        SPLIT=width < t.n,
        PROGRAMS=programs,
        **options,
    )
    return True


def _described(t: Tensor, block: tuple[int, int]) -> Any:
    """Return a tensor descriptor, or None where the hardware takes none: rows lie apart by multiples of 16 bytes."""
    even = t.stride(0) * t.element_size() % 16 == 0 and (t.is_meta or t.data_ptr() % 16 == 0)
    fits = t.numel() > 0 and t.stride(1) == 1 and t.stride(0) >= t.shape[1]
    return TensorDescriptor.from_tensor(t, list(block)) if even and fits else None


def _described_or_turned(t: Tensor, block: tuple[int, int]) -> tuple[Any, bool]:
    """Return a descriptor and False, or that of the transpose and True."""
    found = _described(t, block)
    return (found, False) if found is not None else (_described(t.mT, block[::-1]), True)


def _cut(size: int, tile: int) -> int:
    return -(-size // tile)


def _multiprocessors(x: Tensor) -> int:
    """Programs that run at once; 3 in the interpreter, so that each takes several tiles."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 3 if x.is_cpu else 132


def _reach(t: Tensor) -> int:
    """The largest offset of an element."""
    return sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))


def run_forward(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    act: str,
    keep: bool,  # noqa: FBT001
    tiles: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """Return y and, if it is to be kept, z; else an empty tensor in its place."""
    rows, keep = _rows(x), _stores_z(act, keep=keep)
    y = x.new_empty(*x.shape[:-1], w.shape[1])
    z = torch.empty_like(y) if keep else x.new_empty(0)
    sizes = (rows.shape[0], w.shape[1], w.shape[0])
    _run("forward", (rows, w, b), (_rows(y), _rows(z) if keep else None), sizes=sizes, act=act, tiles=tiles)
    return y, z


def run_backward(
    u: Tensor,
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    z: Tensor | None,
    act: str,
    needs: Sequence[bool],
    tiles: Sequence[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dw and db, each where it is needed; else an empty tensor in its place.

    dz = u a'(z) is written out once by a kernel of its own: dx and dw both read it, and in the loop of a product it
    would have to pass through registers on its way to the tensor cores. Where z is not kept, that kernel is the
    forward's product with another epilogue. db is summed from each tile's own sums, in a fixed order.
    """
    rows, dz = _rows(x), _rows(u)
    (m, k), n = rows.shape, w.shape[1]
    dx, dw, db = (x.new_empty(0) for _ in needs)
    if needs[2] and act == "none":
        db = dz.sum(0, dtype=_accumulator(x.dtype)).to(x.dtype)
    if act != "none":
        dz = x.new_empty(m, n)
        inputs, sizes = (_rows(u), rows, w, b, None if z is None else _rows(z)), (m, n, k)
        t = _chosen("slope", inputs, sizes, tiles)
        sums = x.new_empty(_cut(m, t.m), n, dtype=_accumulator(x.dtype)) if needs[2] else None
        _run("slope", inputs, (dz, sums), sizes=sizes, act=act, tiles=t)
        if sums is not None:
            db = sums.sum(0).to(x.dtype)
    if needs[0]:
        dx = x.new_empty(x.shape)
        _run("forward", (dz, w.mT, None), (_rows(dx), None), sizes=(m, k, n), act="none", tiles=tiles)
    if needs[1]:
        dw = w.new_empty(w.shape)
        _run("forward", (rows.mT, dz, None), (dw, None), sizes=(k, n, m), act="none", tiles=tiles)
    return dx, dw, db


def run_tangent(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    z: Tensor | None,
    dx: Tensor | None,
    dw: Tensor | None,
    db: Tensor | None,
    act: str,
    tiles: Sequence[int] | None,
) -> Tensor:
    """Return y' = a'(z) (x' w + x w' + b')."""
    rows = _rows(x)
    y = x.new_empty(*x.shape[:-1], w.shape[1])
    inputs = (rows, w, b, None if z is None else _rows(z), None if dx is None else _rows(dx), dw, db)
    _run("tangent", inputs, (_rows(y),), sizes=(rows.shape[0], w.shape[1], w.shape[0]), act=act, tiles=tiles)
    return y


def _stores_z(act: str, *, keep: bool) -> bool:
    """Whether z is an output. The slope of relu can be told from y, which costs no memory beside the output's."""
    return keep and act not in ("none", "relu")


def _rows(t: Tensor) -> Tensor:
    """[*b, n] as [prod b, n], a copy where the axes of b do not lie evenly."""
    return t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


# The same launches as operators of torch.library: opaque to torch.compile and to torch.func. A copy of this file under
# another name registers operators of its own, and so does the same file loaded again.


def _suffix() -> str:
    """What tells these operators from those of copies, and of earlier loads of this file, which may still be called.

    To register an operator again frees the memory of the one before.
    """
    own = (
        "" if __name__ == "gradverify.catalogue.matmul" else "_" + "".join(c if c.isalnum() else "_" for c in __name__)
    )
    numbered = (own if n == 1 else f"{own}_{n}" for n in itertools.count(1))
    return next(s for s in numbered if not hasattr(torch.ops.gradverify_catalogue, f"matmul_forward{s}"))


_SUFFIX = _suffix()


def _operator(name: str, run: Callable[..., Any], schema: str) -> Any:
    """Register a function that launches kernels."""
    qualified = f"gradverify_catalogue::matmul_{name}{_SUFFIX}"
    return torch.library.custom_op(qualified, run, mutates_args=(), schema=schema)


forward_op = _operator(
    "forward",
    run_forward,
    "(Tensor x, Tensor w, Tensor? b, str act, bool keep, int[]? tiles) -> (Tensor, Tensor)",
)
backward_op = _operator(
    "backward",
    run_backward,
    "(Tensor u, Tensor x, Tensor w, Tensor? b, Tensor? z, str act, bool[] needs, int[]? tiles)"
    " -> (Tensor, Tensor, Tensor)",
)
tangent_op = _operator(
    "tangent",
    run_tangent,
    "(Tensor x, Tensor w, Tensor? b, Tensor? z, Tensor? dx, Tensor? dw, Tensor? db, str act, int[]? tiles) -> Tensor",
)


def _fake_forward(x: Tensor, w: Tensor, _b: Any, act: str, keep: bool, _tiles: Any) -> tuple[Tensor, Tensor]:  # noqa: FBT001
    y = x.new_empty(*x.shape[:-1], w.shape[1])
    return y, torch.empty_like(y) if _stores_z(act, keep=keep) else x.new_empty(0)


def _fake_backward(
    _u: Tensor, x: Tensor, w: Tensor, _b: Any, _z: Any, _act: str, needs: Sequence[bool], _tiles: Any
) -> tuple[Tensor, ...]:
    shapes = (x.shape, w.shape, w.shape[1:])
    return tuple(x.new_empty(shape if need else (0,)) for shape, need in zip(shapes, needs, strict=True))


def _fake_tangent(x: Tensor, w: Tensor, *_rest: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], w.shape[1])


forward_op.register_fake(_fake_forward)
backward_op.register_fake(_fake_backward)
tangent_op.register_fake(_fake_tangent)


def _batched(op: Any, *, along_rows: tuple[int, ...], whole: Callable[..., bool]) -> None:
    """Say how `op` runs under vmap: once, where only what has rows is batched, else sample by sample."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        axes = [d if isinstance(a, Tensor) else None for a, d in zip(args, in_dims, strict=True)]
        n = info.batch_size
        if whole(*args) and all(d is None or i in along_rows for i, d in enumerate(axes)):
            front = list(args)
            for i in along_rows:
                if args[i] is not None:
                    front[i] = args[i].expand(n, *args[i].shape) if axes[i] is None else args[i].movedim(axes[i], 0)
            results = op(*front)
        else:
            samples = ([a if d is None else a.select(d, i) for a, d in zip(args, axes, strict=True)] for i in range(n))
            found = [op(*sample) for sample in samples]
            single = isinstance(found[0], Tensor)
            results = torch.stack(found) if single else tuple(map(torch.stack, zip(*found, strict=True)))
        if isinstance(results, Tensor):
            return results, 0
        # What was not asked for is empty, of shape [0].
        results = tuple(r if r.shape[:1] == (n,) else r.expand(n, 0) for r in results)
        return results, (0,) * len(results)

    op.register_vmap(rule)


_batched(forward_op, along_rows=(0,), whole=lambda *_: True)
_batched(backward_op, along_rows=(0, 1, 4), whole=lambda *args: not (args[6][1] or args[6][2]))
_batched(tangent_op, along_rows=(0, 3, 4), whole=lambda *_: True)


def _save_compiled(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w, b, ctx.act, keep, ctx.tiles = inputs
    ctx.save_for_backward(x, w, b, _kept(ctx.act, keep, *output))
    ctx.mark_non_differentiable(output[1])


def _backward_compiled(ctx: Any, u: Tensor, _z: Tensor) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad[:3]
    found = backward_op(u, *ctx.saved_tensors, ctx.act, needs, ctx.tiles)
    return *(g if need else None for g, need in zip(found, needs, strict=True)), None, None, None


forward_op.register_autograd(_backward_compiled, setup_context=_save_compiled)


# The same in plain PyTorch. Half precision is computed in float32, as in the kernels.


def _kept(act: str, keep: bool, y: Tensor, z: Tensor | None = None) -> Tensor | None:  # noqa: FBT001
    """Return what backward is to take z from: z, or y where its sign is all that counts; None: recompute it."""
    return None if not keep or act == "none" else y if act == "relu" else z


_AUTOCAST = ("cpu", "cuda", "xpu", "mps")
"""Devices that have it; torch.compile cannot trace the question in torch 2.11."""


def _wide(t: Tensor) -> Tensor:
    return t.to(_accumulator(t.dtype))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b in at least float32, also under autocast."""
    device = a.device.type
    with torch.autocast(device, enabled=False) if device in _AUTOCAST else nullcontext():
        return _wide(a) @ _wide(b)


def _affine(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """Return z = x @ w + b."""
    return _product(x, w) if b is None else _product(x, w) + _wide(b)


def _moved(
    x: Tensor, w: Tensor, x_tangent: Tensor | None, w_tangent: Tensor | None, b_tangent: Tensor | None
) -> Tensor:
    """Return z' = x' w + x w' + b'."""
    z = w.new_zeros((), dtype=_accumulator(w.dtype)) if b_tangent is None else _wide(b_tangent)
    z = z.expand(*x.shape[:-1], w.shape[-1])
    z = z if x_tangent is None else z + _product(x_tangent, w)
    return z if w_tangent is None else z + _product(x, w_tangent)


def _value_of(z: Tensor, act: str) -> Tensor:
    """a(z)."""
    if act == "relu":
        return torch.relu(z)
    # By erfc and the sigmoid: in 1 + erf(z) and 1 + tanh(z) no digits are left where z is far below 0.
    if act == "gelu":
        return 0.5 * z * torch.erfc(z * -0.7071067811865476)
    return z if act == "none" else z * torch.sigmoid(_gate_of(z, act))


def _times_slope(t: Tensor, z: Tensor | None, act: str) -> Tensor:
    """Return t a'(z); z may be None where a' is 1."""
    if z is None or act == "none":
        return t
    return torch.where(z <= 0, 0, t) if act == "relu" else t * _derivatives(z, act)[0]


def _times_curvature(t: Tensor, z: Tensor | None, act: str) -> Tensor | None:
    """Return t a''(z), or None where that is 0 everywhere."""
    return None if z is None or act in ("none", "relu") else t * _derivatives(z, act)[1]


def _derivatives(z: Tensor, act: str) -> tuple[Tensor, Tensor]:
    """a'(z) and a''(z) of a smooth activation, themselves differentiable."""
    near = z.clamp(-50, 50)  # its powers are times 0 beyond, and must not be infinite
    if act == "gelu":
        density = torch.exp(-0.5 * z * z) * 0.3989422804014327
        return 0.5 * torch.erfc(z * -0.7071067811865476) + near * density, density * (2 - near * near)
    s = torch.sigmoid(_gate_of(z, act))
    s1 = s * (1 - s)
    if act == "silu":
        return s + z * s1, s1 * (2 + z * (1 - 2 * s))
    g1, g2 = 1.5957691216057308 * (1 + 0.134145 * near * near), 0.4281288976356015 * near
    return s + near * s1 * g1, s1 * (2 * g1 + near * ((1 - 2 * s) * g1 * g1 + g2))


def _gate_of(z: Tensor, act: str) -> Tensor:
    """Return g of the activations z sigmoid(g): z, or 2 sqrt(2 / pi) (z + 0.044715 z^3)."""
    near = z.clamp(-50, 50)  # the sigmoid is 0 or 1 beyond, and powers might overflow
    return z if act == "silu" else 1.5957691216057308 * (near + 0.044715 * near * near * near)


def _z_of(x: Tensor, w: Tensor, b: Tensor | None, act: str) -> Tensor | None:
    return None if act == "none" else _affine(x, w, b)


def _pulled(dz: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The transpose of z' as a function of x', w' and b': dz w^T, x^T dz and the sum of dz over the rows."""
    return _product(dz, w.mT), _product(_rows(x).mT, _rows(dz)), _rows(dz).sum(0)


def _added(*terms: Tensor | None) -> Tensor | None:
    found = [t for t in terms if t is not None]
    return sum(found[1:], found[0]) if found else None


def _as(t: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if t is None or like is None else t.to(like.dtype)


def _second(
    u: Tensor,
    primals: Sequence[Any],
    tangents: Sequence[Tensor | None],
    act: str,
) -> tuple[Tensor | None, ...]:
    """The gradient of <u, y'> by u, x, w, b, x', w' and b'.

    The gradients of y are linear in u: <x', dx> + <w', dw> + <b', db> = <u, y'> as well. So this is the backward of the
    backward and of the forward mode alike. With r = u a''(z) z', the share of z:

        du = a'(z) z'    dx = r w^T + u a'(z) w'^T    dw = x^T r + x'^T u a'(z)    db = sum r
    """
    x, w, b = primals
    z, moved = _z_of(x, w, b, act), _moved(x, w, *tangents)
    dz = _times_slope(_wide(u), z, act)
    r = _times_curvature(_wide(u) * moved, z, act)
    by_z = (None, None, None) if r is None else _pulled(r, x, w)
    through_w = None if tangents[1] is None else _product(dz, tangents[1].mT)
    through_x = None if tangents[0] is None else _product(_rows(tangents[0]).mT, _rows(dz))
    found = (_times_slope(moved, z, act), _added(by_z[0], through_w), _added(by_z[1], through_x), by_z[2])
    likes = (u, *primals, *tangents)
    return tuple(_as(t, like) for t, like in zip((*found, *_pulled(dz, x, w)), likes, strict=True))


@dataclass(frozen=True)
class _Call:
    """What a call was asked for. Opaque: torch.func would take a tuple apart, and count its members as arguments."""

    act: str
    keep: bool
    fused: bool
    tiles: Tiles | None
    needs: tuple[bool, bool, bool] = (True, True, True)


class FusedMatmul(torch.autograd.Function):
    """y = a(x @ w + b).

        forward    y  = a(z)
        backward   dx = dz w^T    dw = x^T dz    db = sum of dz over the rows    with dz = u a'(z)
        jvp        y' = a'(z) (x' w + x w' + b')

    Backward and jvp are Functions themselves, whose derivatives are plain PyTorch: those of any order are right. relu
    has the slope 0 at 0, and no curvature.

    Shapes: x [*b, k], w [k, n], b [n] or None, y [*b, n]. Keeps its inputs, and z (of relu: y) where `keep` is set.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor | None, how: _Call) -> Tensor | tuple[Tensor, Tensor]:
        """Return y, or y and z where z is an intermediate result that backward is to find."""
        if how.fused:
            y, z = _leaf(forward_op, run_forward, x)(x, w, b, how.act, how.keep, how.tiles)
        else:
            wide = _affine(x, w, b)
            y, z = _value_of(wide, how.act).to(x.dtype), wide.to(x.dtype)
        return (y, z) if _stores_z(how.act, keep=how.keep) else y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep x, w, b and perhaps z."""
        *primals, ctx.how = inputs
        y, z = output if isinstance(output, tuple) else (output, None)
        if z is not None:
            ctx.mark_non_differentiable(z)
        saved = (*primals, _kept(ctx.how.act, ctx.how.keep, y, z))
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx, dw and db. An undefined cotangent arrives as zeros."""
        needs = tuple(ctx.needs_input_grad[:3])
        how = replace(ctx.how, needs=needs)
        found = iter(_Gradients.apply(cotangents[0], *ctx.saved_tensors, how))  # type: ignore[no-untyped-call]
        return *(next(found) if need else None for need in needs), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Return y'."""
        y = _Tangent.apply(*ctx.saved_tensors, *tangents[:3], ctx.how)  # type: ignore[no-untyped-call]
        return (y, None) if _stores_z(ctx.how.act, keep=ctx.how.keep) else y


class _Gradients(torch.autograd.Function):
    """(u, x, w, b) -> those of dx, dw and db that are needed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, x: Tensor, w: Tensor, b: Tensor | None, z: Tensor | None, how: _Call) -> tuple[Tensor, ...]:
        if how.fused:
            found = _leaf(backward_op, run_backward, x)(u, x, w, b, z, how.act, how.needs, how.tiles)
        else:
            z = _z_of(x, w, b, how.act) if z is None else _wide(z)
            found = _pulled(_times_slope(_wide(u), z, how.act), x, w)
        return tuple(g.to(x.dtype) for g, need in zip(found, how.needs, strict=True) if need)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        *saved, _, ctx.how = inputs
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        u, *primals = ctx.saved_tensors
        it = iter(cotangents)
        x_tangent, w_tangent, b_tangent = (next(it) if need else None for need in ctx.how.needs)
        found = _second(u, primals, (x_tangent, w_tangent, b_tangent), ctx.how.act)
        return *found[:4], None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        """With dz' = u' a'(z) + u a''(z) z': dx' = dz' w^T + dz w'^T, dw' = x^T dz' + x'^T dz, db' = sum dz'."""
        u, x, w, b = ctx.saved_tensors
        u_tangent, x_tangent, w_tangent, b_tangent = tangents[:4]
        z, moved = _z_of(x, w, b, ctx.how.act), _moved(x, w, x_tangent, w_tangent, b_tangent)
        dz = _times_slope(_wide(u), z, ctx.how.act)
        by_u = None if u_tangent is None else _times_slope(_wide(u_tangent), z, ctx.how.act)
        turned = _added(by_u, _times_curvature(_wide(u) * moved, z, ctx.how.act))
        turned = torch.zeros_like(dz) if turned is None else turned
        dx, dw, db = _pulled(turned, x, w)
        dx = dx if w_tangent is None else dx + _product(dz, w_tangent.mT)
        dw = dw if x_tangent is None else dw + _product(_rows(x_tangent).mT, _rows(dz))
        return tuple(g.to(x.dtype) for g, need in zip((dx, dw, db), ctx.how.needs, strict=True) if need)


class _Tangent(torch.autograd.Function):
    """(x, w, b, x', w', b') -> y'."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        w: Tensor,
        b: Tensor | None,
        z: Tensor | None,
        dx: Tensor | None,
        dw: Tensor | None,
        db: Tensor | None,
        how: _Call,
    ) -> Tensor:
        if how.fused:
            run = _leaf(tangent_op, run_tangent, x)
            return cast("Tensor", run(x, w, b, z, dx, dw, db, how.act, how.tiles))
        z = _z_of(x, w, b, how.act) if z is None else _wide(z)
        return _times_slope(_moved(x, w, dx, dw, db), z, how.act).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        x, w, b, _, dx, dw, db, ctx.how = inputs
        ctx.save_for_backward(x, w, b, dx, dw, db)
        ctx.save_for_forward(x, w, b, dx, dw, db)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        _, dx, dw, db, *by_tangents = _second(cotangents[0], saved[:3], saved[3:], ctx.how.act)
        return dx, dw, db, None, *by_tangents, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """With z'' = x1' w1 ... of both directions: y'' = a''(z) z1' z2' + a'(z) (x1' w2' + x2' w1' + z2'')."""
        x, w, b, dx, dw, db = ctx.saved_tensors
        x2, w2, b2, _, dx2, dw2, db2 = tangents[:7]
        z, moved = _z_of(x, w, b, ctx.how.act), _moved(x, w, dx, dw, db)
        both = _moved(x, w, dx2, dw2, db2)
        both = both if dx is None or w2 is None else both + _product(dx, w2)
        both = both if dw is None or x2 is None else both + _product(x2, dw)
        bent = _times_curvature(moved * _moved(x, w, x2, w2, b2), z, ctx.how.act)
        return cast("Tensor", _added(_times_slope(both, z, ctx.how.act), bent)).to(x.dtype)


def _leaf(op: Any, run: Callable[..., Any], x: Tensor) -> Callable[..., Any]:
    """The operator; on meta tensors the function under it, whose launches then compile."""
    return run if x.is_meta else cast("Callable[..., Any]", op)


def matmul(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    act: Activation = "none",
    save: Literal["input", "preactivation"] = "input",
    backend: Backend = "auto",
    tiles: Tiles | None = None,
) -> Tensor:
    """Return act(x @ w + b) by one kernel; see `FusedMatmul` for its derivatives.

    Sums run in float32 for half precision and float32 (as three tf32 products on a GPU that has them), in float64 for
    float64, and bias and activation are applied before the one rounding to x's dtype. Nothing is summed by atomics:
    the same call gives the same bits. Under autocast tensors are cast first as those of a linear layer are.

    Args:
        x: [*b, k], float64, float32, bfloat16 or float16. Any strides; leading axes that do not lie evenly are copied.
        w: [k, n], x's dtype and device. Any strides: linear.weight.mT fits.
        b: [n], or None for 0.
        act: none, relu, gelu (by erf), gelu_tanh or silu.
        save: what backward starts from. "input": z = x @ w + b is recomputed, at the price of one more product.
            "preactivation": z is kept in x's dtype (relu keeps y in its place). Without an activation both are alike.
        backend: auto takes the kernels on CUDA and plain PyTorch on a CPU; torch, triton or interpret take one of them.
        tiles: how to cut all launches of this call; None: a table by dtype and device. Plain PyTorch has none.

    Returns:
        [*b, n], x's dtype, contiguous.

    Raises:
        TypeError: something is no dense tensor, a dtype is not one of the four, or dtypes differ.
        ValueError: a shape does not fit, devices differ, an option is unknown, tiles do not fit into shared memory.
        RuntimeError: triton is missing, there are no kernels for the device, or they are not interpreted.

    Source: Triton's tutorial on matrix products (tiles grouped for L2); Hendrycks, Gimpel 2016, arXiv:1606.08415.
    """
    for name, t in (("x", x), ("w", w), ("b", b)):
        _check_kind(name, t)
    x, w, b = _autocast(x, w, b)
    _check_tensors(x, w, b)
    _check_options(act, save, backend, tiles)
    fused = _is_fused(backend, x.device)
    if fused and tiles is not None and not torch.compiler.is_compiling():
        for kernel in ("forward", "slope"):  # a backward that cannot run is refused before the forward runs
            _affordable(tiles, kernel, x.element_size(), _arch(x))
    keep = save == "preactivation" and act != "none"
    if torch.compiler.is_compiling():  # where a Function that has a jvp breaks the graph
        # An operator has no forward mode: its output would have no tangent.
        if not fused or forward_ad._current_level >= 0:  # noqa: SLF001
            return _in_one_graph(x, w, b, act)
        return cast("Tensor", forward_op(x, w, b, act, keep, tiles)[0])
    found = FusedMatmul.apply(x, w, b, _Call(act, keep, fused, tiles))  # type: ignore[no-untyped-call]
    return cast("Tensor", found if isinstance(found, Tensor) else found[0])


def _in_one_graph(x: Tensor, w: Tensor, b: Tensor | None, act: str) -> Tensor:
    """Plain PyTorch, for the compiler to differentiate and to fuse."""
    return _value_of(_affine(x, w, b), act).to(x.dtype)


def _autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Cast as autocast casts the arguments of a linear layer; outside of it return them as they are."""
    device = next(t.device.type for t in tensors if t is not None)
    if device not in _AUTOCAST or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    cast_too = (torch.float32, torch.bfloat16, torch.float16)
    return tuple(t.to(dtype) if t is not None and t.dtype in cast_too else t for t in tensors)


def _check_kind(name: str, t: object) -> None:
    if name == "b" and t is None:
        return
    if not isinstance(t, Tensor):
        raise TypeError(f"matmul: {name} must be a tensor, got {type(t).__name__}; pass torch.as_tensor({name}).")
    if t.is_nested or t.layout != torch.strided:
        kind = "nested" if t.is_nested else t.layout
        raise TypeError(
            f"matmul: {name} must be dense, but it is {kind}; pass "
            f"{f'torch.nested.to_padded_tensor({name}, 0.0)' if t.is_nested else f'{name}.to_dense()'}."
        )


def _check_tensors(x: Tensor, w: Tensor, b: Tensor | None) -> None:
    if x.dtype not in DTYPES:
        raise TypeError(
            f"matmul: x must be float64, float32, bfloat16 or float16, but its dtype is {x.dtype}; convert it with "
            f"{'x.real, or use torch.matmul' if x.is_complex() else 'x.float()'}."
        )
    if x.ndim == 0:
        raise ValueError("matmul: x must be [..., k], but its shape is (); give it an axis: x.reshape(1).")
    if w.ndim != 2:
        raise ValueError(
            f"matmul: w must be [k, n], but its shape is {tuple(w.shape)}; a batch of matrices is for torch.matmul."
        )
    if x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"matmul: the last size of x {tuple(x.shape)} must be the first of w {tuple(w.shape)}; "
            "for the weight of a linear layer pass weight.mT."
        )
    if b is not None and b.shape != w.shape[1:]:
        raise ValueError(
            f"matmul: b must be [{w.shape[1]}] for w {tuple(w.shape)}, got {tuple(b.shape)}; give one value per column."
        )
    for name, t in (("w", w), ("b", b)):
        if t is not None and t.dtype != x.dtype:
            raise TypeError(
                f"matmul: {name} must have x's dtype {x.dtype}, but its dtype is {t.dtype}; convert one with .to()."
            )
        if t is not None and t.device != x.device:
            raise ValueError(
                f"matmul: {name} must be on x's device {x.device}, but it is on {t.device}; move it with "
                f"{name}.to({str(x.device)!r})."
            )


def _check_options(act: str, save: str, backend: str, tiles: Tiles | None) -> None:
    for name, value, known in (("act", act, ACTIVATIONS), ("save", save, SAVES), ("backend", backend, BACKENDS)):
        if value not in known:
            raise ValueError(f"matmul: {name} must be one of {', '.join(known)}, got {value!r}; choose one of them.")
    if tiles is not None:
        _check_tiles(tiles)


def _check_tiles(tiles: object) -> None:
    if not isinstance(tiles, Tiles):
        raise TypeError(f"matmul: tiles must be this file's Tiles, got {tiles!r}; None takes those of a table.")
    least = 1 if interpreted() else 16  # tensor cores take no less
    for name in ("m", "n", "k"):
        size = getattr(tiles, name)
        if not _is_int(size) or size < least or size & (size - 1):
            raise ValueError(
                f"matmul: tiles.{name} must be a power of 2 and at least {least}, got {size}; 64 is usual."
            )
    if tiles.warps not in (1, 2, 4, 8, 16, 32) or isinstance(tiles.warps, bool):
        raise ValueError(f"matmul: tiles.warps must be a power of 2 and at most 32, got {tiles.warps}; 4 is usual.")
    for name in ("group", "stages"):
        size = getattr(tiles, name)
        if not _is_int(size) or not 1 <= size < 2**15:
            raise ValueError(f"matmul: tiles.{name} must be an integer from 1 to 32767, got {size!r}; 3 is usual.")
    if not isinstance(tiles.tma, bool):
        raise TypeError(f"matmul: tiles.tma must be True or False, got {tiles.tma!r}; choose one of them.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_fused(backend: str, device: torch.device) -> bool:
    """Whether kernels run. Raises RuntimeError where they were asked for and cannot."""
    if backend == "torch" or (backend == "auto" and device.type in ("cpu", "meta")):
        return False
    if triton is None:
        raise RuntimeError(
            f"matmul: backend={backend!r} on {device} needs triton, which is not installed; "
            "pip install triton, or pass backend='torch'."
        )
    if backend == "interpret":
        if not interpreted():
            raise RuntimeError(
                "matmul: backend='interpret' needs TRITON_INTERPRET=1, which was not set when triton was imported; "
                "set it before Python starts: TRITON_INTERPRET=1 python ..."
            )
    elif device.type not in ("cuda", "meta"):
        raise RuntimeError(
            f"matmul: backend={backend!r} has no kernels for tensors on {device}; move them with .cuda(), "
            "or pass backend='torch'."
        )
    elif not interpreted() and not torch.compiler.is_compiling():  # which cannot trace what asks the driver
        _check_gpu(device)
    return True


def _check_gpu(device: torch.device) -> None:
    """Meta tensors are compiled for whatever GPU Triton's driver names."""
    if device.type == "meta":
        try:
            triton.runtime.driver.active.get_current_target()
        except RuntimeError as error:
            raise RuntimeError(
                "matmul: backend='triton' compiles for meta tensors, but Triton finds no GPU to compile for; name one "
                "by triton.runtime.driver.set_active, or pass backend='auto' for shapes alone."
            ) from error
    elif torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        raise RuntimeError(
            f"matmul: Triton needs compute capability 8.0, but {device} has "
            f"{'.'.join(map(str, torch.cuda.get_device_capability(device)))}; pass backend='torch'."
        )
