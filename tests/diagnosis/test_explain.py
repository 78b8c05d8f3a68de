"""What a finding says, to the letter: one set of lines for every claim."""

import math

import msgspec
import pytest

from gradverify.diagnosis.explain import CAUSE, REMEDIES, WITHHELD, explain, remedy_of_raised
from gradverify.records.case import Case
from gradverify.records.claims import CLAIMS
from gradverify.records.codes import TITLES
from gradverify.records.evidence import Estimate, Evidence, Mismatch
from gradverify.records.spec import Arg, Contract, Spec
from gradverify.records.verdict import Outcome, Result, Verdict

SPEC = Spec(name="scale", op=abs, args=(Arg(name="x", shape="b n"), Arg(name="w", shape="n")), reference=abs)
PLACE = {"analytic": 2.0, "numeric": 1.0, "error": 1e-12}
ENTRY = Mismatch(argument="x", index=(2, 1), output=0, output_index=(2, 1), **PLACE)
GRADIENT = Mismatch(argument="w", index=(1,), output=None, output_index=None, **PLACE)
OUTPUT = Mismatch(argument="output 0", index=(0, 3), output=None, output_index=None, **PLACE)
TRUTH = "central differences of the forward"
SECOND = Mismatch(argument="u", index=(0, 1), output=0, output_index=(2, 1), **PLACE)
OF_X = {"truth": "central differences of backward", "gradient": "x"}
EAGER = {"truth": "plain eager"}


def evidence(claim="vjp", *, value=1.0, error=1e-12, facts=None, steps=(), case=None, **fields):
    return Evidence(
        claim=claim,
        case=case or Case(spec="scale", claim=claim, dims=(("b", 3), ("n", 2)), differentiate=("x", "w")),
        numeric=Estimate(value=value, error=error, steps=steps),
        facts=facts or {},
        **{"quantity": "the gradient of `x`", "analytic": 2.0, "scale": 2.0, "resolution": 1e-9, **fields},
    )


def finding(e, code, outcome=Outcome.FAIL, *, runs=0, spec=SPEC, **fields):
    verdict = Verdict(outcome=outcome, code=code, evidence=e)
    result = Result(claim=e.claim, device="cpu", dtype="float64", outcome=outcome, code=code, worst=verdict, **fields)
    return explain(spec, result, runs=runs)


def text(found):
    return "\n".join([found.summary, *found.lines])


