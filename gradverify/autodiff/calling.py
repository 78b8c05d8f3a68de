"""Calling an op at a point: by its own signature, on exact copies, its outputs flattened, its failures named."""

from __future__ import annotations

import inspect
import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gradverify.autodiff.functional import functional
from gradverify.errors import GradverifyError, OpError
from gradverify.records.nested import Slot, is_nested, leaves, mapped
from gradverify.records.spec import PARAMETERS, TRAINING, Spec

Primals = Mapping[str, Tensor | None]
Called = Callable[[Primals, Mapping[str, Any]], tuple[Tensor, ...]]
"""(primals, kwargs) -> output tensors."""


class Outputs(tuple[Tensor, ...]):
    """The tensors that an op returned, in a stable order.

    `names`: where each stood: `0`, `1`, ... in a plain tuple, `y['loss']`, `y[1].h` in a nested value.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> Outputs:
        """Outputs by name."""
        made = cls(named.values())
        made.names = tuple(named)
        return made


def output_names(outputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """The names of outputs; positions where they are a plain tuple."""
    return outputs.names if isinstance(outputs, Outputs) else tuple(map(str, range(len(outputs))))


def label(outputs: tuple[Tensor, ...], k: int) -> str:
    """An output in the words of a report: `output 1`, `output y['loss']`."""
    return f"output {output_names(outputs)[k]}"


class Clock:
    """Seconds spent inside the user's code, forward and backward."""

    seconds = 0.0


def op_of(spec: Spec) -> Called:
    """The op under test as a function of primals and keywords. A Function is called positionally, through `apply`."""
    apply, positional, named = signature_of(spec)
    return _guarded(spec, apply, positional, named, stage="forward")


def bare(spec: Spec) -> Called:
    """The op under test with its exceptions as they are: torch's transforms steer by exceptions of their own."""
    apply, positional, named = signature_of(spec)

    def call(primals: Primals, kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        values = handed(spec, primals, kwargs)
        return flattened(spec, apply(*(values[n] for n in positional), **{n: values[n] for n in named}))

    return call


def signature_of(spec: Spec) -> tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...]]:
    """What to call, and the names of what it is given by position and by name."""
    op = spec.op
    if isinstance(op, type) and issubclass(op, torch.autograd.Function):
        return op.apply, spec.order, ()
    positional = _positional(op, spec)
    return _with_parameters(op, spec), positional, tuple(n for n in spec.order if n not in positional)


_OF_MODULES = frozenset({PARAMETERS, TRAINING})


