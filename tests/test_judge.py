"""Every branch of the judge, from literal numbers; each with its twin. The rules stand in specs/claims.md, VERDICTS."""

import math

import msgspec
import pytest

from gradverify.judge import FAMILY, ORDERS, conclude, family, judge, of_case, relative_gap, required
from gradverify.records.case import Case
from gradverify.records.claims import CLAIMS
from gradverify.records.codes import TITLES
from gradverify.records.evidence import Estimate, Evidence
from gradverify.records.policy import Policy
from gradverify.records.verdict import Cases, Outcome, Verdict

PASS, FAIL, OPEN, ERROR = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR
NAN, INF = math.nan, math.inf
TRUTH = {"truth": "central differences of the forward", "contract": "exact"}


def evidence(analytic=1.0, value=1.0, error=1e-9, *, claim="vjp", dtype="float64", facts=None, **fields):
    return Evidence(
        claim=claim,
        case=Case(spec="f", claim=claim, dtype=dtype),
        quantity="the gradient of `x`",
        analytic=analytic,
        numeric=Estimate(value=value, error=error),
        facts=TRUTH if facts is None else facts,
        **{"scale": 1.0, "resolution": 1e-8, "confirmed": True, **fields},
    )


def said(e, **policy):
    verdict = judge(e, Policy(**policy))
    return verdict.outcome, verdict.code, verdict.moot


def twins(*rows):
    """(words, evidence, wanted) as parameters."""
    return pytest.mark.parametrize(("e", "wanted"), [pytest.param(e, w, id=words) for words, e, w in rows])


@twins(
    ("equal", evidence(), (PASS, "", False)),
    ("within three bars", evidence(1 + 2.9e-9), (PASS, "", False)),
    ("beyond three bars, below a millionth", evidence(1 + 3.1e-9), (PASS, "GV602", False)),
    ("just below a millionth", evidence(1 + 0.9e-6), (PASS, "GV602", False)),
    ("just above a millionth", evidence(1 + 1.1e-6), (FAIL, "GV199", False)),
    ("twice as large", evidence(2.0), (FAIL, "GV199", False)),
    ("infinite claim", evidence(INF), (FAIL, "GV199", False)),
    ("a claim that is no number", evidence(NAN), (FAIL, "GV199", False)),
    ("the same infinity", evidence(INF, INF, confirmed=True), (PASS, "", False)),
    ("wide bar", evidence(2.0, error=0.5), (PASS, "", False)),
    ("zero and zero without a bar", evidence(0.0, 0.0, 0.0), (PASS, "", False)),
    ("no bar and a difference", evidence(1.0, 0.0, 0.0), (FAIL, "GV199", False)),
)
def test_a_claim_is_held_against_three_bars_and_a_millionth(e, wanted):
    assert said(e) == wanted


@twins(
    ("not confirmed", evidence(2.0, confirmed=False), (OPEN, "GV303", False)),
    ("not confirmed at a jump", evidence(2.0, confirmed=False, neighbourhood="jump"), (OPEN, "GV301", False)),
    ("not confirmed at a kink", evidence(2.0, confirmed=False, neighbourhood="kink"), (OPEN, "GV302", False)),
    ("on a staircase", evidence(2.0, neighbourhood="staircase"), (OPEN, "GV112", False)),
    ("unconfirmed on a staircase", evidence(2.0, confirmed=False, neighbourhood="staircase"), (OPEN, "GV112", False)),
    ("slight and not confirmed", evidence(1 + 5e-8, confirmed=False), (PASS, "", False)),
    ("hardly slight", evidence(1 + 0.9e-6, error=2e-8, confirmed=False), (PASS, "", False)),
    ("perhaps not slight", evidence(1 + 0.9e-6, error=4e-8, confirmed=False), (OPEN, "GV303", False)),
    ("a slight one of a kind", evidence(1 + 5e-8, confirmed=False, facts={"kind": "shape"}), (OPEN, "GV303", False)),
    ("confirmed while noisy", evidence(2.0, neighbourhood="noisy"), (FAIL, "GV199", False)),
)
def test_a_mismatch_counts_only_when_it_is_confirmed_where_a_slope_exists(e, wanted):
    assert said(e) == wanted


