"""For Python users: `check` an op, `verify` a spec, and `gradcheck` with torch's signature. Nothing here prints."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from gradverify.cases.annotations import op_parameters
from gradverify.cases.concrete import spec_at
from gradverify.cases.modules import copied, differs
from gradverify.cases.signatures import spec_from_op
from gradverify.config import claims_named, devices_named, dtypes_named, examples_given, load, seconds
from gradverify.discovery.loading import checked_op
from gradverify.discovery.targets import resolve
from gradverify.engine import session
from gradverify.engine.at import Examination, examine
from gradverify.engine.verify import FINE
from gradverify.engine.verify import verify as _verify
from gradverify.errors import GradcheckError, UsageError
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import Run, describe
from gradverify.records.spec import Spec, describe_callable
from gradverify.records.verdict import Outcome, Result

Names = str | Sequence[str]

# Enough draws of undefined cotangents and repeated calls for one point.
_POINT_EXAMPLES = 4
# torch's own defaults, which say nothing when they are given.
_EPS, _NOT_YET = 1e-6, ("check_grad_dtypes", "check_batched_grad", "check_batched_forward_grad", "check_forward_ad")


def check(
    op: Any,
    /,
    *inputs: Any,
    examples: int | None = None,
    seed: int = 0,
    claims: Names = (),
    skip: Names = (),
    profile: str | None = None,
    device: Names = (),
    dtype: Names = (),
    max_time: str | None = None,
    policy: Policy | None = None,
    arguments: Mapping[str, Any] | None = None,
    **more: Any,
) -> Run:
    """Verify an op, a spec or a target of the command line; read the Run, or call its `raise_for_failures()`.

    `check(op, x="*b k", w="k n")` gives shapes, `check(op, x, w)` judges at these tensors, `check(spec)` and
    `check("pkg.mod:Op")` take what they name. A keyword that is no shape is a keyword of the op, held at that value.
    An argument of the op that is called like one of ours goes into `arguments={"seed": "n"}`.
    Raises UsageError (SpecError for a spec) where nothing can be verified.
    """
    config = load()
    name, chosen = config.profile_named(profile)
    limit = max_time or chosen.max_time
    plan = Plan(
        claims=claims_named(_several(claims, "claims")),
        skip=claims_named(_several(skip, "skip")),
        devices=devices_named(_several(device, "device")),
        dtypes=dtypes_named(_several(dtype, "dtype")),
        examples=examples_given(_whole(examples, "examples")) or chosen.examples or 20,
        seed=_whole(seed, "seed") or 0,
        max_seconds=seconds(limit) if limit else None,
        profile=name,
    )
    specs = _specs(op, inputs, {**more, **(arguments or {})})
    return session.run(specs, plan, policy or Policy())


def verify(spec: Spec, *, plan: Plan | None = None, policy: Policy | None = None) -> Iterator[Result]:
    """The results of a spec one by one, a claim, device and dtype each, as soon as each is known."""
    return _verify(spec, plan or Plan(), policy or Policy())


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = _EPS,
    atol: float | None = None,
    rtol: float | None = None,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """torch.autograd.gradcheck's question and signature, answered by gradverify's judge at the same inputs.

    Differentiates the inputs that require grad, in float64 where the op accepts it. `eps` and `fast_mode` have no
    meaning here; `atol` and `rtol` loosen the verdict; `nondet_tol=0` asks for the claim repeat, and
    `check_undefined_grad` for partial. Whatever is ignored, loosened or not checked is said in one warning.
    Returns True, or, where the gradient is wrong or cannot be judged, raises GradcheckError or returns False.
    Raises ValueError where no input requires grad, or check_backward_ad is off, which leaves nothing to check.
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    free = [i for i, t in enumerate(given) if isinstance(t, Tensor) and t.requires_grad]
    if not free:
        raise ValueError("gradcheck: no input requires grad; set requires_grad=True on what is to be differentiated.")
    if not check_backward_ad:
        raise ValueError("gradcheck: check_backward_ad=False leaves nothing to check; forward mode is not judged.")
    asked = (check_grad_dtypes, check_batched_grad, check_batched_forward_grad, check_forward_ad)
    not_yet = [n for n, on in zip(_NOT_YET, asked, strict=True) if on]
    notes = _notes(eps=eps, atol=atol, rtol=rtol, fast_mode=fast_mode, masked=masked, not_yet=not_yet)
    func, point, note = _promoted(func, given, free)
    if notes or note:
        warnings.warn("gradverify.gradcheck: " + "; ".join([*notes, *note]) + ".", UserWarning, stacklevel=2)
    claims = [*(["repeat"] if nondet_tol == 0 else []), *(["partial"] if check_undefined_grad else [])]
    policy = Policy() if atol is None and rtol is None else Policy(loosened=rtol or 0.0, loosened_absolute=atol or 0.0)
    trouble = _trouble(func, point, free, policy=policy, claims=tuple(claims))
    if trouble and raise_exception:
        raise GradcheckError(trouble)
    return not trouble


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
    if inputs:
        return [spec_at(checked, inputs, {**shapes, **kwargs}, name=name)]
    return [spec_from_op(checked, name=name, target=target, shapes=shapes, kwargs=kwargs, said_by="check()")]


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


