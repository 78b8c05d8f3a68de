"""Planted bugs of the attention kernels."""

from __future__ import annotations

from tests.faults.kernels.record import Mutant


def _mutant(name: str, kind: str, function: str, old: str, new: str) -> Mutant:
    return Mutant(name=f"attention_{name}", op="attention", kind=kind, function=function, old=old, new=new)


GROUP = "h // group * ks[1]"
INSIDE = "(rows[:, None] < sq) & (feature < D)"
ADDED = f'tl.atomic_add(at, part, mask={INSIDE}, sem="relaxed")'
SCALED = "torch.mul(total, call.scale, out=dq)"

MUTANTS = (
    _mutant("rows_behind_the_end", "tail mask", "_load_rows", "(first + row < n_rows) & (col < N)", "col < N"),
    _mutant("features_behind_d", "tail mask", "_load_rows", "elif N < COLS:", "elif N > COLS:"),
    _mutant(
        "store_unmasked", "unmasked store", "_store_rows", "mask=(first + row < n_rows) & (col < N)", "mask=col < N"
    ),
    _mutant("feature_stride", "stride", "_load_rows", "col * strides[1]", "col"),
    _mutant("keys_behind_the_end", "tail mask", "_logits", "keep = col < sk", "keep = col <= sk"),
    _mutant("causal_off_by_one", "off-by-one causal", "_logits", "col <= row + band[1]", "col < row + band[1]"),
    _mutant("window_off_by_one", "off-by-one window", "_logits", "row + band[0] <= col", "row + band[0] < col"),
    _mutant("last_tile_skipped", "off-by-one causal", "_columns_seen", "first + M + band[1]", "first + band[1]"),
    _mutant(
        "whole_tiles_not_whole", "off-by-one causal", "_columns_seen", "first + 1 + band[1]", "first + M + band[1]"
    ),
    _mutant(
        "rows_start_late",
        "off-by-one causal",
        "_rows_seeing",
        "first - band[1], 0) // M * M",
        "first - band[1], 0) // M * M + M",
    ),
    _mutant("mask_in_base_e", "base 2 or e", "_logits", ".to(s.dtype) * 1.4426950408889634", ".to(s.dtype)"),
    _mutant("lse_in_base_e", "base 2 or e", "_forward_kernel", "tl.math.log2(tl.where", "tl.math.log(tl.where"),
    _mutant(
        "total_not_shrunk",
        "stale accumulator",
        "_forward_loop",
        "total = total * shrink + tl.sum(p, 1)",
        "total = total + tl.sum(p, 1)",
    ),
    _mutant("sum_not_shrunk", "stale accumulator", "_forward_loop", "acc = acc * shrink[:, None]", "acc = acc * 1.0"),
    _mutant(
        "nan_before_the_first_key",
        "NaN in dead rows",
        "_forward_loop",
        'tl.where(new == float("-inf"), 0.0, new)',
        "new",
    ),
    _mutant(
        "dead_rows_divide",
        "NaN in dead rows",
        "_forward_kernel",
        "acc / tl.where(dead, 1.0, total)[:, None]",
        "acc / total[:, None]",
    ),
    _mutant(
        "dead_rows_seen_by_backward",
        "NaN in dead rows",
        "_forward_kernel",
        'tl.where(dead, float("inf"), top',
        'tl.where(dead, float("-inf"), top',
    ),
    _mutant("heads_of_one_group", "GQA", "_forward_kernel", GROUP, "h % group * ks[1]"),
    _mutant("group_not_summed", "GQA not summed", "_dkdv_kernel", "for _ in range(group):", "for _ in range(1):"),
    _mutant("wrong_head_of_group", "pointer offset", "_dkdv_kernel", "hk * group * qs[1]", "hk * qs[1]"),
    _mutant("lse_offset", "pointer offset", "_dkdv_kernel", "(b * heads + hk * group) * sq", "(b * heads + hk) * sq"),
    _mutant("lse_of_first_head", "pointer offset", "_dkdv_kernel", "lse += sq", "lse += 0"),
    _mutant("delta_forgotten", "missing D term", "_dkdv_loop", "ds = p * (dp - mean[None, :])", "ds = p * dp"),
    _mutant(
        "delta_of_undefined_rows",
        "undefined lanes",
        "_dkdv_loop",
        'mask=rows < sq, other=float("inf")',
        "mask=rows < sq",
    ),
    _mutant(
        "scaled_twice",
        "scale twice",
        "_dq_kernel",
        "dqt *= tl.full((), scale, ACC)",
        "dqt *= tl.full((), scale * scale, ACC)",
    ),
    _mutant("scale_forgotten", "scale forgotten", "_dkdv_kernel", "dkt *= tl.full((), scale, ACC)", "dkt *= 1.0"),
    _mutant("mask_gradient_offset", "pointer offset", "_dq_kernel", "dmask += at * sk", "dmask += at"),
    _mutant(
        "stored_by_all_rows",
        "store for a sum",
        "_dq_loop",
        "at = dmask + row.to(tl.int64) * sk + col",
        "at = dmask + 0 * row.to(tl.int64) + col",
    ),
    _mutant("dq_stored", "store for a sum", "_dkdv_loop", ADDED, f"tl.store(at, part, mask={INSIDE})"),
    _mutant(
        "dq_loaded_and_stored",
        "store for a sum",
        "_dkdv_loop",
        ADDED,
        f"tl.store(at, part + tl.load(at, mask={INSIDE}), mask={INSIDE})",
    ),
    _mutant("dq_not_zeroed", "uninitialised sum", "_triton_backward", "q.new_zeros(q.shape", "q.new_empty(q.shape"),
    _mutant("dq_of_rows_behind_the_end", "tail mask", "_dkdv_loop", INSIDE, "feature < D"),
    _mutant("dq_of_features_behind_d", "tail mask", "_dkdv_loop", INSIDE, "rows[:, None] < sq"),
    _mutant(
        "dq_of_keys_behind_the_end",
        "tail mask",
        "_rows_seeing",
        "full_begin = tl.where(first + N > sk, (end + M - 1) // M * M, full_begin)",
        "full_begin = full_begin + 0",
    ),
    _mutant("dq_of_heads_of_k", "pointer offset", "_dkdv_kernel", "dq += at * D", "dq += (b * heads + hk) * sq * D"),
    _mutant("dq_of_first_head", "pointer offset", "_dkdv_kernel", "dq += sq * D", "dq += 0"),
    _mutant(
        "dq_row_stride",
        "stride",
        "_dkdv_loop",
        "rows[:, None].to(tl.int64) * D",
        "rows[:, None].to(tl.int64) * BLOCK_D",
    ),
    _mutant("dq_of_weights", "wrong formula", "_dkdv_loop", "part = tl.dot(tl.trans(ds)", "part = tl.dot(tl.trans(p)"),
    _mutant("dq_scaled_twice", "scale twice", "_triton_backward", SCALED, "torch.mul(total, call.scale**2, out=dq)"),
    _mutant("dq_scale_forgotten", "scale forgotten", "_triton_backward", SCALED, "dq.copy_(total)"),
    _mutant(
        "mask_gradient_of_first_head",
        "pointer offset",
        "_dkdv_kernel",
        "dmask += tl.cast(sq, tl.int64) * sk",
        "dmask += 0",
    ),
    _mutant(
        "mean_of_tangents",
        "missing D term",
        "_jvp_kernel",
        "acc -= mean[:, None] * y.to(ACC)",
        "acc -= 0 * mean[:, None] * y.to(ACC)",
    ),
    _mutant(
        "tangent_of_k_forgotten",
        "forgotten term",
        "_jvp_loop",
        "ts += tl.dot(q, tl.trans(tkt)",
        "ts += 0 * tl.dot(q, tl.trans(tkt)",
    ),
    _mutant("tangent_strides", "stride", "_jvp_kernel", "tkn = (tks[2], tks[3])", "tkn = (tks[3], tks[2])"),
)
