"""A module as a function of its inputs, its parameters and its mode; its buffers are those that it has, every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module


def functional(module: Module, *, wrote: set[str] | None = None) -> Callable[..., Any]:
    """(inputs, parameters by path, training) -> what the module returns.

    Every call starts from copies of the module's buffers: what it writes to them (running statistics, counters) is
    dropped, so that one call is like the other; `wrote` is told the names of such buffers.
    `training`: None, or the module's own, leaves each layer as it is.
    """
    recurrent = [layer for layer in module.modules() if isinstance(layer, torch.nn.RNNBase)]

    def call(*inputs: Any, parameters: Mapping[str, Tensor], training: bool | None = None, **more: Any) -> Any:
        buffers = {name: b.clone() for name, b in module.named_buffers()}
        with _mode(module, training):
            out = torch.func.functional_call(module, {**parameters, **buffers}, inputs, more)
        for layer in recurrent:
            layer._init_flat_weights()  # noqa: SLF001 (torch leaves the weights of the call in its list of them)
        if wrote is not None:
            # By value: torch's own batch norm writes without a new version.
            wrote.update(name for name, own in module.named_buffers() if not torch.equal(buffers[name], own))
        return out

    kind = type(module)
    call.__module__, call.__qualname__ = kind.__module__, f"{kind.__qualname__}()"
    return call


@contextmanager
def _mode(module: Module, training: bool | None) -> Iterator[None]:  # noqa: FBT001 (torch's word)
    if training is None or training == module.training:
        yield
        return
    before = [(layer, layer.training) for layer in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for layer, was in before:
            layer.training = was
