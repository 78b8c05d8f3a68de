"""What a spec is, in the words of a report. No torch: what an op is is told from the names of its classes."""

from __future__ import annotations

from typing import Any

from gradverify.records.run import Input, NotCovered, OpRun
from gradverify.records.spec import Arg, Spec, describe_callable, source_of
from gradverify.records.verdict import Result

# Class name, as torch spells it -> our word. The first class of the op's own or its type's ancestry that is listed.
_KINDS = {
    "Function": "autograd.Function",
    "CustomOpDef": "custom_op",
    "OpOverloadPacket": "registered op",
    "OpOverload": "registered op",
    "Module": "nn.Module",
    "ScriptFunction": "scripted function",
}


def kind_of(op: Any) -> str:
    """`autograd.Function`, `custom_op`, `registered op`, `nn.Module`, `function`, or `lazy` for a `pkg.mod:attr`."""
    if isinstance(op, str):
        return "lazy"
    ancestry = (op if isinstance(op, type) else type(op)).__mro__
    known = [_KINDS[c.__name__] for c in ancestry if c.__module__.startswith("torch") and c.__name__ in _KINDS]
    return known[0] if known else "function"


def described(
    spec: Spec, *, checks: tuple[Result, ...] = (), not_covered: tuple[NotCovered, ...] = (), note: str = ""
) -> OpRun:
    """The spec as the report shows it, with its results so far."""
    return OpRun(
        target=describe_callable(spec.op),
        spec=spec.name,
        kind=kind_of(spec.op),
        source=spec.source or (None if isinstance(spec.op, str) else source_of(spec.op)),
        inputs=tuple(Input(name=a.name, shape=a.shape, domain=_values(a), role=a.role) for a in spec.args),
        inputs_from=spec.described_by,
        contract=str(spec.contract),
        note=note,
        checks=checks,
        not_covered=not_covered,
    )


def _values(arg: Arg) -> str:
    return " ".join(w for w in ("complex" if arg.complex else "", str(arg.domain)) if w)
