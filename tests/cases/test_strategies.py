import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, find, given, seed, settings
from hypothesis import strategies as st

import gradverify as gv
from gradverify.cases import sizes
from gradverify.cases.materialise import materialise
from gradverify.cases.strategies import allowed, cases, masks, pinned
from gradverify.errors import SpecError
from gradverify.records.case import Case
from gradverify.records.spec import Arg, Spec

CLAIMS = (
    "forward",
    "vjp",
    "linear",
    "layout",
    "purity",
    "repeat",
    "edges",
    "partial",
    "jvp",
    "adjoint",
    "double_backward",
    "special",
    "lifetime",
    "memory",
    "convention",
)
LINEAR = Spec(
    name="linear",
    op=None,
    args=(Arg(name="x", shape="*b k"), Arg(name="w", shape="k n"), Arg(name="bias", shape="n", optional=True)),
    kwargs={"causal": (False, True), "kind": ("a", "b")},
)
TRICKY = Spec(
    name="tricky",
    op=None,
    args=(
        Arg(name="q", shape="#b #*s n d"),
        Arg(name="k", shape="b *s m d"),
        Arg(name="r", shape="n+m-1 d//2", domain=gv.positive),
        Arg(name="p", shape="_ m", domain=gv.prob("m")),
        Arg(name="t", shape="b", domain=gv.index("m"), role="integer"),
        Arg(name="c", shape="... d d", domain=gv.spd),
    ),
    dims={"d": gv.one_of(2, 4, 64), "n": gv.dim(0, 300, around=(64, 128))},
)
plain = settings(
    max_examples=100, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def drawn(spec: Spec, claim: str, count: int = 100) -> list[Case]:
    found: list[Case] = []

    @seed(1)
    @settings(plain, max_examples=count)
    @given(cases(spec, claim))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


sample = lru_cache(drawn)


def minimal(spec: Spec, claim: str, wanted: Callable[[Case], bool]) -> Case:
    return find(
        cases(spec, claim), wanted, settings=settings(max_examples=2000, database=None, derandomize=True, deadline=None)
    )


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("spec", [LINEAR, TRICKY], ids=lambda s: s.name)
def test_every_drawn_case_materialises_within_the_cap_of_elements(spec: Spec, claim: str) -> None:
    for case in sample(spec, claim):
        for tensor in materialise(spec, case).primals.values():
            assert tensor is None or tensor.numel() <= sizes.MAX_ELEMENTS


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_same_seed_draws_the_same_cases(claim: str) -> None:
    assert drawn(LINEAR, claim, 30) == drawn(LINEAR, claim, 30)


def test_an_expression_is_never_negative() -> None:
    valid = Spec(
        name="conv", op=None, args=(Arg(name="x", shape="n"), Arg(name="w", shape="k"), Arg(name="y", shape="n-k+1"))
    )
    for claim in CLAIMS:
        for case in drawn(valid, claim, 50):
            assert materialise(valid, case).primals["y"].numel() >= 0


def test_sizes_that_a_spec_demands_above_the_cap_are_drawn() -> None:
    large = Spec(name="f", op=None, args=(Arg(name="x", shape="k k"),), dims={"k": gv.one_of(128, 256)})
    assert {dict(c.dims)["k"] for c in drawn(large, "vjp", 20)} == {128}


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c != "edges"])
def test_only_the_edges_draw_empty_tensors(claim: str) -> None:
    assert all(n > 0 for c in sample(LINEAR, claim) for n in (dict(c.dims)["k"], dict(c.dims)["n"], *dict(c.dims)["b"]))


def test_the_edges_draw_empty_single_and_straddling_sizes() -> None:
    sizes = {dict(c.dims)["k"] for c in sample(LINEAR, "edges", 200)}
    assert {0, 1} < sizes
    assert sizes & {63, 64, 65, 127, 128, 129, 257}


def test_only_the_layout_claim_varies_layouts() -> None:
    for claim in CLAIMS:
        varied = any(c.layouts for c in sample(LINEAR, claim))
        assert varied == (claim == "layout")


