"""Calls that reach into each other, changes that go unseen, memory that nobody wrote."""

from __future__ import annotations

import threading
from functools import partial
from typing import ClassVar

import torch

from tests.faults.record import NONEMPTY, SMALL, Rule, arg, integers, pair

fault = partial(pair, cls="lifetime", primary="lifetime")


def wave(x, w):
    return torch.sin(x) * w


class Wave(Rule):
    """Saves through torch, which counts versions."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return wave(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * torch.cos(x) * w, g * torch.sin(x)


class WaveOwnCopy(Wave):
    """Keeps copies of its own, which nobody else can change: the gradient is that of the old values."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x.clone(), w.clone())
        return wave(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * torch.cos(x) * w, g * torch.sin(x)


class WaveOnContext(WaveOwnCopy):
    """Keeps its inputs as an attribute: an optimizer's step before backward changes them, and torch does not notice."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.own = (x, w)
        return wave(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.own
        return g * torch.cos(x) * w, g * torch.sin(x)


class WaveDetached(Wave):
    """detach() shares the version counter."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x.detach(), w.detach())
        return wave(x, w)


class WaveData(Wave):
    """.data has a version counter of its own, which stands still."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x.data, w.data)
        return wave(x, w)


class Exponential(Rule):
    @staticmethod
    def forward(ctx, x):
        y = torch.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class ExponentialData(Exponential):
    """Saves an alias of its output that misses what is done to the output later."""

    @staticmethod
    def forward(ctx, x):
        y = torch.exp(x)
        ctx.save_for_backward(y.data)
        return y


class Offloaded(Exponential):
    """What is saved lies in a store, each call under a key of its own."""

    store: ClassVar[dict[int, torch.Tensor]] = {}

    @staticmethod
    def forward(ctx, x):
        y = torch.exp(x)
        if ctx.needs_input_grad[0]:
            ctx.token = _Token(Offloaded.store)
            Offloaded.store[id(ctx.token)] = y.clone()
        return y

    @staticmethod
    def backward(ctx, g):
        return g * Offloaded.store[id(ctx.token)]


class _Token:
    """Takes what is stored for a call with it when it goes."""

    def __init__(self, store):
        self.store = store

    def __del__(self):
        self.store.pop(id(self), None)


class OffloadedStack(Exponential):
    """What is saved lies on a stack, and is taken from it in reverse: right while backwards come in that order."""

    stack: ClassVar[list[torch.Tensor]] = []

    @staticmethod
    def forward(ctx, x):
        y = torch.exp(x)
        ctx.mine = None
        if ctx.needs_input_grad[0]:
            OffloadedStack.stack.append(y.clone())
        return y

    @staticmethod
    def backward(ctx, g):
        if ctx.mine is None:
            ctx.mine = OffloadedStack.stack.pop()
        return g * ctx.mine


class Buffered(Exponential):
    """Works in a buffer of the thread's, and returns a copy of what it holds."""

    kept = threading.local()

    @staticmethod
    def backward(ctx, g):
        return Buffered.worked(ctx, g).clone()

    @staticmethod
    def worked(ctx, g):
        (y,) = ctx.saved_tensors
        buffer = vars(Buffered.kept).setdefault((y.shape, y.dtype), torch.zeros_like(y))
        return torch.mul(g, y, out=buffer)


class BufferReturned(Buffered):
    """Returns the buffer itself: the next backward of that shape writes over the gradient that this one returned."""

    @staticmethod
    def backward(ctx, g):
        return Buffered.worked(ctx, g)


def paired_sum(x):
    """x[0] + x[1], x[2] + x[3], ...; a last one that is alone is left out: [n] -> [n // 2]."""
    half = len(x) // 2
    return x[: 2 * half].reshape(half, 2).sum(1)


class PairedSum(Rule):
    """The gradient is written in place, and all of it."""

    @staticmethod
    def forward(ctx, x):
        ctx.n = len(x)
        return paired_sum(x)

    @staticmethod
    def backward(ctx, g):
        out = g.new_empty(ctx.n)
        out[: 2 * len(g)] = g.repeat_interleave(2)
        out[2 * len(g) :] = 0
        return out


class PairedSumTail(PairedSum):
    """The element that was left out gets no gradient, and whatever its memory held."""

    @staticmethod
    def backward(ctx, g):
        out = g.new_empty(ctx.n)
        out[: 2 * len(g)] = g.repeat_interleave(2)
        return out


class PairedSumWorkspace(PairedSum):
    """Works in one buffer of the thread's, as large as its largest call, and clears what it does not write."""

    kept = threading.local()
    clear = True

    @classmethod
    def taken(cls, n, dtype):
        space = vars(cls.kept).get(cls)
        if space is None or len(space) < n or space.dtype != dtype:
            space = vars(cls.kept)[cls] = torch.zeros(n, dtype=dtype)
        if cls.clear:
            space[:n] = 0
        return space[:n]

    @classmethod
    def worked(cls, ctx, g):
        out = cls.taken(ctx.n, g.dtype)
        out[: 2 * len(g)] = g.repeat_interleave(2)
        return out.clone()

    @staticmethod
    def backward(ctx, g):
        return PairedSumWorkspace.worked(ctx, g)


class PairedSumStale(PairedSumWorkspace):
    """Cleared when it was made, not when it is used: a smaller call finds what a larger one left."""

    clear = False

    @staticmethod
    def backward(ctx, g):
        return PairedSumStale.worked(ctx, g)


def scatter_rows(x, rows):
    """x[i] added to row rows[i] of four: [k d], [k] -> [4 d]."""
    return x.new_zeros(4, x.shape[1]).index_add(0, rows, x)


class ScatterRows(Rule):
    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        return scatter_rows(x, rows)

    @staticmethod
    def backward(ctx, g):
        (rows,) = ctx.saved_tensors
        return torch.index_select(g, 0, rows), None


class ScatterRowsSkips(ScatterRows):
    """Writes the gradients of rows that have one entry or more after the first: those of row 0 stay unwritten."""

    @staticmethod
    def backward(ctx, g):
        (rows,) = ctx.saved_tensors
        out = torch.empty_like(g[rows])
        out[rows > 0] = g[rows[rows > 0]]
        return out, None


def row_means(x, rows):
    """The mean of the x[i] with rows[i] = k, for k = 0 ... 3; zero where there is none: [k], [k] -> [4]."""
    counts = torch.bincount(rows, minlength=4).clamp(min=1)
    return x.new_zeros(4).index_add(0, rows, x) / counts


class RowMeans(Rule):
    """Counts again in backward, in integers, which hold no NaN."""

    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        return row_means(x, rows)

    @staticmethod
    def backward(ctx, g):
        return RowMeans.shared(ctx, g, torch.zeros(4, dtype=torch.int64, device=g.device)), None

    @staticmethod
    def shared(ctx, g, counts):
        (rows,) = ctx.saved_tensors
        counts.index_add_(0, rows, torch.ones_like(rows))
        return (g / counts.clamp(min=1))[rows]


class RowMeansOnGarbage(RowMeans):
    """Counts on top of what the memory held."""

    @staticmethod
    def backward(ctx, g):
        return RowMeans.shared(ctx, g, torch.empty(4, dtype=torch.int64, device=g.device)), None


def dropped(x):
    """2 x where a coin says so, else zero."""
    return 2 * x * (torch.rand_like(x) < 0.5)


class Dropped(Rule):
    """Draws at random, and writes every element of what it hands out."""

    @staticmethod
    def forward(ctx, x):
        keep = torch.rand_like(x) < 0.5
        ctx.save_for_backward(keep)
        return 2 * x * keep

    @staticmethod
    def backward(ctx, g):
        (keep,) = ctx.saved_tensors
        out = torch.empty_like(g)
        out[keep] = 2 * g[keep]
        out[~keep] = 0
        return out


class DroppedUnwritten(Dropped):
    """Writes what was kept."""

    @staticmethod
    def backward(ctx, g):
        (keep,) = ctx.saved_tensors
        out = torch.empty_like(g)
        out[keep] = 2 * g[keep]
        return out


class Fused(Wave):
    """Adds the weight's gradient to .grad itself, as fused kernels do, and returns it for the engine to add again."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.weight = w
        return Wave.forward(ctx, x, w)

    @staticmethod
    def backward(ctx, g):
        gx, gw = Wave.backward(ctx, g)
        if ctx.weight.grad is not None:
            ctx.weight.grad += gw
        return gx, gw


def gated(x, w):
    return torch.sigmoid(x) * w


class Gated(Rule):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return gated(x, w)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        p = torch.sigmoid(x)
        return g * w * p * (1 - p), g * p


def gated_op(x, w):
    """One path in training and inference."""
    return Gated.apply(x, w)


def gated_fast(x, w):
    """In inference another path, with a hard sigmoid."""
    if torch.is_inference_mode_enabled():
        return torch.clamp(x / 6 + 0.5, 0, 1) * w
    return Gated.apply(x, w)


UNARY = [arg("x", "n", SMALL)]
BOTH = [arg("x", "n", SMALL), arg("w", "n", SMALL)]
SOME = {"n": NONEMPTY}

FAULTS = (
    fault(
        "inputs_on_the_context",
        wrong=WaveOnContext,
        right=WaveOwnCopy,
        args=BOTH,
        dims=SOME,
        reference=wave,
        primary="memory",
        must_fail=("memory", "lifetime"),
        note="an input changes between forward and backward",
    ),
    fault(
        "inputs_saved_as_data",
        wrong=WaveData,
        right=WaveDetached,
        args=BOTH,
        dims=SOME,
        reference=wave,
        code="GV212",
        note="an input changes between forward and backward",
    ),
    fault(
        "output_saved_as_data",
        wrong=ExponentialData,
        right=Exponential,
        args=UNARY,
        dims=SOME,
        reference=torch.exp,
        code="GV212",
        note="an output changes between forward and backward",
    ),
    fault(
        "saved_on_a_stack",
        wrong=OffloadedStack,
        right=Offloaded,
        args=UNARY,
        dims=SOME,
        reference=torch.exp,
        code="GV209",
        must_fail=("lifetime", "memory"),
        note="backwards in the order of the forwards",
    ),
    fault(
        "gradient_is_the_buffer",
        wrong=BufferReturned,
        right=Buffered,
        args=UNARY,
        dims=SOME,
        reference=torch.exp,
        code="GV209",
        note="the first gradient looked at after the second backward",
    ),
    fault(
        "workspace_of_the_largest_call",
        wrong=PairedSumStale,
        right=PairedSumWorkspace,
        args=UNARY,
        dims=SOME,
        reference=paired_sum,
        code="GV209",
        note="a smaller call after a larger one",
    ),
    fault(
        "last_element_unwritten",
        wrong=PairedSumTail,
        right=PairedSum,
        args=UNARY,
        dims=SOME,
        reference=paired_sum,
        code="GV211",
        source="fla-org/flash-linear-attention#892",
        note="fresh memory that is not zero by luck",
    ),
    fault(
        "masked_rows_unwritten",
        wrong=ScatterRowsSkips,
        right=ScatterRows,
        args=[arg("x", "k d", SMALL), integers("rows", "k", lo=0, hi=3)],
        reference=scatter_rows,
        note="rows that the mask leaves out",
    ),
    fault(
        "counts_on_garbage",
        wrong=RowMeansOnGarbage,
        right=RowMeans,
        args=[arg("x", "k"), integers("rows", "k", lo=0, hi=3)],
        dims={"k": NONEMPTY},
        reference=row_means,
        code="GV211",
        source="PASSIONLab/OpenEquivariance#138",
        note="no NaN shows: the gradient follows what fresh memory is filled with",
    ),
    fault(
        "dropped_elements_unwritten",
        wrong=DroppedUnwritten,
        right=Dropped,
        args=[arg("x", "*b n")],
        dims=SOME,
        stochastic=True,
        reference=dropped,
        code="GV211",
        note="its twin is random and writes everything",
    ),
    fault(
        "adds_to_grad_itself",
        wrong=Fused,
        right=Wave,
        args=BOTH,
        dims=SOME,
        reference=wave,
        note="`.grad` is not None",
    ),
    fault(
        "another_path_in_inference",
        wrong=gated_fast,
        right=gated_op,
        args=BOTH,
        dims=SOME,
        reference=gated,
        code="GV213",
    ),
)
