"""Right in one thread, and wrong in two."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import torch

from tests.faults.record import SMALL, Rule, arg, pair

fault = partial(pair, cls="transforms", primary="transforms.threads", code="GV511")


def gate(x, w):
    return torch.tanh(x) * w


def gate_by_way_of(state):
    """tanh(x) w, whose tanh is written to a buffer that `state` keeps from call to call."""

    def squashed(x):
        kept = getattr(state, "buffer", None)
        if kept is None or kept.shape != x.shape or kept.dtype != x.dtype:
            kept = state.buffer = x.new_empty(x.shape)
        return torch.tanh(x.detach(), out=kept)

    class Gate(Rule):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return squashed(x) * w

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            t = squashed(x)
            return g * w * (1 - t * t), g * t

    return Gate


def steep_by_way_of(state):
    """Softplus that is steep while `state` says so, as a context manager sets it and takes it back."""

    @contextmanager
    def steeply():
        state.beta = 4
        try:
            yield
        finally:
            state.beta = 1

    class Steep(Rule):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            with steeply():
                return torch.log1p(torch.exp(x * state.beta)) / state.beta * 4

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with steeply():
                return g * torch.sigmoid(x * state.beta) * state.beta

    return Steep


def decayed(x):
    """Each row times 1, 1/2, 1/3, ...: [b n]."""
    return x / torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)


def decayed_by_way_of(find):
    """The weights come from a table by length and dtype, which forward makes where there is none; `find` reads it."""

    class Decayed(Rule):
        @staticmethod
        def forward(ctx, x):
            weights = TABLES.of_thread().setdefault((x.shape[-1], x.dtype), decayed(x.new_ones(1, x.shape[-1])))
            return x * weights

        @staticmethod
        def backward(ctx, g):
            return g * find(g)

    return Decayed


class Tables(threading.local):
    """One table a thread, so that no lock is needed."""

    def of_thread(self):
        return self.__dict__.setdefault("table", {})


TABLES = Tables()


def as_forward_left_it(g):
    return TABLES.of_thread()[g.shape[-1], g.dtype]


def or_made_anew(g):
    return TABLES.of_thread().setdefault((g.shape[-1], g.dtype), decayed(g.new_ones(1, g.shape[-1])))


FAULTS = (
    fault(
        "buffer_of_all_threads",
        wrong=gate_by_way_of(SimpleNamespace()),
        right=gate_by_way_of(threading.local()),
        args=[arg("x", "n", SMALL), arg("w", "n")],
        reference=gate,
    ),
    fault(
        "mode_of_all_threads",
        wrong=steep_by_way_of(SimpleNamespace()),
        right=steep_by_way_of(threading.local()),
        args=[arg("x", "n", SMALL)],
    ),
    fault(
        "table_of_the_forwards_thread",
        wrong=decayed_by_way_of(as_forward_left_it),
        right=decayed_by_way_of(or_made_anew),
        args=[arg("x", "b n")],
        reference=decayed,
        note="on a GPU every backward runs in a thread of the engine",
    ),
)
