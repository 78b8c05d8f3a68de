"""What people read: exact texts in tests/golden, and the rules that every text keeps."""

from __future__ import annotations

import math
import re

import msgspec
import pytest

from gradverify.records.case import Case
from gradverify.records.claims import CLAIMS
from gradverify.records.evidence import Fact
from gradverify.records.finding import Finding
from gradverify.records.run import Input, Run
from gradverify.records.verdict import Cases, Outcome, Result
from gradverify.reports.console import View, render
from gradverify.reports.lines import result_lines
from gradverify.reports.style import WIDTH, Style
from tests.reports import runs

TEXTS = {
    "passing": (runs.PASSING, View()),
    "passing-verbose": (runs.PASSING, View(verbose=True)),
    "failing": (runs.FAILING, View()),
    "failing-verbose": (runs.FAILING, View(verbose=True)),
    "failing-ascii": (runs.FAILING, View(style=Style(unicode=False))),
    "failing-colour": (runs.FAILING, View(style=Style(colour=True))),
    "inconclusive": (runs.UNJUDGED, View()),
    "imprecise": (runs.run(runs.op(runs.IMPRECISE)), View()),
    "op-raises": (runs.run(runs.op(runs.RAISED)), View()),
    "table": (runs.MIXED, View(form="table")),
    "table-ascii": (runs.MIXED, View(form="table", style=Style(unicode=False))),
    "concise": (runs.MIXED, View(form="concise")),
    "quiet": (runs.MIXED, View(form="quiet")),
    "interrupted": (runs.run(runs.op(runs.passed("vjp")), interrupted=True), View()),
    "nothing": (runs.run(), View()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_is_the_golden_one(name: str, golden) -> None:
    run, view = TEXTS[name]
    golden(f"{name}.txt", render(run, view))


@pytest.mark.parametrize("name", [n for n in TEXTS if not n.startswith(("concise", "quiet"))])
def test_no_line_is_wider_than_the_page(name: str) -> None:
    """But for what cannot be broken: a case as JSON under -v."""
    run, view = TEXTS[name]
    plain = re.sub("\x1b\\[[0-9]*m", "", render(run, view))
    assert [line for line in plain.splitlines() if len(line) > WIDTH and '{"spec"' not in line] == []


def test_an_op_that_raises_is_shown_with_the_sizes_it_raised_at() -> None:
    case = Case(spec="op", claim="edges", dims=(("b", (2, 3)), ("k", 0), ("c", ())), kwargs=(("eps", 0.5),))
    finding = Finding(code="GV902", summary="the backward raised RuntimeError", minimal=case)
    raised = runs.passed("edges", outcome=Outcome.ERROR, code="GV902", finding=finding)
    assert "\n      case  b=2x3  k=0  c=()  eps=0.5\n" in render(runs.run(runs.op(raised)), View())


@pytest.mark.parametrize("name", ["failing", "table"])
def test_ascii_text_is_ascii(name: str) -> None:
    run, view = TEXTS[name]
    render(run, msgspec.structs.replace(view, style=Style(unicode=False))).encode("ascii")


def test_colours_only_colour() -> None:
    coloured = render(runs.FAILING, View(style=Style(colour=True)))
    assert "\x1b[" in coloured
    assert re.sub("\x1b\\[[0-9]*m", "", coloured) == render(runs.FAILING, View())


def test_a_finding_is_at_most_thirty_lines() -> None:
    long = Finding(code="GV199", summary="wrong gradient", lines=tuple(f"fact {i}" for i in range(100)))
    failed = runs.passed("vjp", outcome=Outcome.FAIL, code="GV199", finding=long)
    text = render(runs.run(runs.op(failed)), View())
    assert len(text.splitlines()) <= 34
    assert "72 more lines in the JSON (--json)" in text


def test_draws_without_use_are_counted_once_and_named_where_they_are_the_most() -> None:
    some = runs.passed("layout", cases=Cases(run=20, invalid=3, redrawn=2))
    text = render(runs.run(runs.op(runs.passed("vjp"), some)), View())
    assert "PASS  2 checks, 40 cases (2 redrawn, 3 draws left out), 1.4 s" in text
    assert text.count("left out") == text.count("redrawn") == 1
    most = runs.passed("layout", cases=Cases(run=20, invalid=30, redrawn=11))
    words = " ".join(render(runs.run(runs.op(most)), View()).split())
    assert "30 of 50 draws left out: where= refused them" in words
    assert "11 of 20 cases redrawn: nothing could be judged there" in words


def test_what_several_claims_say_alike_is_said_once() -> None:
    raised = [msgspec.structs.replace(runs.RAISED, claim=c) for c in ("forward", "vjp", "linear")]
    text = render(runs.run(runs.op(*raised)), View())
    assert text.count("sizes 3 and 4") == 1
    assert "\n  ✗ vjp, linear: GV902 as for forward\n" in text
    assert render(runs.run(runs.op(*raised)), View(verbose=True)).count("sizes 3 and 4") == 3
    table = render(runs.run(runs.op(*raised), runs.op(runs.VJP_FAIL)), View(form="table"))
    assert table.count("sizes 3 and 4") == 1


def test_a_row_of_a_table_goes_on_below_where_much_is_wrong() -> None:
    wrong = [runs.passed(claim, code=f"GV{600 + number}") for number, claim in enumerate(CLAIMS)]
    text = render(runs.run(runs.op(*wrong)), View(form="concise"))
    assert all(f"{r.claim} {r.code}" in text for r in wrong)
    assert "\n" + " " * 26 + "! " in text
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_a_row_of_a_table_says_a_code_once() -> None:
    claims = tuple(CLAIMS)
    several = [runs.passed(c, code="GV602") for c in claims[:3]]
    many = [msgspec.structs.replace(runs.RAISED, claim=c) for c in claims[3:9]]
    row = render(runs.run(runs.op(*several, *many)), View(form="concise")).splitlines()[2]
    assert row.split(maxsplit=1)[1] == f"! {', '.join(claims[:3])} GV602  ✗ {claims[3]} +5 GV902"


CHILDREN = [runs.passed(f"transforms.{c}", cases=Cases(run=3)) for c in ("vmap", "checkpoint", "hooks")]


def test_graph_breaks_and_outputs_without_a_gradient_are_notes():
    compiled = runs.passed("transforms.compile", measured={"graph breaks": 2})
    text = render(runs.run(runs.op(*CHILDREN, compiled, runs.passed("vjp", measured={"marked": "1"}))), View())
    assert "✓ transforms.compile  20 cases   compiled, values and gradients are the same; 2 graph\n" in text
    assert "vmap, checkpoint, hooks: as in plain eager" in text
    assert "output 1 is marked as non-differentiable" in " ".join(text.split())


def test_the_passing_children_of_a_family_are_one_line() -> None:
    text = render(runs.run(runs.op(runs.passed("linear"), *CHILDREN)), View())
    assert text.count("transforms") == 1
    assert "\n  ✓ transforms       9 cases    vmap, checkpoint, hooks: as in plain eager\n" in text
    assert render(runs.run(runs.op(*CHILDREN)), View(verbose=True)).count("✓ transforms.") == 3


def test_a_failing_child_of_a_family_stands_for_itself() -> None:
    wrong = msgspec.structs.replace(runs.VJP_FAIL, claim="transforms.checkpoint", code="GV506")
    text = render(runs.run(runs.op(CHILDREN[0], wrong, CHILDREN[2])), View())
    assert text.index("✓ transforms       6 cases    vmap, hooks: as in plain") < text.index(
        "✗ transforms.checkpoint  GV506"
    )


def test_under_quiet_claims_that_say_the_same_share_a_line() -> None:
    raised = [msgspec.structs.replace(runs.RAISED, claim=c) for c in ("forward", "vjp", "linear")]
    other = msgspec.structs.replace(runs.RAISED, claim="vjp", dtype="float32")
    text = render(runs.run(runs.op(*raised, other, spec="f")), View(form="quiet"))
    assert [line.split(" GV902")[0] for line in text.splitlines()] == [
        "ERROR f forward,vjp,linear[cpu-float64]",
        "ERROR f vjp[cpu-float32]",
    ]


def failing(claim: str, code: str, **facts: Fact) -> Result:
    """A claim that has run into the fault that vjp shows."""
    worst = runs.verdict(Outcome.FAIL, code)
    evidence = msgspec.structs.replace(worst.evidence, claim=claim, facts={**worst.evidence.facts, **facts})
    finding = Finding(code=code, summary=f"what {claim} says", lines=(f"the block of {claim}",))
    worst = msgspec.structs.replace(worst, evidence=evidence)
    return msgspec.structs.replace(runs.VJP_FAIL, claim=claim, code=code, worst=worst, finding=finding)


EDGES, SPECIAL = failing("edges", "GV206"), failing("special", "GV215")
ADJOINT = failing("adjoint", "GV402", third_said="backward() is off")


def test_claims_that_run_into_the_fault_of_vjp_are_listed_under_it() -> None:
    run = runs.run(runs.op(runs.VJP_FAIL, EDGES, runs.passed("partial"), ADJOINT, SPECIAL))
    text = render(run, View())
    assert "\n  ✗ edges GV206, adjoint GV402, special GV215: the same fault as vjp\n" in text
    assert "the block of" not in text
    assert "the block of edges" in render(run, View(verbose=True))
    assert "  ✗ edges GV206, adjoint GV402, special GV215: the same fault as vjp\n" in render(run, View(form="table"))
    assert "FAIL mypkg.ops:FusedLinear vjp,edges,adjoint,special[cpu-float64] GV199" in render(run, View(form="quiet"))


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (runs.passed("vjp"), EDGES),
        (runs.VJP_FAIL, msgspec.structs.replace(EDGES, dtype="float32")),
        (runs.VJP_FAIL, failing("special", "GV111")),
        (runs.VJP_FAIL, failing("partial", "GV205")),
        (runs.VJP_FAIL, failing("adjoint", "GV402", third_said="jvp() is off")),
        (runs.VJP_FAIL, failing("adjoint", "GV402", third_said="cannot tell which is off")),
        (failing("jvp", "GV401"), failing("adjoint", "GV402", third_said="backward() is off")),
    ],
)
def test_a_fault_that_no_other_claim_explains_is_shown_in_full(first: Result, other: Result) -> None:
    text = render(runs.run(runs.op(first, other)), View())
    assert f"the block of {other.claim}" in text
    assert "the same fault" not in text


