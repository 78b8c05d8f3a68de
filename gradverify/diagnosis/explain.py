"""From a failing or undecided result to a Finding: the measured facts in words, and the pattern where one fits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from gradverify.diagnosis.boundary import Fails, fails_for
from gradverify.diagnosis.case import told
from gradverify.diagnosis.diagnose import Diagnosis, diagnosed, is_of_gradient
from gradverify.diagnosis.entries import Locate, wrong_in
from gradverify.diagnosis.error_map import error_map
from gradverify.diagnosis.figures import whole_gradient
from gradverify.diagnosis.frame import Frame, frame
from gradverify.diagnosis.matters import matters
from gradverify.diagnosis.patterns import Pattern
from gradverify.diagnosis.repro import repro
from gradverify.numerics.picture import TARGET
from gradverify.records.codes import TITLES
from gradverify.records.evidence import Evidence, Mismatch
from gradverify.records.finding import Finding
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result, Verdict

_OF_BACKWARD = ("vjp", "edges", "special", "linear", "layout")
"""Claims whose failure stands in backward's `return`, or in what leads to it."""

REMEDIES = {
    "GV112": "a straight-through estimator? declare the function that backward differentiates: backward_of=...",
    "GV301": "keep the inputs away from the jump: Annotated[Tensor, ..., gv.avoid(point)]",
    "GV302": "keep the inputs away from the kink: gv.avoid(point), or gv.avoid_ties",
    "GV303": "narrow the domain of the inputs, or give a smooth reference",
    "GV601": "compute in float32 inside and round once, at the end; or say how much is meant: tol={dtype: gv.times(k)}",
    "GV603": "a constant that was cut, a cast that truncates, a count that is off by one? All entries are off alike",
    "GV904": "judge it in float32, at lower resolution: --dtype float32, in Python dtype='float32', in a spec "
    'dtypes=["float32"]. Or, where it holds float32 tensors of its own, let it convert them to the dtype of its inputs',
    "GV902": "mend the op; inputs that it is not meant for are kept from it by a spec (gv.dim, gv.domain, where=)",
    "GV905": "if it is meant, say so in a spec: dims={letter: gv.dim(lo=2)}",
    "GV211": "write every element: new_zeros instead of empty, or a kernel whose mask covers the tail",
    "GV212": "save it with ctx.save_for_backward, as it is: not .data, and not as an attribute",
    "GV501": "compute it right, or refuse: mark backward @once_differentiable",
    "GV505": "compute it in backward from saved inputs, without detach, .data, numpy, item or no_grad; or mark "
    "backward @once_differentiable, which refuses",
    "GV204": "if it is meant, say so in the spec: nondeterministic=True",
}


WITHHELD = (
    "if it is withheld on purpose, declare it: gv.no_grad beside the shape of an argument that never has a gradient; "
    "for a part (a padding row, a detached weight) backward_of=g, where gv.frozen(...) stands around what carries none"
)
GRADIENT = ("vjp", "special")
"""Claims that hold the gradient against the derivative of the forward; what is zero at the edges alone is a mistake."""


def explain(
    spec: Spec, result: Result, *, runs: int, fails: Fails | None = None, locate: Locate = lambda: None
) -> Finding | None:
    """The finding of a result that is not a plain pass; None for one that is.

    Its code is that of a pattern, where one was measured. `fails` tells whether another case fails likewise; `locate`
    finds the wrong entries of a gradient that is too large to be measured whole.
    """
    verdict = result.worst
    if verdict is None or (result.outcome is Outcome.PASS and not result.code):
        return None
    e = verdict.evidence
    found = diagnosed(spec, result)
    pattern = found.pattern if found is not None else None
    shown = _shown(spec, result, found)
    return Finding(
        code=_code(result, pattern),
        summary=_summary(spec, result, verdict, pattern),
        lines=(
            *_lines(spec, verdict, runs),
            *_measured(found, vjp=result.claim == "vjp"),
            *(wrong_in(locate()) if found is None and is_of_gradient(result) else ()),
            *(_sizes(spec, result, e, fails) if fails is not None else ()),
        ),
        remedy=_remedy(spec, result.code, e, pattern),
        location=spec.source if shown is None else shown.location,
        caret=() if shown is None else shown.lines,
        minimal=e.case,
        repro=repro(spec, e) if result.outcome is Outcome.FAIL else "",
        pattern=pattern.said if pattern is not None else "",
        gradient=whole_gradient(found.samples[0], found.name) if found is not None else None,
    )


