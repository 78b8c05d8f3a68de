"""`gradverify show`: what a spec promises, which claims are checked, and what is not covered and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from gradverify.cli import output
from gradverify.cli.options import shapes
from gradverify.config import load
from gradverify.records.claims import CLAIMS, NOT_YET, WHY_NOT_YET
from gradverify.records.described import described
from gradverify.records.spec import Dim, Spec, describe_callable, source_of
from gradverify.reports.console import op_lines
from gradverify.reports.lines import place, relative
from gradverify.reports.style import Style, wrapped

_CLAIM_COLUMN = max(map(len, CLAIMS)) + 2


@click.command("show")
@click.argument("target")
@click.option("--arg", multiple=True, metavar="'x=*b k'", help="Shape of an argument of a bare op; once for each.")
@click.option("--json", "as_json", is_flag=True, help="The resolved spec as JSON.")
def command(*, target: str, arg: tuple[str, ...], as_json: bool) -> int:
    """Show the spec that TARGET (as in `check`) resolves to: inputs, domain, contract, claims, and the gaps."""
    wanted = shapes(arg)
    from gradverify.discovery.targets import resolve

    with output.only_ours():
        found = resolve([target], shapes=wanted, config=load())
    specs = [s for s in found if isinstance(s, Spec)]
    if as_json and specs:
        rows = [_json(s) for s in specs]
        output.emit(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
    elif specs:
        style = output.style_of(sys.stdout)
        output.emit("\n".join("\n".join([*_lines(s, style), ""]) for s in specs))
    for broken in (f for f in found if not isinstance(f, Spec)):
        click.echo(f"Error: {broken.error}", err=True)
    return 2 if len(specs) < len(found) else 0


def claims_of(spec: Spec) -> dict[str, str]:
    """Claim -> why it is not checked for this spec; empty where it is."""
    from gradverify.autodiff import forward_mode  # it imports torch
    from gradverify.autodiff.transforms import pure, registered
    from gradverify.cases import modules

    reasons = dict.fromkeys(CLAIMS, "")
    if spec.reference is None:
        reasons["forward"] = "the spec has no reference; give it a body"
    if not set(spec.dtypes) - {"float64"}:
        reasons["precision"] = "the spec names no dtype below float64: dtypes=[torch.bfloat16], or --dtype bfloat16"
    if not spec.linear:
        reasons["linear"] = "the spec says linear=False"
    if spec.inputs is not None:
        reasons["edges"] = "inputs= gives the shapes"
    if forward_mode.lacking(spec.op):
        reasons |= {"jvp": forward_mode.NONE, "adjoint": forward_mode.NONE}
    reasons |= pure.lacking(spec.op)
    if modules.inner(spec.op) is None:
        reasons["transforms.pickle"] = modules.NONE
    if not registered.is_registered(spec.op):
        reasons["transforms.opcheck"] = registered.NONE
    if not spec.differentiable():
        reasons |= {c: "no argument carries a gradient" for c in CLAIMS if c != "forward"}
    return reasons


def _json(spec: Spec) -> dict[str, Any]:
    reasons = claims_of(spec)
    return {
        "spec": spec.to_builtins(),
        "not_covered": [{"what": what, "why": WHY_NOT_YET} for what in NOT_YET],
        "claims": [{"claim": c, "statement": CLAIMS[c], "checked": not why, "why": why} for c, why in reasons.items()],
    }


def _lines(spec: Spec, style: Style) -> list[str]:
    facts = [line for name, value in _facts(spec).items() for line in _fact(name, value, style)]
    reasons = claims_of(spec)
    checked = [line for c, why in reasons.items() if not why for line in _claim(c, CLAIMS[c], style, kind="pass")]
    gaps = [line for c, why in reasons.items() if why for line in _claim(c, why, style, kind="skip")]
    if NOT_YET:
        gaps += wrapped(f"{', '.join(NOT_YET)}: {WHY_NOT_YET}", first=f"  {style.sign('skip')} ", rest="    ")
    heads = [style.paint(f"  {word}", "dim") for word in ("checked", "not covered")]
    return [*op_lines(described(spec), style=style), *facts, heads[0], *checked, heads[1], *gaps]


def _facts(spec: Spec) -> dict[str, str]:
    """Everything that the spec determines, in words; an empty text is not shown."""
    return {
        "op": relative(describe_callable(spec.op)),
        "reference": _defined(spec.reference) if spec.reference else "none",
        "truth": _truth(spec),
        "keywords": "; ".join(f"{k} in {', '.join(map(repr, v))}" for k, v in spec.kwargs.items()),
        "sizes": "; ".join(f"{letter} {_sizes(dim)}" for letter, dim in spec.dims.items()),
        "where": _defined(spec.where) if spec.where else "",
        "dtypes": ", ".join(spec.dtypes) or "float64",
        "devices": ", ".join(spec.devices) or "every device that is present",
        "layouts": ", ".join(spec.layouts) or "all strided ones",
        "digits": f"{spec.digits:g} demanded" if spec.digits is not None else "",
        "loosened": ", ".join(f"{dtype}: {tol}" for dtype, tol in spec.tol.items()),
        "no gradient": ", ".join(f"output {n}" for n in spec.nondiff),
        "examples": "; ".join(_example(e.dims, e.kwargs) for e in spec.examples),
        "xfail": "; ".join(f"{what}: {why}" for what, why in spec.xfail.items()),
    }


def _truth(spec: Spec) -> str:
    if spec.contract.kind == "vjp":
        return "the formula of the contract"
    if spec.truth == "reference":
        return "autograd of the reference, itself verified by differences"
    differentiated = "the function that backward_of names" if spec.contract.kind == "backward_of" else "the forward"
    return f"central differences of {differentiated}, in float64"


def _defined(function: Any) -> str:
    """Where a function of a spec file stands; the module of such a file has no name that a reader knows."""
    source = source_of(function)
    return place(source) if source else describe_callable(function)


def _sizes(dim: Dim) -> str:
    if dim.choices is not None:
        return "in " + ", ".join(map(str, dim.choices))
    top = "..." if dim.hi is None else f"... {dim.hi}"
    return f"{dim.lo} {top}" + (f" around {', '.join(map(str, dim.around))}" if dim.around else "")


def _example(dims: Mapping[str, Any], kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in {**dims, **kwargs}.items())


def _fact(name: str, value: str, style: Style) -> list[str]:
    column = " " * 15
    return wrapped(style.plain(value), first=f"  {name:<13}", rest=column) if value else []


def _claim(claim: str, text: str, style: Style, *, kind: str) -> list[str]:
    lead = len(Style(unicode=style.unicode).sign(kind)) + 3 + _CLAIM_COLUMN
    first, *rest = wrapped(style.plain(text), first=" " * lead, rest=" " * lead)
    return [f"  {style.sign(kind)} {claim:<{_CLAIM_COLUMN}}{first[lead:]}", *rest]
