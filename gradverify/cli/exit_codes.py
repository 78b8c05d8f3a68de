"""What the exit code of a run is. Precedence: 130 interrupted, 4 our bug, 1 FAIL, 2 unusable, 3 not verified, 0."""

from __future__ import annotations

from collections.abc import Sequence

from gradverify.records.run import Run, absent
from gradverify.records.verdict import Outcome

INTERRUPTED, BUG, FAILED, UNUSABLE, UNVERIFIED, VERIFIED = 130, 4, 1, 2, 3, 0


def exit_code(
    run: Run, *, strict: bool, required: Sequence[str] = (), bug: bool = False, exit_zero: bool = False
) -> int:
    """The code of a run. `exit_zero` turns 1 and 3 into 0, and hides neither misuse, nor a bug, nor an interruption."""
    if run.run.interrupted:
        return INTERRUPTED
    if bug:
        return BUG
    code = _of_outcomes(run, strict=strict, required=required)
    return VERIFIED if exit_zero and code in (FAILED, UNVERIFIED) else code


def _of_outcomes(run: Run, *, strict: bool, required: Sequence[str]) -> int:
    outcomes = {r.outcome for r in run.results if not r.xfailed}
    if outcomes & {Outcome.FAIL, Outcome.ERROR}:
        return FAILED
    if any(op.error for op in run.ops):
        return UNUSABLE
    verified = Outcome.PASS in outcomes or any(r.xfailed for r in run.results)
    unsure = strict and Outcome.INCONCLUSIVE in outcomes
    return VERIFIED if verified and not unsure and not absent(run, required) else UNVERIFIED