def raising(claim: str, said: str, *, outcome: Outcome = Outcome.ERROR) -> Result:
    result = failing(claim, "GV109", said=said)
    return msgspec.structs.replace(result, outcome=outcome)


def test_an_op_that_raises_may_name_other_sizes_each_time() -> None:
    first, other = raising("vjp", "f: sizes 2 and 3"), raising("layout", "f: sizes 5 and 7")
    assert "✗ layout: GV109 as for vjp\n" in render(runs.run(runs.op(first, other)), View())
    words = render(runs.run(runs.op(first, raising("layout", "f: out of luck"))), View())
    assert "as for" not in words


def test_what_a_claim_quotes_of_the_op_is_not_quoted_again() -> None:
    first, quoted = raising("vjp", "f: returned 1"), raising("convention", "f: returned 1", outcome=Outcome.FAIL)
    assert "✗ convention: GV109 as for vjp\n" in render(runs.run(runs.op(first, quoted)), View())


def not_finite(claim: str, outcome: Outcome, code: str) -> Result:
    result = failing(claim, code)
    assert result.worst is not None
    lost = msgspec.structs.replace(result.worst.evidence, analytic=math.nan)
    return msgspec.structs.replace(
        result, outcome=outcome, worst=msgspec.structs.replace(result.worst, evidence=lost, outcome=outcome)
    )


