"""Planted bugs of the matmul kernels."""

from __future__ import annotations

from tests.faults.kernels.record import Mutant


def _mutant(name: str, kind: str, function: str, old: str, new: str) -> Mutant:
    return Mutant(name=f"matmul_{name}", op="matmul", kind=kind, function=function, old=old, new=new)


LEFT = "mask=in_cols & left[:, None], other=0.0"

MUTANTS = (
    _mutant("products_behind_k", "tail mask", "_add_product", LEFT, "mask=in_cols, other=0.0"),
    _mutant("tail_of_k_dropped", "tail mask", "_add_product", "inner < K - done", "inner < K - done - 1"),
    _mutant("rows_behind_m", "tail mask", "_add_product", "(rows < M)[:, None]", "(rows <= M)[:, None]"),
    _mutant("lanes_undefined", "undefined lanes", "_add_product", LEFT, "mask=in_cols & left[:, None]"),
    _mutant("column_stride_of_x", "stride", "_add_product", "inner[None, :] * a_col", "inner[None, :]"),
    _mutant("strides_swapped", "stride", "_add_product", "b_at += step * b_row", "b_at += step * b_col"),
    _mutant("stale_accumulator", "stale accumulator", "_add_product", "b_tile, acc, input", "b_tile, acc + acc, input"),
    _mutant("bias_stride", "stride", "forward_kernel", "cols * b_col", "cols"),
    _mutant(
        "store_unmasked",
        "unmasked store",
        "forward_kernel",
        "y.dtype.element_ty), mask=inside)",
        "y.dtype.element_ty))",
    ),
    _mutant("kept_after_act", "wrong residual", "forward_kernel", "acc.to(z.dtype", "_value(acc, ACT).to(z.dtype"),
    _mutant("bias_forgotten", "forgotten term", "slope_kernel", "if b is not None:", "if b is not None and M > 4:"),
    _mutant("cotangent_stride", "stride", "slope_kernel", "cols[None, :] * u_col", "cols[None, :]"),
    _mutant("sums_of_one_tile", "store for a sum", "slope_kernel", "sums + tile * N + cols", "sums + cols"),
    _mutant("sums_offset", "pointer offset", "slope_kernel", "sums + tile * N + cols", "sums + tile * BLOCK_N + cols"),
    _mutant("slope_of_gelu", "wrong formula", "_sloped", "_near(z) * e * 0.39", "e * 0.39"),
    _mutant("relu_at_zero", "edge of a branch", "_sloped", "tl.where(z <= 0, 0.0, t)", "tl.where(z < 0, 0.0, t)"),
    _mutant("tangent_of_w_strides", "stride", "tangent_kernel", "dw_row, dw_col, BLOCK_K", "dw_col, dw_row, BLOCK_K"),
    _mutant("tangent_of_b_forgotten", "forgotten term", "tangent_kernel", "t += tl.load(db", "t += 0 * tl.load(db"),
    _mutant("grid_of_tiles", "grid", "_order", "(GROUP * right) // height", "(GROUP * right) // GROUP"),
    _mutant(
        "descriptor_unturned",
        "stride",
        "persistent_kernel",
        "w.load([col, done]).T if W_FLIPPED",
        "w.load([col, done]) if W_FLIPPED",
    ),
    _mutant("last_tile_left_out", "grid", "persistent_kernel", "tiles, PROGRAMS", "tiles - 1, PROGRAMS"),
)
