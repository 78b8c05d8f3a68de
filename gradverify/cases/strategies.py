"""The Hypothesis strategy of a spec's cases: each claim varies one axis and leaves the others plain."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException, InvalidArgument, InvalidDefinition
from hypothesis.strategies import DrawFn, SearchStrategy

from gradverify.cases import layouts, regimes, shapes, sizes
from gradverify.cases.materialise import datum, primals_from
from gradverify.cases.pins import Pins
from gradverify.errors import SpecError
from gradverify.records.case import Case, Datum, Scalar, Sizes
from gradverify.records.spec import Arg, Spec
from gradverify.records.vocabulary import ALL

T = TypeVar("T")

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

RANKS = (1, 0, 2, 1, 2, 3)
"""Numbers of axes of a variadic letter, the simplest first."""

SEEDS = 2**16

MASKED = 4
"""Up to so many arguments every mask is tried; above, a covering set of them."""

COTANGENT_LAYOUTS = (
    "contiguous",
    "transposed",
    "permuted",
    "sliced",
    "offset",
    "expanded",
    layouts.STRIDE_ZERO,
    "channels_last",
)
LAZY = ("contiguous", layouts.LAZY)
"""What the claim `complex` draws for floating and complex arguments, and for cotangents."""

MASKS = frozenset({"partial", "jvp"})
"""Claims that draw which arguments require grad, or carry a tangent."""

ABSENTEES = frozenset({"forward", "vjp", "partial", "jvp", "special"})
"""Claims in which an optional argument may be None."""

WILD = frozenset({"forward", "vjp", "jvp"})
"""Claims that draw every regime of values; `special` draws the special ones of one argument or of each."""

SCALING = frozenset({"linear", "precision"})
"""Claims that draw the tame regimes, and scales; the others draw the tame ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is fixed before the first draw: spec, claim, dtype, device, the sizes; and what is pinned, if anything."""

    spec: Spec
    claim: str
    dtype: str
    device: str
    sizes: sizes.Outline
    pins: Pins | None = None


def cases(
    spec: Spec, claim: str, *, dtype: str = "float64", device: str = "cpu", pins: Pins | None = None
) -> SearchStrategy[Case]:
    """Cases of one claim. Nothing is filtered: `allowed` says which of them `where` refuses.

    Draw order, which is the order of shrinking: dims, layouts, keywords, values, mask, cotangents, seed.
    `pins`: what all of them share; the rest is plain.
    Raises SpecError where the spec contradicts itself.
    """
    return _cases(plan_of(spec, claim, dtype, device, pins))


def allowed(spec: Spec, case: Case) -> bool:
    """Whether `where` accepts the sizes and keywords of a case. Raises SpecError where it asks for an unknown name."""
    if spec.where is None:
        return True
    offered = {**dict(case.dims), **dict(case.kwargs)}
    parameters = inspect.signature(spec.where).parameters.values()
    unknown = [p.name for p in parameters if p.name not in offered and p.default is p.empty and p.kind not in _VARIABLE]
    if unknown:
        raise SpecError(f"{spec.name}: where asks for {unknown[0]!r}; the sizes and keywords are {', '.join(offered)}.")
    every = any(p.kind is p.VAR_KEYWORD for p in parameters)
    wanted = offered if every else {p.name: offered[p.name] for p in parameters if p.name in offered}
    with _theirs(spec, "where="):
        return bool(spec.where(**wanted))


@contextmanager
def _theirs(spec: Spec, what: str) -> Iterator[None]:
    """Raise SpecError for what code of the spec's author raises; what Hypothesis tells itself by exceptions passes."""
    try:
        yield
    except Exception as error:
        signal = isinstance(error, HypothesisException) and not isinstance(error, InvalidArgument | InvalidDefinition)
        if signal or isinstance(error, SpecError):
            raise
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SpecError(f"{spec.name}: {what} raised {said}; mend it in the spec.") from error


def pinned(spec: Spec, claim: str, *, dtype: str = "float64", device: str = "cpu") -> tuple[Case, ...]:
    """The pinned examples of a spec as cases of a claim; letters that an example leaves open take their least size.

    Raises SpecError for a name that is neither a letter nor a keyword.
    """
    plan = plan_of(spec, claim, dtype, device)
    return tuple(_pinned(plan, {**e.dims, **e.kwargs}) for e in spec.examples)


