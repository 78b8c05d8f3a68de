"""Gradient memory that nobody wrote. `recycled` makes the luck of a caching allocator repeatable: always bad."""

from __future__ import annotations

import itertools
from functools import partial

import torch

from tests.faults.record import NONEMPTY, Rule, arg, integers, mask, pair

fault = partial(pair, cls="uninitialised", primary="repeat", must_fail=("repeat", "lifetime"))

_LEFT_BEHIND = itertools.count(1)


def recycled(like):
    """Memory as an allocator hands it out: it holds what its last user left behind, each time something else."""
    return torch.full_like(like, 0.25 * next(_LEFT_BEHIND))


def packed_square(x, used):
    """Squares the first `used` rows of a packed sequence, zero beyond: [n d], [] -> [n d]."""
    rows = torch.arange(len(x))[:, None] < used
    return torch.where(rows, x * x, torch.zeros_like(x))


class PackedSquare(Rule):
    @staticmethod
    def forward(ctx, x, used):
        ctx.save_for_backward(x, used)
        return packed_square(x, used)

    @staticmethod
    def backward(ctx, g):
        return _packed_backward(ctx, g, out=torch.zeros_like(g)), None


class PackedSquareTail(PackedSquare):
    """Writes the used rows into memory that is not cleared."""

    @staticmethod
    def backward(ctx, g):
        return _packed_backward(ctx, g, out=recycled(g)), None


def _packed_backward(ctx, g, *, out):
    x, used = ctx.saved_tensors
    rows = int(used)
    out[:rows] = 2 * (g * x)[:rows]
    return out


def take(table, rows):
    return table[rows]


class Take(Rule):
    @staticmethod
    def forward(ctx, table, rows):
        ctx.save_for_backward(rows)
        ctx.rows = len(table)
        return take(table, rows)

    @staticmethod
    def backward(ctx, g):
        (rows,) = ctx.saved_tensors
        return g.new_zeros(ctx.rows, g.shape[1]).index_add_(0, rows, g), None


class TakeAccumulates(Take):
    """Accumulates with index_add_ into memory that was never zeroed."""

    @staticmethod
    def backward(ctx, g):
        (rows,) = ctx.saved_tensors
        return recycled(g.new_empty(ctx.rows, g.shape[1])).index_add_(0, rows, g), None


def zero_where(x, off):
    """sin(x), zeroed where `off`: the zeroed entries have gradient zero, which somebody has to write."""
    return torch.sin(x).masked_fill(off, 0.0)


class ZeroWhere(Rule):
    @staticmethod
    def forward(ctx, x, off):
        ctx.save_for_backward(x, off)
        return zero_where(x, off)

    @staticmethod
    def backward(ctx, g):
        x, off = ctx.saved_tensors
        return (g * torch.cos(x)).masked_fill(off, 0.0), None


class ZeroWhereUnwritten(ZeroWhere):
    @staticmethod
    def backward(ctx, g):
        x, off = ctx.saved_tensors
        return torch.where(off, recycled(g), g * torch.cos(x)), None


FAULTS = (
    fault(
        "packed_tail_unwritten",
        wrong=PackedSquareTail,
        right=PackedSquare,
        args=[arg("x", "n d"), integers("used", "", lo=0, hi=3)],
        reference=packed_square,
        source="fla-org/flash-linear-attention#892",
        note="packed shorter than n",
    ),
    fault(
        "accumulates_into_garbage",
        wrong=TakeAccumulates,
        right=Take,
        args=[arg("table", "4 d"), integers("rows", "k", lo=0, hi=3)],
        reference=take,
        source="PASSIONLab/OpenEquivariance#138",
    ),
    fault(
        "zeroed_entries_unwritten",
        wrong=ZeroWhereUnwritten,
        right=ZeroWhere,
        args=[arg("x", "n"), mask("off", "n")],
        dims={"n": NONEMPTY},
        reference=zero_where,
        source="pytorch/pytorch#2929",
    ),
)
