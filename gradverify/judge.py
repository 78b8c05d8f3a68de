"""Evidence -> Verdict, and the verdicts of a claim -> Result. Pure: every branch is a line of specs/claims.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from gradverify.records.evidence import Evidence, Fact
from gradverify.records.policy import Policy
from gradverify.records.verdict import Budget, Cases, Outcome, Result, Verdict

IMPRECISE = 1e-6
"""The one line that is a convention and not a measurement: a confirmed relative mismatch below it is a loss of digits,
above it a wrong gradient. In a narrower dtype it is half of its digits: sqrt(u)."""

POWER = 1e-4
"""A float64 measurement that could have missed a relative error of this size has shown nothing."""

ENOUGH = 0.9
"""Share of the outputs of a case, and of the cases of a claim, that must be resolved."""

MOSTLY = 0.5
"""A forward of which this share of the outputs stands still near a point is flat there."""

UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}

FAMILY = {
    "forward": "GV208",
    "vjp": "GV199",
    "linear": "GV201",
    "layout": "GV203",
    "purity": "GV202",
    "repeat": "GV204",
    "edges": "GV206",
    "partial": "GV205",
    "jvp": "GV401",
    "adjoint": "GV402",
    "double_backward": "GV501",
    "lifetime": "GV209",
    "memory": "GV207",
    "complex": "GV216",
    "convention": "GV109",
    "precision": "GV601",
    "transforms.vmap": "GV502",
    "transforms.func": "GV509",
    "transforms.checkpoint": "GV506",
    "transforms.hooks": "GV210",
    "transforms.autocast": "GV507",
    "transforms.threads": "GV511",
    "transforms.pickle": "GV510",
    "transforms.opcheck": "GV504",
    "transforms.compile": "GV503",
    "special": "GV215",
}
ORDERS = ("linear", "layout", "partial", "repeat", "lifetime", *(c for c in FAMILY if c.startswith("transforms.")))
"""Claims that compare the op with itself: another order of summation is not a loss of digits to warn of."""
KINDS = {
    ("repeat", "after other data"): "GV209",
    ("vjp", "shape"): "GV109",
    ("double_backward", "declared"): "GV508",
    ("lifetime", "input"): "GV202",
    ("lifetime", "cotangent"): "GV202",
    ("lifetime", "version"): "GV202",
    ("lifetime", "generator"): "GV202",
    ("lifetime", "never written"): "GV211",
    ("lifetime", "in place"): "GV212",
    ("lifetime", "index in place"): "GV212",
    ("lifetime", "mode"): "GV213",
    ("lifetime", "not repeatable"): "GV204",
    ("lifetime", "accumulated"): "GV214",
    ("complex", "refused"): "GV217",
    ("complex", "refused in backward"): "GV217",
    ("convention", "requires grad"): "GV207",
    ("precision", "bias"): "GV603",
    ("precision", "range"): "GV604",
    ("special", "shape"): "GV109",
    ("special", "gradient not finite"): "GV111",
    ("special", "output not finite"): "GV208",
}
WITH_TRUTH = ("vjp", "edges", "special", "jvp", "adjoint", "double_backward", "complex")
"""Claims whose agreement rests on a measurement, which may be without power."""
SPOTS = ("special",)
"""Claims about points where differences often cannot judge, and finiteness alone is known."""
NOTED = (
    ("lifetime", "index in place"),
    ("convention", "wider"),
    ("convention", "dropped"),
    ("complex", "refused"),
    ("transforms.autocast", "undeclared state"),
    ("transforms.hooks", "elsewhere"),
    ("double_backward", "of torch"),
)
"""Breaches that leave every gradient right in ordinary use, or are torch's own: PASS, with a warning."""
AVERAGES = ("bias", "scatter")
"""Relative numbers: what they are relative to is 1."""
MEASURED = (
    "saves",
    "backward in forwards",
    "attributes",
    "graph breaks",
    "marked",
    "lost",
    "subnormals",
    "growth",
    "tf32",
    "apart",
)
"""Facts that say something of the op also where nothing is wrong."""
SHARES = ("lost share", "exponent", "ulps")
"""What facts of several cases are ordered by: the worst is told."""
CAUSES = {"kink": "GV302", "jump": "GV301"}
MOOT = ("kink", "jump", "edge", "smooth", "flat")
"""What may happen at one point of an op that is fine elsewhere. Agreement there, without power, says nothing; a
staircase, noise and steps that never settle are the forward's own and are counted."""


