"""The fault suite beside gradcheck: which wrong ops each judge fails, and which right twins; then ops that are none.

`python -m ci.bench.faults [--only NAME]`. Gradcheck is handed three ordinary points of each spec, and fails an op that
it fails at any of them. "All flags" adds batched gradients, gradient dtypes, forward mode (batched too) where the op
has one, and gradgradcheck with strided cotangents.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings

from ci.bench.op import Fn, Tensors, generator
from ci.bench.rivals import gradcheck
from ci.bench.tables import bullets, publish, table
from gradverify.autodiff import calling, forward_mode, products
from gradverify.cases.materialise import materialise
from gradverify.cases.strategies import cases
from gradverify.errors import NotApplicableError, OpError
from gradverify.records.case import Case, Point
from gradverify.records.lead import led
from gradverify.records.spec import Spec

POINTS = 3
# Above this many inputs gradgradcheck runs in its fast mode: slow it takes minutes.
SMALL = 512

QUIET = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
RIVALS = ("slow", "fast", "all flags")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault before all judges: who failed the wrong op, who failed the twin, and under which claims we did."""

    name: str
    cls: str
    found: dict[str, bool]
    leads: bool
    alarmed: dict[str, bool]
    claims: str
    missing: str


def points(spec: Spec) -> list[Point]:
    """Three points with ordinary values and no empty tensor, the first ones that our own strategy draws."""
    kept: list[Case] = []

    @settings(QUIET)
    @given(cases(spec, "vjp", dtype=(spec.dtypes or ("float64",))[0]))
    def collect(case: Case) -> None:
        kept.append(case)

    collect()
    drawn = (materialise(spec, case) for case in kept if {v for _, v in case.values} <= {"normal"})
    full = [p for p in drawn if all(t is None or t.numel() > (t.ndim > 0) for t in p.primals.values())]
    return full[:POINTS]


def called(spec: Spec, point: Point) -> tuple[Fn, Tensors]:
    """The op as a callable of its differentiable primals, everything else bound."""
    call = calling.bare(spec)
    names = [n for n in spec.differentiable() if point.primals[n] is not None]
    active = products.record(spec, calling.op_of(spec), point).active

    def fn(*inputs: torch.Tensor) -> Any:
        outputs = call({**point.primals, **dict(zip(names, inputs, strict=True))}, point.kwargs)
        return tuple(outputs[i] for i in active)

    return fn, tuple(point.primals[n].detach().clone().requires_grad_() for n in names)  # type: ignore[union-attr]


def rivals_fail(spec: Spec) -> dict[str, bool]:
    """Whether gradcheck slow, fast and with all flags fails the op at any of its points."""
    drawn = points(spec)
    assert drawn, f"{spec.name}: no ordinary point was drawn"
    return {name: any(_fails(name, spec, p) for p in drawn) for name in RIVALS}


def _fails(name: str, spec: Spec, point: Point) -> bool:
    fn, inputs = called(spec, point)
    if name != "all flags":
        return gradcheck(fn, inputs, fast=name == "fast").outcome == "FAIL"
    dual = _has_forward_mode(spec, point)
    flags = {"check_batched_grad": True, "check_grad_dtypes": True}
    flags |= {"check_forward_ad": dual, "check_batched_forward_grad": dual}
    return gradcheck(fn, inputs, fast=False, **flags).outcome == "FAIL" or not _twice(fn, inputs)


def _has_forward_mode(spec: Spec, point: Point) -> bool:
    """Whether the op has a jvp to be checked; one that raises anything but a refusal has."""
    tangents = {n: t for n in spec.differentiable() if (t := point.primals[n]) is not None}
    try:
        forward_mode.jvp(spec, calling.op_of(spec), point, tangents)
    except NotApplicableError:
        return False
    except OpError:
        return True
    return True


def _twice(fn: Fn, inputs: Tensors) -> bool:
    """Gradgradcheck, where the op lets itself be differentiated twice: a refusal is no fault."""
    out = [y for y in fn(*inputs) if y.requires_grad]
    rng = generator("gradgradcheck")
    u = tuple(torch.randn(y.shape, generator=rng, dtype=y.dtype).requires_grad_() for y in out)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            grads = torch.autograd.grad(out, inputs, u, create_graph=True, allow_unused=True)
            if not any(g is not None and g.requires_grad for g in grads):
                return True
            sum(g.sum() for g in grads if g is not None and g.requires_grad).backward()  # type: ignore[union-attr]
    except RuntimeError as error:
        if "once_differentiable" in str(error) or "does not require grad" in str(error):
            return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fast = sum(x.numel() for x in inputs) > SMALL
            return torch.autograd.gradgradcheck(fn, inputs, gen_non_contig_grad_outputs=True, fast_mode=fast)
    except Exception:  # noqa: BLE001 - whatever it raises is its verdict
        return False


