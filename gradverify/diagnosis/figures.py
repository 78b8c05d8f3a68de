"""What a picture of a finding is made of: the source around its place, and how differences err with their step."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from gradverify.autodiff import calling, products
from gradverify.autodiff.frozen import Recorder
from gradverify.cases.materialise import materialise
from gradverify.diagnosis.sample import Sample
from gradverify.errors import GradverifyError
from gradverify.records.case import Point
from gradverify.records.evidence import Evidence, Mismatch
from gradverify.records.finding import Gradient, Location
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result

AROUND = 3
"""Lines of source before and after the place."""

LEVELS = range(0, 46, 2)
"""Steps are 2^-level of the input's size: from where the curvature shows to where only rounding is left."""

CLAIMS = ("vjp", "edges", "special")
"""Claims about first derivatives, which differences of the forward can be drawn for."""


def illustrated(spec: Spec, result: Result) -> Result:
    """The result with the figures of its finding, as far as they can be had."""
    finding, worst = result.finding, result.worst
    if finding is None or result.outcome is Outcome.PASS:
        return result
    curve = curve_of(spec, worst.evidence) if worst is not None else ()
    frame = frame_of(finding.location) if finding.location is not None else ()
    return replace(result, finding=replace(finding, curve=curve, frame=frame))


def whole_gradient(sample: Sample, name: str) -> Gradient:
    """The gradient of an argument under the first cotangent of a sample, at ordinary values and telling sizes."""
    value, error = sample.true(name)
    return Gradient(
        argument=name,
        shape=sample.shape[name],
        analytic=tuple(sample.got[name][0].tolist()),
        numeric=tuple(value[0].tolist()),
        error=tuple(error[0].tolist()),
    )


def frame_of(place: Location) -> tuple[tuple[int, str], ...]:
    """The numbered lines of source around a place; empty where the file cannot be read."""
    numbers = range(max(place.line - AROUND, 1), place.line + AROUND + 1)
    lines = ((n, linecache.getline(place.file, n)) for n in numbers)
    return tuple((n, text.rstrip()) for n, text in lines if text)


def curve_of(spec: Spec, evidence: Evidence) -> tuple[tuple[float, float], ...]:
    """(step, error) of central differences at the worst entry, against the value that was concluded there.

    Empty where there is no such entry, or no function whose differences are the truth.
    """
    place = evidence.worst
    drawn = evidence.claim in CLAIMS and evidence.case.dtype == "float64" and not spec.stochastic
    if place is None or not drawn or spec.contract.kind == "vjp" or not math.isfinite(place.numeric):
        return ()
    try:
        at, size = _along(spec, evidence, place)
        found = [(size * 2.0**-k, _error(at, size * 2.0**-k, place.numeric)) for k in LEVELS]
    except (GradverifyError, LookupError, RuntimeError):
        return ()
    return tuple((h, e) for h, e in found if math.isfinite(e))


def _error(at: Callable[[float], float], h: float, value: float) -> float:
    return abs((at(h) - at(-h)) / (2 * h) - value)


def _along(spec: Spec, evidence: Evidence, place: Mismatch) -> tuple[Callable[[float], float], float]:
    """The worst output as a function of a change of the worst entry, and the size of that entry.

    Raises LookupError where either is a direction, or complex.
    """
    point = materialise(spec, evidence.case)
    moved = point.primals[place.argument]
    if None in (place.index, place.output, place.output_index) or moved is None or moved.is_complex():
        raise LookupError
    called = _function(spec)

    def at(h: float) -> float:
        shifted = moved.clone()
        shifted[place.index] += h
        return _output(called, point, {**point.primals, place.argument: shifted}, place)

    entry = abs(float(moved[place.index]))
    return at, 2.0 ** math.floor(math.log2(entry)) if entry else 1.0


def _output(called: calling.Called, point: Point, primals: dict[str, Any], place: Mismatch) -> float:
    out = products.values(called, calling.copies(primals), point.kwargs)[place.output or 0]
    if out.is_complex():
        raise LookupError
    return float(out[place.output_index or ()])


def _function(spec: Spec) -> calling.Called:
    """What is differentiated: the op, or the surrogate with its frozen values taken at the point itself."""
    contract = spec.contract
    if contract.kind == "backward_of" and contract.formula is not None:
        return calling.companion(spec, Recorder().around(contract.formula), stage="surrogate")
    return calling.op_of(spec)
