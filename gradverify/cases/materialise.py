"""From a Case to tensors, and back to exact data: one generator per named draw, never the global one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Generator, Tensor

from gradverify.cases import layouts, regimes, shapes, values
from gradverify.cases.crowded import CROWDED
from gradverify.cases.layouts import with_layout
from gradverify.errors import SpecError
from gradverify.records.case import Case, Datum, Point, Sizes
from gradverify.records.nested import leaves
from gradverify.records.spec import Arg, Spec

__all__ = ["cotangent_words", "cotangents", "datum", "freeze", "generator", "materialise", "tensor_of", "with_layout"]

UNDEFINED = ("none", "unused")
"""Words for an output that gets no cotangent: undefined on purpose, or never used."""


def generator(case: Case, *names: str) -> Generator:
    """A CPU generator that depends on the case's seed and the names only."""
    return generator_of(case.seed, *names)


def generator_of(seed: int, *names: str) -> Generator:
    """A CPU generator seeded by the SHA-256 of a seed and names."""
    digest = hashlib.sha256("/".join((str(seed), *names)).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def materialise(spec: Spec, case: Case) -> Point:
    """The tensors that a case describes: detached, on its device, strided as its layouts say.

    Raises SpecError, naming the argument, where the case lacks a size that a shape needs.
    """
    primals = {arg.name: _primal(spec, arg, case) for arg in spec.args}
    defaults = {name: documented[0] for name, documented in spec.kwargs.items()}
    return Point(
        primals=MappingProxyType(primals),
        kwargs=MappingProxyType(defaults | dict(case.kwargs)),
        differentiate=tuple(n for n, t in primals.items() if t is not None and n in case.differentiate),
    )


def _primal(spec: Spec, arg: Arg, case: Case) -> Tensor | None:
    data = dict(case.data or ())
    dtype = dtype_of(arg, case.dtype)
    layout = dict(case.layouts).get(arg.name)
    if arg.name in data:
        recorded = data[arg.name]
        tensor = None if recorded is None else tensor_of(recorded, floating=dtype, device=case.device)
        return tensor if tensor is None or layout is None else with_layout(tensor, layout)
    regime = dict(case.values).get(arg.name, "normal")
    if regime == regimes.ABSENT:
        return None
    return with_layout(_values(spec, arg, case, regime).to(dtype).to(case.device), layout or "contiguous")


COMPLEX = MappingProxyType({"float64": "complex128", "float32": "complex64"})
"""Floating dtype -> that of complex numbers of its precision."""


def dtype_of(arg: Arg, floating: str) -> torch.dtype:
    """The dtype of an argument when `floating` is under test. Raises SpecError where it has no complex numbers."""
    if arg.complex and floating not in COMPLEX:
        raise SpecError(f"{arg.name} is complex, and {floating} has no complex numbers; try {', '.join(COMPLEX)}.")
    own = COMPLEX[floating] if arg.complex else floating
    fixed = {"integer": "int64", "mask": "bool"}.get(arg.role, own)
    return dtype_named(arg.dtype or fixed)


def normal(like: Tensor, *, generator: Generator) -> Tensor:
    """Standard normal numbers in shape, dtype and device of a floating or complex tensor."""
    wide = torch.complex128 if like.is_complex() else torch.float64
    return torch.randn(like.shape, generator=generator, dtype=wide).to(device=like.device, dtype=like.dtype)


def dtype_named(name: str) -> torch.dtype:
    """The torch dtype of that name. Raises SpecError where torch has none."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise SpecError(f"dtype {name!r} is unknown to torch; name one such as float64.")
    return dtype


def _values(spec: Spec, arg: Arg, case: Case, regime: str) -> Tensor:
    real = _fill(spec, arg, case, regime, "value")
    if not arg.complex:
        return real
    imaginary = _fill(spec, arg, case, regime, "imaginary")
    # A complex number is zero where both parts are.
    return torch.complex(real, imaginary * (real != 0) if regime == "zeros" else imaginary)


def _fill(spec: Spec, arg: Arg, case: Case, regime: str, part: str) -> Tensor:
    dims: dict[str, Sizes] = dict(case.dims)
    shape = shapes.shape_of(arg, dims)
    size = dims.get(arg.domain.of or "", 1)
    draw = values.Draw(
        shape=shape,
        generator=generator(case, part, arg.name),
        domain=arg.domain,
        size=size if isinstance(size, int) else 1,
        axis=_axis(arg, len(shape)) if arg.domain.kind == "prob" else -1,
        dtype=case.dtype,
        own=_own(spec, arg, part) if arg.domain.kind == "parameter" else None,
        base=float(torch.rand((), generator=generator(case, "base"))) if regime in CROWDED else 0.0,
    )
    if regime == regimes.REPEATED:
        return layouts.repeat(values.fill("normal", draw), layouts.repeated_axis(shape))
    return values.fill(regime, draw)


def _own(spec: Spec, arg: Arg, part: str) -> Tensor:
    """What the op's module holds, or one part of it."""
    own: Tensor = spec.op.get_parameter(arg.domain.of)
    if not own.is_complex():
        return own
    return own.imag if part == "imaginary" else own.real


def _axis(arg: Arg, ndim: int) -> int:
    """The axis of the letter of `prob`, counted from the end that no variadic word lies before."""
    axes = shapes.parse(arg.shape, arg.name)
    place = next(i for i, a in enumerate(axes) if a.key == arg.domain.of)
    before = any(a.kind == "variadic" for a in axes[:place])
    return ndim - (len(axes) - place) if before else place


def cotangents(case: Case, outputs: Sequence[Tensor], *, draw: int = 0) -> tuple[Tensor | None, ...]:
    """Standard normal cotangents for the floating outputs, in the layouts of the case; one entry per output.

    None for an integer output, and for the words `none` and `unused`. Under `expanded` the values are constant along
    `layouts.repeated_axis`, under `stride0` all are equal; so the base case is `with_layout(u, "contiguous")`.
    The word of an output counts among the floating outputs, see `cotangent_words`.
    """
    words = iter(cotangent_words(case, sum(map(_floating, outputs))))
    return tuple(
        _cotangent(case, out, f"{i}.{draw}", next(words)) if _floating(out) else None for i, out in enumerate(outputs)
    )


def cotangent_words(case: Case, count: int) -> tuple[str, ...]:
    """The words of the case for that many floating outputs: cycled where there are fewer, cut where more.

    At least one output keeps a cotangent: were all words `none` or `unused`, the first is contiguous.
    """
    words = case.cotangents or ("contiguous",)
    cycled = [words[i % len(words)] for i in range(count)]
    if cycled and all(w in UNDEFINED for w in cycled):
        cycled[0] = "contiguous"
    return tuple(cycled)


def _floating(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _cotangent(case: Case, output: Tensor, name: str, word: str) -> Tensor | None:
    if word in UNDEFINED:
        return None
    wide = torch.complex128 if output.is_complex() else torch.float64
    shape = tuple(output.shape)
    u = torch.randn(shape, generator=generator(case, "cotangent", name), dtype=wide)
    if word == "expanded":
        u = layouts.repeat(u, layouts.repeated_axis(shape))
    if word == layouts.STRIDE_ZERO and u.numel():
        u = u.reshape(-1)[0].expand(shape).contiguous()
    return with_layout(u.to(output.dtype).to(output.device), word)


def freeze(spec: Spec, point: Point) -> tuple[tuple[str, Datum | None], ...]:
    """The exact data of every primal, to stand in `Case.data`; floats as `float.hex()`."""
    return tuple((a.name, None if (t := point.primals[a.name]) is None else datum(t)) for a in spec.args)


def datum(tensor: Tensor) -> Datum:
    """A tensor as an exact record: dtype, shape, strides in elements, values in row-major order.

    A complex value is two, real part first. Raises SpecError for quantised and sparse tensors.
    """
    if tensor.is_quantized or tensor.layout != torch.strided:
        raise SpecError(f"a tensor of {tensor.dtype}, {tensor.layout} cannot be recorded; give a strided one.")
    flat = tensor.detach().resolve_conj().reshape(-1).cpu()
    real = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
    written = (
        tuple(float(v).hex() for v in real.double().tolist())
        if real.is_floating_point()
        else tuple(str(int(v)) for v in real.tolist())
    )
    return Datum(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        stride=tuple(tensor.stride()),
        values=written,
    )


def tensor_of(datum: Datum, *, floating: torch.dtype | None = None, device: str = "cpu") -> Tensor:
    """The tensor of a record, with its strides; the exact inverse of `datum` up to storage offset.

    `floating`: the dtype that floating, or complex, values take instead; casting up keeps them exactly.
    """
    dtype = dtype_named(datum.dtype)
    inexact = dtype.is_floating_point or dtype.is_complex
    dtype = floating if floating is not None and inexact else dtype
    read: Any = float.fromhex if inexact else int
    exact = torch.tensor([read(v) for v in datum.values], dtype=torch.float64 if inexact else torch.int64)
    exact = torch.view_as_complex(exact.reshape(-1, 2)) if dtype.is_complex else exact
    logical = exact.to(dtype).reshape(datum.shape)
    if logical.numel() == 0:
        return torch.empty_strided(datum.shape, datum.stride, dtype=dtype, device=device)
    places = _places(datum)
    memory = torch.zeros(int(places.max()) + 1, dtype=dtype)
    memory[places] = logical.reshape(-1)
    return memory.to(device).as_strided(datum.shape, datum.stride)


def _places(datum: Datum) -> Tensor:
    """Where in memory each element lies, in row-major order."""
    places = torch.zeros((), dtype=torch.int64)
    for size, stride in zip(datum.shape, datum.stride, strict=True):
        places = places.unsqueeze(-1) + torch.arange(size) * stride
    return places.reshape(-1)


def _spread(spec: Spec, name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """What a hook gives for a nested parameter, argument by argument."""
    return leaves(value, name) if name in spec.nested else ((name, value),)


def primals_from(spec: Spec, given: Mapping[str, Any]) -> tuple[dict[str, Datum | None], dict[str, Any]]:
    """Splits what an `inputs=` hook gave into exact data of tensors and values of keywords.

    Raises SpecError for an unknown name, a missing argument, and a value that is no tensor where one is needed.
    """
    given = {name: leaf for key, value in given.items() for name, leaf in _spread(spec, key, value)}
    names = {a.name: a for a in spec.args}
    unknown = [n for n in given if n not in names and n not in spec.kwargs]
    missing = [n for n, a in names.items() if n not in given and not a.optional and a.domain.kind != "parameter"]
    if unknown or missing:
        word = f"gives {unknown[0]!r}, which is no argument" if unknown else f"gives no {missing[0]!r}"
        raise SpecError(f"{spec.name}: inputs= {word}; the arguments are {', '.join([*names, *spec.kwargs])}.")
    names = {n: a for n, a in names.items() if n in given or a.domain.kind != "parameter"}
    wrong = [n for n in names if not (isinstance(t := given.get(n), Tensor) or (t is None and names[n].optional))]
    if wrong:
        raise SpecError(f"{spec.name}: inputs= gives {wrong[0]!r} = {given[wrong[0]]!r}; give a tensor.")
    odd = [n for n, v in given.items() if n in spec.kwargs and not isinstance(v, bool | int | float | str | None)]
    if odd:
        raise SpecError(
            f"{spec.name}: inputs= gives {odd[0]!r} = {given[odd[0]]!r}; give a bool, number, string or None."
        )
    data = {n: None if given.get(n) is None else datum(given[n]) for n in names}
    return data, {n: v for n, v in given.items() if n in spec.kwargs}
