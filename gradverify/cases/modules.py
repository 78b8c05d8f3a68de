"""An op that holds tensors of its own, an nn.Module above all: a copy of it in the dtype under test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gradverify.cases.concrete import Fixed
from gradverify.cases.materialise import dtype_named
from gradverify.errors import UsageError
from gradverify.records.spec import PARAMETERS, Spec, describe_callable

NONE = "the op is no module"
"""Why what is said of modules is not said of an op."""


def in_dtype(spec: Spec, dtype: str, device: str = "cpu") -> Spec:
    """The spec with its modules (op, reference, formula of the contract) as copies in `dtype`, on a device.

    The user's own modules are never called: neither their dtype changes, nor their buffers, nor their gradients.
    Raises UsageError where a module cannot be copied.
    """
    contract = spec.contract
    op, reference, formula = (copied(f, dtype, device) for f in (spec.op, spec.reference, contract.formula))
    if op is spec.op and reference is spec.reference and formula is contract.formula:
        return spec
    contract = type(contract)(kind=contract.kind, formula=formula)
    return spec.with_(op=op, reference=reference, contract=contract)


def copied(function: Any, dtype: str, device: str = "cpu") -> Any:
    """A module, a method of one, or either held at some inputs, as a copy in `dtype`; anything else as it is.

    A module that lies elsewhere than on the CPU stays there, unless another device is asked for.
    """

    def copy_of(module: Module) -> Module:
        try:
            made = _in_precision(copy.deepcopy(module), dtype_named(dtype))
            return made if device == "cpu" else made.to(device)
        except Exception as error:
            raise UsageError(
                f"{describe_callable(function)}: the module cannot be copied to {dtype} "
                f"({type(error).__name__}: {error}); give a function that calls a copy of your own."
            ) from error

    return remade(function, copy_of)


def remade(function: Any, make: Callable[[Module], Module]) -> Any:
    """The callable with its module as `make` gives it; as it is where it has none."""
    if isinstance(function, Fixed):
        call = remade(function.call, make)
        return function if call is function.call else function.around(call)
    module = module_of(function)
    if module is None:
        return function
    made = make(module)
    return made if function is module else getattr(made, function.__name__)


def _in_precision(module: Module, dtype: torch.dtype) -> Module:
    """The module in a dtype; `Module.to` would make its complex tensors real."""
    if not any(t.is_complex() for t in (*module.parameters(), *module.buffers())):
        return module.to(dtype)
    for t in (*module.parameters(), *module.buffers()):
        if t.is_floating_point() or t.is_complex():
            t.data = t.data.to(dtype.to_complex() if t.is_complex() else dtype)
    return module


def module_of(function: Any) -> Module | None:
    """The module that a callable is, or is a method of; None where it is neither."""
    owner = function if isinstance(function, Module) else getattr(function, "__self__", None)
    return owner if isinstance(owner, Module) else None


def inner(function: Any) -> Module | None:
    """The module of a callable, also of one that is held at some inputs."""
    return module_of(function.call if isinstance(function, Fixed) else function)


def held(function: Any) -> list[Tensor]:
    """The tensors that a callable brings along: parameters and buffers of a module, inputs that are held fixed."""
    fixed = [t for t in function.held.values() if isinstance(t, Tensor)] if isinstance(function, Fixed) else []
    module = inner(function)
    return [*fixed, *module.parameters(), *module.buffers()] if module is not None else fixed


def note(spec: Spec) -> str:
    """How a module is judged: `judged as a float64 copy; its buffers keep their values`; empty for what is none."""
    dtypes = [d for d in spec.dtypes or ("float64",) if differs(spec.op, d)]
    module = module_of(spec.op.call if isinstance(spec.op, Fixed) else spec.op)
    words = [f"judged as a {' and a '.join(dtypes)} copy"] if dtypes else []
    if module is not None and PARAMETERS not in spec.nested and any(p.requires_grad for p in module.parameters()):
        words.append("its parameters are held fixed, and their gradients are not judged")
    if module is not None and any(True for _ in module.buffers()):
        words.append("its buffers keep their values")
    return "; ".join(words)


def differs(function: Any, dtype: str) -> bool:
    """Whether a callable is a module, or a method of one, with floating tensors of another dtype."""
    module = inner(function)
    own = [] if module is None else [*module.parameters(), *module.buffers()]
    return any((t.is_floating_point() or t.is_complex()) and t.dtype.to_real() is not dtype_named(dtype) for t in own)
