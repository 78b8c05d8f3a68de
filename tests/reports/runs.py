"""Runs from literal numbers, for tests of whatever shows them."""

from __future__ import annotations

import math

from gradverify.records.case import Case
from gradverify.records.evidence import Estimate, Evidence, Mismatch
from gradverify.records.finding import Finding, Location
from gradverify.records.run import Environment, Input, Invocation, NotCovered, OpRun, Run, Tool
from gradverify.records.verdict import Cases, Outcome, Result, Verdict

TRUTH = "central differences of the forward"
CASE = Case(spec="fused_linear", claim="vjp", seed=7, dims=(("b", (1,)), ("k", 1), ("n", 1)), differentiate=("x", "w"))


def passed(claim: str, **changes: object) -> Result:
    fields: dict[str, object] = {
        "claim": claim,
        "device": "cpu",
        "dtype": "float64",
        "outcome": Outcome.PASS,
        "cases": Cases(run=20),
        "resolution": 1.3e-9,
        "digits": 9.2,
        "truth": TRUTH,
        "seconds": {"op": 0.21, "generation": 0.04, "judging": 0.01},
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]


def verdict(outcome: Outcome, code: str) -> Verdict:
    worst = Mismatch(
        argument="w",
        index=(0, 0),
        output=0,
        output_index=(0, 0),
        analytic=2.166630941,
        numeric=1.083315471,
        error=2e-12,
    )
    evidence = Evidence(
        claim="vjp",
        case=CASE,
        quantity="the gradient of `w`",
        analytic=2.166630941,
        numeric=Estimate(value=1.083315471, error=2e-12, steps=(2.0**-10, 2.0**-11)),
        scale=1.083315471,
        resolution=4e-12,
        confirmed=True,
        worst=worst,
        facts={"truth": TRUTH, "forwards": 26},
    )
    return Verdict(outcome=outcome, code=code, evidence=evidence)


WRONG_SCALE = Finding(
    code="GV199",
    summary="wrong gradient: backward() returns 2.166630941 for dL/dw[0,0], central differences 1.083315471",
    lines=(
        "smallest case  x (1,1)   w (1,1)   cotangent (1,1)",
        "  backward()            dL/dw[0,0] = 2.166630941",
        "  central differences   dL/dw[0,0] = 1.083315471 +- 2e-12",
    ),
    remedy="the two differ by the factor 2.000000000: is a factor applied twice?",
    location=Location(file="src/mypkg/ops.py", line=52, col=26),
    minimal=CASE,
)
JUMP = Finding(
    code="GV301",
    summary="forward jumps: finite differences cannot judge softplus at x = 20.0",
    lines=("error grows like 1/h (h 1e-3: 1.0e-6, 1e-5: 1.0e-4): a jump of 2.06e-9, not a wrong gradient",),
    remedy='declare it: `x: Annotated[Tensor, "*s", gv.avoid(20.0)]`, or give a smooth reference',
)

VJP_FAIL = passed(
    "vjp",
    outcome=Outcome.FAIL,
    code="GV199",
    finding=WRONG_SCALE,
    worst=verdict(Outcome.FAIL, "GV199"),
    digits=math.nan,
)
UNSURE = passed("vjp", outcome=Outcome.INCONCLUSIVE, code="GV301", finding=JUMP, resolution=math.nan, digits=math.nan)
RAISED = passed(
    "forward",
    outcome=Outcome.ERROR,
    code="GV902",
    reason="the op raised RuntimeError: sizes 3 and 4 do not match, at x (3,) w (4,)",
    cases=Cases(run=1),
    resolution=math.nan,
    digits=math.nan,
)
IMPRECISE = passed("vjp", code="GV602", digits=7.4, resolution=3e-8)
NO_CUDA = passed("vjp", device="cuda", outcome=Outcome.SKIP, reason="no device", cases=Cases(), resolution=math.nan)


def op(*checks: Result, **changes: object) -> OpRun:
    fields: dict[str, object] = {
        "target": "mypkg.ops:FusedLinear",
        "spec": "mypkg.ops:FusedLinear",
        "kind": "autograd.Function",
        "source": Location(file="src/mypkg/ops.py", line=41),
        "inputs": (Input(name="x", shape="*b k"), Input(name="w", shape="k n")),
        "inputs_from": "annotations on forward()",
        "checks": checks,
    }
    return OpRun(**{**fields, **changes})  # type: ignore[arg-type]


def run(*ops: OpRun, interrupted: bool = False) -> Run:
    return Run(
        tool=Tool(version="0.1.0"),
        environment=Environment(python="3.12.1", torch="2.13.0+cpu", platform="Linux", devices=("cpu",)),
        run=Invocation(argv=("check",), seed=4127, duration_s=1.44, interrupted=interrupted),
        ops=ops,
    )


PASSING = run(
    op(
        passed("vjp"),
        passed("linear"),
        passed("layout", cases=Cases(run=20, invalid=3)),
        passed("edges", cases=Cases(run=12, redrawn=1, stopped_because="time")),
        NO_CUDA,
        not_covered=(
            NotCovered(what="forward", why="no reference"),
            NotCovered(what="jvp", why="not a claim yet"),
            NotCovered(what="vmap", why="not a claim yet"),
        ),
    )
)
FAILING = run(op(passed("forward"), VJP_FAIL, passed("linear")))
UNJUDGED = run(op(UNSURE, passed("linear"), spec="softplus", target="mypkg.ops:softplus", kind="function"))
MIXED = run(
    op(passed("forward"), passed("vjp"), passed("linear"), passed("layout"), spec="ste_quant"),
    op(
        passed("forward"),
        VJP_FAIL,
        passed(
            "linear", xfailed="GV201", outcome=Outcome.SKIP, code="GV201", reason="xfail linear: #12 clips the gradient"
        ),
    ),
    op(UNSURE, passed("linear"), spec="softplus_with_a_name_that_is_far_too_long"),
    op(passed("forward"), IMPRECISE, spec="float32_inside"),
    op(RAISED, spec="raises"),
    OpRun(target="mypkg.nope:Gone", spec="", error="cannot import mypkg.nope: no module named 'mypkg.nope'."),
)
