"""Values far from zero or near each other: inside their domain, as close as their name says, and in one place only."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gradverify as gv
from gradverify.cases import crowded as c
from gradverify.cases.materialise import materialise
from gradverify.cases.sweep import CAP, sweep
from gradverify.records.case import Case
from gradverify.records.claims import CLAIMS
from gradverify.records.spec import Arg, Domain, Spec

DTYPES = ("float32", "bfloat16", "float16")
DOMAINS = (
    Domain(),
    Domain(kind="positive"),
    Domain(lo=-3.0, hi=3.0),
    Domain(lo=10.0, hi=11.0),
    Domain(hi=-2.0),
    Domain(lo=-5000.0, hi=1.0),
    Domain(lo=0.5),
    Domain(lo=1000.0),
    Domain(lo=-2.0),
    Domain(hi=5.0),
    Domain(lo=-1e-3, hi=1e-3),
)
PAIR = Spec(name="pair", op=None, args=(Arg(name="x", shape="m n"), Arg(name="y", shape="n")))


def values(name, domain, base=0.5, n=400):
    return c.crowd(
        name, torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), domain, base=base
    )


def swept(spec, claim="precision", dtype="float32"):
    return [case for case, _ in sweep(spec, claim, dtype=dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_they_grow_to_where_squares_keep_no_digit_of_the_spread(dtype):
    unit = torch.finfo(getattr(torch, dtype)).eps / 2
    powers = c.powers(dtype)
    assert powers == tuple(sorted(powers))
    assert 0.25 <= 4.0 ** max(powers) * unit <= 1
    assert 4.0 ** max(powers) * 16 < torch.finfo(getattr(torch, dtype)).max


@given(st.sampled_from(DOMAINS), st.sampled_from(DTYPES), st.floats(0, 1, exclude_max=True))
def test_all_of_them_lie_inside_and_as_close_as_is_said(domain, dtype, base):
    lo, hi = (-float("inf") if domain.lo is None else domain.lo), (float("inf") if domain.hi is None else domain.hi)
    for name in c.crowded(domain, dtype):
        found = values(name, domain, base)
        assert float(found.min()) >= lo
        assert float(found.max()) <= hi
        ratio = float(found.mean().abs() / found.std()) / 2.0 ** c.CROWDED[name]
        assert 0.9 < ratio < 1.15
        wide = found.to(getattr(torch, dtype)).double()
        assert len(wide.unique()) > 3, "the dtype still tells them apart"


def test_a_domain_offers_what_lies_closer_than_it_is_wide():
    assert c.crowded(Domain(lo=10.0, hi=11.0), "float32") == ("close 2^-8", "close 2^-12")
    assert "shifted 2^12" not in c.crowded(Domain(lo=-3.0, hi=100.0), "float32")
    assert c.crowded(Domain(lo=-5000.0, hi=1.0), "float32")[:3] == ("shifted 2^4", "shifted 2^8", "shifted 2^12")
    assert float(values("shifted 2^12", Domain(lo=-5000.0, hi=1.0)).max()) < -4090
    assert c.crowded(Domain(kind="index", of="n"), "float32") == ()
    assert c.crowded(Domain(avoid_ties=True), "float32") == ()


def test_all_arguments_lie_near_one_number():
    case = next(x for x in swept(PAIR) if ("x", "close 2^-12") in x.values)
    point = materialise(PAIR, case).primals
    assert float(point["x"].mean() / point["y"].mean()) == pytest.approx(1, abs=1e-3)
    other = materialise(PAIR, Case(**{**{f: getattr(case, f) for f in case.__struct_fields__}, "seed": 3})).primals
    assert float(point["x"].mean() / other["x"].mean()) != pytest.approx(1, abs=1e-3)


def test_they_are_swept_all_at_once_and_each_alone():
    found = [x.values for x in swept(PAIR)]
    for k in c.powers("float32"):
        word = f"shifted 2^{k}"
        assert {(("x", word), ("y", word)), (("x", word),), (("y", word),)} <= set(found)
        assert (("x", f"close 2^-{k}"), ("y", f"close 2^-{k}")) in found
    assert len(found) <= CAP


@pytest.mark.parametrize("claim", [x for x in CLAIMS if x != "precision"])
def test_no_other_claim_sweeps_them(claim):
    assert not {w for x in swept(PAIR, claim, "float64") for _, w in x.values} & set(c.CROWDED)


def test_what_a_point_to_avoid_forbids_is_moved_off_it():
    domain = gv.avoid(16.0)
    spec = Spec(name="f", op=None, args=(Arg(name="x", shape="n", domain=domain),), dims={"n": gv.one_of(200)})
    for case in swept(spec):
        assert float((materialise(spec, case).primals["x"] - 16).abs().min()) > 0.5
