"""torch's `gradcheck` and `gradgradcheck`, with their signatures, answered by the judge at the same inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor

from gradverify.cases.concrete import spec_at
from gradverify.discovery.loading import checked_op
from gradverify.engine.at import Examination, examine
from gradverify.engine.promotion import promoted
from gradverify.engine.verify import verify as _verify
from gradverify.errors import GradcheckError
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import describe_callable
from gradverify.records.verdict import Outcome, Result

# Enough draws of cotangents, tangents and repeated calls for one point.
_POINT_EXAMPLES = 4
# torch's own default, which says nothing when it is given.
_EPS = 1e-6

_FORWARD, _BATCHED = ("jvp", "adjoint"), "transforms.vmap"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What one call asks for.

    Attributes:
        vjp: whether backward itself is held against differences.
        claims: the other claims that are tried, in order.
        demanded: those of them that must not be skipped or undecided.
        notes: what the reader is warned of.
    """

    name: str
    vjp: bool
    claims: tuple[str, ...]
    demanded: tuple[str, ...]
    policy: Policy
    notes: list[str]


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

    Differentiates the inputs that require grad, in float64 where the op accepts it.

    - `eps`, `fast_mode`, `masked`: ignored, since the step and the error bar are measured.
    - `atol`, `rtol`: loosen the verdict. Without them there is no tolerance.
    - `nondet_tol=0`: the claim repeat, the same call gives the same bits; any other value leaves it out.
    - `check_undefined_grad`: the claim partial, masks of inputs and undefined cotangents.
    - `check_grad_dtypes`: the claim convention, gradients have their inputs' dtype (and shape and device).
    - `check_forward_ad`: the claims jvp and, beside backward, adjoint. An op without forward mode fails, as in torch.
    - `check_batched_grad`, `check_batched_forward_grad`: the claim transforms.vmap, a batch gives what a loop gives.
    - `check_backward_ad=False`: forward mode alone, without the claims that need a backward.

    What is ignored, loosened or cannot be checked is said in one warning.
    Returns True, or, where a derivative is wrong or cannot be judged, raises GradcheckError or returns False.
    Raises ValueError where no input requires grad, and for options that contradict each other; UsageError for what is
    not callable.
    """
    if not (check_backward_ad or check_forward_ad):
        _refuse("gradcheck", "check_backward_ad=False without check_forward_ad=True leaves nothing to check")
    if check_batched_forward_grad and not check_forward_ad:
        _refuse("gradcheck", "check_batched_forward_grad=True needs check_forward_ad=True")
    backward = {
        "repeat": nondet_tol == 0,
        "partial": check_undefined_grad,
        "convention": check_grad_dtypes,
    }
    asked = _Asked(
        name="gradcheck",
        vjp=check_backward_ad,
        claims=(
            *(c for c, on in backward.items() if on and check_backward_ad),
            *(_FORWARD[: 1 + check_backward_ad] if check_forward_ad else ()),
            *([_BATCHED] if check_batched_forward_grad or (check_batched_grad and check_backward_ad) else []),
        ),
        demanded=("jvp",),
        policy=_policy(atol, rtol),
        notes=_notes(atol, rtol, {"eps": eps != _EPS, "fast_mode": fast_mode, "masked": bool(masked)}),
    )
    return _answer(asked, func, inputs, raise_exception=raise_exception)


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    eps: float = _EPS,
    atol: float | None = None,
    rtol: float | None = None,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """torch.autograd.gradgradcheck's question and signature: the claim double_backward, at the same inputs.

    What backward returns is differentiated by the inputs that require grad and by the cotangents, and held against
    central differences of backward; where the op has forward mode, forward over reverse and reverse over forward are
    held against it, too, whatever `check_fwd_over_rev` says. A backward that refuses fails, as in torch.

    - `grad_outputs`, `gen_non_contig_grad_outputs`: ignored, cotangents are drawn.
    - `nondet_tol=0`: the claim repeat. `check_undefined_grad`, `check_grad_dtypes`, `check_batched_grad`: not asked of
      second derivatives; `gradcheck` takes them.
    - All others, the warning, the answer and the errors: as for `gradcheck`.
    """
    del check_undefined_grad  # torch's default asks for it, and so cannot be told from a wish
    if not (check_fwd_over_rev or check_rev_over_rev):
        _refuse("gradgradcheck", "check_fwd_over_rev=False and check_rev_over_rev=False leave nothing to check")
    drawn = {"grad_outputs": grad_outputs is not None, "gen_non_contig_grad_outputs": gen_non_contig_grad_outputs}
    first = {"check_grad_dtypes": check_grad_dtypes, "check_batched_grad": check_batched_grad}
    asked = _Asked(
        name="gradgradcheck",
        vjp=False,
        claims=(*(["repeat"] if nondet_tol == 0 else []), "double_backward"),
        demanded=("double_backward",),
        policy=_policy(atol, rtol),
        notes=[
            *_notes(atol, rtol, {"eps": eps != _EPS, "fast_mode": fast_mode, "masked": masked}),
            *_told(drawn, "ignored: cotangents are drawn"),
            *_told(first, "not asked of second derivatives: gradcheck takes it"),
        ],
    )
    return _answer(asked, func, inputs, raise_exception=raise_exception)


def _answer(asked: _Asked, func: Callable[..., Any], inputs: Tensor | Sequence[Any], *, raise_exception: bool) -> bool:
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    free = [i for i, t in enumerate(given) if isinstance(t, Tensor) and t.requires_grad]
    if not free:
        _refuse(asked.name, "no input requires grad; set requires_grad=True on what is to be differentiated")
    op = checked_op(func, target=describe_callable(func))
    func, point, said = promoted(_called(op), given, free)
    trouble, skipped = _trouble(asked, func, point, free)
    if notes := [*asked.notes, *said, *skipped]:
        warnings.warn(f"gradverify.{asked.name}: " + "; ".join(notes) + ".", UserWarning, stacklevel=3)
    if trouble and raise_exception:
        raise GradcheckError(trouble)
    return not trouble


def _called(op: Any) -> Callable[..., Any]:
    """What is called: `apply` of a Function, which is the one class that `checked_op` lets pass."""
    called: Callable[..., Any] = getattr(op, "apply") if isinstance(op, type) else op  # noqa: B009 (untyped in torch)
    return called


def _refuse(name: str, why: str) -> NoReturn:
    raise ValueError(f"{name}: {why}.")


def _policy(atol: float | None, rtol: float | None) -> Policy:
    return Policy() if atol is None and rtol is None else Policy(loosened=rtol or 0.0, loosened_absolute=atol or 0.0)


def _notes(atol: float | None, rtol: float | None, ignored: Mapping[str, bool]) -> list[str]:
    raw = [f"{n}={v:g}" for n, v in (("rtol", rtol), ("atol", atol)) if v is not None]
    return [
        *_told(ignored, "ignored: the step and the error bar are measured"),
        *([f"verdict loosened by {', '.join(raw)} as given"] if raw else []),
    ]


def _told(options: Mapping[str, bool], what: str) -> list[str]:
    words = [n for n, on in options.items() if on]
    return [f"{' and '.join(words)} {what}"] if words else []


def _trouble(
    asked: _Asked, func: Callable[..., Any], point: tuple[Any, ...], free: Sequence[int]
) -> tuple[str, list[str]]:
    """What is wrong, or cannot be judged, in words, empty where all is well; and what was asked for and skipped."""
    notes: list[str] = []
    if asked.vjp:
        found = examine(func, point, policy=asked.policy)
        if found.outcome not in (Outcome.PASS, Outcome.SKIP):
            return _said(found), []
        notes = [found.reason] if found.outcome is Outcome.SKIP else []
    if not asked.claims:
        return "", notes
    spec = spec_at(func, point, {}, name=describe_callable(func).rpartition(":")[2], parameters=False)
    dtype = str(point[free[0]].dtype.to_real()).removeprefix("torch.")
    plan = Plan(claims=asked.claims, devices=(point[free[0]].device.type,), dtypes=(dtype,), examples=_POINT_EXAMPLES)
    results = list(_verify(spec, plan, asked.policy))
    bad = [r for r in results if _is_bad(r, asked.demanded)]
    notes += [f"{r.claim} not checked: {r.reason}" for r in results if _is_missed(r, asked.demanded)]
    return "\n".join(describe(r) for r in bad), notes


def _is_bad(result: Result, demanded: Sequence[str]) -> bool:
    if result.claim in demanded:
        return result.outcome is not Outcome.PASS
    return result.outcome in (Outcome.FAIL, Outcome.ERROR)


def _is_missed(result: Result, demanded: Sequence[str]) -> bool:
    return result.outcome is Outcome.SKIP and result.claim == _BATCHED and result.claim not in demanded


def _said(found: Examination) -> str:
    head = f"{found.outcome.value} {found.code}"
    return found.reason if found.reason.startswith(found.outcome.value) else f"{head} {found.reason}".strip()
