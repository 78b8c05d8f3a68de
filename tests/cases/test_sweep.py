import itertools

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import gradverify as gv
from gradverify.cases import regimes, shapes, sizes
from gradverify.cases.materialise import materialise
from gradverify.cases.pins import Pins
from gradverify.cases.strategies import allowed, cases
from gradverify.cases.sweep import CAP, SCALES, SPECIAL, keywords, spread, sweep
from gradverify.records.case import Case
from gradverify.records.spec import Arg, Spec

CLAIMS = ("forward", "vjp", "edges", "partial", "jvp", "layout", "special")
LINEAR = Spec(
    name="linear",
    op=None,
    args=(Arg(name="x", shape="*b k"), Arg(name="w", shape="k n"), Arg(name="bias", shape="n", optional=True)),
    kwargs={"causal": (False, True), "kind": ("a", "b", "c")},
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
        Arg(name="mask", shape="n m", domain=gv.boolean, role="mask"),
    ),
    dims={"d": gv.one_of(2, 4, 64), "n": gv.dim(0, 300, around=64)},
)
BOUNDED = Spec(
    name="bounded",
    op=None,
    args=(Arg(name="x", shape="n-k+1", domain=gv.domain(-1, 1)), Arg(name="y", shape="n k", domain=gv.avoid(0.0))),
    dims={"n": gv.dim(2, 9)},
)
PLAIN = Spec(name="plain", op=None, args=LINEAR.args[:2])
SPECS = (LINEAR, TRICKY, BOUNDED)
each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
each_claim = pytest.mark.parametrize("claim", CLAIMS)


def swept(spec: Spec, claim: str, **options: object) -> list[Case]:
    return [case for case, _ in sweep(spec, claim, **options)]


def drawn(spec: Spec, claim: str, pins: Pins, count: int = 30) -> list[Case]:
    found: list[Case] = []

    @seed(1)
    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases(spec, claim, pins=pins))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


@each_claim
@each_spec
def test_every_swept_case_materialises_within_the_cap_of_elements(spec, claim):
    found = swept(spec, claim)
    assert 0 < len(found) <= CAP
    for case in found:
        assert all(t is None or t.numel() <= sizes.MAX_ELEMENTS for t in materialise(spec, case).primals.values())


@each_claim
def test_a_sweep_depends_on_its_seed_and_nothing_else(claim):
    torch.rand(1)
    first = swept(LINEAR, claim, seed=3)
    swept(TRICKY, claim, seed=4)
    torch.rand(1)
    assert swept(LINEAR, claim, seed=3) == first
    assert [c.seed for c in swept(LINEAR, claim, seed=4)] != [c.seed for c in first]


@each_claim
@each_spec
def test_no_two_swept_cases_are_the_same(spec, claim):
    found = swept(spec, claim)
    assert len(set(found)) == len(found)


@each_spec
def test_every_special_regime_that_a_domain_offers_is_swept(spec):
    found = {pair for case in swept(spec, "forward") for pair in case.values}
    for arg in spec.args:
        offered = set(regimes.regimes(arg.domain, "float64"))
        assert {(arg.name, r) for r in offered & {*SPECIAL, *SCALES}} <= found


def test_special_sweeps_all_that_a_domain_can_do():
    for spec in (BOUNDED, PLAIN):
        found = {pair for case in swept(spec, "special") for pair in case.values}
        for arg in spec.args:
            extremes = regimes.extreme(arg.domain, "float64", referenced=False)
            assert {(arg.name, r) for r in (*regimes.special(arg.domain, "float64"), *extremes)} <= found


def test_special_values_are_swept_by_special_and_not_by_vjp():
    assert not {r for c in swept(LINEAR, "vjp") for _, r in c.values} & {*SPECIAL, *regimes.EXTREME}


