"""Calling an op at a point: by its own signature, on exact copies, its outputs flattened, its failures named."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gradverify.errors import GradverifyError, OpError
from gradverify.records.spec import Spec, describe_callable

Primals = Mapping[str, Tensor | None]
Called = Callable[[Primals, Mapping[str, Any]], tuple[Tensor, ...]]
"""(primals, kwargs) -> output tensors."""


class Clock:
    """Seconds spent inside the user's code, forward and backward."""

    seconds = 0.0


def op_of(spec: Spec) -> Called:
    """The op under test as a function of primals and keywords. A Function is called positionally, through `apply`."""
    op = spec.op
    if isinstance(op, type) and issubclass(op, torch.autograd.Function):
        apply, positional = op.apply, spec.order
    else:
        apply, positional = op, _positional(op, spec)
    return _guarded(spec, apply, positional, tuple(n for n in spec.order if n not in positional), stage="forward")


def companion(spec: Spec, function: Callable[..., Any], *, stage: str = "reference") -> Called:
    """The reference, or the surrogate of a contract: tensors by position, the keywords that it accepts by name."""
    names = _parameters(function)
    tensors = tuple(a.name for a in spec.args)
    if names is None:
        return _guarded(spec, function, tensors, tuple(spec.kwargs), stage=stage)
    if set(spec.order) <= set(names):
        return _guarded(spec, function, (), spec.order, stage=stage)
    return _guarded(spec, function, tensors, tuple(k for k in spec.kwargs if k in names or "**" in names), stage=stage)


def _positional(op: Any, spec: Spec) -> tuple[str, ...]:
    """The names that are given by position; those behind a parameter that the spec leaves out go by name."""
    try:
        parameters = inspect.signature(op).parameters.values()
    except (TypeError, ValueError):
        tensors = tuple(a.name for a in spec.args)
        return next((_before_gap(tensors, names) for names in _schemas(op) if set(tensors) <= set(names)), tensors)
    only = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        only |= set(spec.kwargs)
    given = tuple(n for n in spec.order if n not in only)
    names = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
    return _before_gap(given, names) if set(given) <= set(names) else given


def _before_gap(given: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `given` that stand where the callable has them, up to the first one that does not."""
    pairs = zip(given, names, strict=False)
    return tuple(mine for mine, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _schemas(op: Any) -> Iterator[tuple[str, ...]]:
    """The argument names of each overload of one of torch's builtins, which Python cannot inspect."""
    packet = getattr(torch.ops.aten, getattr(op, "__name__", ""), None) if inspect.isbuiltin(op) else None
    for overload in packet.overloads() if packet is not None else ():
        arguments = getattr(packet, overload)._schema.arguments  # noqa: SLF001 what torch.library prints, too
        yield tuple("input" if a.name == "self" else a.name for a in arguments)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...] | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return tuple("**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters)


def accepted(function: Callable[..., Any], spec: Spec) -> tuple[str, ...]:
    """The spec's keywords that a function can be given by name."""
    names = _parameters(function) or ()
    return tuple(k for k in spec.kwargs if k in names or "**" in names)


def _guarded(
    spec: Spec, fn: Callable[..., Any], positional: tuple[str, ...], named: tuple[str, ...], *, stage: str
) -> Called:
    def call(primals: Primals, kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        values = {**primals, **kwargs}
        began = time.perf_counter()
        try:
            out = fn(*(values[n] for n in positional), **{n: values[n] for n in named})
        except GradverifyError:
            raise
        except Exception as error:
            raise OpError(f"{spec.name}: {_said(stage, error)}", code="GV902", stage=stage) from error
        finally:
            Clock.seconds += time.perf_counter() - began
        return flattened(spec, fn, out)

    return call


def _said(stage: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"the {stage} raised {type(error).__name__}: {first}"


def raised(spec: Spec, error: Exception, *, code: str = "GV902", stage: str = "backward") -> OpError:
    """An exception out of the op as the error that the report shows."""
    return OpError(f"{spec.name}: {_said(stage, error)}", code=code, stage=stage)


def flattened(spec: Spec, fn: Callable[..., Any], out: Any) -> tuple[Tensor, ...]:
    """The tensors that an op returned: one, or a tuple or list of them (None entries are left out)."""
    leaves = out if isinstance(out, tuple | list) else (out,)
    tensors = tuple(t for t in leaves if t is not None)
    strange = next((t for t in tensors if not isinstance(t, Tensor)), None)
    if strange is not None or not tensors:
        kind = type(out if strange is None else strange).__name__
        message = f"{spec.name}: {describe_callable(fn)} returned {kind}; return a tensor, or a tuple of tensors."
        raise OpError(message, code="GV903", stage="forward")
    return tensors


def clone_exactly(t: Tensor) -> Tensor:
    """A copy with storage of its own, the same sizes, strides and offset: also where elements share memory."""
    storage = t.untyped_storage().clone()  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=t.dtype, device=t.device).set_(storage, t.storage_offset(), t.size(), t.stride())


def copies(primals: Primals) -> dict[str, Tensor | None]:
    """Exact copies of all primals."""
    return {name: None if t is None else clone_exactly(t) for name, t in primals.items()}