GOLDEN = {
    "forward": (
        evidence("forward", quantity="output 0", worst=OUTPUT, facts={"truth": "the reference"}),
        "GV208",
        """\
forward differs from the reference: output 0
smallest case  b=3  n=2   shrunk in 7 runs
  the op     output 0[0,3] = 2
  reference  output 0[0,3] = 1 +- 1e-12""",
    ),
    "vjp": (
        evidence(worst=ENTRY, steps=(2.0**-8, 2.0**-10), facts={"truth": TRUTH}),
        "GV199",
        """\
wrong gradient of `x`
smallest case  b=3  n=2   shrunk in 7 runs
  backward()                          dy[2,1]/dx[2,1] = 2
  central differences of the forward  dy[2,1]/dx[2,1] = 1 +- 1e-12   stable for h = 1e-03 ... 4e-03""",
    ),
    "linear": (
        evidence("linear", worst=GRADIENT, facts={"relation": "B(2.5 u) against 2.5 B(u)"}),
        "GV201",
        """\
backward is not linear in the cotangent: the gradient of `x` (B(2.5 u) against 2.5 B(u))
smallest case  b=3  n=2   shrunk in 7 runs
  backward()    grad w[1] = 2
  by linearity  grad w[1] = 1 +- 1e-12""",
    ),
    "layout": (
        evidence("layout", worst=GRADIENT, facts={"layouts": "x transposed"}),
        "GV203",
        """\
result depends on the memory layout: the gradient of `x` (x transposed)
smallest case  b=3  n=2   shrunk in 7 runs
  backward()  grad w[1] = 2
  contiguous  grad w[1] = 1 +- 1e-12""",
    ),
    "purity": (
        evidence("purity", quantity="`w`", value=0.0, error=0.0, facts={"kind": "input", "phase": "backward"}),
        "GV202",
        """\
the op changes what it was given: `w` (backward)
smallest case  b=3  n=2   shrunk in 7 runs
2 elements changed after backward""",
    ),
    "repeat": (
        evidence("repeat", worst=GRADIENT, facts={"kind": "again", "differ": 3}),
        "GV204",
        """\
not repeatable: the gradient of `x`
smallest case  b=3  n=2   shrunk in 7 runs
  backward()      grad w[1] = 2
  the first call  grad w[1] = 1 +- 1e-12
3 elements differ between two calls""",
    ),
    "edges": (
        evidence("edges", worst=ENTRY, facts={"truth": TRUTH}),
        "GV206",
        """\
wrong at edge sizes: the gradient of `x`
smallest case  b=3  n=2   shrunk in 7 runs
  backward()                          dy[2,1]/dx[2,1] = 2
  central differences of the forward  dy[2,1]/dx[2,1] = 1 +- 1e-12""",
    ),
    "partial": (
        evidence("partial", worst=GRADIENT, facts={"mask": "gradients for w; outputs used 0"}),
        "GV205",
        """\
wrong under partial differentiation: the gradient of `x` (gradients for w; outputs used 0)
smallest case  b=3  n=2   shrunk in 7 runs
  backward()   grad w[1] = 2
  all at once  grad w[1] = 1 +- 1e-12""",
    ),
    "jvp": (
        evidence(
            "jvp",
            quantity="the tangent of output 0",
            worst=ENTRY,
            facts={"truth": TRUTH, "mask": "a tangent for x alone"},
        ),
        "GV401",
        """\
wrong forward-mode derivative: the tangent of output 0 (a tangent for x alone)
smallest case  b=3  n=2   shrunk in 7 runs
  jvp()                               dy[2,1]/dx[2,1] = 2
  central differences of the forward  dy[2,1]/dx[2,1] = 1 +- 1e-12""",
    ),
    "adjoint": (
        evidence(
            "adjoint",
            quantity="<u, J v>",
            worst=ENTRY,
            facts={
                "truth": "backward()",
                "third": TRUTH,
                "third_value": 1.0,
                "third_error": 1e-10,
                "third_said": "jvp() is off",
            },
        ),
        "GV402",
        """\
forward and reverse mode disagree about `x`: jvp() is off
smallest case  b=3  n=2   shrunk in 7 runs
  jvp()                               dy[2,1]/dx[2,1] = 2
  backward()                          dy[2,1]/dx[2,1] = 1 +- 1e-12
  central differences of the forward  dy[2,1]/dx[2,1] = 1 +- 1e-10""",
    ),
    "double_backward": (
        evidence("double_backward", quantity="the gradient of `x` by `u`", worst=SECOND, facts=OF_X),
        "GV501",
        """\
wrong double backward: the gradient of `x` by `u`
smallest case  b=3  n=2   shrunk in 7 runs
  backward, differentiated         d(grad x[2,1])/d(u[0,1]) = 2
  central differences of backward  d(grad x[2,1])/d(u[0,1]) = 1 +- 1e-12""",
    ),
    "special": (
        evidence(
            "special",
            quantity="output 0",
            value=0.0,
            error=0.0,
            facts={"kind": "output not finite", "found": "output 0[0,1] = nan", "wanted": "0 as the reference's"},
        ),
        "GV208",
        """\
forward differs from the reference: output 0
smallest case  b=3  n=2   shrunk in 7 runs
found output 0[0,1] = nan, wanted 0 as the reference's""",
    ),
    "lifetime": (
        evidence(
            "lifetime",
            worst=GRADIENT,
            facts={"kind": "in place", "phase": "`w` was changed in place before backward", "base": "the call alone"},
        ),
        "GV212",
        """\
an in-place change goes unseen: the gradient of `x` (`w` was changed in place before backward)
smallest case  b=3  n=2   shrunk in 7 runs
  backward()      grad w[1] = 2
  the call alone  grad w[1] = 1 +- 1e-12""",
    ),
    "memory": (
        evidence(
            "memory",
            quantity="`ctx.w`",
            value=0.0,
            error=0.0,
            facts={"kind": "attribute", "said": "it is the input `w`", "saves": "8 b bytes"},
        ),
        "GV207",
        """\
leaks or saves wrongly: `ctx.w`
smallest case  b=3  n=2   shrunk in 7 runs
it is the input `w`""",
    ),
    "complex": (
        evidence("complex", worst=GRADIENT, facts={"relation": "`x` lazily conjugated", "base": "resolved copies"}),
        "GV216",
        """\
wrong with complex numbers: the gradient of `x` (`x` lazily conjugated)
smallest case  b=3  n=2   shrunk in 7 runs
  backward()       grad w[1] = 2
  resolved copies  grad w[1] = 1 +- 1e-12""",
    ),
    "convention": (
        evidence(
            "convention",
            value=0.0,
            error=0.0,
            facts={"kind": "shape", "found": "float64 [3, 2]", "wanted": "float64 [2]"},
        ),
        "GV109",
        """\
gradient of the wrong shape, dtype or device: the gradient of `x`
smallest case  b=3  n=2   shrunk in 7 runs
found float64 [3, 2], wanted float64 [2]""",
    ),
    "precision": (
        evidence(
            "precision",
            worst=GRADIENT,
            facts={"kind": "over budget", "truth": "float64", "budget": "rounding explains 0.004", "safety": 3.0},
        ),
        "GV601",
        """\
over the precision budget: the gradient of `x`
smallest case  b=3  n=2   shrunk in 7 runs
  in float64  grad w[1] = 2
  float64     grad w[1] = 1 +- 1e-12
allowed are 3 error bars; rounding explains 0.004""",
    ),
    "transforms.vmap": (
        evidence("transforms.vmap", worst=GRADIENT, facts={**EAGER, "relation": "vmap, batch at axis 0 of `x`"}),
        "GV502",
        """\
wrong under vmap: the gradient of `x` (vmap, batch at axis 0 of `x`)
smallest case  b=3  n=2   shrunk in 7 runs
  vmap         grad w[1] = 2
  plain eager  grad w[1] = 1 +- 1e-12""",
    ),
    "transforms.func": (
        evidence("transforms.func", worst=GRADIENT, facts={**EAGER, "relation": "torch.func.vjp"}),
        "GV509",
        """\
torch.func disagrees with autograd: the gradient of `x` (torch.func.vjp)
smallest case  b=3  n=2   shrunk in 7 runs
  func         grad w[1] = 2
  plain eager  grad w[1] = 1 +- 1e-12""",
    ),
    "transforms.checkpoint": (
        evidence("transforms.checkpoint", worst=GRADIENT, facts={**EAGER, "relation": "checkpoint, reentrant"}),
        "GV506",
        """\
wrong under a checkpoint: the gradient of `x` (checkpoint, reentrant)
smallest case  b=3  n=2   shrunk in 7 runs
  checkpoint   grad w[1] = 2
  plain eager  grad w[1] = 1 +- 1e-12""",
    ),
    "transforms.hooks": (
        evidence(
            "transforms.hooks",
            analytic=6.0,
            value=0.0,
            error=0.0,
            quantity="`ctx.mask`",
            facts={"kind": "unseen", "said": "`ctx.mask` holds 6 elements that hooks do not see"},
        ),
        "GV210",
        """\
saved-tensor hooks: `ctx.mask`
smallest case  b=3  n=2   shrunk in 7 runs
`ctx.mask` holds 6 elements that hooks do not see""",
    ),
    "transforms.autocast": (
        evidence(
            "transforms.autocast",
            analytic=6.0,
            value=0.0,
            error=0.0,
            quantity="the backward of Gated",
            facts={"kind": "state", "said": "called under autocast it gives 6 other numbers than outside"},
        ),
        "GV507",
        """\
wrong under autocast: the backward of Gated
smallest case  b=3  n=2   shrunk in 7 runs
called under autocast it gives 6 other numbers than outside""",
    ),
    "transforms.threads": (
        evidence("transforms.threads", worst=GRADIENT, facts={**EAGER, "relation": "two threads at once"}),
        "GV511",
        """\
wrong in two threads at once: the gradient of `x` (two threads at once)
smallest case  b=3  n=2   shrunk in 7 runs
  threads      grad w[1] = 2
  plain eager  grad w[1] = 1 +- 1e-12""",
    ),
    "transforms.pickle": (
        evidence("transforms.pickle", worst=GRADIENT, facts={**EAGER, "relation": "copy.deepcopy"}),
        "GV510",
        """\
a copy of the op is another op: the gradient of `x` (copy.deepcopy)
smallest case  b=3  n=2   shrunk in 7 runs
  pickle       grad w[1] = 2
  plain eager  grad w[1] = 1 +- 1e-12""",
    ),
    "transforms.opcheck": (
        evidence(
            "transforms.opcheck",
            analytic=1.0,
            value=0.0,
            error=0.0,
            quantity="opcheck's test_schema",
            facts={"kind": "opcheck", "said": "RuntimeError: Argument x is not defined as mutable but was mutated"},
        ),
        "GV504",
        """\
opcheck fails: opcheck's test_schema
smallest case  b=3  n=2   shrunk in 7 runs
RuntimeError: Argument x is not defined as mutable but was mutated""",
    ),
    "transforms.compile": (
        evidence("transforms.compile", worst=GRADIENT, facts={**EAGER, "relation": "compiled"}),
        "GV503",
        """\
wrong under torch.compile: the gradient of `x` (compiled)
smallest case  b=3  n=2   shrunk in 7 runs
  compile      grad w[1] = 2
  plain eager  grad w[1] = 1 +- 1e-12""",
    ),
}


