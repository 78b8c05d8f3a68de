"""Import what the user names and make specs of it; whatever goes wrong becomes one clear UsageError."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from gradverify.discovery.files import shown, syntax_error
from gradverify.errors import UsageError
from gradverify.records.names import did_you_mean
from gradverify.records.spec import SPEC_MODULE, Spec

REGISTERED = "torch.ops."


def from_module(target: str, *, shapes: Mapping[str, str]) -> list[Spec]:
    """The spec, or the spec of the bare op, that `pkg.mod:Attr` or `pkg.mod:Class.attr` names.

    `pkg.mod:torch.ops.namespace.name` is the registered op, once the module that registers it is imported.
    Raises UsageError: a module that is missing or breaks on import, an attribute that is missing or no op.
    """
    module_name, _, path = target.partition(":")
    if not path or not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise UsageError(f"{target}: not a target; write module:attribute, for example mypkg.ops:MyFunction.")
    module = _module(module_name)
    if path.startswith(REGISTERED):
        return [bare(path, shapes=shapes)]
    value = _attribute(module, path, target)
    return [value] if isinstance(value, Spec) else [_spec_of(value, target=target, name=path, shapes=shapes)]


def bare(target: str, *, shapes: Mapping[str, str]) -> Spec:
    """The spec of a registered op, `torch.ops.namespace.name` or with an overload."""
    import torch

    value: Any = torch.ops
    try:
        for part in target.split(".")[2:]:
            value = getattr(value, part)
    except (AttributeError, RuntimeError) as error:
        raise UsageError(
            f"{target}: no such registered op; name the module that registers it, too: mypkg.ops:{target}."
        ) from error
    return _spec_of(value, target=target, name=target.removeprefix(REGISTERED), shapes=shapes)


def from_file(file: Path, *, name: str | None) -> list[Spec]:
    """The specs that a file defines, or the one of that name. Raises UsageError where there is none."""
    module = _file_module(file)
    specs = list({id(v): v for v in vars(module).values() if isinstance(v, Spec)}.values())
    mine = [s for s in specs if s.source is None or Path(s.source.file).resolve() == file.resolve()] or specs
    if not mine:
        raise UsageError(f"{shown(file)}: defines no spec; decorate a reference with `@gradverify.spec(op)`.")
    if name is None:
        return mine
    chosen = [s for s in specs if s.name == name] or [s for s in specs if getattr(module, name, None) is s]
    if not chosen:
        known = [s.name for s in specs]
        raise UsageError(f"{shown(file)}: no spec {name!r}{did_you_mean(name, known)}; it defines {', '.join(known)}.")
    return chosen


def _spec_of(value: Any, *, target: str, name: str, shapes: Mapping[str, str]) -> Spec:
    from gradverify.cases.signatures import spec_from_op

    return spec_from_op(checked_op(value, target=target), name=name, target=target, shapes=shapes)


def checked_op(value: Any, *, target: str) -> Any:
    """An op that can be called: a Function with forward and backward, an nn.Module, or a callable.

    `MyFunction.apply` stands for the Function itself, a class or function that makes a module for that module.
    Raises UsageError for everything else, with what it is.
    """
    from torch.autograd import Function
    from torch.nn import Module

    value = _made(value, target=target)
    owner = getattr(value, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, Function) and getattr(value, "__name__", "") == "apply":
        return checked_op(owner, target=target)
    if isinstance(value, type) and issubclass(value, Function):
        return _whole_function(value, target=target)
    if isinstance(value, type) and issubclass(value, Module):
        raise UsageError(
            f"{target}: is an nn.Module class that needs arguments; name an instance, "
            "or a function that makes one: `def block() -> nn.Module: ...`."
        )
    if isinstance(value, type):
        raise UsageError(f"{target}: is a class, but no torch.autograd.Function; name a Function or a function.")
    if isinstance(value, ModuleType):
        raise UsageError(f"{target}: is a module{_functions_in(value)}.")
    if not callable(value):
        raise UsageError(
            f"{target}: is not callable, it is {_article(type(value).__name__)}; name a function or Function."
        )
    if inspect.iscoroutinefunction(value) or inspect.isgeneratorfunction(value):
        raise UsageError(f"{target}: is a coroutine or generator; name a plain function of tensors.")
    return value


def _made(value: Any, *, target: str) -> Any:
    """What a maker of modules makes. Raises UsageError where it raises."""
    from gradverify.cases.parameters import made

    return _guarded(partial(made, value), f"{target}: cannot be made", "")


def _whole_function(function: type, *, target: str) -> type:
    from torch.autograd import Function

    if function is Function or getattr(function, "forward", None) is Function.forward:
        raise UsageError(f"{target}: is an autograd.Function without a forward; define a static forward.")
    rules = [(getattr(function, n, None), getattr(Function, n)) for n in ("backward", "vjp")]
    if all(mine is None or mine is base for mine, base in rules):
        raise UsageError(f"{target}: is an autograd.Function without a backward; define `backward(ctx, *cotangents)`.")
    return function


def _module(name: str) -> ModuleType:
    module: ModuleType = _guarded(partial(_imported, name), f"cannot import {name}", name)
    return module


def _imported(name: str) -> ModuleType:
    top = name.partition(".")[0]
    # A slip in the name is told before torch is imported.
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)
    module: ModuleType = seeded(partial(importlib.import_module, name))
    return module


def _file_module(file: Path) -> ModuleType:
    """The file as a module of its own, under a name that no other file shares; imported once."""
    resolved = file.resolve()
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:8]
    name = f"{SPEC_MODULE}{re.sub(r'[^0-9a-zA-Z_]', '_', file.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, resolved)
    loader = found.loader if found else None
    if found is None or loader is None:
        raise UsageError(f"{shown(file)}: is not a Python file; name one that ends in .py.")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        _guarded(partial(seeded, partial(loader.exec_module, module)), f"cannot import {shown(file)}", "")
    except UsageError:
        del sys.modules[name]
        raise
    return module


def seeded(load: Callable[[], Any]) -> Any:
    """Import under a seed of its own: what a module draws then, its layers' weights above all, is always the same."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return load()