def test_only_partial_and_jvp_leave_inputs_out() -> None:
    for claim in CLAIMS:
        found = sample(LINEAR, claim)
        masked = any(
            set(c.differentiate) < {n for n in ("x", "w", "bias") if dict(c.values).get(n) != "none"} for c in found
        )
        assert masked == (claim in ("partial", "jvp"))


def test_every_mask_of_few_arguments_and_a_covering_set_of_many() -> None:
    assert len(masks(("a", "b", "c", "d"))) == 15
    names = tuple("abcdefg")
    many = masks(names)
    assert len(many) == len(set(many)) == 1 + 2 * 7 + 2 * 3
    for one, other in itertools.permutations(names, 2):
        ways = {(one in m, other in m) for m in many}
        assert ways == {(True, True), (True, False), (False, True), (False, False)}


def test_keywords_take_all_their_documented_values() -> None:
    found = sample(LINEAR, "vjp")
    assert {dict(c.kwargs)["kind"] for c in found} == {"a", "b"}
    assert {dict(c.kwargs)["causal"] for c in found} == {False, True}


def test_hard_values_are_drawn_for_the_gradient_and_only_tame_ones_for_the_layout() -> None:
    def words(claim: str) -> set[str]:
        return {r for c in sample(LINEAR, claim, 600) for _, r in c.values}

    assert {"zeros", "ties", "bounds", "saturated", "shifted", "ramp", "ones", "decimals"} < words("vjp")
    assert words("layout") <= {"decimals", "repeated"}
    assert any(w.startswith("scaled") for w in words("linear"))


def test_most_cases_of_a_gradient_hold_ordinary_values_only() -> None:
    ordinary = {"normal", "decimals", "ramp", "ones", "none"}
    found = sample(LINEAR, "vjp", 300)
    assert sum(all(r in ordinary for _, r in c.values) for c in found) > 0.6 * len(found)


def test_a_failure_shrinks_to_the_smallest_sizes_and_the_plainest_rest() -> None:
    case = minimal(LINEAR, "vjp", lambda c: dict(c.dims)["k"] > 4)
    assert dict(case.dims) == {"b": (1,), "k": 5, "n": 1}
    assert dict(case.kwargs) == {"causal": False, "kind": "a"}
    assert set(dict(case.values).values()) <= {"decimals", "ones", "none"}


def test_a_failure_beyond_a_block_shrinks_to_one_above_it() -> None:
    blocked = LINEAR.with_(dims={"k": gv.dim(around=20)})
    assert dict(minimal(blocked, "edges", lambda c: dict(c.dims)["k"] > 20).dims)["k"] == 21


def test_a_failure_in_one_layout_shrinks_to_that_layout_alone() -> None:
    case = minimal(LINEAR, "layout", lambda c: dict(c.layouts).get("w") == "sliced")
    assert case.layouts == (("w", "sliced"),)
    assert set(case.cotangents) == {"contiguous"}


def test_where_is_asked_by_name_and_its_refusals_are_not_filtered() -> None:
    spec = LINEAR.with_(where=lambda k, causal: k > 2 or causal)
    verdicts = [(allowed(spec, c), dict(c.dims)["k"] > 2 or dict(c.kwargs)["causal"]) for c in drawn(spec, "vjp")]
    assert all(one == other for one, other in verdicts)
    assert {one for one, _ in verdicts} == {True, False}


def test_where_that_asks_for_an_unknown_name_is_refused() -> None:
    spec = LINEAR.with_(where=lambda q: q > 2)
    with pytest.raises(SpecError, match="'q'"):
        allowed(spec, drawn(spec, "vjp", 1)[0])


def test_pinned_examples_are_cases() -> None:
    spec = LINEAR.with_(examples=(gv.example(k=65, causal=True), gv.example(b=(2, 2))))
    first, second = pinned(spec, "vjp")
    assert (dict(first.dims), dict(first.kwargs)) == ({"b": (), "k": 65, "n": 1}, {"causal": True, "kind": "a"})
    assert dict(second.dims)["b"] == (2, 2)
    assert first.differentiate == ("x", "w", "bias")