def test_there_is_a_text_for_every_claim():
    assert tuple(GOLDEN) == tuple(CLAIMS)


@pytest.mark.parametrize("claim", GOLDEN)
def test_a_failing_claim_reads_so(claim):
    e, code, wanted = GOLDEN[claim]
    assert text(finding(e, code, runs=7)) == wanted


def test_a_plain_pass_has_no_finding_and_a_warned_one_has():
    assert finding(evidence(), "", Outcome.PASS) is None
    assert finding(evidence(), "GV602", Outcome.PASS, digits=7.25).summary == (
        "imprecise: the gradient of `x` agrees to 7.2 digits"
    )


def test_a_straight_through_without_a_contract_is_told_what_to_declare():
    found = finding(evidence(worst=ENTRY, neighbourhood="flat"), "GV112")
    assert found.summary == (
        "straight-through without a contract: the forward is flat, backward returns a gradient for `x`"
    )
    assert "backward_of=" in found.remedy


@pytest.mark.parametrize("neighbourhood", CAUSE)
def test_an_undecided_claim_names_its_cause(neighbourhood):
    e = evidence(neighbourhood=neighbourhood, error=0.1)
    found = finding(e, "GV303", Outcome.INCONCLUSIVE, reason="3 of 20 cases resolved")
    assert found.summary == f"{TITLES['GV303']}: 3 of 20 cases resolved; {CAUSE[neighbourhood]}"