def _pinned(plan: Plan, given: Mapping[str, Any]) -> Case:
    spec, known = plan.spec, plan.sizes.variadic
    unknown = [n for n in given if n not in known and n not in spec.kwargs]
    if unknown:
        names = ", ".join([*known, *spec.kwargs])
        raise SpecError(f"{spec.name}: an example gives {unknown[0]!r}; the letters and keywords are {names}.")
    dims = {n: given.get(n, plan.sizes.least[n]) for n in known}
    kwargs = {n: given.get(n, documented[0]) for n, documented in spec.kwargs.items()}
    return case_of(plan, dims=dims, kwargs=kwargs, differentiate=spec.differentiable())


def plan_of(spec: Spec, claim: str, dtype: str, device: str, pins: Pins | None = None) -> Plan:
    """The plan of a claim's cases. Raises SpecError where the spec contradicts itself."""
    return Plan(spec=spec, claim=claim, dtype=dtype, device=device, sizes=sizes.outline(spec), pins=pins)


def case_of(plan: Plan, *, dims: Mapping[str, Sizes], kwargs: Mapping[str, Scalar], **fields: Any) -> Case:
    """A case of a plan: sizes in the order of letters, the remaining fields as they are given."""
    return Case(
        spec=plan.spec.name,
        claim=plan.claim,
        dtype=plan.dtype,
        device=plan.device,
        dims=tuple(sorted(dims.items())),
        kwargs=tuple(kwargs.items()),
        **fields,
    )


def _pick(draw: DrawFn, options: tuple[T, ...]) -> T:
    picked: T = draw(_one_of(options))
    return picked


@lru_cache(maxsize=4096)
def _one_of(options: tuple[T, ...]) -> SearchStrategy[T]:
    # A strategy checks itself once: made anew for every draw, that takes as long as the draw. Not for keywords, whose
    # (False, True) and (0, 1) are one key.
    return st.sampled_from(options)


@st.composite
def _cases(draw: DrawFn, plan: Plan) -> Case:
    spec = plan.spec
    hooked = spec.inputs is not None
    dims = {} if hooked else _dims(draw, plan)
    layout = {} if hooked else _layouts(draw, plan, {a.name: shapes.shape_of(a, dims) for a in spec.args})
    kwargs = {n: draw(st.sampled_from(_values(plan, n))) for n in spec.kwargs}
    words = {} if hooked else _regimes(draw, plan, layout)
    data, given = _data(draw, spec)
    if hooked:
        layout = _layouts(draw, plan, {n: d.shape for n, d in data.items() if d is not None})
    absent = {n for n, r in words.items() if r == regimes.ABSENT} | {n for n, d in data.items() if d is None}
    return case_of(
        plan,
        dims=dims,
        kwargs=kwargs | given,
        layouts=tuple(layout.items()),
        values=tuple((n, r) for n, r in words.items() if r != "normal" and n not in data),
        data=tuple(data.items()) or None,
        differentiate=_mask(draw, plan, tuple(n for n in spec.differentiable() if n not in absent)),
        cotangents=_words(draw, plan),
        seed=draw(st.integers(0, SEEDS - 1)),
    )


def _dims(draw: DrawFn, plan: Plan) -> dict[str, Sizes]:
    names = tuple(plan.sizes.variadic)
    # At the edges one letter is extreme at a time, or all are: two extremes at once hide each other in empty tensors.
    focus = _pick(draw, (*names, "all")) if plan.claim == "edges" and names and plan.pins is None else None
    dims: dict[str, Sizes] = {} if plan.pins is None else dict(plan.pins.dims)
    for name in (n for n in names if n not in dims):
        options = plan.sizes.edges[name] if focus in (name, "all") else plan.sizes.ordinary[name]
        several = plan.sizes.variadic[name]
        dims[name] = _several(draw, plan, name, options, dims) if several else _one(draw, plan, name, options, dims)
    for arg in plan.spec.args:
        for axis in shapes.parse(arg.shape, arg.name):
            if axis.broadcast and f"{arg.name}#{axis.key}" not in dims:
                dims[f"{arg.name}#{axis.key}"] = _broadcast(draw, shapes.axis_size(axis, dims))
    return dims