def test_forward_mode_that_rounds_its_terms_otherwise_is_not_imprecise_for_that():
    linearity = {"relation": "J(2.5 v - w) against 2.5 J v - J w"}
    assert said(evidence(1 + 5e-7, claim="jvp", facts=linearity)) == (PASS, "", False)
    assert said(evidence(1 + 5e-6, claim="jvp", facts=linearity)) == (FAIL, "GV401", False)
    assert said(evidence(1 + 5e-7, claim="jvp")) == (PASS, "GV602", False)


def test_a_slight_mismatch_that_nothing_confirms_is_what_could_be_seen():
    e = evidence(1 + 5e-8, error=1e-9, resolution=3e-9, confirmed=False)
    assert judge(e, Policy()).evidence.resolution == pytest.approx(5.3e-8, rel=1e-6)
    assert said(e, digits=7.0) == (OPEN, "GV303", False)


@twins(
    ("bar unknown", evidence(2.0, error=NAN), (OPEN, "GV303", False)),
    ("value unknown", evidence(2.0, NAN), (OPEN, "GV303", True)),
    ("value infinite", evidence(2.0, INF, confirmed=False), (OPEN, "GV303", True)),
    ("bar infinite", evidence(2.0, error=INF, resolution=INF), (OPEN, "GV303", True)),
)
def test_what_is_unknown_is_never_a_pass(e, wanted):
    assert said(e) == wanted


def test_what_is_known_is_not_inconclusive():
    assert said(evidence()) == (PASS, "", False)


@twins(
    ("coarse", evidence(resolution=2e-4), (OPEN, "GV303", True)),
    ("fine enough", evidence(resolution=0.9e-4), (PASS, "", False)),
    ("few outputs resolved", evidence(resolved=0.89), (OPEN, "GV303", True)),
    (
        "few values of a forward known",
        evidence(claim="forward", resolved=0.89, neighbourhood="jump"),
        (OPEN, "GV301", True),
    ),
    (
        "enough values of a forward known",
        evidence(claim="forward", resolved=0.9, neighbourhood="jump"),
        (PASS, "", False),
    ),
    ("enough outputs resolved", evidence(resolved=0.9), (PASS, "", False)),
    ("nothing moves and nothing is claimed", evidence(0.0, 0.0, 0.0, resolution=NAN), (PASS, "", False)),
    ("kink", evidence(resolved=0.5, neighbourhood="kink"), (OPEN, "GV302", True)),
    ("jump", evidence(resolved=0.5, neighbourhood="jump"), (OPEN, "GV301", True)),
    ("edge", evidence(resolved=0.5, neighbourhood="edge"), (OPEN, "GV303", True)),
    ("flat", evidence(resolved=0.5, neighbourhood="flat"), (OPEN, "GV303", True)),
    ("staircase counts", evidence(resolved=0.5, neighbourhood="staircase"), (OPEN, "GV112", False)),
    ("noise counts", evidence(resolved=0.5, neighbourhood="noisy"), (OPEN, "GV303", False)),
    ("what never settles counts", evidence(resolved=0.5, neighbourhood="unsettled"), (OPEN, "GV303", False)),
    ("edges too", evidence(claim="edges", resolution=0.5), (OPEN, "GV303", True)),
    ("not without a truth", evidence(facts={}, resolution=0.5), (PASS, "", False)),
    ("not for other claims", evidence(claim="linear", resolution=0.5), (PASS, "", False)),
)
def test_agreement_without_power_is_inconclusive(e, wanted):
    assert said(e) == wanted


def test_the_resolution_that_is_required_follows_the_dtype_and_the_noise():
    assert required(evidence()) == 1e-4
    assert required(evidence(dtype="float32")) == pytest.approx(64 * 2.0**-16)
    assert required(evidence(facts={**TRUTH, "unit": 2.0**-24})) == pytest.approx(64 * 2.0**-16)
    assert required(evidence(dtype="bfloat16")) == 0.1


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_op_compared_with_itself_is_not_warned_of_another_order_of_summation(claim):
    wanted = "" if claim in ORDERS else "GV602"
    assert said(evidence(1 + 1e-7, claim=claim)) == (PASS, wanted, False)
    assert said(evidence(1 + 1e-5, claim=claim)) == (FAIL, FAMILY[claim], False)