def judge(evidence: Evidence, policy: Policy) -> Verdict:
    """The verdict on one piece of evidence; see specs/claims.md, VERDICTS."""
    verdict = _judged(evidence, policy)
    own = policy.safety != Policy().safety or policy.loosened or policy.loosened_absolute
    if "budget" not in evidence.facts and not own:
        return verdict
    scaled = {"safety": policy.safety, **_tolerated(policy)}
    return msgspec.structs.replace(
        verdict, evidence=msgspec.structs.replace(evidence, facts={**evidence.facts, **scaled})
    )


def _tolerated(policy: Policy) -> dict[str, Fact]:
    """The raw tolerance that the user gave, in words, and what of it is relative."""
    given = {"rtol": policy.loosened, "atol": policy.loosened_absolute}
    words = ", ".join(f"{name}={value:g}" for name, value in given.items() if value)
    return {"loosened": words, "rtol": policy.loosened or 0.0} if words else {}


def _judged(evidence: Evidence, policy: Policy) -> Verdict:
    if evidence.facts.get("kind") == "reference":
        return _verdict(Outcome.INCONCLUSIVE, "GV303", evidence, moot=evidence.claim in SPOTS)
    if evidence.interval is not None:
        return _at_kink(evidence, policy)
    if not math.isfinite(evidence.analytic) and evidence.facts.get("kind") == "not finite":
        return _verdict(Outcome.FAIL, "GV111", evidence) if evidence.confirmed else _cannot(evidence, moot=True)
    gap = _gap(evidence)
    if math.isnan(gap) or math.isnan(evidence.numeric.error):
        return _cannot(evidence)
    if gap <= policy.safety * evidence.numeric.error or gap == 0 or _loosened(evidence, gap, policy):
        return _agrees(evidence)
    return _differs(evidence, gap, policy)


def _gap(e: Evidence) -> float:
    """The mismatch; infinite where only the analytic number is not finite, zero where both are the same infinity."""
    if e.analytic == e.numeric.value:
        return 0.0
    if not math.isfinite(e.analytic) and math.isfinite(e.numeric.value):
        return math.inf
    return abs(e.analytic - e.numeric.value)


def required(evidence: Evidence) -> float:
    """The resolution that makes a measurement worth something in this dtype.

    The best relative error of an extrapolated central difference goes like u^(2/3), with u the roundoff of the dtype
    or the forward's own measured noise; 64 of them, at most a tenth.
    """
    unit = max(UNITS[evidence.case.dtype], float(evidence.facts.get("unit", 0.0)))
    return float(min(max(POWER, 64 * unit ** (2 / 3)), 0.1))


def imprecise(evidence: Evidence) -> float:
    """The relative mismatch below which digits are lost and the gradient is not wrong."""
    return float(max(IMPRECISE, UNITS[evidence.case.dtype] ** 0.5))


def _verdict(outcome: Outcome, code: str, evidence: Evidence, *, moot: bool = False) -> Verdict:
    return Verdict(outcome=outcome, code=code, evidence=evidence, moot=moot)


def _at_kink(e: Evidence, policy: Policy) -> Verdict:
    """Inside the interval of one-sided slopes any value is a subgradient; outside none is."""
    assert e.interval is not None
    slack = policy.safety * e.numeric.error + imprecise(e) * e.scale
    low, high = e.interval
    if low - slack <= e.analytic <= high + slack:
        return _verdict(Outcome.PASS, "GV302", e, moot=True)
    if not e.confirmed:
        return _cannot(e)
    return _verdict(Outcome.FAIL, "GV111" if not math.isfinite(e.analytic) else family(e), e)


