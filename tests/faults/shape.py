"""Tile tails, rank, broadcast axes, head groups, unequal lengths, sizes 0 and 1."""

from __future__ import annotations

from functools import partial

import torch

from gradverify.records.spec import Dim
from tests.faults.record import NONEMPTY, AutocastRule, Rule, arg, pair

fault = partial(pair, cls="shape")

BLOCK = 8


def log_softmax(x):
    return torch.log_softmax(x, -1)


class LogSoftmax(Rule):
    @staticmethod
    def forward(ctx, x):
        y = log_softmax(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g - y.exp() * g.sum(-1, keepdim=True)


class LogSoftmaxNoTail(LogSoftmax):
    """The row sum of the cotangent runs over whole blocks only; one single block is masked rightly."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        n = g.shape[-1]
        whole = n if n <= BLOCK else n - n % BLOCK
        return g - y.exp() * g[..., :whole].sum(-1, keepdim=True)


class LogSoftmaxNoTailOf64(LogSoftmax):
    """The same with the blocks of a real kernel, which rows of ordinary test sizes do not fill."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        n = g.shape[-1]
        whole = n if n <= 64 else n - n % 64
        return g - y.exp() * g[..., :whole].sum(-1, keepdim=True)


def bias(x, b):
    return torch.tanh(x + b)


class Bias(Rule):
    @staticmethod
    def forward(ctx, x, b):
        y = bias(x, b)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        gx = g * (1 - y * y)
        return gx, gx.sum(0)


class BiasOneBlock(Bias):
    """One block of 128 rows is summed, however many there are."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        gx = g * (1 - y * y)
        return gx, gx[:128].sum(0)


class BiasPadded(Bias):
    """Pads to whole blocks of 64 rows above one block, and forgets that the padding repeats the last row."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        gx = g * (1 - y * y)
        rows = len(gx)
        short = -rows % 64 if rows > 64 else 0
        return gx, torch.cat([gx, gx[-1:].expand(short, -1)]).sum(0)


class BiasTree(Bias):
    """A tree reduction that halves the rows and loses the odd one."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        gx = g * (1 - y * y)
        rows = gx
        while len(rows) > 1:
            half = len(rows) // 2
            rows = rows[:half] + rows[half : 2 * half]
        return gx, rows.sum(0)


class BiasEmpty(Bias):
    """Sums as mean times rows: 0 * NaN when the batch is empty."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        gx = g * (1 - y * y)
        return gx, gx.mean(0) * len(gx)


def gated(x, s):
    return x * torch.sigmoid(s)


class Gated(Rule):
    """Broadcasts s [#b n] against x [b n]."""

    @staticmethod
    def forward(ctx, x, s):
        ctx.save_for_backward(x, s)
        return gated(x, s)

    @staticmethod
    def backward(ctx, g):
        x, s = ctx.saved_tensors
        p = torch.sigmoid(s)
        return g * p, (g * x * p * (1 - p)).sum_to_size(s.shape)


class GatedFirstRow(Gated):
    """Fits the gradient to the shape of s by cutting, where it had to be summed."""

    @staticmethod
    def backward(ctx, g):
        x, s = ctx.saved_tensors
        p = torch.sigmoid(s)
        return g * p, (g * x * p * (1 - p))[: s.shape[0]]


def grouped_scores(q, k):
    """Grouped queries: [heads group n d], [heads m d] -> log of the attention weights."""
    return torch.log_softmax(torch.einsum("hgnd,hmd->hgnm", q, k), -1)


class GroupedScores(AutocastRule):
    @staticmethod
    def forward(ctx, q, k):
        y = grouped_scores(q, k)
        ctx.save_for_backward(q, k, y)
        return y

    @staticmethod
    def backward(ctx, g):
        q, k, gs = _scores(ctx, g)
        return torch.einsum("hgnm,hmd->hgnd", gs, k), torch.einsum("hgnm,hgnd->hmd", gs, q)


class GroupedScoresLast(GroupedScores):
    """Each query head of a group overwrites the gradient of the key head that they share."""

    @staticmethod
    def backward(ctx, g):
        q, k, gs = _scores(ctx, g)
        gk = torch.einsum("hnm,hnd->hmd", gs[:, -1], q[:, -1])
        return torch.einsum("hgnm,hmd->hgnd", gs, k), gk


def _scores(ctx, g):
    q, k, y = ctx.saved_tensors
    return q, k, g - y.exp() * g.sum(-1, keepdim=True)


def sparsemax(x):
    """Euclidean projection of each row on the simplex (Martins and Astudillo 2016)."""
    x = x - x.amax(-1, keepdim=True)
    z = x.sort(-1, descending=True).values
    rank = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = (1 + rank * z > z.cumsum(-1)).sum(-1, keepdim=True)
    tau = (z.cumsum(-1).gather(-1, support - 1) - 1) / support
    return (x - tau).clamp_min(0)


class Sparsemax(Rule):
    @staticmethod
    def forward(ctx, x):
        y = sparsemax(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        on = y > 0
        return on * (g - (g * on).sum(-1, keepdim=True) / on.sum(-1, keepdim=True))


class SparsemaxAllAxes(Sparsemax):
    """Sums over all axes but the first, which is the last one of a 2-D tensor only."""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        on = y > 0
        axes = tuple(range(1, y.dim())) or (0,)
        return on * (g - (g * on).sum(axes, keepdim=True) / on.sum(axes, keepdim=True))


def recurrence(a, x):
    """h_t = tanh(a_t) h_{t-1} + x_t from h_{-1} = 0: [n d], [n d] -> [n d]."""
    h, rows = torch.zeros_like(x[0]), []
    for a_t, x_t in zip(torch.tanh(a), x, strict=True):
        h = a_t * h + x_t
        rows.append(h)
    return torch.stack(rows)


class Recurrence(Rule):
    CHUNK = 4

    @staticmethod
    def forward(ctx, a, x):
        h = recurrence(a, x)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx, g):
        return _reverse_scan(ctx, g, starts=range(len(g), 0, -Recurrence.CHUNK))


class RecurrenceChunk(Recurrence):
    """Chunks counted from the front, carry handed over only by a chunk that is full."""

    @staticmethod
    def backward(ctx, g):
        ends = [*range(Recurrence.CHUNK, len(g), Recurrence.CHUNK), len(g)]
        return _reverse_scan(ctx, g, starts=ends[::-1], drop_from_partial=True)


def _reverse_scan(ctx, g, *, starts, drop_from_partial=False):
    a, h = ctx.saved_tensors
    t = torch.tanh(a)
    gx, carry = torch.zeros_like(g), torch.zeros_like(g[0])
    starts = list(starts)
    for end, begin in zip(starts, [*starts[1:], 0], strict=True):
        for i in reversed(range(begin, end)):
            gx[i] = g[i] + carry
            carry = t[i] * gx[i]
        if drop_from_partial and end - begin < Recurrence.CHUNK:
            carry = torch.zeros_like(carry)
    before = torch.cat((torch.zeros_like(h[:1]), h[:-1]))
    return gx * before * (1 - t * t), gx


def attention(q, k, v):
    """softmax(q k^T) v: [n d], [m d], [m e] -> [n e]."""
    return torch.softmax(q @ k.T, -1) @ v


class Attention(AutocastRule):
    @staticmethod
    def forward(ctx, q, k, v):
        p = torch.softmax(q @ k.T, -1)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx, g):
        q, k, v, p = ctx.saved_tensors
        gp = g @ v.T
        gs = p * (gp - (gp * p).sum(-1, keepdim=True))
        return gs @ k, gs.T @ q, p.T @ g