def test_all_arguments_are_zero_tied_or_extreme_at_once_and_one_element_is_zero():
    found = swept(PLAIN, "special")
    words = [dict(c.values) for c in found]
    assert all({"x": r, "w": r} in words for r in ("zeros", "ties", "scaled 1e+150"))
    single = found[-1]
    assert [t.tolist() for t in materialise(PLAIN, single).primals.values()] == [[[0]], [[0]]]


def test_sizes_that_only_a_reference_can_judge_need_one():
    def largest(spec):
        return max((r for c in swept(spec, "special") for _, r in c.values if "e+" in r), key=lambda r: float(r[7:]))

    assert (largest(BOUNDED), largest(LINEAR)) == ("scaled 1e+150", "scaled 1e+150")
    assert largest(LINEAR.with_(reference=lambda x: x)) == "scaled 1e+300"


def test_zeros_are_swept_everywhere_and_alone_in_a_line():
    zeros = [materialise(LINEAR, c).primals["x"] == 0 for c in swept(LINEAR, "special") if ("x", "zeros") in c.values]
    assert any(bool(z.all()) for z in zeros)
    assert any(bool((z.sum(-1) == 1).any()) for z in zeros)


def test_scales_are_taken_by_all_arguments_at_once():
    found = [c.values for c in swept(LINEAR, "vjp")]
    assert all(tuple((n, scale) for n in ("x", "w", "bias")) in found for scale in SCALES)


@each_claim
def test_every_value_of_every_keyword_is_swept(claim):
    found = {pair for case in swept(LINEAR, claim) for pair in case.kwargs}
    assert found == {("causal", False), ("causal", True), ("kind", "a"), ("kind", "b"), ("kind", "c")}


def test_keywords_of_few_values_are_combined_and_of_many_covered():
    assert len(keywords(LINEAR)) == 6
    many = LINEAR.with_(order=(), kwargs={f"k{i}": tuple(range(2 + i % 4)) for i in range(20)})
    found = keywords(many)
    assert len(found) == 8
    assert all({row[n] for row in found} == set(values) for n, values in many.kwargs.items())
    assert [r["k0"] for r in keywords(LINEAR.with_(order=(), kwargs={"k0": tuple(range(11))}))] == list(range(11))
    assert keywords(LINEAR.with_(order=(), kwargs={})) == [{}]


@each_spec
def test_the_edges_have_0_and_1_of_every_letter_that_allows_them(spec):
    found = swept(spec, "edges")
    for name, several in shapes.letters(spec.args).items():
        dim, indexed = spec.dims.get(name, gv.dim()), any(a.domain.of == name for a in spec.args)
        seen = {dict(c.dims)[name] for c in found}
        for size in (0, 1):
            able = size in dim.choices if dim.choices else dim.lo <= size <= (dim.hi or size)
            if able and not (indexed and size == 0):
                assert ((size,) if several else size) in seen


def test_the_edges_straddle_declared_blocks_and_else_exceed_the_usual_ones():
    blocked = LINEAR.with_(dims={"n": gv.dim(around=64)})
    assert {63, 64, 65, 129} <= {dict(c.dims)["n"] for c in swept(blocked, "edges")}
    assert {17, 65, 129, 1025} <= {dict(c.dims)["k"] for c in swept(LINEAR, "edges")}


def test_only_the_edges_are_empty_and_sizes_differ_elsewhere():
    for spec, claim in itertools.product(SPECS, ("forward", "vjp", "partial", "layout", "special")):
        assert all(
            t.numel() for c in swept(spec, claim) for t in materialise(spec, c).primals.values() if t is not None
        )
    dims = dict(swept(LINEAR, "vjp")[0].dims)
    assert (dims["b"], dims["k"] != dims["n"], min(dims["k"], dims["n"]) >= 2) == ((2,), True, True)


def test_optional_arguments_are_absent_once_and_axes_broadcast_once():
    absent = [c for c in swept(LINEAR, "vjp") if dict(c.values).get("bias") == regimes.ABSENT]
    assert [c.differentiate for c in absent] == [("x", "w")]
    assert any(dict(c.dims)["q#b"] == 1 < dict(c.dims)["b"] for c in swept(TRICKY, "vjp"))


