"""The grammar of `fresh_functions`: a line of text becomes a callable and fresh inputs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ci.bench.op import Fn, Tensors

# Half of the runs multiply free arguments by a number between these, evenly in the exponent.
SCALES = (-5.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Function:
    """One line of the table."""

    name: str
    arguments: tuple[tuple[tuple[int, ...], str], ...]
    kwargs: dict[str, Any]
    kinked: bool
    as_list: bool

    def draw(self, rng: torch.Generator, *, scaled: bool) -> tuple[Fn, Tensors]:
        """A callable of the differentiable arguments, the others bound, and their values at a fresh point."""
        exponent = torch.rand((), generator=rng, dtype=torch.float64) * (SCALES[1] - SCALES[0]) + SCALES[0]
        factor = float(10**exponent) if scaled else 1.0
        drawn = [_values(shape, domain, rng, factor) for shape, domain in self.arguments]
        free = [i for i, (_, domain) in enumerate(self.arguments) if not _is_bound(domain)]
        target = _resolve(self.name)

        def call(*inputs: Tensor) -> Any:
            full = list(drawn)
            for i, x in zip(free, inputs, strict=True):
                full[i] = (x + x.mT) / 2 if self.arguments[i][1] == "spd" else x  # its factorisations read one half
            return target(full, **self.kwargs) if self.as_list else target(*full, **self.kwargs)

        return call, tuple(drawn[i] for i in free)


def parse(text: str) -> Iterator[Function]:
    """All functions of a table."""
    for line in filter(str.strip, text.splitlines()):
        name, arguments, kwargs, kind = (part.strip() for part in line.split("|"))
        yield Function(
            name=name,
            arguments=tuple(_argument(a) for a in arguments.split(",")),
            kwargs=eval(f"dict({kwargs})", {"dict": dict, "True": True, "False": False}),  # our own table
            kinked="kinked" in kind,
            as_list="seq" in kind,
        )


def _argument(text: str) -> tuple[tuple[int, ...], str]:
    sizes, domain = text.split()
    return tuple(map(int, sizes.split("x"))), domain


def _resolve(name: str) -> Any:
    module, attribute = name.rsplit(".", 1)
    return getattr(importlib.import_module(module), attribute)


def _is_bound(domain: str) -> bool:
    return domain in ("sign", "const") or domain.startswith("ints<")


def _values(shape: tuple[int, ...], domain: str, rng: torch.Generator, factor: float) -> Tensor:
    normal = torch.randn(shape, generator=rng, dtype=torch.float64)
    uniform = torch.rand(shape, generator=rng, dtype=torch.float64)
    if between := re.fullmatch(r"(-?[\d.]+?)\.\.(-?[\d.]+)", domain):
        lo, hi = map(float, between.groups())
        return lo + (hi - lo) * uniform
    if domain.startswith("ints<"):
        return torch.randint(int(domain[5:]), shape, generator=rng)
    return _NAMED[domain](normal, factor)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype)


_NAMED = {
    "real": lambda z, factor: z * factor,
    "positive": lambda z, factor: torch.exp(z) * factor,
    "spd": lambda z, factor: z @ z.mT / z.shape[-1] + 0.5 * _eye(z),
    "regular": lambda z, factor: _eye(z) + 0.25 * z,
    "lower": lambda z, factor: torch.tril(0.3 * z, -1) + _eye(z) * (1 + 0.2 * z.diagonal(dim1=-2, dim2=-1).tanh()),
    "logprob": lambda z, factor: torch.log_softmax(z, -1),
    "sign": lambda z, factor: torch.where(z > 0, 1.0, -1.0).double(),
    "const": lambda z, factor: z,
}