def _guarded(load: Callable[[], Any], doing: str, name: str) -> Any:
    """Run the user's import; KeyboardInterrupt passes, everything else, SystemExit included, becomes a UsageError."""
    try:
        return load()
    except (KeyboardInterrupt, UsageError):
        raise
    except SyntaxError as error:
        raise UsageError(f"{doing}: {syntax_error(error)}") from error
    except ModuleNotFoundError as error:
        raise UsageError(f"{doing}: {_missing(error, name)}") from error
    except SystemExit as error:
        raise UsageError(
            f"{doing}: it calls sys.exit({error.code!r}) while it is imported{_raised_at(error)}; "
            'guard the script part with `if __name__ == "__main__":`.'
        ) from error
    except BaseException as error:
        said = str(error).strip().splitlines()
        what = type(error).__name__ + (f": {said[0]}" if said else "")
        raise UsageError(f"{doing}: {what}{_raised_at(error)}.") from error


def _missing(error: ModuleNotFoundError, name: str) -> str:
    """Whether the named module itself is missing, or one that it needs."""
    if error.name and (name == error.name or name.startswith(f"{error.name}.")):
        here = Path.cwd()
        return (
            f"no module named {error.name!r}{did_you_mean(error.name, _importable(here, error.name))}; "
            f"modules are looked for in {here}, {here / 'src'} and the installed packages."
        )
    return f"it needs {error.name!r}, which is not installed{_raised_at(error)}."


def _importable(directory: Path, name: str) -> list[str]:
    """Names of the modules beside the one that is missing: in its package, or in the directory and its src."""
    package, _, _ = name.rpartition(".")
    folders = [Path(p) for p in getattr(sys.modules.get(package), "__path__", ())] or [directory, directory / "src"]
    prefix = f"{package}." if package else ""
    files = [p for d in folders if d.is_dir() for p in d.iterdir()]
    return [prefix + p.stem for p in files if p.suffix == ".py" or (p / "__init__.py").is_file()]


def _raised_at(error: BaseException) -> str:
    """` (ops.py:12)`: the innermost line that is neither Python's import machinery nor ours."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith("<frozen") and not f.filename.endswith(("importlib/__init__.py", __file__))
    ]
    return f" ({shown(Path(frames[-1].filename))}:{frames[-1].lineno})" if frames else ""


def _attribute(module: ModuleType, path: str, target: str) -> Any:
    value: Any = module
    for part in path.split("."):
        if not hasattr(value, part):
            near = did_you_mean(part, [n for n in dir(value) if not n.startswith("_")])
            owner = module.__name__ if value is module else f"{module.__name__}:{getattr(value, '__name__', part)}"
            raise UsageError(f"{target}: {owner} has no attribute {part!r}{near}.")
        value = getattr(value, part)
    return value


def _functions_in(module: ModuleType) -> str:
    """Which ops the module defines itself, to choose from."""
    from torch.autograd import Function

    names = [
        n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Function) and v is not Function
    ]
    return (
        f"; name an attribute of it, for example {module.__name__}:{names[0]}" if names else "; name an attribute of it"
    )


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
