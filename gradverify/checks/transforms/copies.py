"""TRANSFORMS.PICKLE: a module that was copied, pickled or saved after a call is the same op, and one of its own."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gradverify.autodiff import calling
from gradverify.autodiff.products import gradients
from gradverify.autodiff.transforms.pure import TransformError, transforming
from gradverify.cases.modules import NONE, inner, remade
from gradverify.checks.subject import Subject, at
from gradverify.checks.transforms import beside
from gradverify.errors import NotApplicableError
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec

Make = Callable[[Any], Any]


def _pickled(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))  # noqa: S301 what was pickled one line above


def _saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIED: dict[str, Make] = {"copy.deepcopy": copy.deepcopy}
BY_NAME: dict[str, Make] = {"pickle": _pickled, "torch.save and torch.load": _saved}
"""What needs to find the class by its name again."""


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Copies of a module that has been called; each called beside the original, which is as it was then."""
    subject = at(spec, case)
    beside.unless_declared(subject, "pickle")
    module = inner(spec.op)
    if module is None:
        raise NotApplicableError(NONE)
    if spec.stochastic:
        raise NotApplicableError("the op draws random numbers")
    tape = subject.record()
    beside.unless_writing(tape)
    us = beside.cotangents(subject, tape)
    tape.vjp(us)
    for how, make in (COPIED | (BY_NAME if _has_a_name(type(module)) else {})).items():
        yield from _one(subject, us, how, make)


def _has_a_name(cls: type) -> bool:
    """Whether pickle can find the class: not where it was defined in a function, or in a file that is no module."""
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls


def _one(subject: Subject, us: beside.Used, how: str, make: Make) -> Iterator[Evidence]:
    try:
        with transforming():
            op = remade(subject.spec.op, make)
    except TransformError as error:
        yield beside.raised(subject, error, how)
        return
    spec = subject.spec.with_(op=op)
    other = replace(subject, spec=spec, call=calling.op_of(spec))
    yield from _own(subject, other, how)
    yield from _beside(subject, other, us, how)


def _own(subject: Subject, other: Subject, how: str) -> Iterator[Evidence]:
    """Evidence that no parameter of the copy lies in the memory of the original's."""
    theirs = {p.untyped_storage().data_ptr() for _, p in _parameters(subject) if p.numel()}
    for name, p in _parameters(other):
        shared = p.untyped_storage().data_ptr() in theirs
        facts = {"said": f"made by {how} it lies in the memory of the original: to train one is to train both"}
        yield subject.count(f"`{name}`", p.numel() if shared else 0, kind="shared", **(facts if shared else {}))


def _beside(subject: Subject, other: Subject, us: beside.Used, how: str) -> Iterator[Evidence]:
    """Outputs, and the gradients of inputs and of parameters: those of the copy are its own."""
    want, got = subject.record(), other.record()
    yield from beside.outputs(subject, got.outputs, want.outputs, how)
    yield from beside.gradients(subject, got.vjp(us), want.vjp(us), us, want.leaves, how)
    pairs = _of_parameters(other, us), _of_parameters(subject, us)
    yield from beside.measured(subject, *pairs, lambda primals: _of_parameters(_moved(subject, primals), us), how)


def _moved(subject: Subject, primals: beside.Named) -> Subject:
    return replace(subject, point=replace(subject.point, primals=primals))


def _of_parameters(subject: Subject, us: beside.Used) -> dict[str, Tensor | None]:
    """The gradients of the module's parameters, `the gradient of `weight`` -> tensor."""
    parameters = {f"the gradient of `{n}`": p for n, p in _parameters(subject)}
    used = [(y, u) for y, u in zip(subject.record().outputs, us, strict=True) if u is not None and y.requires_grad]
    if not parameters or not used:
        return dict.fromkeys(parameters)
    grads = gradients([y for y, _ in used], list(parameters.values()), [u for _, u in used])
    return dict(zip(parameters, grads, strict=True))


def _parameters(subject: Subject) -> list[tuple[str, Tensor]]:
    module = inner(subject.spec.op)
    assert isinstance(module, Module)
    return [(n, p) for n, p in module.named_parameters() if p.requires_grad]