def test_every_mask_of_few_arguments():
    found = swept(LINEAR, "partial")
    assert len({c.differentiate for c in found}) == 7
    assert {len(c.differentiate) for c in swept(TRICKY, "partial")} == {1, 2, 3, 4, 5}


def test_each_argument_and_the_cotangents_in_each_layout():
    found = swept(LINEAR, "layout")
    assert {c.layouts[0] for c in found if c.layouts} == {
        *itertools.product(("x", "w"), ("transposed", "sliced", "expanded")),
        *itertools.product(("bias",), ("sliced", "expanded")),
        ("x", "channels_last"),
    }
    words = {"transposed", "sliced", "expanded", "channels_last", "stride0"}
    assert {c.cotangents[0] for c in found if c.cotangents} == words
    for case in (c for c in found if dict(c.layouts).get("x") == "expanded"):
        assert 0 in materialise(LINEAR, case).primals["x"].stride()


@pytest.mark.parametrize("shape", ["*s", "*s k", "n *s", "b c h w"])
def test_a_letter_for_many_axes_has_as_many_as_a_layout_needs(shape):
    spec = Spec(None, name="f", args=(Arg(shape, name="x"),))
    found = {dict(c.layouts).get("x"): materialise(spec, c).primals["x"] for c in swept(spec, "layout") if c.layouts}
    assert found["transposed"].stride() != found["transposed"].contiguous().stride()
    images = found["channels_last"]
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert not images.is_contiguous()
    axes = {c.cotangents[0]: materialise(spec, c).primals["x"].ndim for c in swept(spec, "layout") if c.cotangents}
    assert axes["channels_last"] == 4
    assert axes["transposed"] >= 2


def test_no_image_is_swept_where_nothing_has_four_axes():
    found = swept(Spec(None, name="f", args=(Arg("b n", name="x"),)), "layout")
    assert "channels_last" not in {word for c in found for word in (*dict(c.layouts).values(), *c.cotangents)}
    odd = swept(Spec(None, name="f", args=(Arg("*s", name="x"),), where=lambda s: len(s) < 3), "layout")
    assert "channels_last" not in {word for c in odd for word in (*dict(c.layouts).values(), *c.cotangents)}


def test_nothing_is_swept_where_the_case_hardly_matters_or_the_user_gives_the_values():
    assert not any(sweep(LINEAR, claim) for claim in ("linear", "purity", "repeat"))
    assert not sweep(LINEAR.with_(inputs=lambda draw: {}), "vjp")
    assert not sweep(Spec(name="f", op=None, args=(Arg(name="x", shape="n", strategy=st.none()),)), "vjp")


def test_sizes_and_keywords_that_where_accepts_are_preferred():
    spec = LINEAR.with_(where=lambda k, n, kind: k == n and kind != "a")
    assert sum(allowed(spec, c) for c in swept(spec, "forward")) >= 0.9 * len(swept(spec, "forward"))


@each_claim
@each_spec
def test_what_is_pinned_stays_and_the_rest_is_plain(spec, claim):
    for case, pins in spread(sweep(spec, claim), 6):
        for other in drawn(spec, claim, pins):
            assert dict(pins.dims).items() <= dict(other.dims).items()
            assert {(n, r) for n, r in pins.regimes.items() if r != "normal"} <= set(other.values)
            assert dict(other.layouts) == pins.layouts
            assert other.cotangents == case.cotangents
            assert all(v in (spec.kwargs[n][0], pins.kwargs[n]) for n, v in other.kwargs)
            assert {n for n, r in other.values if r not in ("decimals", "repeated")} <= set(pins.regimes)
            materialise(spec, other)


def test_a_spread_is_even_and_in_order():
    assert spread(range(10), 4) == (0, 2, 5, 7)
    assert spread(range(3), 9) == (0, 1, 2)