@twins(
    ("inside", evidence(0.3, interval=(0.0, 1.0), neighbourhood="kink"), (PASS, "GV302", True)),
    ("at the end", evidence(1.0, interval=(0.0, 1.0), neighbourhood="kink"), (PASS, "GV302", True)),
    ("above", evidence(1.1, interval=(0.0, 1.0), neighbourhood="kink"), (FAIL, "GV199", False)),
    ("below", evidence(-0.1, interval=(0.0, 1.0), neighbourhood="kink"), (FAIL, "GV199", False)),
    ("within a wide bar", evidence(1.1, error=0.04, interval=(0.0, 1.0), neighbourhood="kink"), (PASS, "GV302", True)),
    (
        "outside, not confirmed",
        evidence(2.0, interval=(0.0, 1.0), neighbourhood="kink", confirmed=False),
        (OPEN, "GV302", False),
    ),
    ("not a number", evidence(NAN, interval=(0.0, 1.0), neighbourhood="kink"), (FAIL, "GV111", False)),
    ("infinite", evidence(INF, interval=(0.0, 1.0), neighbourhood="kink"), (FAIL, "GV111", False)),
)
def test_at_a_kink_every_subgradient_is_consistent_and_nothing_else(e, wanted):
    assert said(e) == wanted


@twins(
    ("where the forward is smooth", evidence(NAN, facts={**TRUTH, "kind": "not finite"}), (FAIL, "GV111", False)),
    (
        "at the edge of its domain",
        evidence(NAN, facts={**TRUTH, "kind": "not finite"}, confirmed=False, neighbourhood="edge"),
        (OPEN, "GV303", True),
    ),
    (
        "at a jump",
        evidence(NAN, facts={**TRUTH, "kind": "not finite"}, confirmed=False, neighbourhood="jump"),
        (OPEN, "GV301", True),
    ),
)
def test_a_gradient_that_is_not_finite_is_wrong_where_a_slope_exists(e, wanted):
    assert said(e) == wanted


@twins(
    ("half still", evidence(1.0, 0.0, 0.0, neighbourhood="flat", facts={**TRUTH, "flat": 0.5}), "GV112"),
    ("few still", evidence(1.0, 0.0, 0.0, neighbourhood="flat", facts={**TRUTH, "flat": 0.4}), "GV199"),
    (
        "under a contract",
        evidence(1.0, 0.0, 0.0, neighbourhood="flat", facts={**TRUTH, "flat": 1.0, "contract": "backward_of"}),
        "GV199",
    ),
    ("smooth", evidence(1.0, 0.0, 0.0, facts={**TRUTH, "flat": 1.0}), "GV199"),
)
def test_a_gradient_of_a_flat_forward_is_a_straight_through_without_a_contract(e, wanted):
    assert said(e) == (FAIL, wanted, False)


def test_an_op_is_not_judged_by_a_reference_that_is_itself_wrong():
    assert said(evidence(2.0, facts={**TRUTH, "kind": "reference"})) == (OPEN, "GV303", False)
    assert said(evidence(2.0)) == (FAIL, "GV199", False)


def test_a_count_is_exact_however_small_it_is():
    counted = {"facts": {"kind": "input"}, "error": 0.0, "value": 0.0, "claim": "purity"}
    assert said(evidence(1.0, scale=1e9, **counted)) == (FAIL, "GV202", False)
    assert said(evidence(0.0, **counted)) == (PASS, "", False)


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_has_a_family_code_with_a_title(claim):
    assert said(evidence(2.0, claim=claim)) == (FAIL, FAMILY[claim], False)
    assert FAMILY[claim] in TITLES


SECOND = {"truth": "central differences of backward", "contract": "exact"}


