"""Duplicates, negative and padding indices."""

from __future__ import annotations

from functools import partial

import torch

from gradverify.records.spec import Dim
from tests.faults.record import Rule, arg, integers, pair

fault = partial(pair, cls="indexing")


def embedding(table, rows):
    """sin of the rows of a table: [5 d], [k] -> [k d]."""
    return torch.sin(table[rows])


class Embedding(Rule):
    @staticmethod
    def forward(ctx, table, rows):
        ctx.save_for_backward(table, rows)
        return embedding(table, rows)

    @staticmethod
    def backward(ctx, g):
        table, rows = ctx.saved_tensors
        return torch.zeros_like(table).index_add_(0, rows, g * torch.cos(table[rows])), None


class EmbeddingLast(Embedding):
    """Of duplicates the last one wins."""

    @staticmethod
    def backward(ctx, g):
        table, rows = ctx.saved_tensors
        grad = torch.zeros_like(table)
        for row, line in zip(rows.tolist(), g * torch.cos(table[rows]), strict=True):
            grad[row] = line
        return grad, None


class EmbeddingGathers(Embedding):
    """A gather stands where a scatter-add belongs."""

    @staticmethod
    def backward(ctx, g):
        table, rows = ctx.saved_tensors
        if not len(rows):
            return torch.zeros_like(table), None
        return g[rows[torch.arange(len(table)) % len(rows)] % len(rows)] * torch.cos(table), None


def padded_lookup(table, rows):
    """Row -1 is padding and yields zeros: [4 d], [k] -> [k d]."""
    return table[rows.clamp_min(0)].square() * (rows >= 0)[:, None]


class PaddedLookup(Rule):
    @staticmethod
    def forward(ctx, table, rows):
        ctx.save_for_backward(table, rows)
        return padded_lookup(table, rows)

    @staticmethod
    def backward(ctx, g):
        table, rows = ctx.saved_tensors
        real = rows >= 0
        return torch.zeros_like(table).index_add_(0, rows[real], 2 * (g * table[rows.clamp_min(0)])[real]), None


class PaddedLookupWraps(PaddedLookup):
    """-1 wraps: padding is credited to the last row."""

    @staticmethod
    def backward(ctx, g):
        table, rows = ctx.saved_tensors
        return torch.zeros_like(table).index_add_(0, rows % len(table), 2 * g * table[rows % len(table)]), None


def pool(x):
    """Maximum over windows of three with stride one: [b n] -> [b n-2]."""
    return x.unfold(1, 3, 1).amax(-1)


class Pool(Rule):
    @staticmethod
    def forward(ctx, x):
        window = x.unfold(1, 3, 1).max(-1)
        ctx.save_for_backward(window.indices + torch.arange(x.shape[1] - 2))
        ctx.shape = x.shape
        return window.values.clone()

    @staticmethod
    def backward(ctx, g):
        (where,) = ctx.saved_tensors
        return g.new_zeros(ctx.shape).scatter_add_(1, where, g)


class PoolOverwrites(Pool):
    """Windows overlap, and an element that wins twice is paid once."""

    @staticmethod
    def backward(ctx, g):
        (where,) = ctx.saved_tensors
        return g.new_zeros(ctx.shape).scatter_(1, where, g)


FAULTS = (
    fault(
        "duplicates_keep_the_last",
        must_fail=("special", "vjp"),
        wrong=EmbeddingLast,
        right=Embedding,
        args=[arg("table", "5 d"), integers("rows", "k", lo=0, hi=4)],
        reference=embedding,
        source="pytorch/pytorch#1528",
        note="a repeated index",
    ),
    fault(
        "gather_for_scatter",
        wrong=EmbeddingGathers,
        right=Embedding,
        args=[arg("table", "5 d"), integers("rows", "k", lo=0, hi=4)],
        reference=embedding,
        source="ooples/AiDotNet.Tensors#894",
    ),
    fault(
        "padding_wraps",
        must_fail=("special", "vjp"),
        wrong=PaddedLookupWraps,
        right=PaddedLookup,
        args=[arg("table", "4 d"), integers("rows", "k", lo=-1, hi=3)],
        reference=padded_lookup,
        note="a padding index",
    ),
    fault(
        "overlapping_windows",
        wrong=PoolOverwrites,
        right=Pool,
        args=[arg("x", "b n")],
        dims={"n": Dim(lo=3, hi=20)},
        reference=pool,
        source="pytorch/pytorch#197888",
        note="windows that overlap",
    ),
)
