"""One case again: its tensors as exact data, and what the claim that it failed says of it now."""

from __future__ import annotations

from msgspec.structs import replace

from gradverify.cases.materialise import freeze, materialise
from gradverify.cases.modules import in_dtype
from gradverify.cases.signatures import resolved
from gradverify.engine.heap import set_aside
from gradverify.engine.verify import at_case, present
from gradverify.errors import GradverifyError, UsageError
from gradverify.records.case import Case, Datum
from gradverify.records.claims import CLAIMS
from gradverify.records.policy import Policy
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result

LARGEST = 4096
"""Inputs of more elements are not written out: the recipe gives them again."""

Data = tuple[tuple[str, Datum | None], ...]


def data_of(spec: Spec, case: Case) -> Data | None:
    """The inputs of a case as exact data; None where they are too large to be read, or cannot be recorded."""
    try:
        whole = in_dtype(resolved(spec), case.dtype)
        point = materialise(whole, case)
        count = sum(t.numel() for t in point.primals.values() if t is not None)
        return freeze(whole, point) if count <= LARGEST else None
    except GradverifyError:
        return None


def replayed(spec: Spec, case: Case, data: Data | None, policy: Policy) -> Result:
    """What the claim of a case says of it now, on its data, and, where that is right, on what its recipe gives.

    The data is the same whatever draws numbers today. A claim that needs further data of the kind draws it by recipe.
    Raises UsageError where the spec, the claim or an argument is no longer what it was.
    """
    _refuse_others(spec, case, data)
    with set_aside():
        first = at_case(spec, case if data is None else replace(case, data=data), policy)
        return (
            first if data is None or first.outcome not in (Outcome.PASS, Outcome.SKIP) else at_case(spec, case, policy)
        )


def _refuse_others(spec: Spec, case: Case, data: Data | None) -> None:
    """Raise UsageError where the case was of other arguments, of an unknown claim, or of a device that is absent."""
    names = {a.name for a in resolved(spec).args}
    given = {n for n, _ in data} if data is not None else names
    if given != names:
        raise UsageError(f"{spec.name}: the case has {_told(given)}, the op now takes {_told(names)}; check it anew.")
    if case.claim not in CLAIMS:
        raise UsageError(f"{spec.name}: this version has no claim {case.claim!r}; check it anew.")
    if case.device.partition(":")[0] not in present():
        raise UsageError(f"{spec.name}: the case failed on {case.device}, and there is no such device here.")


def _told(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