def _agrees(e: Evidence) -> Verdict:
    if e.claim == "forward" and e.resolved < ENOUGH:
        return _cannot(e, moot=e.neighbourhood in MOOT)
    if e.claim in WITH_TRUTH and "truth" in e.facts and _powerless(e):
        return _cannot(e, moot=e.neighbourhood in MOOT)
    if e.claim == "precision" and (e.resolution >= 1 or e.resolved < ENOUGH):
        return _cannot(e, moot=True)
    if e.facts.get("kind") == "line" and e.resolution > required(e):
        return _cannot(e)
    if e.claim == "repeat" and e.facts.get("differ", 0) and not e.facts.get("declared", False):
        return _verdict(Outcome.PASS, "GV204", e)
    return _verdict(Outcome.PASS, "", e)


def _powerless(e: Evidence) -> bool:
    return e.resolved < ENOUGH or (not math.isnan(e.resolution) and e.resolution > required(e))


def _cannot(e: Evidence, *, moot: bool = False) -> Verdict:
    spot = e.claim in SPOTS or not math.isfinite(e.numeric.value)
    return _verdict(Outcome.INCONCLUSIVE, _undecided(e), e, moot=moot or spot)


def _undecided(e: Evidence) -> str:
    staircase = e.neighbourhood == "staircase" and e.claim != "double_backward"
    return CAUSES.get(e.neighbourhood, "GV112" if staircase else "GV303")


def _differs(e: Evidence, gap: float, policy: Policy) -> Verdict:
    if not e.confirmed or not math.isfinite(e.numeric.error):
        slight = _slight(e, gap, policy)
        return _cannot(e) if slight is None else _agrees(slight)
    if e.neighbourhood == "staircase":
        return _verdict(Outcome.INCONCLUSIVE, _undecided(e), e)
    if e.facts.get("kink"):
        return _verdict(Outcome.INCONCLUSIVE, "GV302", e, moot=True)
    relative = relative_gap(e, gap)
    if relative < imprecise(e) and _beside_itself(e) and policy.digits is None:
        return _verdict(Outcome.PASS, "", e)
    if (e.claim, str(e.facts.get("kind", ""))) in NOTED:
        return _verdict(Outcome.PASS, family(e), e)
    if math.isfinite(relative) and relative < imprecise(e) and e.facts.get("kind") is None:
        wanted = policy.digits or 0.0
        lost = -math.log10(relative) if relative > 0 else math.inf
        return _verdict(Outcome.FAIL if lost < wanted else Outcome.PASS, family(e) if lost < wanted else "GV602", e)
    if policy.digits is not None and math.isfinite(relative) and -math.log10(relative) >= policy.digits:
        return _verdict(Outcome.PASS, "GV602", e)
    return _verdict(Outcome.FAIL, family(e), e)


def _slight(e: Evidence, gap: float, policy: Policy) -> Evidence | None:
    """A mismatch that nothing confirms and that, bar and all, would be a loss of digits at most: agreement to it."""
    far = relative_gap(e, gap + policy.safety * e.numeric.error)
    if policy.digits is not None or e.facts.get("kind") is not None or not far < imprecise(e):
        return None
    return msgspec.structs.replace(e, resolution=e.resolution if e.resolution > far else far)


def _beside_itself(e: Evidence) -> bool:
    return e.claim in ORDERS or (e.claim in ("jvp", "double_backward", "complex") and "truth" not in e.facts)


def relative_gap(e: Evidence, gap: float) -> float:
    """The mismatch relative to the entry's own size; to its row's where the whole result went through float32."""
    row = e.facts.get("row", 0.0)
    scale = max(e.scale, float(row)) if e.facts.get("float32") else e.scale
    return gap / scale if scale > 0 else math.inf