def test_a_slope_that_is_visible_is_undecided_for_another_reason():
    found = finding(evidence(error=1e-12), "GV303", Outcome.INCONCLUSIVE)
    assert found.summary.endswith("a mismatch was seen that did not come again: is something kept between calls?")


def test_a_wrong_reference_is_the_cause_and_a_cause_that_was_measured_stands_before_the_neighbourhood():
    wrong = finding(evidence(facts={"kind": "reference"}), "GV303", Outcome.INCONCLUSIVE)
    assert wrong.summary.endswith("the reference's own gradient does not agree with its differences")
    told = finding(evidence(facts={"cause": "nowhere finite"}), "GV303", Outcome.INCONCLUSIVE)
    assert told.summary.endswith("nowhere finite")


@pytest.mark.parametrize(
    ("claim", "analytic", "numeric", "contract", "said"),
    [
        ("vjp", 0.0, 1.0, Contract(), True),
        ("special", 0.0, 1.0, Contract(), True),
        ("edges", 0.0, 1.0, Contract(), False),
        ("vjp", 1e-16, 1.0, Contract(), False),
        ("vjp", 0.0, 1e-13, Contract(), False),
        ("layout", 0.0, 1.0, Contract(), False),
        ("vjp", 0.0, 1.0, Contract(kind="backward_of", formula=abs), False),
    ],
)
def test_a_gradient_that_is_zero_on_purpose_is_told_how_to_be_declared(claim, analytic, numeric, contract, said):
    place = Mismatch(**{**msgspec.to_builtins(ENTRY), "analytic": analytic, "numeric": numeric})
    e = evidence(claim, worst=place, facts={"truth": TRUTH})
    spec = SPEC.with_(contract=contract)
    assert finding(e, "GV199", spec=spec).remedy == (WITHHELD if said else None)