def _values(plan: Plan, keyword: str) -> tuple[Scalar, ...]:
    documented = plan.spec.kwargs[keyword]
    if plan.pins is None or keyword not in plan.pins.kwargs:
        return tuple(documented)
    return (documented[0], plan.pins.kwargs[keyword])


def _one(draw: DrawFn, plan: Plan, name: str, options: tuple[int, ...], dims: Mapping[str, Sizes]) -> int:
    return _pick(draw, sizes.fitting(name, options, plan.sizes, known=dims))


def _several(
    draw: DrawFn, plan: Plan, name: str, options: tuple[int, ...], dims: Mapping[str, Sizes]
) -> tuple[int, ...]:
    drawn: tuple[int, ...] = ()
    for _ in range(_pick(draw, RANKS)):
        candidates = tuple((*drawn, n) for n in options)
        drawn = _pick(draw, sizes.fitting(name, candidates, plan.sizes, known=dims))
    return drawn


def _broadcast(draw: DrawFn, size: Sizes) -> Sizes:
    if isinstance(size, tuple):
        return tuple(_pick(draw, (n, 1)) for n in size)
    return _pick(draw, (size, 1))


def _layouts(draw: DrawFn, plan: Plan, found: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    if plan.pins is not None:
        return dict(plan.pins.layouts)
    if plan.claim not in ("layout", "complex"):
        return {}
    offered = {name: offered_layouts(plan.spec, plan.spec.arg(name), shape) for name, shape in found.items()}
    if plan.claim == "complex":
        offered = dict.fromkeys(lazy(plan.spec), LAZY)
    drawn = {name: _pick(draw, options) for name, options in offered.items()}
    return {name: layout for name, layout in drawn.items() if layout != "contiguous"}


def lazy(spec: Spec) -> tuple[str, ...]:
    """The arguments that may be a view of conjugates or negatives."""
    return tuple(a.name for a in spec.args if a.role in ("differentiable", "frozen"))


def offered_layouts(spec: Spec, arg: Arg, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The memory layouts that an argument of this shape may take, `contiguous` first; a parameter has its module's."""
    if arg.domain.kind == "parameter":
        return ("contiguous",)
    given = arg.strategy is not None or spec.inputs is not None
    uneven = arg.domain.kind in ("prob", "spd", "additive_mask") or arg.domain.avoid_ties or given
    names = [n for n in spec.layouts or ALL if layouts.possible(shape, n) and not (n == "expanded" and uneven)]
    return tuple(dict.fromkeys(("contiguous", *names)))


def _regimes(draw: DrawFn, plan: Plan, layout: Mapping[str, str]) -> dict[str, str]:
    """One argument at a time is out of the ordinary, or each on its own; so most cases can be judged."""
    # Parameters have no values out of the ordinary.
    names = tuple(a.name for a in plan.spec.args if a.domain.kind != "parameter") or ("",)
    if plan.pins is not None:
        return _pinned_regimes(draw, plan, layout)
    several = ("each",) if len(names) > 1 else ()
    if plan.claim == "special":
        focus = _pick(draw, (*names, *several))
        return {a.name: _pick(draw, _choices(plan, a, wild=focus in (a.name, "each"))) for a in plan.spec.args}
    focus = _pick(draw, (*[""] * len(names), *names, *several)) if plan.claim in WILD | SCALING else ""
    drawn = {a.name: _pick(draw, _choices(plan, a, wild=focus in (a.name, "each"))) for a in plan.spec.args}
    return drawn | repeated(layout)


def _pinned_regimes(draw: DrawFn, plan: Plan, layout: Mapping[str, str]) -> dict[str, str]:
    assert plan.pins is not None
    pinned = plan.pins.regimes
    tame = {a.name: regimes.tame(a.domain) for a in plan.spec.args if a.name not in pinned}
    drawn = {n: _pick(draw, options) for n, options in tame.items()} | dict(pinned) | repeated(layout)
    return {a.name: drawn[a.name] for a in plan.spec.args}


def repeated(layout: Mapping[str, str]) -> dict[str, str]:
    """The regime of the arguments in the layout `expanded`, whose values must repeat."""
    return {name: regimes.REPEATED for name, word in layout.items() if word == "expanded"}


def _choices(plan: Plan, arg: Arg, *, wild: bool) -> tuple[str, ...]:
    if arg.domain.kind == "parameter" and plan.spec.inputs is not None:
        return (regimes.OWN,)
    if wild and plan.claim in WILD:
        offered = regimes.regimes(arg.domain, plan.dtype)
    elif wild and plan.claim == "special":
        offered = special_regimes(plan, arg)
    else:
        offered = regimes.tame(arg.domain, scaled=wild and plan.claim in SCALING, dtype=plan.dtype)
    return (regimes.ABSENT, *offered) if arg.optional and plan.claim in ABSENTEES else offered


def special_regimes(plan: Plan, arg: Arg) -> tuple[str, ...]:
    """The special values of an argument, then the extreme sizes; normal numbers where there are none."""
    sizes_ = regimes.extreme(arg.domain, plan.dtype, referenced=plan.spec.reference is not None)
    return (*regimes.special(arg.domain, plan.dtype), *sizes_) or ("normal",)


def _data(draw: DrawFn, spec: Spec) -> tuple[dict[str, Datum | None], dict[str, Any]]:
    own = [a for a in spec.args if a.strategy is not None and spec.inputs is None]
    if spec.inputs is None and not own:
        return {}, {}
    # What the user's code draws from the global generator must replay too; its state is restored after.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(draw(st.integers(0, SEEDS - 1)))
        if spec.inputs is not None:
            with _theirs(spec, "inputs="):
                given = _inputs(draw, spec.inputs)
            return primals_from(spec, given)
        return {a.name: _own(_drawn(draw, spec, a), spec, a) for a in own}, {}


def _drawn(draw: DrawFn, spec: Spec, arg: Arg) -> Any:
    with _theirs(spec, f"the strategy of {arg.name!r}"):
        return draw(arg.strategy)


def _inputs(draw: DrawFn, inputs: Any) -> Mapping[str, Any]:
    given = draw(inputs) if isinstance(inputs, SearchStrategy) else inputs(draw)
    if not isinstance(given, Mapping):
        raise SpecError(f"inputs= gave {type(given).__name__}; give a dict of argument name -> tensor.")
    return given


def _own(value: Any, spec: Spec, arg: Arg) -> Datum | None:
    if value is None and arg.optional:
        return None
    if not isinstance(value, torch.Tensor):
        raise SpecError(f"{spec.name}: the strategy of {arg.name!r} gave {type(value).__name__}; give one of tensors.")
    return datum(value)


def _mask(draw: DrawFn, plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    if plan.pins is not None:
        return names if plan.pins.differentiate is None else plan.pins.differentiate
    if plan.claim not in MASKS or len(names) < 2:
        return names
    return _pick(draw, masks(names))


@lru_cache(maxsize=256)
def masks(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Subsets of the arguments that require grad: all of few. Of many: all, each alone, all but each, then halves.

    Of any two arguments some mask has either alone, both and neither; of three or more, halves part each from others.
    """
    if len(names) <= MASKED:
        counts: Iterable[int] = range(1, len(names) + 1)
        return tuple(s for k in counts for s in itertools.combinations(names, k))
    counts = (1, len(names) - 1)
    bits = range((len(names) - 1).bit_length())
    halves = [tuple(n for i, n in enumerate(names) if i >> b & 1 == side) for b in bits for side in (0, 1)]
    return tuple(dict.fromkeys((names, *(s for k in counts for s in itertools.combinations(names, k)), *halves)))


def _words(draw: DrawFn, plan: Plan) -> tuple[str, ...]:
    if plan.pins is not None:
        return plan.pins.cotangents
    offered = {"layout": COTANGENT_LAYOUTS, "complex": LAZY}.get(plan.claim, ())
    return tuple(_pick(draw, offered) for _ in range(2)) if offered else ()
