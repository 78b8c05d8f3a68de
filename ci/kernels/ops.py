"""The fused ops of the catalogue: where they live, the small tiles that cross edges cheaply, their specs for these."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from gradverify.cases.shapes import letters
from gradverify.records.spec import Dim, Example, Spec

ROOT = Path(__file__).resolve().parents[2]
SMALL_TILES = (4, 8)

SIZE = Dim(hi=13, around=SMALL_TILES)
"""Sizes of a letter: three tiles and a ragged one are as good as thirty, and a case costs by the tile."""

PINNED = ("forward", "vjp", "jvp", "edges")
"""Claims for which pinned sizes are worth a case; the others vary layouts, masks or values, which these do not."""

BATCH = Dim(hi=2)
"""Sizes of leading axes."""


@dataclass(frozen=True, kw_only=True)
class KernelOp:
    """An op of the catalogue with kernels.

    Attributes:
        name: of the function, and of the spec that is tried hardest.
        module: file of the op.
        specs: file of its specs.
        tiles: names -> fields of its `Tiles`, for the interpreter.
        dims: letter -> its sizes, where they are not SIZE, or BATCH for many axes.
        most: (letters, product): sizes whose product is larger are left out, since a case costs by the program.
        examples: pinned cases before those of the specs that are small enough.
    """

    name: str
    module: Path
    specs: Path
    tiles: Mapping[str, Mapping[str, Any]]
    dims: Mapping[str, Dim] = field(default_factory=dict)
    most: tuple[str, int] = ("", 1)
    examples: tuple[Example, ...] = ()

    def is_small(self, sizes: Mapping[str, Any]) -> bool:
        """Whether a case of these sizes is cheap enough."""
        letters, most = self.most
        flat = [n for v in sizes.values() for n in (v if isinstance(v, tuple) else (v,))]
        return math.prod(sizes.get(k, 1) for k in letters) <= most and all(n <= (SIZE.hi or 0) for n in flat)


def imported(file: Path, name: str = "") -> ModuleType:
    """A file as a module; under a name of its own where one is given."""
    dotted = name or ".".join(file.resolve().relative_to(ROOT).with_suffix("").parts)
    if not name and (ROOT / file).resolve().is_relative_to(ROOT):
        return importlib.import_module(dotted)
    made = importlib.util.spec_from_file_location(dotted, file)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules[dotted] = module
    made.loader.exec_module(module)
    return module


def specs_of(op: KernelOp) -> dict[str, Spec]:
    """The specs of the op as they are written, its own first."""
    found = {v.name: v for v in vars(imported(op.specs)).values() if isinstance(v, Spec)}
    if op.name not in found:
        raise LookupError(f"{op.specs}: no spec is named {op.name!r}; there are {', '.join(found)}.")
    return {op.name: found[op.name], **found}


def interpreted(op: KernelOp, module: ModuleType, name: str, claim: str) -> Spec:
    """A spec over the op of a module, with interpreted kernels in small tiles, as a claim is to try it.

    The truth of its gradient is autograd of the reference, and differences of the kernels along one direction.
    """
    spec = specs_of(op)[name]
    pinned = [e for e in op.examples if _knows(op, spec, e)] + [e for e in spec.examples if op.is_small(e.dims)]
    own = {k: v for k, v in spec.kwargs.items() if k not in ("backend", "tiles")}
    order = tuple(n for n in spec.order if n not in ("backend", "tiles"))
    return spec.with_(
        op=_interpreting(getattr(module, op.name), {k: module.Tiles(**v) for k, v in op.tiles.items()}),
        kwargs={**own, "tiles": tuple(op.tiles)},
        order=(*order, "tiles"),
        dims=small_dims(op, spec),
        where=_where(op, spec),
        examples=tuple(pinned) if claim in PINNED else (),
        truth="reference",
        dtypes=("float64",),
        devices=("cpu",),
    )


def _knows(op: KernelOp, spec: Spec, example: Example) -> bool:
    """Whether the values of an example's keywords are documented by a spec, or are names of the op's tiles."""
    documented = {**spec.kwargs, "tiles": tuple(op.tiles)}
    return all(v in documented.get(k, ()) for k, v in example.kwargs.items())


def _interpreting(function: Callable[..., Any], tiles: Mapping[str, Any]) -> Any:
    @functools.wraps(function)
    def call(*args: Any, tiles: str = next(iter(tiles)), **kwargs: Any) -> Any:
        return function(*args, **kwargs, backend="interpret", tiles=chosen[tiles])

    chosen = tiles
    return call


def small_dims(op: KernelOp, spec: Spec) -> dict[str, Dim]:
    """The sizes of every letter, no larger than a few small tiles."""
    out = {}
    for letter, many in letters(spec.args).items():
        own = spec.dims.get(letter, Dim())
        small = op.dims.get(letter, BATCH if many else SIZE)
        if own.choices is not None:
            out[letter] = own
        else:
            high = min(own.hi if own.hi is not None else small.hi or 0, max(small.hi or 0, own.lo))
            out[letter] = Dim(lo=max(own.lo, small.lo), hi=high, around=small.around, choices=small.choices)
    return out


def _where(op: KernelOp, spec: Spec) -> Callable[..., bool]:
    """The spec's own condition, and that the case is small."""
    own = spec.where
    names = () if own is None else tuple(inspect.signature(own).parameters)
    return lambda **given: (
        op.is_small({k: given[k] for k in op.most[0] if k in given})
        and (own is None or own(**{k: given[k] for k in names if k in given}))
    )


