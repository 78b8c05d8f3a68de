"""`@gradverify.parametrize(specs)`: a property that is written by hand, over the inputs that a spec allows."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from torch import Tensor

from gradverify.autodiff.calling import copies, flattened, handed, signature_of
from gradverify.cases import materialise
from gradverify.cases.modules import in_dtype
from gradverify.cases.signatures import resolved
from gradverify.cases.strategies import allowed, cases
from gradverify.engine.search import steady
from gradverify.engine.verify import seed_of
from gradverify.errors import UsageError
from gradverify.pytest_plugin.settings import settings
from gradverify.records.case import Case
from gradverify.records.spec import Spec
from gradverify.reports.words import sizes_of

_CASE, _REQUEST = "case", "request"


@dataclass(frozen=True, kw_only=True, eq=False)
class PropertyCase:
    """One draw: `case.op(*case.inputs, **case.kwargs)` is the call, `case.cotangents` fit its outputs.

    Attributes:
        spec: where it is drawn from; `case.spec(...)` calls the reference.
        op: what is called: `apply` of a Function, the callable itself otherwise.
        inputs: what it takes by position: tensors that require grad where the spec says so, and all else.
        kwargs: what it takes by name.
        recipe: the sizes, layouts and seed that were drawn.
    """

    spec: Spec
    op: Callable[..., Any]
    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    recipe: Case

    @functools.cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors that one call returns, in order."""
        return flattened(self.spec, self.op(*self.inputs, **self.kwargs))

    @functools.cached_property
    def cotangents(self) -> tuple[Tensor | None, ...]:
        """A random cotangent for each floating output of `outputs`; None for the others."""
        return materialise.cotangents(self.recipe, self.outputs)

    def __repr__(self) -> str:
        return f"{self.spec.name}: {sizes_of(self.recipe)} seed={self.recipe.seed}"


def parametrize(
    specs: Spec | Iterable[Spec], *, claim: str = "vjp", examples: int | None = None, dtype: str = "float64"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test that takes `case` for each spec, on cases drawn as for a claim; a failure is shrunk.

    `claim` says which axis varies (`layout`: layouts, `edges`: sizes 0 and 1); without `examples`, the profile's.
    Other parameters of the test are fixtures. Raises UsageError where the test takes no `case`.
    """
    chosen = [specs] if isinstance(specs, Spec) else list(specs)

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(test)
        if _CASE not in signature.parameters:
            raise UsageError(f"{test.__name__}: takes no `case`; write `def {test.__name__}(case): ...`.")

        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            spec = resolved(fixtures.pop(_CASE))
            request = fixtures[_REQUEST] if _REQUEST in signature.parameters else fixtures.pop(_REQUEST)
            plan, _ = settings(request.config).plan(spec, {})
            seed = seed_of(plan.seed, spec.name, test.__qualname__, dtype)
            own = in_dtype(spec, dtype)
            _hold(own, lambda case: test(**fixtures, case=case), claim, dtype, examples or plan.examples, seed)

        run.__signature__ = _with_request(signature)  # type: ignore[attr-defined]
        marked: Callable[..., Any] = pytest.mark.parametrize(_CASE, [pytest.param(s, id=s.name) for s in chosen])(run)
        return marked

    return decorate


def drawn(spec: Spec, case: Case) -> PropertyCase:
    """A case of a resolved spec with its tensors."""
    point = materialise.materialise(spec, case)
    primals = copies(point.primals)
    for name in point.differentiate:
        tensor = primals[name]
        assert tensor is not None
        tensor.requires_grad_()
    op, positional, named = signature_of(spec)
    values = handed(spec, primals, point.kwargs)
    return PropertyCase(
        spec=spec,
        op=op,
        inputs=tuple(values[n] for n in positional),
        kwargs={n: values[n] for n in named},
        recipe=case,
    )


def _hold(spec: Spec, test: Callable[[PropertyCase], object], claim: str, dtype: str, examples: int, seed: int) -> None:
    """Every setting is explicit: a profile of the user's changes no case."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        backend="hypothesis",
    )
    @hypothesis.given(cases(spec, claim, dtype=dtype).filter(lambda case: allowed(spec, case)).map(_of(spec)))
    def holds(case: PropertyCase) -> None:
        test(case)

    with steady():
        holds()


def _of(spec: Spec) -> Callable[[Case], PropertyCase]:
    return lambda case: drawn(spec, case)


def _with_request(signature: inspect.Signature) -> inspect.Signature:
    parameters = signature.parameters
    if _REQUEST in parameters:
        return signature
    request = inspect.Parameter(_REQUEST, inspect.Parameter.KEYWORD_ONLY)
    return signature.replace(parameters=[*parameters.values(), request])
