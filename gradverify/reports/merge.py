"""Several Runs as one: shards of a suite, devices, or the single trials of a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from msgspec.structs import replace

from gradverify.records.claims import CLAIMS, FAMILIES, family_of
from gradverify.records.run import Environment, Invocation, OpRun, Run, totals
from gradverify.records.verdict import Outcome, Result

_SEVERITY = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.SKIP)
_DTYPES = ("float64", "float32", "bfloat16", "float16")


def merged(runs: Sequence[Run]) -> Run:
    """The Run that says what all of them say: each op once, each claim, device and dtype of it once.

    Of two results of the same claim, device and dtype the worse stands. Durations add up. One run stays as it is.
    """
    if len(runs) == 1:
        return runs[0]
    groups: dict[tuple[object, ...], list[OpRun]] = {}
    for op in (op for run in runs for op in run.ops):
        groups.setdefault(_identity(op), []).append(op)
    ops = tuple(_one_op(same) for same in groups.values())
    return Run(
        tool=runs[0].tool if runs else Run().tool,
        environment=_environment([r.environment for r in runs]),
        run=_invocation([r.run for r in runs]),
        ops=ops,
        totals=totals(ops),
    )


def _identity(op: OpRun) -> tuple[object, ...]:
    """What tells two ops apart; a checkout in another folder does not."""
    source = (PurePath(op.source.file).name, op.source.line) if op.source else None
    return op.target, op.spec, source, op.error


def _one_op(same: Sequence[OpRun]) -> OpRun:
    worst: dict[tuple[str, str, str], Result] = {}
    for result in sorted((r for op in same for r in op.checks), key=_severity):
        worst.setdefault((result.device, result.dtype, result.claim), result)
    checks = tuple(sorted(worst.values(), key=_place))
    gaps = dict.fromkeys(gap for op in same for gap in op.not_covered if gap.what not in _tried(checks))
    return replace(same[0], checks=checks, not_covered=tuple(gaps))


def _tried(checks: Sequence[Result]) -> set[str]:
    """What one run left out, and another has tried: claims, families of which nothing is left, devices."""
    claims = {r.claim for r in checks}
    families = {f for f in FAMILIES if {c for c in CLAIMS if family_of(c) == f} <= claims}
    ran = {r.device for r in checks if r.outcome is not Outcome.SKIP or r.xfailed}
    return claims | families | ran | {device.partition(":")[0] for device in ran}


def _severity(result: Result) -> tuple[bool, int]:
    return bool(result.xfailed), _SEVERITY.index(result.outcome)


def _place(result: Result) -> tuple[object, ...]:
    """The order of a run: device by device, the CPU first, then dtype by dtype, then the claims' own."""
    dtype, claim = result.dtype, result.claim
    return (
        result.device != "cpu",
        result.device,
        _DTYPES.index(dtype) if dtype in _DTYPES else len(_DTYPES),
        dtype,
        tuple(CLAIMS).index(claim) if claim in CLAIMS else len(CLAIMS),
        claim,
    )


def _environment(found: Sequence[Environment]) -> Environment:
    """What they share, and both where they differ."""
    flags = sorted({name for e in found for name in e.flags})
    return Environment(
        python=_joined(e.python for e in found),
        torch=_joined(e.torch for e in found),
        platform=_joined(e.platform for e in found),
        devices=tuple(dict.fromkeys(d for e in found for d in e.devices)),
        flags={name: _joined(e.flags.get(name, "") for e in found) for name in flags},
        git=_joined(e.git or "" for e in found) or None,
    )


def _invocation(found: Sequence[Invocation]) -> Invocation:
    argv = {i.argv for i in found}
    return Invocation(
        argv=argv.pop() if len(argv) == 1 else (),
        seed=found[0].seed if found else 0,
        profile=_joined(i.profile for i in found),
        started=min((i.started for i in found if i.started), default=""),
        duration_s=sum(i.duration_s for i in found),
        interrupted=any(i.interrupted for i in found),
    )


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(v for v in values if v))