ATTENTION = ("forward", "dkdv", "dq", "jvp", "fused")


def _of_catalogue(name: str, **fields: Any) -> KernelOp:
    return KernelOp(
        name=name, module=ROOT / "gradverify/catalogue" / f"{name}.py", specs=ROOT / "specs" / f"{name}.py", **fields
    )


_ALL = {
    "matmul": _of_catalogue(
        "matmul",
        tiles={
            "4x4x4": {"m": 4, "n": 4, "k": 4},
            "8x4x8": {"m": 8, "n": 4, "k": 8, "group": 2},
            # Rows of a descriptor take 16 bytes or more, in two-byte numbers as well.
            "8x8x8 tma": {"m": 8, "n": 8, "k": 8, "tma": True},
        },
        examples=(
            Example(dims={"m": (9,), "k": 5, "n": 6}, kwargs={"act": "gelu"}),
            Example(dims={"m": (2, 5), "k": 6, "n": 5}, kwargs={"act": "silu", "save": "preactivation"}),
            Example(dims={"m": (6,), "k": 3, "n": 9}, kwargs={"act": "relu", "save": "preactivation"}),
            Example(dims={"m": (9,), "k": 6, "n": 6}, kwargs={"act": "gelu_tanh", "tiles": "8x8x8 tma"}),
        ),
    ),
    "attention": _of_catalogue(
        "attention",
        tiles={"4x4": dict.fromkeys(ATTENTION, (4, 4, 4, 1)), "8x4": dict.fromkeys(ATTENTION, (8, 4, 4, 1))},
        dims={
            **dict.fromkeys("bhg", Dim(lo=1, hi=2)),
            **dict.fromkeys("mn", Dim(hi=9, around=(4,))),
            **dict.fromkeys("de", Dim(lo=1, hi=5, around=(4,))),
        },
        most=("bhg", 4),
        examples=(
            Example(dims={"b": 1, "h": 2, "g": 2, "m": 5, "n": 7, "d": 3, "e": 2}),
            Example(dims={"b": 2, "h": 1, "g": 2, "m": 9, "n": 3, "d": 4, "e": 4}, kwargs={"causal": True}),
            Example(
                dims={"b": 1, "h": 1, "g": 1, "m": 9, "n": 9, "d": 3, "e": 2}, kwargs={"causal": True, "window": 3}
            ),
        ),
    ),
}


OPS = {name: op for name, op in _ALL.items() if op.module.exists()}


def known(name: str) -> KernelOp:
    """The op of a name, or of `FILE.py:NAME`, with the spec beside it in `FILE_spec.py`."""
    file, _, attribute = name.rpartition(":")
    if not file:
        return OPS[name]
    path = Path(file).resolve()
    tiles = imported(path).SMALL_TILES
    return KernelOp(name=attribute, module=path, specs=path.with_name(f"{path.stem}_spec.py"), tiles=tiles)
