"""Modules of which a copy is another op, or none."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from tests.faults.record import arg, pair

fault = partial(pair, cls="transforms", primary="transforms.pickle", code="GV510", args=[arg("x", "b n")])


class Shares(nn.Module):
    """The softmax of a row over a temperature; a copy has the same table of constants, and weights of its own."""

    table = torch.arange(4)

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return torch.softmax(x / (self.temperature * self.table[1]), -1)

    def __deepcopy__(self, memo):
        made = copy.copy(self)
        made._parameters = copy.deepcopy(self._parameters, memo)
        return made


class SharesShared(Shares):
    """A copy is another module with the same weights: to train the one is to train the other."""

    def __deepcopy__(self, memo):
        return copy.copy(self)


class Scaled(nn.Module):
    """tanh(s x) with a learned s, by way of a method that is kept as an attribute: a copy's is the copy's."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.inner = self.scaled

    def scaled(self, x):
        return self.scale * x

    def forward(self, x):
        return torch.tanh(self.inner(x))


class ScaledByClosure(Scaled):
    """Keeps a closure, of which there is one: it goes on with the scale of the original."""

    def __init__(self):
        super().__init__()
        self.inner = lambda x: self.scale * x


class ScaledByLambda(Scaled):
    """Keeps a function without a name, which cannot be pickled."""

    def __init__(self):
        super().__init__()
        self.outer = lambda y: torch.tanh(y)

    def forward(self, x):
        return self.outer(self.scale * x)


class Remembers(nn.Module):
    """exp(-s x^2), and the last of it, for whoever wants to log it."""

    def __init__(self):
        super().__init__()
        self.width = nn.Parameter(torch.tensor(0.3))
        self.last = None

    def forward(self, x):
        y = torch.exp(-self.width * x * x)
        self.last = y.detach()
        return y


class RemembersTheGraph(Remembers):
    """With the graph that made it, which no copy can have."""

    def forward(self, x):
        self.last = torch.exp(-self.width * x * x)
        return 1 * self.last


FAULTS = (
    fault("weights_of_the_original", wrong=SharesShared(), right=Shares()),
    fault("closure_over_the_original", wrong=ScaledByClosure(), right=Scaled()),
    fault("function_made_on_the_spot", wrong=ScaledByLambda(), right=Scaled()),
    fault(
        "result_kept_with_its_graph",
        wrong=RemembersTheGraph(),
        right=Remembers(),
        primary="memory",
        must_fail=("memory", "transforms.pickle"),
        code="GV207",
    ),
)
