"""TRANSFORMS.OPCHECK: what torch.library.opcheck says of a registered op, in its own words."""

from __future__ import annotations

from collections.abc import Iterator

from gradverify.autodiff.transforms.registered import NONE, is_registered, opcheck
from gradverify.checks.subject import at
from gradverify.checks.transforms import beside
from gradverify.errors import NotApplicableError
from gradverify.records.case import Case
from gradverify.records.evidence import Evidence
from gradverify.records.spec import Spec


def check(spec: Spec, case: Case) -> Iterator[Evidence]:
    """Each of its checks: the schema, the registration of autograd, fake tensors, tracing ahead of time."""
    subject = at(spec, case)
    beside.unless_declared(subject, "opcheck")
    if not is_registered(spec.op):
        raise NotApplicableError(NONE)
    beside.unless_writing(subject.record())
    for name, said in opcheck(spec, subject.point).items():
        facts = {"said": said} if said else {}
        yield subject.count(f"opcheck's {name}", int(bool(said)), kind="opcheck", **facts)