def _shown(spec: Spec, result: Result, found: Diagnosis | None) -> Frame | None:
    """The element of backward's `return` that is wrong, where the finding is about one."""
    assert result.worst is not None
    e = result.worst.evidence
    if result.outcome is not Outcome.FAIL or e.claim not in _OF_BACKWARD:
        return None
    if found is not None and (e.worst is None or not e.worst.argument):
        return frame(spec, found.name)
    return frame(spec, e.worst.argument) if e.worst is not None and e.quantity.startswith("the gradient of ") else None


def _code(result: Result, pattern: Pattern | None) -> str:
    """The pattern's under vjp; other claims keep theirs, which says where the gradient is wrong."""
    return pattern.code if pattern is not None and result.claim == "vjp" else result.code


def _measured(found: Diagnosis | None, *, vjp: bool) -> Iterator[str]:
    """The pattern, with what it leaves, and the arguments whose gradients are right."""
    pattern = found.pattern if found is not None else None
    if found is not None and pattern is not None:
        said = "" if pattern.code != "GV199" and vjp else f"{pattern.said}; "
        left = f"{pattern.residual:.0e} is left" if pattern.residual else "nothing is left"
        yield f"pattern        {said}{left} once that is taken out{_right(found.right)}"

    if found is not None and (pattern is None or pattern.code in _PLACES):
        yield from error_map(found.samples, found.name)


_PLACES = ("GV104", "GV107")
"""Patterns that a picture of the entries shows."""


def _sizes(spec: Spec, result: Result, e: Evidence, fails: Fails) -> tuple[str, ...]:
    """For which sizes a wrong gradient is wrong, and what else it hangs on."""
    if result.outcome is not Outcome.FAIL or result.claim not in _OF_BACKWARD:
        return ()
    sizes = fails_for(spec, e.case, fails) if result.claim in ("vjp", "edges") else ()
    return (*sizes, *matters(spec, e.case, fails))


def _right(names: tuple[str, ...]) -> str:
    listed = ", ".join(f"`{n}`" for n in names)
    return f"; {listed} {'is' if len(names) == 1 else 'are'} right" if names else ""


_NOT_REAL = re.compile(r"\bindices\b|tensors used as ind|int64|\bLong\b|LongTensor|boolean mask|bool tensor", re.I)


_NOT_FITTING = re.compile(
    r"size of tensor .* must match|shapes cannot be multiplied|[Ss]ize mismatch|must match the size"
)


def remedy_of_raised(code: str, said: str) -> str | None:
    """What to do about an op that raised: shapes and kinds that were not declared are the commonest causes."""
    if code == "GV902" and _NOT_REAL.search(said):
        return (
            'an argument of integers, or a mask? say so beside its shape: Annotated[Tensor, "n", gv.index("k")], '
            "gv.integers(lo, hi), gv.boolean"
        )
    if code == "GV902" and _NOT_FITTING.search(said):
        return (
            "sizes that must be equal have one letter in all shapes (x '*b k', w 'k'), an axis that broadcasts `#k`; "
            "where they have, mend the op"
        )
    return REMEDIES.get(code)


def _remedy(spec: Spec, code: str, e: Evidence, pattern: Pattern | None) -> str | None:
    if code == "GV208" and spec.reference is None:
        return None
    if "remedy" in e.facts:
        return str(e.facts["remedy"])
    hint = pattern.hint if pattern is not None else ""
    # What is zero may be so on purpose: a part that is, or what nothing was found out about.
    withheld = WITHHELD if (pattern is None or pattern.code == "GV104") and _is_withheld(spec, e) else ""
    return REMEDIES.get(code) or "; ".join(filter(None, [hint, withheld])) or None


def _is_withheld(spec: Spec, e: Evidence) -> bool:
    """Whether backward returned exactly 0 for an entry on which the output depends: by mistake, or on purpose."""
    held = spec.contract.kind == "exact" and e.claim in GRADIENT and "truth" in e.facts
    return held and e.worst is not None and e.worst.analytic == 0 and abs(e.worst.numeric) > e.worst.error


