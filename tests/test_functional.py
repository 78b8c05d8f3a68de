"""Right functions raise no alarm: twenty of `torch.nn.functional`; and the same functions do, once spoilt."""

from __future__ import annotations

import pytest
import torch

from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.records.verdict import Outcome
from tests.functional_specs import FUNCTIONAL

by_name = pytest.mark.parametrize("spec", FUNCTIONAL, ids=lambda s: s.name)
PLAN = Plan(examples=10)


@by_name
def test_a_right_function_passes_every_claim(spec):
    alarms = [
        f"{r.claim}: {r.outcome.name} {r.code} {r.reason}"
        for r in verify(spec, PLAN, Policy())
        if r.outcome not in (Outcome.PASS, Outcome.SKIP)
    ]
    assert not alarms


def one_percent_off(op):
    """The same forward; every gradient is multiplied by 1.01."""

    def spoilt(*args, **kwargs):
        out = op(*args, **kwargs)
        return out.detach() + 1.01 * (out - out.detach()) if torch.is_grad_enabled() and out.requires_grad else out

    return spoilt


@by_name
def test_the_same_function_one_percent_off_fails_vjp(spec):
    wrong = spec.with_(op=one_percent_off(spec.op), order=spec.order)
    (result,) = verify(wrong, Plan(examples=10, claims=("vjp",)), Policy())
    assert result.outcome is Outcome.FAIL