def ours(spec: Spec, seed: int, asked: tuple[str, ...] = ()) -> dict[str, str]:
    """Claim -> outcome (and code) of our own run, in the order of the report: the cause first.

    Profile dev, and those of the claims that are `asked` for which it leaves out.
    """
    from gradverify.engine.verify import verify
    from gradverify.records.policy import OFF, Plan, Policy

    late = tuple(c for c in OFF["dev"] if c in asked)
    found = list(verify(spec, Plan(seed=seed, skip=late), Policy()))
    results = led([*found, *(verify(spec, Plan(seed=seed, claims=late), Policy()) if late else ())])
    return {r.claim: f"{r.outcome.name} {r.code}".strip() for r in results}


def rows(only: str, seed: int) -> Iterator[Row]:
    """Every fault whose name contains `only`."""
    for fault in suite():
        if only not in fault.name:
            continue
        wrong, right = (ours(s, seed, fault.must_fail) for s in (fault.wrong, fault.right))
        failed = [c for c, said in wrong.items() if said.startswith("FAIL")]
        alarms = {c: said for c, said in right.items() if said.startswith(("FAIL", "ERROR"))}
        lost = set(fault.must_fail) - set(failed)
        leads = failed[:1] == [fault.primary]
        row = Row(
            name=fault.name,
            cls=fault.cls,
            found={"gradverify": not lost, **rivals_fail(fault.wrong)},
            leads=leads,
            alarmed={"gradverify": bool(alarms), **rivals_fail(fault.right)},
            claims=", ".join(failed),
            missing=_missing(lost, wrong, alarms) or ("" if leads else f"led by {failed[0]}, not by {fault.primary}"),
        )
        yield row


def hostile(seed: int) -> dict[str, str]:
    """What each op that is none was told: its outcome and code, with a mark where it should be another."""
    from tests.faults.hostile import HOSTILE

    said = {}
    for op in HOSTILE:
        found = ours(op.spec, seed).get(op.claim, "absent")
        outcome, _, code = found.partition(" ")
        right = outcome in {o.upper() for o in op.outcomes} and (not op.codes or code in op.codes)
        said[op.name] = found if right else f"{found}, not one of {', '.join((*op.outcomes, *op.codes))}"
    return said


def hostile_line(said: dict[str, str]) -> str:
    """How many of them were told so."""
    wrong = {name: words for name, words in said.items() if ", not one of" in words}
    text = "Ops that are none (they raise, return no tensor, NaN, or gradients of the wrong number or shape): "
    text += f"{len(said) - len(wrong)} of {len(said)} are told so by outcome and code."
    return f"{text}\n\n{bullets(wrong)}" if wrong else text


def suite() -> tuple[Any, ...]:
    """All faults of tests/faults."""
    from tests.faults.table import FAULTS

    return tuple(FAULTS)


def _missing(lost: set[str], wrong: dict[str, str], alarms: dict[str, str]) -> str:
    words = [f"wrong op: {c} is {wrong.get(c, 'absent')}" for c in sorted(lost)]
    return "; ".join([*words, *(f"twin: {c} is {said}" for c, said in alarms.items())])


def report(done: list[Row]) -> str:
    """Class by class: faults found and twins failed by each judge."""
    by_class = defaultdict(list)
    for row in done:
        by_class[row.cls].append(row)
    lines = [_line(cls, group) for cls, group in by_class.items()] + [_line("**all**", done)]
    head = [
        "class",
        "faults",
        "led by its claim",
        "found: ours / slow / fast / all flags",
        "twins failed: ours / slow / fast / all flags",
    ]
    note = (
        "Gradcheck gets three ordinary points of each spec, and its verdict is for the op as it stands: contracts "
        "other than `exact`, and claims that it does not make, count against it. The claims that should lead were "
        "revised after seeing which did, for about thirty faults."
    )
    return f"{table(head, lines)}\n\n{note}"


def doubts(done: list[Row]) -> str:
    """Claims that should have failed and did not, twins that did, and reports that another claim leads."""
    odd = {r.name: r.missing for r in done if r.missing}
    return f"Ours, not as it should be:\n\n{bullets(odd) or 'None.'}"


def _line(name: str, group: list[Row]) -> list[object]:
    judges = ("gradverify", *RIVALS)
    found = " / ".join(str(sum(r.found[j] for r in group)) for j in judges)
    alarmed = " / ".join(str(sum(r.alarmed[j] for r in group)) for j in judges)
    return [name, len(group), sum(r.leads for r in group), found, alarmed]


def main() -> None:
    """Run the suite and publish."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--only", default="")
    parse.add_argument("--seed", type=int, default=0)
    options = parse.parse_args()
    done = []
    for row in rows(options.only, options.seed):
        done.append(row)
        print(f"{row.cls:18} {row.name:34} found {row.found} alarms {row.alarmed} {row.missing}", flush=True)
    if options.only:
        print(f"{report(done)}\n\n{doubts(done)}")
        return
    told = hostile(options.seed)
    text = f"{report(done)}\n\n{hostile_line(told)}"
    publish("faults", text, {"seed": options.seed, "rows": [vars(r) for r in done], "hostile": told}, more=doubts(done))


if __name__ == "__main__":
    main()