def test_inputs_from_a_function_of_draw_are_stored_exactly_even_where_they_are_global_randomness() -> None:
    def ragged(draw: Callable) -> dict[str, object]:
        lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
        return {"x": torch.rand(sum(lengths)), "w": torch.ones(2, 1), "causal": len(lengths) > 1}

    spec = LINEAR.with_(inputs=ragged)
    state = torch.get_rng_state()
    found = drawn(spec, "vjp", 30)
    assert found == drawn(spec, "vjp", 30)
    assert torch.equal(state, torch.get_rng_state())
    for case in found:
        point = materialise(spec, case)
        assert point.primals["x"].dtype == torch.float64
        assert point.primals["bias"] is None
        assert case.differentiate == ("x", "w")
        assert msgspec.json.decode(msgspec.json.encode(case), type=Case) == case


def test_inputs_from_a_strategy_are_varied_in_their_layout() -> None:
    sizes = st.integers(2, 4)
    spec = LINEAR.with_(inputs=st.builds(lambda n: {"x": torch.rand(n, n), "w": torch.rand(n, 2), "bias": None}, sizes))
    assert {name for c in drawn(spec, "layout") for _, name in c.layouts} >= {"transposed", "sliced"}


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"x": torch.ones(1)}, "gives no 'w'"),
        ({"x": torch.ones(1), "w": torch.ones(1), "y": 1}, "'y', which is no argument"),
        ({"x": torch.ones(1), "w": 3}, "give a tensor"),
        ({"x": torch.ones(1), "w": torch.ones(1), "kind": [1]}, "'kind'"),
        ([1], "give a dict"),
    ],
)
def test_inputs_that_do_not_fit_the_spec_are_refused(given_: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        drawn(LINEAR.with_(inputs=lambda draw: given_), "vjp", 1)


def _raises(*_: object) -> None:
    raise KeyError("slip")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": _raises}, "f: inputs= raised KeyError: 'slip'; mend it in the spec"),
        ({"inputs": st.builds(_raises)}, "f: inputs= raised KeyError"),
        ({"inputs": lambda draw: draw(3)}, "f: inputs= raised"),
        ({"args": (Arg(name="x", shape="n", strategy=st.builds(_raises)),)}, "f: the strategy of 'x' raised KeyError"),
    ],
)
def test_what_the_authors_code_raises_is_told_as_theirs(fields: dict, message: str) -> None:
    spec = Spec(None, **{"name": "f", "args": (Arg("n", name="x"),), **fields})
    with pytest.raises(SpecError, match=message):
        drawn(spec, "vjp", 1)


def test_a_where_that_raises_is_told_as_its_authors() -> None:
    spec = LINEAR.with_(where=lambda k: 1 // 0)
    with pytest.raises(SpecError, match=r"where= raised ZeroDivisionError: .*; mend it in the spec"):
        allowed(spec, drawn(LINEAR, "vjp", 1)[0])


def test_inputs_may_refuse_a_draw() -> None:
    def odd(draw: Callable) -> dict[str, object]:
        n = draw(st.integers(1, 4))
        assume(n % 2)
        return {"x": torch.ones(n)}

    spec = Spec(None, name="f", args=(Arg("n", name="x"),), inputs=odd)
    assert {materialise(spec, c).primals["x"].numel() for c in drawn(spec, "vjp", 20)} == {1, 3}


def test_an_argument_may_bring_its_own_strategy() -> None:
    own = Arg(name="x", shape="k", strategy=st.sampled_from([torch.zeros(3), torch.ones(3)]))
    spec = Spec(name="f", op=None, args=(own, Arg(name="y", shape="k")))
    found = drawn(spec, "vjp", 20)
    assert {float(materialise(spec, c).primals["x"].sum()) for c in found} == {0.0, 3.0}


@pytest.mark.parametrize("claim", ["edges", "vjp"])
def test_an_expression_over_letters_makes_no_tensor_huge(claim) -> None:
    """Where two edges do not fit into one tensor, the second letter is as small as it may be."""
    grouped = Spec(name="grouped", op=None, args=(Arg(name="x", shape="b 2*g n"), Arg(name="w", shape="2*g")))
    counts = [math.prod(dict(c.dims)[n] for n in "bgn") * 2 for c in sample(grouped, claim)]
    assert max(counts) <= sizes.MAX_OUTPUT
