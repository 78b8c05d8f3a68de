"""Every wrong backward on purpose is caught under the claims that it lists; its correct twin is left alone."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from gradverify.engine.verify import verify
from gradverify.records.claims import CLAIMS
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.verdict import Outcome
from tests.faults.hostile import HOSTILE
from tests.faults.table import FAULTS, IMPRECISE

# torch warns of a variance of one element; the ops that take it are meant to.
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")


def by_name(given):
    return given.name


def one_by_one(faults):
    """One test a fault; all tests of a fault run in one worker, which judges it once."""
    return pytest.mark.parametrize(
        "fault", [pytest.param(f, id=f.name, marks=pytest.mark.xdist_group(f.name)) for f in faults]
    )


@cache
def results(spec, claims=()):
    return {r.claim: r for r in verify(spec, Plan(examples=20, seed=0, claims=claims), Policy())}


def told(found):
    return "\n".join(describe(r) for r in found)


@one_by_one(FAULTS)
def test_every_fault_fails_under_each_claim_that_it_lists_and_under_its_own_code(fault):
    found = results(fault.wrong, fault.must_fail)
    missed = [found[c] for c in fault.must_fail if found[c].outcome is not Outcome.FAIL]
    assert not missed, told(missed)
    assert fault.code in (None, found[fault.primary].code)


@one_by_one(FAULTS)
def test_no_correct_twin_fails_or_is_inconclusive_without_a_stated_reason(fault):
    passing = {Outcome.PASS, Outcome.SKIP} | ({Outcome.INCONCLUSIVE} if fault.unresolved else set())
    bad = [r for r in results(fault.right).values() if r.outcome not in passing]
    assert not bad, told(bad)


@pytest.mark.parametrize("fault", IMPRECISE, ids=by_name)
def test_an_imprecise_backward_passes_with_a_warning(fault):
    result = results(fault.wrong, (fault.primary,))[fault.primary]
    assert (result.outcome, result.code) == (Outcome.PASS, fault.code), told([result])


@pytest.mark.parametrize("fault", IMPRECISE, ids=by_name)
def test_an_imprecise_backward_fails_where_digits_are_demanded(fault):
    result = results(fault.wrong.with_(digits=9.0), (fault.primary,))[fault.primary]
    assert result.outcome is Outcome.FAIL, told([result])


@pytest.mark.parametrize("hostile", HOSTILE, ids=by_name)
def test_an_op_that_is_none_is_told_so(hostile):
    result = results(hostile.spec, (hostile.claim,))[hostile.claim]
    assert result.outcome.value in hostile.outcomes, told([result])
    assert not hostile.codes or result.code in hostile.codes, told([result])
    assert result.reason or result.finding


def test_every_class_has_at_least_three_faults():
    assert min(Counter(f.cls for f in FAULTS).values()) >= 3


def test_every_claim_leads_for_some_fault():
    assert {f.primary for f in FAULTS} >= set(CLAIMS)


def test_the_primary_claim_is_among_those_that_must_fail():
    assert all(f.primary in f.must_fail for f in FAULTS)


def test_names_are_unique():
    names = [f.name for f in (*FAULTS, *IMPRECISE)]
    assert len(set(names)) == len(names)
