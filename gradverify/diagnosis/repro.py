"""A failure as a few lines of plain torch: they print the wrong and the true number, without gradverify."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradverify.autodiff import calling
from gradverify.cases import materialise
from gradverify.errors import GradverifyError
from gradverify.records.case import Case, Point
from gradverify.records.evidence import Evidence, Mismatch
from gradverify.records.spec import Spec, describe_callable

MOST = 200
"""Inputs of more numbers are not written into a snippet."""

WIDEST = 78
"""Columns of a snippet: it is printed with an indent of 8."""

STEP = 1e-4
"""Part of an input's size, or of 1, that is the step of the snippet's differences, for the eye alone: their error
of h^2 is 1e-8, and rounding makes 1e-12 of a float64 forward, 1e-3 of one that is float32 inside."""


def repro(spec: Spec, e: Evidence) -> str:
    """The snippet of a failing measurement; empty where no plain one can be told."""
    imported = _imported(spec)
    if imported is None or spec.nested or spec.stochastic or not all(n.isidentifier() for n in spec.order):
        return ""
    try:
        point = materialise.materialise(spec, e.case)
    except GradverifyError:
        return ""
    tensors = [t for t in point.primals.values() if t is not None]
    if sum(t.numel() for t in tensors) > MOST or any(t.is_complex() or t.device.type != "cpu" for t in tensors):
        return ""
    script = _Script(spec=spec, case=e.case, point=point, imports=imported[0], op=imported[1])
    try:
        return "\n".join(script.lines(e))
    except GradverifyError:
        return ""


def _imported(spec: Spec) -> tuple[str, str] | None:
    """The line that imports the op, and the expression that is called; None where it has no name of its own."""
    op = spec.op
    function = isinstance(op, type) and issubclass(op, torch.autograd.Function)
    module, _, path = describe_callable(op).partition(":")
    home: Any = sys.modules.get(getattr(op, "__module__", None) or "")
    found = home
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not op or not path:
        return None
    call = f"{path}.apply" if function else path
    if module.endswith(".py"):
        name = path.partition(".")[0]
        return f'import runpy\nimport torch\n\n{name} = runpy.run_path("{module}")["{name}"]', call
    return f"import torch\nfrom {module} import {path.partition('.')[0]}\n", call


@dataclass(frozen=True, slots=True, kw_only=True)
class _Script:
    """What a snippet is written from."""

    spec: Spec
    case: Case
    point: Point
    imports: str
    op: str

    def lines(self, e: Evidence) -> list[str]:
        body = list(self.body(e))
        return [*self.imports.split("\n"), *self.inputs(), *body] if body else []

    def body(self, e: Evidence) -> Iterator[str]:
        place = e.worst
        if e.facts.get("kind") == "raised":
            yield from self.raising()
        elif place is None or place.index is None or place.argument not in self.point.differentiate:
            return
        elif e.claim in ("vjp", "edges", "special") and not place.output_name:
            if place.output_index is not None:
                yield from self.gradient(e, place, place.output_index)
            elif not math.isfinite(e.analytic):
                yield from self.not_finite(place)
        elif e.claim == "linear":
            yield from self.linear(e, place)
        elif e.claim == "layout" and not e.facts.get("kind"):
            yield from self.layout(place)

    def inputs(self) -> Iterator[str]:
        """One line for each tensor, as exact numbers."""
        for name, t in self.point.primals.items():
            grad = ".requires_grad_()" if name in self.point.differentiate else ""
            yield from _narrow(f"{name} = {'None' if t is None else literal(t) + grad}")

    def call(self, changed: Mapping[str, str] | None = None) -> str:
        """The call of the op, some of its inputs by other names."""
        _, positional, named = calling.signature_of(self.spec)
        words = {n: repr(v) for n, v in self.point.kwargs.items()} | dict(changed or {})
        given = [words.get(n, n) for n in positional] + [f"{n}={words.get(n, n)}" for n in named]
        return f"{self.op}({', '.join(given)})"

    def free(self, *words: str) -> str:
        """The first of some names that no input has."""
        return next(w for w in words if w not in self.spec.order)

    def raising(self) -> Iterator[str]:
        out = self.free("y", "out", "result")
        yield f"{out} = {self.call()}"
        yield f"{out} = {out} if isinstance({out}, torch.Tensor) else {out}[0]"
        yield f"{out}.sum().backward()"

    def output(self, k: int | None) -> str:
        """Which of several outputs."""
        return f"[{k}]" if k is not None and self.several() else ""

    def several(self) -> bool:
        with torch.no_grad():
            primals = calling.copies(self.point.primals)
            return len(calling.op_of(self.spec)(primals, self.point.kwargs)) > 1

    def gradient(self, e: Evidence, place: Mismatch, where: tuple[int, ...]) -> Iterator[str]:
        x, i = place.argument, _index(place.index)
        y, out = self.free("y", "out", "result"), self.output(place.output)
        yield f"{y} = {self.call()}{out}{_index(where)}"
        if e.analytic == 0:
            g = self.free("g", "found")
            yield f"({g},) = torch.autograd.grad({y}, {x}, materialize_grads=True)"
            yield f'print({g}{i}.item(), "backward()")'
        else:
            yield f'print(torch.autograd.grad({y}, {x})[0]{i}.item(), "backward()")'
        if self.spec.contract.kind != "exact" or e.interval is not None or self.spec.truth == "reference":
            yield f'print({e.numeric.value!r}, "{e.facts.get("truth", "the truth")}")'
            return
        f, h, z = self.free("f", "value"), self.free("h", "step"), self.free("z", "moved")
        yield f"def {f}({h}):"
        yield f"    {z} = {x}.detach().clone()"
        yield f"    {z}{i} += {h}"
        yield f"    return {self.call({x: z})}{out}{_index(where)}.item()"
        t = self.point.primals[x]
        assert t is not None
        assert place.index is not None
        size = min(abs(float(t[place.index])), 1.0) or 1.0
        yield f"{h} = {STEP * 2.0 ** math.floor(math.log2(size)):.1e}"
        yield f'print(({f}({h}) - {f}(-{h})) / (2 * {h}), "central differences")'

    def not_finite(self, place: Mismatch) -> Iterator[str]:
        y = self.free("y", "out", "result")
        yield f"{y} = {self.call()}{self.output(place.output)}.sum()"
        yield f'print(torch.autograd.grad({y}, {place.argument})[0]{_index(place.index)}.item(), "backward()")'
        yield f'print({y}.item(), "the sum of the output, which is finite")'

    def cotangents(self, draw: int) -> tuple[Tensor | None, ...]:
        primals = calling.copies(self.point.primals)
        with torch.no_grad():
            outputs = calling.op_of(self.spec)(primals, self.point.kwargs)
        return materialise.cotangents(self.case, outputs, draw=draw)

    def linear(self, e: Evidence, place: Mismatch) -> Iterator[str]:
        relation = str(e.facts.get("relation", ""))
        us = self.cotangents(0)
        if len(us) != 1 or us[0] is None or us[0].numel() > MOST or not relation.startswith("B("):
            return
        y, u, i = self.free("y", "out"), self.free("u", "cotangent"), _index(place.index)
        b = self.free("B", "backward")
        yield f"def {b}(u):"
        yield f"    {y} = {self.call()}"
        yield f"    (found,) = torch.autograd.grad({y}, {place.argument}, u, materialize_grads=True)"
        yield f"    return found{i}.item()"
        yield from _narrow(f"{u} = {literal(us[0])}")
        if "w" in relation:
            (w,) = self.cotangents(1)
            v = self.free("v", "other")
            yield from _narrow(f"{v} = {literal(w) if w is not None else 'None'}")
            yield f'print({b}({u} + {v}), "B(u + v)")'
            yield f'print({b}({u}) + {b}({v}), "B(u) + B(v)")'
            return
        factor = relation.removeprefix("B(").split()[0]
        yield f'print({b}({factor} * {u}), "B({factor} u)")'
        yield f'print({factor} * {b}({u}), "{factor} B(u)")'

    def layout(self, place: Mismatch) -> Iterator[str]:
        us = self.cotangents(0)
        if len(us) != 1 or us[0] is None or us[0].numel() > MOST:
            return
        y, u, x, i = self.free("y", "out"), self.free("u", "cotangent"), place.argument, _index(place.index)
        yield f"{y} = {self.call()}"
        yield from _narrow(f"{u} = {literal(us[0])}")
        g = self.free("g", "found")
        found = f"({g},) = torch.autograd.grad({y}, {x}, {u}, materialize_grads=True)"
        yield found
        yield f'print({g}{i}.item(), "as it lies in memory")'
        for name, t in self.point.primals.items():
            if t is not None and not _plain(t):
                grad = ".requires_grad_()" if name in self.point.differentiate else ""
                yield f"{name} = {name}.detach().clone(memory_format=torch.contiguous_format){grad}"
        yield f"{y} = {self.call()}"
        yield f"{u} = {u}.clone(memory_format=torch.contiguous_format)"
        yield found
        yield f'print({g}{i}.item(), "contiguous")'


def _index(index: tuple[int, ...] | None) -> str:
    return f"[{', '.join(map(str, index))}]" if index else "[()]" if index is not None else ""


def literal(t: Tensor) -> str:
    """An expression that makes the tensor again: its values exactly, its dtype, its strides."""
    dtype = "" if t.dtype in (torch.bool, torch.int64) and t.numel() else f", dtype={t.dtype}"
    repeated = [d for d in range(t.ndim) if t.stride(d) == 0 and t.size(d) > 1]
    if t.numel() == 0:
        return f"torch.zeros({tuple(t.shape)}{dtype})"
    if repeated:
        one = t[tuple(slice(0, 1) if d in repeated else slice(None) for d in range(t.ndim))]
        return f"{literal(one.contiguous())}.expand({', '.join(map(str, t.shape))})"
    values = f"torch.tensor({_written(t.tolist())}{dtype})"
    if _plain(t):
        return values
    start = t.storage_offset()
    room = 1 + start + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    where = f"{tuple(t.shape)}, {t.stride()}" + (f", {start}" if start else "")
    return f"torch.zeros({room}{dtype}).as_strided({where}).copy_({values})"


def _narrow(line: str) -> list[str]:
    """A literal in lines that a screen holds: they are broken behind commas, inside brackets."""
    return textwrap.wrap(line, WIDEST, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _plain(t: Tensor) -> bool:
    return t.is_contiguous() and t.storage_offset() == 0


def _written(values: Any) -> str:
    """Nested lists of numbers; what is not finite by way of float()."""
    if isinstance(values, list):
        return f"[{', '.join(map(_written, values))}]"
    if isinstance(values, float) and not math.isfinite(values):
        return f'float("{values!r}")'
    return repr(values)