@twins(
    ("two numbers differ", evidence(2.0, claim="double_backward", facts=SECOND), (FAIL, "GV501", False)),
    (
        "terms have no history",
        evidence(2.0, claim="double_backward", facts={**SECOND, "history": "cut"}),
        (FAIL, "GV505", False),
    ),
    (
        "a gradient that stands still is no straight-through",
        evidence(2.0, 0.0, claim="double_backward", neighbourhood="flat", facts={**SECOND, "flat": 1.0}),
        (FAIL, "GV501", False),
    ),
    (
        "a staircase of the gradient",
        evidence(2.0, claim="double_backward", neighbourhood="staircase", facts=SECOND),
        (OPEN, "GV303", False),
    ),
    (
        "agreement without power",
        evidence(claim="double_backward", resolution=1e-2, facts=SECOND),
        (OPEN, "GV303", True),
    ),
    (
        "a promise",
        evidence(1.0, 0.0, 0.0, claim="double_backward", facts={"kind": "declared"}),
        (FAIL, "GV508", False),
    ),
    ("two modes, up to rounding", evidence(1 + 1e-8, claim="double_backward", facts={}), (PASS, "", False)),
    ("two modes", evidence(1 + 1e-3, claim="double_backward", facts={}), (FAIL, "GV501", False)),
)
def test_second_derivatives_have_codes_of_their_own(e, wanted):
    assert said(e) == wanted


def test_state_between_calls_and_a_wrong_shape_have_codes_of_their_own():
    assert family(evidence(claim="repeat", facts={"kind": "after other data"})) == "GV209"
    assert family(evidence(claim="repeat", facts={"kind": "again"})) == "GV204"
    assert family(evidence(facts={"kind": "shape"})) == "GV109"
    assert family(evidence(claim="linear", facts={"kind": "shape"})) == "GV201"


@pytest.mark.parametrize(
    ("claim", "kind", "code"),
    [
        ("lifetime", "interleaved", "GV209"),
        ("lifetime", "kept", "GV209"),
        ("lifetime", "input", "GV202"),
        ("lifetime", "never written", "GV211"),
        ("lifetime", "in place", "GV212"),
        ("lifetime", "mode", "GV213"),
        ("lifetime", "accumulated", "GV214"),
        ("memory", "cycle", "GV207"),
        ("convention", "shape", "GV109"),
        ("convention", "requires grad", "GV207"),
    ],
)
def test_what_happens_over_several_calls_has_codes_of_its_own(claim, kind, code):
    counted = evidence(1.0, claim=claim, facts={"kind": kind}, error=0.0, value=0.0, scale=1.0)
    assert said(counted) == (FAIL, code, False)


@pytest.mark.parametrize(
    ("claim", "kind", "code"),
    [
        ("lifetime", "index in place", "GV212"),
        ("convention", "wider", "GV109"),
        ("convention", "dropped", "GV109"),
    ],
)
def test_a_breach_that_leaves_every_gradient_right_is_a_warning(claim, kind, code):
    counted = {"claim": claim, "facts": {"kind": kind}, "error": 0.0, "value": 0.0, "scale": 1.0}
    assert said(evidence(1.0, **counted)) == (PASS, code, False)
    assert said(evidence(0.0, **counted)) == (PASS, "", False)


def test_facts_of_an_op_are_told_where_nothing_is_wrong():
    measured = concluded(PLAIN, verdict(PASS, facts={"kind": "leak", "saves": "8 n bytes"})).measured
    assert measured == {"saves": "8 n bytes"}


def test_different_bits_within_rounding_are_a_warning_unless_declared():
    def repeated(**facts):
        return evidence(claim="repeat", facts={"kind": "again", **facts})

    assert said(repeated(differ=3)) == (PASS, "GV204", False)
    assert said(repeated(differ=3, declared=True)) == (PASS, "", False)
    assert said(repeated(differ=0)) == (PASS, "", False)


def test_digits_that_are_demanded_turn_imprecise_into_wrong_and_wrong_into_imprecise():
    assert said(evidence(1 + 1e-7), digits=8.0) == (FAIL, "GV199", False)
    assert said(evidence(1 + 1e-7), digits=6.0) == (PASS, "GV602", False)
    assert said(evidence(1 + 1e-4), digits=3.0) == (PASS, "GV602", False)
    assert said(evidence(1 + 1e-2), digits=3.0) == (FAIL, "GV199", False)