def _first(inputs: Sequence[Any], arguments: Mapping[str, Any]) -> str:
    return "the tensors" if inputs else f"{next(iter(arguments))}="


def _several(value: Names, name: str) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else tuple(value)
    if any(" " in w or w == "" for w in words):
        raise UsageError(
            f'{name}={value!r} names none of ours; an argument of the op goes in arguments={{"{name}": ...}}.'
        )
    return words


def _whole(value: Any, name: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise UsageError(f'{name}={value!r} is no number; an argument of the op goes in arguments={{"{name}": ...}}.')
    return value


def _notes(
    *,
    eps: float,
    atol: float | None,
    rtol: float | None,
    fast_mode: bool,
    masked: bool | None,
    not_yet: list[str],
) -> list[str]:
    ignored = [n for n, on in (("eps", eps != _EPS), ("fast_mode", fast_mode), ("masked", bool(masked))) if on]
    raw = [f"{n}={v:g}" for n, v in (("rtol", rtol), ("atol", atol)) if v is not None]
    return [
        *([f"{' and '.join(ignored)} ignored: the step and the error bar are measured"] if ignored else []),
        *([f"verdict loosened by {', '.join(raw)} as given"] if raw else []),
        *([f"not checked: {', '.join(not_yet)} (no such claim yet)"] if not_yet else []),
    ]


def _promoted(
    func: Callable[..., Any], given: tuple[Any, ...], free: Sequence[int]
) -> tuple[Callable[..., Any], tuple[Any, ...], list[str]]:
    """The function and its inputs in float64 where it accepts that, and what to say about it.

    A module is copied: the user's own keeps its dtype and its buffers.
    """
    import torch

    low = [i for i in free if given[i].dtype not in (torch.float64, torch.complex128)]
    own = copied(func, FINE)
    dtype = str(given[low[0]].dtype).removeprefix("torch.") if low else ""
    wide = "complex128" if dtype.startswith("complex") else FINE
    notes = [f"inputs are {dtype}, judged in {wide}"] if low else []
    notes += ["the module, as a float64 copy"] if differs(func, FINE) else []
    if not low:
        return own, given, notes
    point = tuple(_double(t) if isinstance(t, Tensor) else t for t in given)
    try:
        with torch.no_grad():
            own(*point)
    except Exception as error:  # noqa: BLE001 whatever an op raises on float64 means that it refuses it
        if not _runs(func, given):
            return func, given, []
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return func, given, [f"judged in {dtype}, at lower resolution: the op refuses float64 ({said})"]
    return own, point, notes


def _runs(func: Callable[..., Any], given: tuple[Any, ...]) -> bool:
    """Whether the op takes the inputs as they are: one that raises on them too does not refuse float64."""
    import torch

    try:
        with torch.no_grad():
            func(*given)
    except Exception:  # noqa: BLE001 what it raises is reported where it is judged
        return False
    return True


def _double(tensor: Tensor) -> Tensor:
    import torch

    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().to(wide).requires_grad_(tensor.requires_grad)


def _trouble(
    func: Callable[..., Any], point: tuple[Any, ...], free: Sequence[int], *, policy: Policy, claims: tuple[str, ...]
) -> str:
    """What is wrong, or cannot be judged, in words; empty where all is well."""
    found = examine(func, point, policy=policy)
    if found.outcome is not Outcome.PASS:
        return _said(found)
    spec = spec_at(func, point, {}, name=describe_callable(func).rpartition(":")[2], parameters=False)
    dtype = str(point[free[0]].dtype.to_real()).removeprefix("torch.")
    plan = Plan(claims=claims, dtypes=(dtype,), examples=_POINT_EXAMPLES)
    results = _verify(spec, plan, policy) if claims else ()
    bad = [r for r in results if r.outcome in (Outcome.FAIL, Outcome.ERROR)]
    return "\n".join(describe(r) for r in bad)


def _said(found: Examination) -> str:
    head = f"{found.outcome.value} {found.code}"
    return found.reason if found.reason.startswith(found.outcome.value) else f"{head} {found.reason}".strip()