def test_a_gradient_that_is_not_finite_explains_what_cannot_be_judged_of_it() -> None:
    first, other = not_finite("vjp", Outcome.FAIL, "GV111"), not_finite("linear", Outcome.INCONCLUSIVE, "GV303")
    assert "? linear: GV303 as for vjp\n" in render(runs.run(runs.op(first, other)), View())
    elsewhere = failing("linear", "GV303")
    unsure = msgspec.structs.replace(elsewhere, outcome=Outcome.INCONCLUSIVE)
    assert "the block of linear" in render(runs.run(runs.op(first, unsure)), View())


@pytest.mark.parametrize("style", [Style(), Style(unicode=False)])
def test_an_input_is_not_broken_in_two(style: Style) -> None:
    inputs = [Input(name=f"weight_{i}", shape="*b", domain="positive", role="frozen") for i in range(4)]
    lines = render(runs.run(runs.op(inputs=tuple(inputs))), View(style=style)).splitlines()
    assert sum(line.count("Float[*b] positive no gradient") for line in lines) == 4
    assert all(len(line) <= WIDTH and line.isprintable() for line in lines)


def test_of_many_claims_with_one_fault_a_few_are_named() -> None:
    run = runs.run(runs.op(*(raising(c, "f: out of luck") for c in list(CLAIMS)[:9]), spec="f"))
    names = list(CLAIMS)
    assert f"\n  ✗ {', '.join(names[1:6])} and 3 more: GV109 as for forward\n" in render(run, View())
    assert render(run, View(form="quiet")).startswith("ERROR f forward+8[cpu-float64] GV109 ")


def test_below_a_table_what_is_listed_under_a_finding_takes_no_room() -> None:
    ops = [runs.op(*(raising(c, "f: out of luck") for c in CLAIMS), spec=f"f{i}") for i in range(12)]
    text = render(runs.run(*ops), View(form="table"))
    assert text.count("the block of forward") == 10
    assert "2 more findings are in the JSON (--json)" in text


