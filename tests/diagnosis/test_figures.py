"""What a picture of a finding is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gradverify.cases.signatures import from_data
from gradverify.diagnosis.figures import curve_of, frame_of
from gradverify.engine.verify import verify
from gradverify.records.finding import Location
from gradverify.records.policy import Plan, Policy
from gradverify.records.verdict import Outcome


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x.exp()


def failing(**options):
    spec = from_data(Twice, {"x": "n"}, name="twice", **options)
    (result,) = verify(spec, Plan(examples=3, claims=("vjp",)), Policy())
    assert result.outcome is Outcome.FAIL
    return spec, result


def test_the_curve_falls_as_the_square_of_the_step_and_rises_as_rounding_over_it() -> None:
    _, result = failing()
    curve = dict(result.finding.curve)
    steps = sorted(curve, reverse=True)
    truncation = curve[steps[2]] / curve[steps[3]]
    assert 14 < truncation < 18
    best = min(curve, key=curve.__getitem__)
    assert steps[-1] < best < steps[0]
    assert curve[steps[-1]] > 1e3 * curve[best]


def test_the_gradient_is_shown_whole_beside_the_true_one() -> None:
    _, result = failing()
    found = result.finding.gradient
    assert (found.argument, len(found.numeric)) == ("x", found.shape[0])
    assert len(found.numeric) > 1
    assert all(
        abs(a - 2 * n) <= 4 * e + 1e-12 * abs(a)
        for a, n, e in zip(found.analytic, found.numeric, found.error, strict=True)
    )


def test_there_is_no_curve_where_no_function_is_differentiated() -> None:
    spec, result = failing()
    evidence = result.worst.evidence
    assert curve_of(spec, evidence)
    assert curve_of(spec.with_(stochastic=True), evidence) == ()
    assert (
        curve_of(
            spec, type(evidence)(**{f: getattr(evidence, f) for f in evidence.__struct_fields__} | {"worst": None})
        )
        == ()
    )


def test_the_surrogate_is_what_the_curve_is_of() -> None:
    _, result = failing(backward_of=lambda x: x * x)
    errors = [e for _, e in result.finding.curve[:4]]
    assert max(errors) < 1e-9


def test_the_frame_is_the_lines_around_the_place(tmp_path: Path) -> None:
    file = tmp_path / "ops.py"
    file.write_text("".join(f"line {k}\n" for k in range(1, 21)))
    assert [n for n, _ in frame_of(Location(file=str(file), line=10))] == list(range(7, 14))
    assert frame_of(Location(file=str(file), line=1))[0] == (1, "line 1")
    assert frame_of(Location(file=str(tmp_path / "gone.py"), line=3)) == ()


@pytest.mark.parametrize("claim", ["vjp", "linear"])
def test_what_was_tried_is_counted(claim: str) -> None:
    spec = from_data(torch.sin, {"input": "n"}, name="sine")
    (result,) = verify(spec, Plan(examples=5, claims=(claim,)), Policy())
    assert sum(result.tried["size n"].values()) == result.cases.run
    assert sum(result.tried["layout"].values()) == result.cases.run
