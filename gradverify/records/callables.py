"""What a callable is called, and where it is defined, in the words of a report."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from gradverify.records.finding import Location

SPEC_MODULE = "gradverify_spec_"
"""How the name of a module begins that a spec file was imported as."""

_REGISTERED = ("CustomOpDef", "OpOverload", "OpOverloadPacket")
"""Torch's classes of registered ops; their own names are of little use."""


def describe_callable(op: Any) -> str:
    """`module:qualname` for what has a name; `file:line` for a lambda or local; str for a lazy target."""
    if isinstance(op, str):
        return op
    if type(op).__name__ in _REGISTERED:
        return "torch.ops." + str(getattr(op, "_qualname", op)).replace("::", ".")
    owner = getattr(op, "__self__", None)
    if isinstance(owner, type) and getattr(op, "__name__", "") == "apply":
        return describe_callable(owner)
    # A builtin of torch calls itself `_VariableFunctionsClass.sin`.
    words = ("__name__",) if inspect.isbuiltin(op) else ("__qualname__", "__name__")
    qualname = next((n for n in (getattr(op, w, None) for w in words) if n), None)
    module = getattr(op, "__module__", None) or ""
    if qualname and "<" not in qualname:
        return f"{_named(module)}:{qualname}"
    code = getattr(op, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    if qualname:
        return f"{module}:{qualname}"
    # The repr of a module is a page of its layers.
    return f"{type(op).__module__}:{type(op).__qualname__}()" if hasattr(op, "named_parameters") else str(op)


def _named(module: str) -> str:
    """The module of a spec file has a name of ours; the user knows it by its path."""
    file = getattr(sys.modules.get(module), "__file__", None) if module.startswith(SPEC_MODULE) else None
    return file or module


def source_of(obj: Any) -> Location | None:
    """Where an object is defined, as far as inspect can tell; a custom op by the function that it decorates."""
    obj = getattr(obj, "_init_fn", obj)
    try:
        file = inspect.getsourcefile(inspect.unwrap(obj))
        line = inspect.getsourcelines(inspect.unwrap(obj))[1]
    except (TypeError, OSError, ValueError):
        return None
    return Location(file=file or "", line=max(line, 1)) if file else None
