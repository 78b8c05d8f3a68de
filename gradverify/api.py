"""For Python users: `check` an op, `verify` a spec. Nothing here prints."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradverify.cases.annotations import op_parameters
from gradverify.cases.concrete import spec_at
from gradverify.cases.signatures import spec_from_op
from gradverify.config import claims_named, devices_tried, dtypes_named, examples_given, load, seconds
from gradverify.discovery.loading import checked_op
from gradverify.discovery.targets import resolve
from gradverify.engine import session
from gradverify.engine.verify import verify as _verify
from gradverify.errors import UsageError
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import Run
from gradverify.records.spec import Spec, describe_callable
from gradverify.records.verdict import Result

Names = str | Sequence[str]
Dtypes = str | torch.dtype | Sequence[str | torch.dtype]
Devices = str | torch.device | Sequence[str | torch.device]


def check(
    op: Any,
    /,
    *inputs: Any,
    examples: int | None = None,
    seed: int = 0,
    claims: Names = (),
    skip: Names = (),
    profile: str | None = None,
    device: Devices = (),
    dtype: Dtypes = (),
    max_time: str | float | None = None,
    policy: Policy | None = None,
    arguments: Mapping[str, Any] | None = None,
    **more: Any,
) -> Run:
    """Verify an op, a spec or a target of the command line; read the Run, or call its `raise_for_failures()`.

    `check(op, x="*b k", w="k n")` gives shapes, `check(op, x, w)` judges at these tensors, `check(spec)` and
    `check("pkg.mod:Op")` take what they name. A keyword that is no shape is a keyword of the op, held at that value.
    `check(op, x=x, w=w)` as well. Dtypes and devices are names or torch's own; `max_time` is a text or seconds.
    An argument of the op that is called like one of ours goes into `arguments={"seed": "n"}`.
    Raises UsageError (SpecError for a spec) where nothing can be verified.
    """
    config = load()
    name, chosen = config.profile_named(profile)
    limit = chosen.max_time if max_time is None else max_time
    plan = Plan(
        claims=claims_named(_several(claims, "claims")),
        skip=claims_named(_several(skip, "skip")),
        devices=devices_tried(_several(device, "device")),
        dtypes=dtypes_named(_several(dtype, "dtype")),
        examples=examples_given(_whole(examples, "examples")) or chosen.examples or 20,
        seed=_whole(seed, "seed") or 0,
        max_seconds=None if limit is None else seconds(str(limit)),
        profile=name,
    )
    specs = _specs(op, inputs, {**more, **(arguments or {})})
    return session.run(specs, plan, policy or Policy())


def verify(spec: Spec, *, plan: Plan | None = None, policy: Policy | None = None) -> Iterator[Result]:
    """The results of a spec one by one, a claim, device and dtype each, as soon as each is known."""
    return _verify(spec, plan or Plan(), policy or Policy())


def _specs(op: Any, inputs: Sequence[Any], arguments: Mapping[str, Any]) -> list[Any]:
    if isinstance(op, Spec):
        if inputs or arguments:
            raise UsageError(f"{op.name}: a spec has its own inputs; leave out {_first(inputs, arguments)}.")
        return [op]
    shapes, kwargs = _told_apart(op, arguments)
    if isinstance(op, str):
        return _of_target(op, inputs, shapes, kwargs)
    target = describe_callable(op)
    checked = checked_op(op, target=target)
    name = target.rpartition(":")[2]
    placed, held = _by_position(checked, inputs, shapes, kwargs)
    if placed:
        return [spec_at(checked, placed, {**shapes, **held}, name=name)]
    return [
        spec_from_op(checked, name=name, target=target, shapes=shapes, kwargs=held, said_by="check()", near=_OPTIONS)
    ]


def _of_target(target: str, inputs: Sequence[Any], shapes: Mapping[str, str], kwargs: Mapping[str, Any]) -> list[Any]:
    if inputs or kwargs:
        raise UsageError(f"{target}: pass the op itself, not its name, to give {_first(inputs, kwargs)}.")
    found = resolve([target], shapes=shapes, config=load())
    if not any(isinstance(f, Spec) for f in found):
        raise UsageError(next((f.error for f in found if not isinstance(f, Spec)), f"{target}: no spec in it."))
    return list(found)


def _told_apart(op: Any, arguments: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Shapes are texts; but a text for a parameter whose default is a text (`reduction="mean"`) is its value."""
    known = () if isinstance(op, str | Spec) else op_parameters(op) or ()
    words = {p.name for p in known if isinstance(p.default, str)}
    shapes = {n: v for n, v in arguments.items() if isinstance(v, str) and n not in words}
    return shapes, {n: v for n, v in arguments.items() if n not in shapes}


def _by_position(
    op: Any, inputs: Sequence[Any], shapes: Mapping[str, str], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Tensors by name as tensors by position. Raises UsageError for tensors beside shapes."""
    tensor = next((n for n, v in kwargs.items() if isinstance(v, Tensor)), None)
    if inputs or tensor is None:
        return inputs, dict(kwargs)
    if shapes:
        shape = next(iter(shapes))
        raise UsageError(
            f"{describe_callable(op)}: {tensor} is a tensor and {shape} a shape; give tensors for all arguments, or "
            f'shapes for all. Integers and masks are declared with their shape: Annotated[Tensor, "n", gv.index("k")].'
        )
    names = [p.name for p in op_parameters(op) or ()]
    placed = list(itertools.takewhile(kwargs.__contains__, names))
    return [kwargs[n] for n in placed], {n: v for n, v in kwargs.items() if n not in placed}


def _first(inputs: Sequence[Any], arguments: Mapping[str, Any]) -> str:
    return "the tensors" if inputs else f"{next(iter(arguments))}="


def _several(value: Names | Dtypes | Devices, name: str) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) or not isinstance(value, Sequence) else value
    words = tuple(str(w).removeprefix("torch.") for w in given)
    if any(" " in w or w == "" for w in words):
        raise UsageError(
            f'{name}={value!r} names none of ours; an argument of the op goes in arguments={{"{name}": ...}}.'
        )
    return words


def _whole(value: Any, name: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise UsageError(f'{name}={value!r} is no number; an argument of the op goes in arguments={{"{name}": ...}}.')
    return value


_OPTIONS = tuple(p.name for p in inspect.signature(check).parameters.values() if p.kind is p.KEYWORD_ONLY)