def test_a_wrong_jvp_explains_that_the_modes_disagree() -> None:
    both = (failing("jvp", "GV401"), failing("adjoint", "GV402", third_said="jvp() is off"))
    assert "✗ adjoint: GV402 the same fault as jvp\n" in render(runs.run(runs.op(*both)), View())


def test_claims_of_another_dtype_keep_their_columns() -> None:
    low = [runs.passed(c, dtype="float32") for c in ("vjp", "partial")]
    lines = [line for line in render(runs.run(runs.op(*low)), View()).splitlines() if "[cpu-float32]" in line]
    assert len({re.search(r"\d+ case", line).start() for line in lines}) == 1


def test_a_table_shows_the_first_findings_and_counts_the_others() -> None:
    text = render(runs.run(*(runs.op(runs.VJP_FAIL, runs.UNSURE) for _ in range(7))), View(form="table"))
    assert text.count("smallest case") + text.count("error grows") == 10
    assert "4 more findings are in the JSON (--json)" in text


def test_without_a_finding_both_numbers_and_the_error_bar_stand_there() -> None:
    bare = msgspec.structs.replace(runs.VJP_FAIL, finding=None)
    text = render(runs.run(runs.op(bare)), View())
    for part in ("GV199 wrong gradient", "2.166630941", "1.083315471 +- 2e-12"):
        assert part in text


def test_an_expected_failure_is_counted_apart_and_does_not_fail() -> None:
    fields = {"outcome": Outcome.SKIP, "reason": "xfail GV199: #12 known", "xfailed": "GV199"}
    expected = msgspec.structs.replace(runs.VJP_FAIL, **fields)
    text = render(runs.run(runs.op(expected, runs.passed("linear"))), View())
    assert "(expected: GV199: #12 known)" in " ".join(text.split())
    assert text.splitlines()[-1].startswith("PASS  2 checks, 1 expected to fail")


def test_text_of_the_user_in_any_alphabet_reaches_an_ascii_terminal() -> None:
    run = runs.run(runs.op(runs.passed("vjp"), spec="größe_梯度", target="größe:梯度"))
    text = render(run, View(style=Style(unicode=False)))
    assert "gr\\xf6\\xdfe_\\u68af\\u5ea6" in text
    assert "größe_梯度" in render(run, View())


def test_no_text_names_a_command_that_does_not_exist() -> None:
    for name in TEXTS:
        assert not re.search(r"gradverify (?!0|check|list|show)\w+", render(*TEXTS[name]))


def test_a_report_read_back_renders_the_same() -> None:
    from gradverify.reports.json_ import dumps, loads

    for run, view in TEXTS.values():
        assert render(loads(dumps(run)), view) == render(run, view)


def test_an_empty_run_says_that_nothing_was_verified() -> None:
    assert render(Run(), View()).splitlines()[-1].startswith("NOTHING VERIFIED")


def lines_of(claim: str, **fields) -> str:
    result = Result(claim=claim, device="cpu", dtype="float64", outcome=Outcome.PASS, cases=Cases(run=4), **fields)
    return " ".join(" ".join(result_lines(result, style=Style())).split())


def test_what_an_op_saves_for_backward_stands_beside_memory() -> None:
    assert "; it saves 8 h s^2 bytes for backward beside its inputs" in lines_of(
        "memory", measured={"saves": "8 h s^2 bytes"}
    )
    assert lines_of("memory", measured={"saves": "nothing beside its inputs"}).endswith(
        "; it saves nothing beside its inputs for backward"
    )


def test_what_a_dtype_loses_of_a_gradient_stands_beside_precision() -> None:
    lost = "of the gradient of `x` float16 has 3 % rounded to zero; a loss scale of 2^9 saves it"
    flushed = "numbers below 6e-05 are flushed to zero here, also by plain torch"
    told = lines_of("precision", measured={"lost": lost, "subnormals": flushed, "growth": "not here"})
    assert told.endswith(f"values and gradients are as good as the dtype allows; {lost}; {flushed}")


def test_how_far_equal_calls_lie_apart_is_told_apart_from_whether_they_are_right() -> None:
    said = lines_of("repeat", code="GV204", digits=14.6)
    assert said.endswith(
        "GV204 not repeatable: agrees to 14 digits; equal calls lie apart by 3e-15 of an entry at most, "
        "which rounding explains"
    )
    assert lines_of("repeat").endswith("the same call gives the same bits")
