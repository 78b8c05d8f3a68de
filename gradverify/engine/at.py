"""One point, one answer: the gradient of a plain callable at given tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradverify.autodiff import calling
from gradverify.autodiff.products import Passes
from gradverify.cases.concrete import names_of, spec_at
from gradverify.cases.modules import held
from gradverify.checks.entries import wrong_entries
from gradverify.checks.gradient import against_truth
from gradverify.checks.subject import Subject
from gradverify.diagnosis.explain import explain
from gradverify.engine.promotion import narrowed
from gradverify.engine.threads import most, threads_for
from gradverify.engine.verify import FINE, OWN
from gradverify.errors import OpError
from gradverify.judge import conclude, judge, of_case
from gradverify.records.case import Case, Point
from gradverify.records.codes import TITLES
from gradverify.records.nested import leaves
from gradverify.records.policy import Policy
from gradverify.records.run import describe
from gradverify.records.spec import describe_callable
from gradverify.records.verdict import Cases, Outcome, Result, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The answer at one point: outcome, code, the verdicts it rests on, calls of the op, and the finding in words.

    SKIP: no input, or no output, has an element, so that there is no gradient.

    Attributes:
        forwards: calls of the op.
        backwards: backward passes through it.
    """

    outcome: Outcome
    code: str
    verdicts: tuple[Verdict, ...]
    forwards: int
    backwards: int
    reason: str


_NARROW = "give it float32 inputs, and it is judged in float32, at lower resolution"


class _Counted:
    """A callable that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


def examine(
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    *,
    policy: Policy | None = None,
    seed: int = 0,
    every: bool = True,
) -> Examination:
    """Hold backward against central differences of `function` at `inputs`.

    Differentiated: the floating and complex tensors that require grad, or all of them where none does.
    Example: `examine(MyFunction.apply, (x, w))`. With `every`, all wrong entries of a large gradient are named, not the
    worst alone, for further calls that are not counted. At a kink, a claim among the subgradients is INCONCLUSIVE
    (GV302). Nothing is raised for what the op does wrong: that is the outcome ERROR.
    """
    policy = policy or Policy()
    name = describe_callable(function).rpartition(":")[2]
    counted = _Counted(function)
    spec = spec_at(counted, inputs, {}, name=name, names=names_of(function, len(inputs)))
    primals: dict[str, Tensor] = spec.inputs(None)
    dtype = str(next(t for t in primals.values() if calling.is_inexact(t)).dtype.to_real()).removeprefix("torch.")
    case = Case(spec=name, claim="vjp", seed=seed, dtype=dtype, differentiate=spec.differentiable())
    point = Point(primals=primals, kwargs={}, differentiate=spec.differentiable())
    subject = Subject(spec=spec, case=case, point=point, call=calling.op_of(spec))
    before = Passes.backwards
    try:
        given = [t for _, t in leaves(inputs, "") if isinstance(t, Tensor)]
        with threads_for(most([*given, *held(function)])):
            verdicts = tuple(judge(e, policy) for e in against_truth(subject))
    except OpError as error:
        spent = {"forwards": counted.calls, "backwards": Passes.backwards - before}
        fine = error.code == "GV902" and error.stage in OWN and dtype == FINE
        if fine and examine(function, narrowed(inputs), policy=policy, seed=seed).outcome is not Outcome.ERROR:
            reason = f"{TITLES['GV904']}: {error}\n  try: {_NARROW}"
            return Examination(outcome=Outcome.INCONCLUSIVE, code="GV904", verdicts=(), reason=reason, **spent)
        return Examination(outcome=Outcome.ERROR, code=error.code, verdicts=(), reason=str(error), **spent)
    spent = {"forwards": counted.calls, "backwards": Passes.backwards - before}
    return _concluded(subject, verdicts, every=every, **spent)


def _concluded(
    subject: Subject, verdicts: tuple[Verdict, ...], *, every: bool, forwards: int, backwards: int
) -> Examination:
    if not verdicts:
        reason = "no input, or no output, has an element: there is no gradient to check"
        return Examination(
            outcome=Outcome.SKIP, code="", verdicts=(), forwards=forwards, backwards=backwards, reason=reason
        )
    worst = of_case(verdicts)
    result = conclude([worst], claim="vjp", device="cpu", dtype="float64", cases=Cases(run=1))
    result = _with_finding(subject, result, every=every)
    return Examination(
        outcome=result.outcome,
        code=result.code,
        verdicts=verdicts,
        forwards=forwards,
        backwards=backwards,
        reason=describe(result) if result.outcome is not Outcome.PASS else "",
    )


def _with_finding(subject: Subject, result: Result, *, every: bool) -> Result:
    import msgspec

    told = explain(subject.spec, result, runs=0, locate=lambda: wrong_entries(subject) if every else None)
    return msgspec.structs.replace(result, finding=told)