def family(e: Evidence) -> str:
    """The code of the family that a failing piece of evidence belongs to."""
    kind = str(e.facts.get("kind", ""))
    if e.claim == "double_backward":
        return "GV505" if "history" in e.facts else KINDS.get((e.claim, kind), FAMILY[e.claim])
    flat = e.neighbourhood == "flat" and float(e.facts.get("flat", 0.0)) >= MOSTLY
    if flat and e.facts.get("contract") == "exact":
        return "GV112"
    return KINDS.get((e.claim, kind), FAMILY[e.claim])


def _loosened(e: Evidence, gap: float, policy: Policy) -> bool:
    if policy.loosened is None and policy.loosened_absolute is None:
        return False
    size = e.scale if e.facts.get("kind") in AVERAGES else abs(e.numeric.value)
    return gap <= (policy.loosened or 0.0) * size + (policy.loosened_absolute or 0.0)


# From verdicts to a result.


def of_case(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of a case: FAIL before INCONCLUSIVE before a moot one before PASS; a warning before none.

    A kink of a few outputs, or a few inputs without power, do not stand in the way of a case that is resolved else.
    """
    failing = [v for v in verdicts if v.outcome in (Outcome.FAIL, Outcome.ERROR)]
    if failing:
        return max(failing, key=lambda v: _off(v.evidence))
    open_ = [v for v in verdicts if v.outcome is Outcome.INCONCLUSIVE and not v.moot]
    if open_:
        return open_[0]
    blind = any(v.moot and v.evidence.interval is None and not _aside(v.evidence) for v in verdicts)
    judged = [v for v in verdicts if not v.moot]
    if blind or not judged:
        return next((v for v in verdicts if v.evidence.interval is not None), next(v for v in verdicts if v.moot))
    warned = [v for v in judged if v.code]
    return warned[0] if warned else max(judged, key=lambda v: _power(v.evidence))


def _aside(e: Evidence) -> bool:
    """Whether a moot measurement leaves the case to its others: of few inputs, or where finiteness is asked, too."""
    return bool(e.facts.get("few")) or e.claim in SPOTS


def _off(e: Evidence) -> float:
    gap = abs(e.analytic - e.numeric.value)
    return gap / e.scale if e.scale > 0 and math.isfinite(gap) else math.inf


def _power(e: Evidence) -> float:
    return e.resolution if math.isfinite(e.resolution) else -1.0


def conclude(verdicts: Sequence[Verdict], *, claim: str, device: str, dtype: str, cases: Cases) -> Result:
    """One Result from the verdicts of all cases, in the order in which they were taken.

    FAIL if any fails. Moot cases are left out. PASS if at least 90 % of the others pass. Else INCONCLUSIVE, with
    the commonest cause.
    """
    failing = [v for v in verdicts if v.outcome in (Outcome.FAIL, Outcome.ERROR)]
    judged = [v for v in verdicts if not v.moot]
    passing = [v for v in judged if v.outcome is Outcome.PASS]
    common = {"claim": claim, "device": device, "dtype": dtype, "cases": cases, "truth": _truth(verdicts)}
    if failing:
        wrong = _unless_it_moves_elsewhere(failing[-1], passing)
        allowed = _budget(failing)
        return Result(outcome=wrong.outcome, code=wrong.code, worst=wrong, budget=allowed, **common)  # type: ignore[arg-type]
    if not judged or len(passing) < ENOUGH * len(judged) or _vacuous(verdicts, passing):
        return _open(verdicts, judged, passing, common)
    warned = [v for v in passing if v.code]
    code = Counter(v.code for v in warned).most_common(1)[0][0] if warned else ""
    worst = max(warned, key=lambda v: _off(v.evidence)) if warned else None
    powers = [_seen(v.evidence) for v in passing if _has_truth(v) and math.isfinite(v.evidence.resolution)]
    powers += _middle(passing)
    return Result(
        outcome=Outcome.PASS,
        code=code,
        resolution=max(powers, default=float("nan")),
        digits=-math.log10(_off(worst.evidence)) if worst and 0 < _off(worst.evidence) < 1 else float("nan"),
        worst=worst,
        measured=_measured(passing),
        budget=_budget(passing),
        **common,  # type: ignore[arg-type]
    )


def _measured(passing: Sequence[Verdict]) -> dict[str, Fact]:
    """What was measured beside the verdicts; of several cases the last word, or the worst one."""
    ordered = sorted(passing, key=lambda v: [float(v.evidence.facts.get(k, -1.0)) for k in SHARES])
    return {k: f for v in ordered for k, f in v.evidence.facts.items() if k in MEASURED}


def _seen(e: Evidence) -> float:
    """The smallest error that would have been seen, with the tolerance that the user gave."""
    times = float(e.facts.get("safety", Policy().safety)) / Policy().safety
    return max(e.resolution * times, float(e.facts.get("rtol", 0.0)))


def _has_truth(v: Verdict) -> bool:
    """Whether a truth was measured: where that says too little, the case is inconclusive by itself."""
    return "truth" in v.evidence.facts or v.evidence.claim == "precision"


def _middle(passing: Sequence[Verdict]) -> list[float]:
    """The median resolution of the cases that hold the op against itself; empty without any.

    Where a gradient is all cancellation its rounding is as large as it: a single case may say nothing.
    """
    own = [_seen(v.evidence) for v in passing if not _has_truth(v) and math.isfinite(v.evidence.resolution)]
    return sorted(own)[len(own) // 2 :][:1]


def _budget(verdicts: Sequence[Verdict]) -> Budget | None:
    """The widest budget of the cases; None for claims that have none."""
    budgeted = [v.evidence for v in verdicts if "budget" in v.evidence.facts]
    if not budgeted:
        return None
    e = max(budgeted, key=lambda e: e.resolution if math.isfinite(e.resolution) else -1.0)
    common = [float(x.facts["common"]) for x in budgeted if math.isfinite(float(x.facts["common"]))]
    return Budget(
        value=e.resolution * float(e.facts["safety"]) / Policy().safety,
        common=min(common, default=math.nan),
        derived_from=str(e.facts["budget"]),
        loosened=str(e.facts.get("loosened", "")),
    )


def _vacuous(verdicts: Sequence[Verdict], passing: Sequence[Verdict]) -> bool:
    """Whether every case with something to hold against a truth was moot: what passes then had nothing to be wrong."""
    return any(v.moot and _held(v) for v in verdicts) and not any(map(_held, passing))


def _held(verdict: Verdict) -> bool:
    return "truth" in verdict.evidence.facts


def _unless_it_moves_elsewhere(failing: Verdict, passing: Sequence[Verdict]) -> Verdict:
    """A forward whose slope was measured in another case is not flat: the gradient here is just wrong."""
    moves = any(v.evidence.numeric.value != 0 and _held(v) for v in passing)
    if failing.code == "GV112" and moves:
        return _verdict(failing.outcome, FAMILY[failing.evidence.claim], failing.evidence)
    return failing


def _open(verdicts: Sequence[Verdict], judged: Sequence[Verdict], passing: Sequence[Verdict], common: object) -> Result:
    some = judged and not _vacuous(verdicts, passing)
    unsure = [v for v in (judged if some else verdicts) if v.outcome is Outcome.INCONCLUSIVE]
    code = Counter(v.code for v in unsure).most_common(1)[0][0] if unsure else "GV302"
    worst = next((v for v in unsure if v.code == code), verdicts[0] if verdicts else None)
    share = f"{len(passing)} of {len(judged)} cases resolved" if some else "no case could be judged"
    return Result(outcome=Outcome.INCONCLUSIVE, code=code, reason=share, worst=worst, **common)  # type: ignore[arg-type]


def _truth(verdicts: Sequence[Verdict]) -> str:
    words = Counter(str(v.evidence.facts["truth"]) for v in verdicts if "truth" in v.evidence.facts)
    return words.most_common(1)[0][0] if words else ""
