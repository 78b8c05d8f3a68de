"""What a recorded call holds on to: tensors on the context, memory that outlives it, bytes saved for backward."""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from gradverify.autodiff.calling import Called, copies
from gradverify.autodiff.products import Tape, record
from gradverify.autodiff.returned import functions
from gradverify.records.case import Point
from gradverify.records.spec import Spec

DEPTH = 2
"""Attributes of a context are looked into this deep: `ctx.parts["x"][0]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A tensor that a context holds otherwise than by `save_for_backward`, and by which path."""

    path: str
    tensor: Tensor


def attributes(tape: Tape) -> tuple[Attribute, ...]:
    """The tensors among the attributes of the contexts, also in lists, tuples, dicts, closures and plain objects."""
    found = (a for node in functions(tape) for n, v in vars(node).items() for a in _tensors(f"ctx.{n}", v, DEPTH))
    return tuple({(a.path, id(a.tensor)): a for a in found}.values())


def _tensors(path: str, value: Any, depth: int) -> Iterator[Attribute]:
    if isinstance(value, Tensor):
        yield Attribute(path=path, tensor=value)
    elif depth:
        for step, part in _parts(value):
            yield from _tensors(path + step, part, depth - 1)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", v) for i, v in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f"[{k!r}]", v) for k, v in value.items())
    elif isinstance(value, functools.partial):
        yield from ((f".args[{i}]", v) for i, v in enumerate(value.args))
        yield from ((f".{k}", v) for k, v in value.keywords.items())
    elif isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
        yield from ((f" over {n}", c.cell_contents) for n, c in cells if c != types.CellType())
    elif not isinstance(value, type | types.ModuleType | torch.nn.Module):
        yield from ((f".{k}", v) for k, v in getattr(value, "__dict__", {}).items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A weak hold on something of one call; `kind`: input, parameter, output, saved, node; `memory`: which storage."""

    kind: str
    name: str
    alive: Callable[[], bool]
    memory: int


def traces(tape: Tape) -> tuple[Trace, ...]:
    """Weak holds on the inputs, outputs, saved tensors and nodes of a call; what is several of them counts once."""
    tensors = [(_role(tape, n), f"the input `{n}`", t) for n, t in tape.given.items()]
    tensors += [("output", f"output {i}", t) for i, t in enumerate(tape.outputs)]
    tensors += [("saved", f"saved tensor {i}", t) for i, t in enumerate(tape.saved())]
    tensors += [("saved", f"`{a.path}`", a.tensor) for a in attributes(tape)]
    weak = [(kind, name, StorageWeakRef(t.untyped_storage())) for kind, name, t in tensors]  # type: ignore[no-untyped-call]
    first = {ref.cdata: Trace(kind=k, name=n, alive=_alive(ref), memory=ref.cdata) for k, n, ref in reversed(weak)}
    return (*reversed(first.values()), *map(_of_node, functions(tape)))


def _role(tape: Tape, name: str) -> str:
    """An input; but a parameter belongs to its module, which may keep the last one that it was given."""
    return "parameter" if tape.spec.arg(name).domain.kind == "parameter" else "input"


def _alive(ref: Any) -> Callable[[], bool]:
    return lambda: not ref.expired()


def _of_node(node: Any) -> Trace:
    name = f"the graph's node of {type(node).__name__.removesuffix('Backward')}"
    return Trace(kind="node", name=name, alive=_living(node), memory=id(node))


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage is collected: what only the collector frees stays. Whatever is young is moved out of its way first."""
    enabled = gc.isenabled()
    gc.collect(0)
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def collect() -> None:
    """Free the cycles among what was made since `collector_off` was entered: all of it is young."""
    gc.collect(0)


def young() -> dict[int, Callable[[], bool]]:
    """The tensors that Python knows of, made since `collector_off` was entered: their ids, and whether each lives."""
    return {id(o): _living(o) for o in gc.get_objects(0) if issubclass(type(o), Tensor)}


def _living(o: object) -> Callable[[], bool]:
    ref = weakref.ref(o)
    return lambda: ref() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A tensor that is kept for backward, and the bytes of it."""

    name: str
    bytes: int


def saved(spec: Spec, called: Called, point: Point) -> tuple[Saved, ...]:
    """What one forward keeps for backward beside its own inputs, in the order in which it is saved.

    Counts what torch's own operations save, too; memory that is saved twice counts once.
    """
    packed: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        packed.append(t.detach())
        return t.detach()

    given = copies(point.primals)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        tape = record(spec, called, point, primals=given)
    inputs = {t.untyped_storage().data_ptr() for t in tape.given.values()}
    rest = [("", t) for t in packed] + [(a.path, a.tensor) for a in attributes(tape)]
    kept = {t.untyped_storage().data_ptr(): (n, t) for n, t in reversed(rest) if t.numel()}
    return tuple(
        Saved(name=name, bytes=t.untyped_storage().nbytes())
        for where, (name, t) in reversed(kept.items())
        if where not in inputs
    )