def _with_parameters(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    """A module as a function of its parameters, too, where the spec has them; anything else as it is."""
    return functional(function) if isinstance(function, torch.nn.Module) and PARAMETERS in spec.nested else function


def written_buffers(spec: Spec, primals: Primals, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The buffers that a module writes to in this call, running statistics above all; empty for what is no module."""
    wrote: set[str] = set()
    if isinstance(spec.op, torch.nn.Module) and PARAMETERS in spec.nested:
        call, (_, positional, named) = functional(spec.op, wrote=wrote), signature_of(spec)
        values = handed(spec, copies(primals), kwargs)
        with torch.no_grad():
            call(*(values[n] for n in positional), **{n: values[n] for n in named})
    return tuple(sorted(wrote))


def handed(spec: Spec, primals: Primals, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What each parameter of the op is given: its argument, a nested value of arguments, or a keyword.

    Floating and complex tensors that stand fixed in a nested value take the precision of the primals.
    """
    values = {**primals, **kwargs}
    if not spec.nested:
        return values
    like = next((t for t in primals.values() if is_inexact(t)), None)

    def given(_: str, leaf: Any) -> Any:
        if isinstance(leaf, Slot):
            return values[leaf.name]
        return in_precision(leaf.clone().to(like.device), like) if like is not None and is_inexact(leaf) else leaf

    return {**values, **{parameter: mapped(value, "", given) for parameter, value in spec.nested.items()}}


def is_inexact(leaf: Any) -> bool:
    """Whether this is a tensor of floating or complex numbers."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def in_precision(t: Tensor, like: Tensor) -> Tensor:
    """A floating or complex tensor in the precision of another, staying real or complex."""
    return t.to(like.dtype.to_complex() if t.is_complex() else like.dtype.to_real())


def companion(spec: Spec, function: Callable[..., Any], *, stage: str = "reference") -> Called:
    """The reference, or the surrogate of a contract: tensors by position, the keywords that it accepts by name."""
    function = _with_parameters(function, spec)
    names = _parameters(function)
    tensors = tuple(n for n in spec.parameters() if n != PARAMETERS)
    held = tuple(n for n in spec.nested if n == PARAMETERS)
    if names is None:
        return _guarded(spec, function, tensors, (*held, *spec.kwargs), stage=stage)
    if set(spec.order) <= set(names):
        return _guarded(spec, function, (), spec.order, stage=stage)
    accepts = tuple(k for k in spec.kwargs if k in names or "**" in names)
    return _guarded(spec, function, tensors, (*held, *accepts), stage=stage)


def _positional(op: Any, spec: Spec) -> tuple[str, ...]:
    """The names that are given by position; those behind a parameter that the spec leaves out go by name."""
    try:
        # A module's own call takes whatever it is given.
        parameters = inspect.signature(getattr(op, "forward", op)).parameters.values()
    except (TypeError, ValueError):
        tensors = tuple(n for n in spec.order if n not in spec.kwargs)
        return next((_before_gap(tensors, names) for names in _schemas(op) if set(tensors) <= set(names)), tensors)
    only = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    only |= _OF_MODULES - {p.name for p in parameters}
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
        values = handed(spec, primals, kwargs)
        began = time.perf_counter()
        try:
            out = fn(*(values[n] for n in positional), **{n: values[n] for n in named})
        except GradverifyError:
            raise
        except (Exception, SystemExit) as error:
            raise OpError(f"{spec.name}: {_said(stage, error)}", code="GV902", stage=stage) from error
        finally:
            Clock.seconds += time.perf_counter() - began
        return flattened(spec, out, stage=stage)

    return call


def _said(stage: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the {stage} calls sys.exit({error.code!r})"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"the {stage} raised {type(error).__name__}: {first}"


def raised(spec: Spec, error: BaseException, *, code: str = "GV902", stage: str = "backward") -> OpError:
    """An exception out of the op as the error that the report shows."""
    return OpError(f"{spec.name}: {_said(stage, error)}", code=code, stage=stage)


def flattened(spec: Spec, out: Any, *, stage: str = "forward") -> Outputs:
    """The tensors in what an op returned, however nested; None, and what is no tensor, are left out beside one.

    Raises OpError (GV903) where there is no tensor, and for nested outputs of a Function, which autograd loses.
    """
    if isinstance(out, Tensor):
        return Outputs.of({"0": out})
    named = {n: t for n, t in leaves(out, "y") if isinstance(t, Tensor)}
    function = stage == "forward" and isinstance(spec.op, type) and issubclass(spec.op, torch.autograd.Function)
    lost = function and is_nested(out) and not (isinstance(out, tuple) and all(map(_TOP.fullmatch, named)))
    if lost or not named:
        who = "forward()" if function else "the op" if stage == "forward" else f"the {stage}"
        what = f"tensors inside a {type(out).__name__}, {_LOST}" if named else _returned(out)
        remedy = "a tensor, or a tuple of tensors" if function else "a tensor, or tensors in tuples, lists and dicts"
        raise OpError(f"{spec.name}: {who} returned {what}; return {remedy}.", code="GV903", stage=stage)
    plain = _is_plain(out)
    return Outputs.of({_position(n) if plain else n: t for n, t in named.items()})


_LOST = "which autograd.Function does not connect to backward()"
_TOP = re.compile(r"y\[(\d+)\]")


def _returned(out: Any) -> str:
    """`None`, `a float`, `a dict without a tensor`."""
    if out is None:
        return "None"
    noun = type(out).__name__
    article = "an" if noun[:1].lower() in "aeiou" else "a"
    return f"{article} {noun}{' without a tensor' if is_nested(out) else ''}"


def _is_plain(out: Any) -> bool:
    """Whether this is a tuple or list without names, none of whose entries holds more."""
    return isinstance(out, tuple | list) and not hasattr(out, "_fields") and not any(map(is_nested, out))


def _position(name: str) -> str:
    found = _TOP.fullmatch(name)
    return found[1] if found else "0"


def clone_exactly(t: Tensor) -> Tensor:
    """A copy with storage of its own, the same sizes, strides and offset: also where elements share memory.

    A lazy view of conjugates or negatives stays one.
    """
    if t.is_conj():
        return clone_exactly(t.conj()).conj()
    if t.is_neg():
        return _negated(clone_exactly(_negated(t)))
    if t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes:
        return torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=t.device).copy_(t)
    storage = t.untyped_storage().clone()  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=t.dtype, device=t.device).set_(storage, t.storage_offset(), t.size(), t.stride())


def _negated(t: Tensor) -> Tensor:
    return torch._neg_view(t)  # noqa: SLF001 torch has no public name for it


def copies(primals: Primals) -> dict[str, Tensor | None]:
    """Exact copies of all primals."""
    return {name: None if t is None else clone_exactly(t) for name, t in primals.items()}