def test_a_tolerance_given_by_hand_loosens_and_its_absence_does_not():
    assert said(evidence(1.01), loosened=0.02) == (PASS, "", False)
    assert said(evidence(1.01), loosened=0.002) == (FAIL, "GV199", False)
    assert said(evidence(1.01), loosened_absolute=0.02) == (PASS, "", False)
    assert said(evidence(1.01)) == (FAIL, "GV199", False)


def test_a_safety_factor_widens_the_bar():
    assert said(evidence(1.1, error=0.02), safety=6.0) == (PASS, "", False)
    assert said(evidence(1.1, error=0.02)) == (FAIL, "GV199", False)


def test_a_gradient_through_float32_is_measured_by_its_row():
    single = {**TRUTH, "float32": True, "row": 1e3}
    assert relative_gap(evidence(1 + 1e-5, facts=single), 1e-5) == pytest.approx(1e-8)
    assert said(evidence(1 + 1e-5, facts=single)) == (PASS, "GV602", False)
    assert said(evidence(1 + 1e-5, facts={**TRUTH, "row": 1e3})) == (FAIL, "GV199", False)


@pytest.mark.parametrize(
    ("dtype", "gap", "code"), [("float64", 1e-5, "GV199"), ("float32", 1e-5, "GV602"), ("float32", 1e-3, "GV199")]
)
def test_the_line_between_lost_digits_and_a_wrong_gradient_is_half_of_a_narrow_dtypes_digits(dtype, gap, code):
    e = evidence(1 + gap, facts=TRUTH)
    assert said(msgspec.structs.replace(e, case=msgspec.structs.replace(e.case, dtype=dtype)))[1] == code


# From verdicts to a result.


def verdict(outcome=PASS, code="", *, moot=False, **fields):
    return Verdict(outcome=outcome, code=code, evidence=evidence(**fields), moot=moot)


def concluded(*verdicts):
    return conclude(verdicts, claim="vjp", device="cpu", dtype="float64", cases=Cases())


PLAIN = verdict()
KINK = verdict(PASS, "GV302", moot=True, interval=(0.0, 1.0))
MOOT = verdict(OPEN, "GV303", moot=True)


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [
        ((PLAIN, verdict(FAIL, "GV199"), verdict(OPEN, "GV303")), "GV199"),
        ((PLAIN, verdict(OPEN, "GV301"), MOOT), "GV301"),
        ((PLAIN, MOOT), "GV303"),
        ((MOOT, MOOT), "GV303"),
        ((MOOT, KINK), "GV302"),
        ((KINK, MOOT, PLAIN), "GV302"),
        ((KINK, PLAIN), ""),
        ((KINK,), "GV302"),
        ((PLAIN, verdict(PASS, "GV602")), "GV602"),
        ((PLAIN, PLAIN), ""),
    ],
)
def test_a_case_is_as_good_as_its_worst_evidence(verdicts, wanted):
    assert of_case(verdicts).code == wanted


def test_a_case_tells_the_failure_that_is_most_off_and_the_pass_of_least_power():
    far, near = verdict(FAIL, "GV199", analytic=9.0), verdict(FAIL, "GV111", analytic=2.0)
    assert of_case((near, far)) is far
    sharp, blunt = verdict(resolution=1e-9), verdict(resolution=1e-5)
    assert of_case((sharp, blunt)) is blunt


def test_one_failing_case_fails_the_claim():
    assert concluded(*[PLAIN] * 50, verdict(FAIL, "GV199")).outcome is FAIL
    assert concluded(*[PLAIN] * 50).outcome is PASS


def test_the_last_failure_is_told_since_it_is_the_smallest():
    first, last = verdict(FAIL, "GV199", analytic=9.0), verdict(FAIL, "GV199", analytic=2.0)
    assert concluded(first, PLAIN, last).worst is last


def test_an_op_that_raised_is_an_error():
    result = concluded(PLAIN, verdict(ERROR, "GV902"))
    assert (result.outcome, result.code) == (ERROR, "GV902")


def test_nine_in_ten_resolved_cases_are_enough_and_fewer_are_not():
    assert concluded(*[PLAIN] * 9, verdict(OPEN, "GV303")).outcome is PASS
    result = concluded(*[PLAIN] * 8, verdict(OPEN, "GV301"), verdict(OPEN, "GV301"))
    assert (result.outcome, result.code) == (OPEN, "GV301")
    assert result.reason == "8 of 10 cases resolved"