def _summary(spec: Spec, result: Result, verdict: Verdict, pattern: Pattern | None) -> str:
    e = verdict.evidence
    if pattern is not None and _code(result, pattern) != result.code:
        return pattern.said if pattern.code == "GV108" else f"{TITLES[pattern.code]}: {pattern.said}"
    if result.code == "GV112" and result.outcome is Outcome.FAIL:
        returned = "jvp returns a tangent" if e.claim == "jvp" else "backward returns a gradient"
        return f"{TITLES['GV112']}: the forward is flat, {returned} for `{_argument(spec, e)}`"
    if result.code == "GV602":
        return f"{TITLES['GV602']}: {e.quantity} agrees to {result.digits:.1f} digits"
    if result.outcome is Outcome.INCONCLUSIVE:
        return f"{TITLES[result.code]}: {result.reason}; {_cause(e)}"
    if "torch" in e.facts:
        return f"torch's own {e.facts['torch']} loses terms in reverse over forward; all else is right"
    if e.claim == "adjoint":
        return f"{TITLES[result.code]}{_disagreement(e)}"
    if result.code == "GV199" and e.quantity.startswith("the gradient of "):
        return f"{TITLES[result.code]} {e.quantity.removeprefix('the gradient ')}{_where(e)}"
    # A warning has one line.
    said = f", {e.facts['said']}" if result.outcome is Outcome.PASS and "said" in e.facts else ""
    return f"{TITLES[result.code]}: {e.quantity}{_where(e)}{said}"


def _disagreement(e: Evidence) -> str:
    """About which input, and which mode is off where a third opinion tells."""
    about = f" about `{e.worst.argument}`" if e.worst is not None and e.worst.argument else ""
    return about + (f": {e.facts['third_said']}" if "third_said" in e.facts else "")


def _argument(spec: Spec, e: Evidence) -> str:
    if e.worst is not None and e.worst.argument:
        return e.worst.argument
    return ", ".join(e.case.differentiate or spec.differentiable())


CAUSE = {
    "kink": "the forward has a kink at these inputs",
    "jump": "the forward jumps at these inputs: the error grows like 1/h",
    "staircase": "the forward is a staircase: flat between jumps (a quantiser, or a narrow float inside)",
    "flat": "the forward does not move at all",
    "edge": "the forward is not finite on both sides of these inputs",
    "noisy": "the forward's own noise hides the gradient",
    "unsettled": "no two step sizes agree",
    "smooth": "the slope lies below what rounding leaves visible",
}


def _cause(e: Evidence) -> str:
    if e.facts.get("kind") == "reference":
        return "the reference's own gradient does not agree with its differences"
    if not math.isfinite(e.analytic) and e.neighbourhood == "smooth" and "cause" not in e.facts:
        return "the op's own number is not finite"
    if e.neighbourhood == "smooth" and "cause" not in e.facts and e.numeric.error <= TARGET * abs(e.numeric.value):
        return "a mismatch was seen that did not come again: is something kept between calls?"
    cause = str(e.facts.get("cause", CAUSE[e.neighbourhood]))
    return cause.replace("the forward", "the gradient") if e.claim == "double_backward" else cause


def _where(e: Evidence) -> str:
    relation = e.facts.get("relation") or e.facts.get("layouts") or e.facts.get("phase") or e.facts.get("mask")
    return f" ({relation})" if relation else ""