def test_a_remedy_is_only_for_the_codes_that_have_one():
    for code in TITLES:
        assert finding(evidence(), code, Outcome.FAIL, digits=7.0).remedy == REMEDIES.get(code)


def test_at_a_kink_the_slopes_that_would_do_are_told():
    found = finding(evidence(worst=ENTRY, interval=(0.0, 1.0), facts={"truth": TRUTH}), "GV199")
    assert found.lines[-1].endswith("+- 1e-12   any slope in [0, 1] would do")


def test_the_case_is_told_by_what_is_not_plain():
    case = Case(
        spec="scale",
        claim="vjp",
        dims=(("b", (2, 3)), ("n", 5)),
        kwargs=(("mode", "sum"), ("eps", 0.5)),
        values=(("x", "zeros"), ("w", "decimals")),
        layouts=(("x", "contiguous"), ("w", "sliced")),
    )
    lines = finding(evidence(case=case), "GV199").lines
    assert lines[0] == "smallest case  b=2x3  n=5  mode='sum'  eps=0.5  x with zeros  w sliced"
    given = finding(evidence(case=Case(spec="scale", claim="vjp")), "GV199").lines
    assert given[0] == "smallest case  the given inputs"


def test_what_was_found_wanted_and_said_is_repeated():
    facts = {"kind": "shape", "found": "[2]", "wanted": "[3]", "said": "no such stride"}
    lines = finding(evidence("layout", value=0.0, error=0.0, facts=facts), "GV203").lines
    assert lines[-2:] == ("found [2], wanted [3]", "no such stride")


def test_one_of_a_thing_is_told_in_the_singular():
    assert finding(evidence(), "GV199", runs=1).lines[0].endswith("   shrunk in 1 run")
    one = evidence("repeat", worst=GRADIENT, facts={"kind": "again", "differ": 1})
    assert finding(one, "GV204").lines[-1] == "1 element differs between two calls"


def test_a_breach_that_says_what_it_is_counts_no_elements():
    raised = evidence("layout", analytic=1.0, value=0.0, error=0.0, facts={"kind": "call", "said": "it raised"})
    assert finding(raised, "GV203").lines == ("smallest case  b=3  n=2", "it raised")