def test_moot_cases_neither_pass_nor_spoil_a_claim():
    assert concluded(PLAIN, *[MOOT] * 20, *[KINK] * 20).outcome is PASS
    result = concluded(*[KINK] * 3)
    assert (result.outcome, result.code, result.reason) == (OPEN, "GV302", "no case could be judged")


def test_what_had_nothing_to_be_wrong_is_no_pass_where_all_else_was_moot():
    empty, outside = verdict(facts={}), verdict(OPEN, "GV303", moot=True, facts=TRUTH)
    result = concluded(empty, outside)
    assert (result.outcome, result.code, result.reason) == (OPEN, "GV303", "no case could be judged")
    assert concluded(empty, outside, verdict(facts=TRUTH)).outcome is PASS


def test_no_verdict_at_all_is_inconclusive():
    assert concluded().outcome is OPEN


def test_the_commonest_cause_is_told():
    assert concluded(*[verdict(OPEN, "GV301")] * 2, verdict(OPEN, "GV303")).code == "GV301"
    assert concluded(*[verdict(OPEN, "GV303")] * 2, verdict(OPEN, "GV301")).code == "GV303"


def test_a_passing_claim_tells_its_worst_resolution_and_what_truth_it_rests_on():
    result = concluded(verdict(resolution=1e-9), verdict(resolution=1e-6), verdict(resolution=NAN))
    assert result.resolution == 1e-6
    assert result.truth == TRUTH["truth"]
    assert math.isnan(concluded(verdict(resolution=NAN, facts={})).resolution)


def test_of_cases_that_hold_an_op_against_itself_the_middle_one_tells_the_resolution():
    verdicts = [judge(evidence(claim="layout", facts={}, resolution=p), Policy()) for p in (1e-12, 1e3, 1e-11)]
    assert concluded(*verdicts).resolution == 1e-11


def test_a_warned_pass_tells_the_digits_of_its_worst_case():
    result = concluded(PLAIN, verdict(PASS, "GV602", analytic=1 + 1e-8), verdict(PASS, "GV602", analytic=1 + 1e-7))
    assert (result.outcome, result.code) == (PASS, "GV602")
    assert result.digits == pytest.approx(7, abs=0.1)
    assert math.isnan(concluded(PLAIN).digits)


def test_a_forward_that_moves_in_another_case_is_not_flat():
    flat = verdict(FAIL, "GV112", analytic=1.0, value=0.0)
    assert concluded(PLAIN, flat).code == "GV199"
    assert concluded(verdict(analytic=0.0, value=0.0), flat).code == "GV112"


def test_at_special_values_what_differences_cannot_judge_is_left_to_what_is_finite():
    count = evidence(0.0, 0.0, 0.0, claim="special", facts={"kind": "gradient not finite"}, resolution=0.0)
    noisy = evidence(1.0, 0.0, claim="special", neighbourhood="noisy", confirmed=False)
    verdicts = [judge(count, Policy()), judge(noisy, Policy())]
    assert [(v.outcome, v.moot) for v in verdicts] == [(PASS, False), (OPEN, True)]
    assert of_case(verdicts).outcome is PASS
    assert of_case([judge(evidence(1.0, 0.0, neighbourhood="noisy", confirmed=False), Policy())]).moot is False


def test_what_is_lost_beside_the_reference_has_codes_of_its_own():
    lost = evidence(2.0, 0.0, 0.0, claim="special", facts={"kind": "gradient not finite"})
    assert said(lost) == (FAIL, "GV111", False)
    lost = evidence(2.0, 0.0, 0.0, claim="special", facts={"kind": "output not finite"})
    assert said(lost) == (FAIL, "GV208", False)


def test_a_difference_from_a_reference_at_its_kink_is_moot():
    assert said(evidence(2.0, claim="special", facts={**TRUTH, "kink": True})) == (OPEN, "GV302", True)
    assert said(evidence(2.0, claim="special", facts={**TRUTH, "kink": False})) == (FAIL, "GV215", False)
