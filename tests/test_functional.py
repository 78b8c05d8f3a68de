"""Right functions raise no alarm, in any claim: those of `tests.torch_specs`; and some of them do, once spoilt.

What torch itself gets wrong is marked there (`xfail`), with its numbers. `python -m ci.bench.functions` runs the same
under the profile ci.
"""

from __future__ import annotations

import pytest
import torch

from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.verdict import Outcome
from tests.functional_specs import FUNCTIONAL, KINDS
from tests.torch_specs import FAMILIES, TORCH_FUNCTIONS

PLAN = Plan(examples=2)
"""A few cases a function, many functions: what they have in common is tried often."""

QUIET = (Outcome.PASS, Outcome.SKIP)


def results(spec):
    """Every claim on a few cases. Of these one that is open is more than the tenth that may be: more are tried then."""
    for r in verify(spec, PLAN, Policy()):
        yield from (
            verify(spec, Plan(examples=20, claims=(r.claim,)), Policy()) if r.outcome is Outcome.INCONCLUSIVE else (r,)
        )


@pytest.mark.parametrize("spec", TORCH_FUNCTIONS, ids=lambda s: s.name)
def test_a_right_function_raises_no_alarm(spec):
    alarms = [r for r in results(spec) if r.outcome not in QUIET or (r.code and r.outcome is Outcome.PASS)]
    assert not [describe(r) for r in alarms]


def test_every_family_is_there_and_no_name_twice():
    names = [s.name for s in TORCH_FUNCTIONS]
    assert len(set(names)) == len(names) > 300
    assert set(names) >= KINDS
    assert min(map(len, FAMILIES.values())) >= 15


def one_percent_off(op):
    """The same forward; every gradient is multiplied by 1.01."""

    def spoilt(*args, **kwargs):
        out = op(*args, **kwargs)
        return out.detach() + 1.01 * (out - out.detach()) if torch.is_grad_enabled() and out.requires_grad else out

    return spoilt


@pytest.mark.parametrize("spec", FUNCTIONAL, ids=lambda s: s.name)
def test_the_same_function_one_percent_off_fails_vjp(spec):
    wrong = spec.with_(op=one_percent_off(spec.op), order=spec.order)
    (result,) = verify(wrong, Plan(examples=10, claims=("vjp",)), Policy())
    assert result.outcome is Outcome.FAIL