def _lines(spec: Spec, verdict: Verdict, runs: int) -> list[str]:
    e = verdict.evidence
    lines = [f"smallest case  {told(spec, e.case)}" + (f"   shrunk in {_count(runs, 'run')}" if runs else "")]
    lines += _numbers(e)
    if "history" in e.facts:
        lines.append(str(e.facts["history"]))
    if "found" in e.facts:
        lines.append(f"found {e.facts['found']}, wanted {e.facts['wanted']}")
    if "budget" in e.facts:
        lines.append(f"allowed are {e.facts['safety']:g} error bars; {e.facts['budget']}")
    if "said" in e.facts:
        lines.append(str(e.facts["said"]))
    if e.facts.get("differ"):
        number = int(e.facts["differ"])
        lines.append(f"{_count(number, 'element')} {'differs' if number == 1 else 'differ'} between two calls")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _numbers(e: Evidence) -> list[str]:
    kind = e.facts.get("kind")
    if e.worst is None and e.numeric.error == 0 and e.numeric.value == 0 and kind is not None and kind != "not finite":
        if "said" in e.facts or "found" in e.facts:
            return []
        what = "not zero" if kind in ("frozen", "nondiff") else "changed"
        return [
            f"{_count(round(e.analytic), 'element')} {what}"
            + (f" after {e.facts['phase']}" if "phase" in e.facts else "")
        ]
    name = _second(e) if e.claim == "double_backward" else _element(e.worst, e.quantity)
    ours, truth = _labels(e)
    third = str(e.facts.get("third", ""))
    width = max(len(ours), len(truth), len(third))
    steps = f"   stable for h = {min(e.numeric.steps):.0e} ... {max(e.numeric.steps):.0e}" if e.numeric.steps else ""
    interval = f"   any slope in [{e.interval[0]:.10g}, {e.interval[1]:.10g}] would do" if e.interval else ""
    return [
        f"  {ours:<{width}}  {name} = {e.analytic:.10g}" + ("   (or None)" if _may_be_none(e, ours) else ""),
        f"  {truth:<{width}}  {name} = {e.numeric.value:.10g} +- {e.numeric.error:.1g}{interval or steps}",
        *([f"  {third:<{width}}  {_third(e, name)}"] if third else []),
    ]


def _third(e: Evidence, name: str) -> str:
    """What a third opinion on two disagreeing claims says."""
    if "third_value" not in e.facts:
        return str(e.facts["third_said"])
    return f"{name} = {float(e.facts['third_value']):.10g} +- {float(e.facts['third_error']):.1g}"


def _may_be_none(e: Evidence, ours: str) -> bool:
    """A gradient that is not returned counts as zero."""
    return e.analytic == 0 and ours == "backward()" and e.claim in ("vjp", "edges")


def _labels(e: Evidence) -> tuple[str, str]:
    truth = str(e.facts.get("truth", ""))
    if e.claim == "precision":
        return f"in {e.case.dtype}", truth
    if e.claim.startswith("transforms."):
        return e.claim.removeprefix("transforms."), truth or "plain eager"
    if e.claim == "forward" or e.quantity.startswith("output"):
        return "the op", truth.removeprefix("the ") or str(e.facts.get("base", "the base case"))
    if "beside" in e.facts:
        return "backward()", str(e.facts["beside"])
    if e.claim == "complex":
        return "backward()", truth or str(e.facts["base"])
    if e.claim in ("vjp", "edges", "special"):
        return "backward()", truth or "the truth"
    if e.claim in ("jvp", "adjoint"):
        return "jvp()", truth or "by linearity"
    if e.claim == "double_backward":
        ours, _, theirs = str(e.facts.get("relation", "")).partition(" against ")
        return (ours, theirs) if theirs else ("backward, differentiated", truth)
    other = {"linear": "by linearity", "layout": "contiguous", "partial": "all at once"}.get(e.claim, "the first call")
    return "backward()", str(e.facts.get("base", other))


def _element(place: Mismatch | None, quantity: str) -> str:
    if place is None:
        return quantity if quantity.startswith(("<", "the mean", "the error")) else "<u, J d>"
    if place.argument.startswith(("output", "Re output", "Im output")):
        return f"{place.argument}{_index(place.index)}"
    if place.output is None:
        return f"grad {place.argument}{_index(place.index)}"
    name = place.output_name or (f"y{place.output}" if place.output else "y")
    output = f"{name}{_index(place.output_index)}"
    return f"d{output}/d{place.argument}{_index(place.index)}" if place.argument else f"d{output} along d"


def _second(e: Evidence) -> str:
    """Which gradient by which input."""
    if e.worst is None:
        return "<w, dB(d)>"
    gradient = f"grad {e.facts['gradient']}{_index(e.worst.output_index)}" if "gradient" in e.facts else "grad"
    by = f"{e.worst.argument}{_index(e.worst.index)}" if e.worst.argument else "d"
    return f"d({gradient})/d({by})"


def _index(index: tuple[int, ...] | None) -> str:
    return "" if not index else f"[{','.join(map(str, index))}]"