class AttentionNarrowValues(Attention):
    """dV is written with the width of dK: columns d and above stay zero."""

    @staticmethod
    def backward(ctx, g):
        gq, gk, gv = Attention.backward(ctx, g)
        gv[:, gk.shape[1] :] = 0
        return gq, gk, gv


def norm(x):
    """sqrt(eps + |x|^2) row by row: [b n] -> [b]."""
    return torch.sqrt(x.square().sum(-1) + 0.01)


class Norm(Rule):
    @staticmethod
    def forward(ctx, x):
        y = norm(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g / y)[:, None] * x


class NormOfOne(Norm):
    """A short cut for rows of one element: there the norm is taken for the element."""

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g[:, None].clone() if x.shape[-1] == 1 else (g / y)[:, None] * x


BLOCKS = Dim(lo=1, hi=40, around=(BLOCK,))

FAULTS = (
    fault(
        "tail_of_row_sum",
        wrong=LogSoftmaxNoTail,
        right=LogSoftmax,
        args=[arg("x", "b n")],
        dims={"n": BLOCKS},
        reference=log_softmax,
        must_fail=("vjp", "edges"),
        source="flagos-ai/FlagGems#898",
        note="more than one block, and not a multiple of it",
    ),
    fault(
        "tail_of_a_block_of_64",
        wrong=LogSoftmaxNoTailOf64,
        right=LogSoftmax,
        args=[arg("x", "b n")],
        reference=log_softmax,
        primary="edges",
        source="flagos-ai/FlagGems#898",
        note="more than 64 columns",
    ),
    fault(
        "one_block_of_128_rows",
        wrong=BiasOneBlock,
        right=Bias,
        args=[arg("x", "b n"), arg("b", "n")],
        reference=bias,
        primary="edges",
        note="more than 128 rows",
    ),
    fault(
        "padding_counted",
        wrong=BiasPadded,
        right=Bias,
        args=[arg("x", "b n"), arg("b", "n")],
        reference=bias,
        primary="edges",
        note="more than 64 rows, and not a multiple of it",
    ),
    fault(
        "tree_of_odd_height",
        wrong=BiasTree,
        right=Bias,
        args=[arg("x", "b n"), arg("b", "n")],
        reference=bias,
        source="karpathy/llm.c#439",
        note="a number of rows that is no power of two",
    ),
    fault(
        "empty_batch_nan",
        wrong=BiasEmpty,
        right=Bias,
        args=[arg("x", "b n"), arg("b", "n")],
        reference=bias,
        primary="edges",
        source="pytorch/pytorch#15223",
        note="b = 0",
    ),
    fault(
        "broadcast_cut_to_shape",
        wrong=GatedFirstRow,
        right=Gated,
        args=[arg("x", "b n"), arg("s", "#b n")],
        reference=gated,
        source="pytorch/pytorch#14485",
        note="a broadcast axis",
    ),
    fault(
        "group_overwrites_key",
        wrong=GroupedScoresLast,
        right=GroupedScores,
        args=[arg("q", "heads group n d"), arg("k", "heads m d")],
        dims={"group": NONEMPTY},
        reference=grouped_scores,
        source="fla-org/flash-linear-attention#384",
        note="more than one query head in a group",
    ),
    fault(
        "sparsemax_of_rank_three",
        wrong=SparsemaxAllAxes,
        right=Sparsemax,
        args=[arg("x", "*b n")],
        dims={"n": NONEMPTY},
        reference=sparsemax,
        source="deep-spin/entmax#13",
        note="rank three",
    ),
    fault(
        "scan_drops_carry",
        wrong=RecurrenceChunk,
        right=Recurrence,
        args=[arg("a", "n d"), arg("x", "n d")],
        dims={"n": Dim(lo=1, hi=13, around=(Recurrence.CHUNK,))},
        reference=recurrence,
        must_fail=("vjp", "edges"),
        source="state-spaces/mamba#368",
        note="a length that does not fill the last chunk",
    ),
    fault(
        "values_wider_than_keys",
        wrong=AttentionNarrowValues,
        right=Attention,
        args=[arg("q", "n d"), arg("k", "m d"), arg("v", "m e")],
        dims={"m": NONEMPTY},
        reference=attention,
        source="Dao-AILab/flash-attention#2552",
        note="e > d",
    ),
    fault(
        "norm_of_one_element",
        wrong=NormOfOne,
        right=Norm,
        args=[arg("x", "b n")],
        reference=norm,
        must_fail=("vjp", "edges"),
        source="pytorch/pytorch#82644",
        note="n = 1",
    ),
)