def test_a_gradient_that_is_not_finite_is_no_matter_of_rounding():
    e = evidence("linear", analytic=math.nan, value=math.nan, error=math.nan)
    assert finding(e, "GV303", Outcome.INCONCLUSIVE).summary.endswith("the op's own number is not finite")


def test_a_direction_and_a_second_output_have_names_too():
    along = Mismatch(argument="", index=None, output=1, output_index=(4,), **PLACE)
    assert "dy1[4] along d = 2" in text(finding(evidence(worst=along), "GV199"))
    assert "<u, J d> = 2" in text(finding(evidence(worst=None), "GV199"))
    scalar = Mismatch(argument="x", index=(), output=0, output_index=(), **PLACE)
    assert "dy/dx = 2" in text(finding(evidence(worst=scalar), "GV199"))


def test_a_number_that_is_unknown_is_printed_as_such():
    assert "nan" in text(finding(evidence(analytic=math.nan), "GV111"))


def test_the_finding_holds_the_case_and_the_place_of_the_spec():
    e = evidence()
    found = finding(e, "GV199")
    assert (found.code, found.minimal, found.location) == ("GV199", e.case, SPEC.source)


def test_a_third_opinion_without_a_number_says_so():
    facts = {"truth": "backward()", "third": TRUTH, "third_said": "cannot tell which is off"}
    found = finding(evidence("adjoint", quantity="<u, J v>", facts=facts), "GV402")
    assert found.lines[-3:] == (
        "  jvp()                               <u, J v> = 2",
        "  backward()                          <u, J v> = 1 +- 1e-12",
        "  central differences of the forward  cannot tell which is off",
    )


def test_a_tangent_of_a_flat_forward_is_told_what_to_declare():
    found = finding(evidence("jvp", worst=ENTRY, facts={"truth": TRUTH}), "GV112")
    assert found.summary == "straight-through without a contract: the forward is flat, jvp returns a tangent for `x`"


def test_what_a_frozen_argument_adds_is_counted():
    frozen = evidence(
        "jvp", quantity="the output tangents from the frozen `w`", value=0.0, error=0.0, facts={"kind": "frozen"}
    )
    assert finding(frozen, "GV401").lines[-1] == "2 elements not zero"


def test_a_gradient_of_zero_may_be_one_that_was_not_returned():
    assert "dy[2,1]/dx[2,1] = 0   (or None)" in text(finding(evidence(analytic=0.0, worst=ENTRY), "GV199"))
    assert "(or None)" not in text(finding(evidence(worst=ENTRY), "GV199"))


@pytest.mark.parametrize(
    "said",
    [
        "tensors used as indices must be long, int, byte or bool tensors",
        "index_select(): Expected dtype int32 or int64 for index",
        "one_hot is only applicable to index tensor of type LongTensor.",
        "expected target dtype to be Long or Byte, but got Double",
        "masked_fill_ only supports boolean masks, but got mask with dtype double",
    ],
)
def test_an_op_that_wants_integers_is_answered_with_how_to_declare_them(said):
    assert "gv.index" in remedy_of_raised("GV902", f"f: the forward raised RuntimeError: {said}")
    assert "gv.index" not in remedy_of_raised("GV904", said)


@pytest.mark.parametrize(
    "said",
    [
        "The size of tensor a (2) must match the size of tensor b (3) at non-singleton dimension 1",
        "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)",
        "size mismatch, got input (3), mat (3x2), vec (3)",
    ],
)
def test_sizes_that_do_not_fit_are_answered_with_letters(said):
    assert remedy_of_raised("GV902", f"f: the forward raised RuntimeError: {said}").startswith(
        "sizes that must be equal"
    )


def test_other_exceptions_are_met_by_mending_the_op_or_its_domain():
    assert remedy_of_raised("GV902", "f: the forward raised ValueError: no kernel").startswith(
        "mend the op; inputs that"
    )
    assert remedy_of_raised("GV109", "") is None
