"""A module's parameters and mode as arguments of its spec; and what makes a module."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import Module, Parameter
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedParameter

from gradverify.errors import SpecError
from gradverify.records.nested import Slot
from gradverify.records.spec import PARAMETERS, TRAINING, Arg, Domain, Spec


def with_parameters(spec: Spec) -> Spec:
    """The spec of a module with each parameter that requires grad as an argument, named by its path, and its mode.

    Both modes are judged, its own first. A module that holds a dropout is stochastic. Parameters stay what they are
    where the reference, or the formula of the contract, cannot be given them: they take no `parameters`, and are no
    modules with the same ones. Raises SpecError for a module whose parameters have no shape yet.
    """
    module = spec.op
    if not _is_free(module) or PARAMETERS in spec.order or not all(map(_can_follow(module), _beside(spec))):
        return spec
    free = {path: p for path, p in module.named_parameters() if p.requires_grad}
    lazy = next((path for path, p in module.named_parameters() if isinstance(p, UninitializedParameter)), None)
    if lazy is not None:
        raise SpecError(f"{spec.name}: the parameter {lazy!r} has no shape yet; call the lazy module once before.")
    named = {f"self.{path}" if path in spec.order else path: path for path in free}
    modes = {} if TRAINING in spec.order else {TRAINING: (module.training, not module.training)}
    slots = {PARAMETERS: {path: Slot(name) for name, path in named.items()}}
    return spec.with_(
        args=(*spec.args, *(_argument(name, path, free[path]) for name, path in named.items())),
        nested={**spec.nested, **slots},
        kwargs={**spec.kwargs, **modes},
        order=(*spec.order, *slots, *modes),
        stochastic=spec.stochastic or any(isinstance(layer, _DropoutNd) and layer.p for layer in module.modules()),
    )


def _is_free(module: Any) -> bool:
    """Whether a module can be called with other parameters: a scripted one cannot."""
    return isinstance(module, Module) and not isinstance(module, torch.jit.ScriptModule)


def _argument(name: str, path: str, parameter: Parameter) -> Arg:
    shape, domain = " ".join(map(str, parameter.shape)), Domain(kind="parameter", of=path)
    return Arg(name=name, shape=shape, domain=domain, complex=parameter.is_complex())


def _beside(spec: Spec) -> list[Callable[..., Any]]:
    """The functions that are called like the op."""
    return [f for f in (spec.reference, spec.contract.formula) if f is not None]


def _can_follow(module: Module) -> Callable[[Callable[..., Any]], bool]:
    shapes = _shapes(module)
    return lambda f: _shapes(f) == shapes if isinstance(f, Module) else PARAMETERS in _names(f)


def _shapes(module: Module) -> Mapping[str, tuple[int, ...]]:
    return {path: tuple(p.shape) for path, p in module.named_parameters() if not isinstance(p, UninitializedParameter)}


def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


def made(value: Any) -> Any:
    """The module that a class, or a function that says so, makes without arguments; anything else as it is.

    It says so by its annotation: `def block() -> nn.Module`. Its initial values are the same every time.
    """
    if not _makes_module(value) or any(_required(p) for p in inspect.signature(value).parameters.values()):
        return value
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return value()


def _makes_module(value: Any) -> bool:
    if isinstance(value, type):
        return issubclass(value, Module)
    if not inspect.isfunction(value):
        return False
    try:
        returned = typing.get_type_hints(value).get("return")
    except (NameError, AttributeError, TypeError, SyntaxError):
        return False
    return isinstance(returned, type) and issubclass(returned, Module)


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )
