import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradverify.cases import regimes, values
from gradverify.cases.materialise import generator_of
from gradverify.records.spec import Domain

REALS = [
    Domain(),
    Domain(lo=0.01, hi=10.0),
    Domain(lo=0.0, hi=1.0),
    Domain(lo=-1.0, hi=1.0),
    Domain(lo=0.0),
    Domain(hi=-3.0),
    Domain(lo=5.0),
    Domain(lo=2.0, hi=2.5),
    Domain(kind="positive"),
    Domain(kind="positive", hi=0.2),
    Domain(avoid=(0.0,)),
    Domain(avoid=(0.0, 0.1, 1.0)),
    Domain(lo=0.0, hi=1.0, avoid=(0.0, 1.0, 0.5)),
    Domain(avoid_ties=True),
    Domain(kind="positive", avoid_ties=True),
    Domain(lo=0.0, hi=1.0, avoid_ties=True),
]
OTHERS = [
    Domain(kind="prob", of="n"),
    Domain(kind="index", of="c"),
    Domain(kind="boolean"),
    Domain(kind="integers", lo=-2, hi=3),
    Domain(kind="integers"),
    Domain(kind="spd"),
]
SHAPES = [(), (0,), (1,), (7,), (3, 3), (2, 0, 3), (4, 5, 5)]


def filled(domain: Domain, regime: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return values.fill(regime, values.Draw(shape=shape, generator=generator_of(seed), domain=domain, size=4))


def inside(domain: Domain, tensor: torch.Tensor) -> bool:
    lo = -torch.inf if domain.lo is None else domain.lo
    hi = torch.inf if domain.hi is None else domain.hi
    positive = domain.kind != "positive" or bool((tensor > 0).all())
    return positive and bool(((tensor >= lo) & (tensor <= hi)).all()) and bool(tensor.isfinite().all())


@pytest.mark.parametrize("domain", REALS, ids=str)
def test_every_regime_that_a_domain_offers_stays_inside_it(domain: Domain) -> None:
    for regime in dict.fromkeys(regimes.regimes(domain, "float64")):
        for seed, shape in enumerate(SHAPES):
            tensor = filled(domain, regime, shape, seed)
            assert tensor.shape == shape
            assert tensor.dtype == torch.float64
            assert inside(domain, tensor), (regime, tensor)


@pytest.mark.parametrize("domain", [d for d in REALS if d.avoid], ids=str)
def test_no_value_lies_near_a_point_to_avoid(domain: Domain) -> None:
    for regime in dict.fromkeys(regimes.regimes(domain, "float64")):
        tensor = filled(domain, regime, (500,))
        for point in domain.avoid:
            assert float((tensor - point).abs().min()) > 0.01, regime


@pytest.mark.parametrize("domain", [d for d in REALS if d.avoid_ties], ids=str)
def test_no_two_entries_are_nearly_equal_where_ties_are_avoided(domain: Domain) -> None:
    for regime in dict.fromkeys(regimes.regimes(domain, "float64")):
        tensor = filled(domain, regime, (40,)).sort().values
        assert float(tensor.diff().min()) > 1e-3 * float(tensor.abs().max() / 40), regime


@pytest.mark.parametrize("domain", OTHERS, ids=str)
def test_the_other_kinds_give_what_they_name(domain: Domain) -> None:
    for regime in dict.fromkeys(regimes.regimes(domain, "float64")):
        t = filled(domain, regime, (3, 4, 4))
        if domain.kind == "prob":
            assert bool((t > 0).all())
            assert float((t.sum(-1) - 1).abs().max()) < 1e-12
        elif domain.kind == "spd":
            assert bool((torch.linalg.eigvalsh(t) > 0.5).all())
            assert torch.equal(t, t.mT)
        else:
            assert torch.equal(t, t.round())
            lo, hi = {"index(c)": (0, 3), "integers [-2, 3]": (-2, 3)}.get(str(domain), (0, 1))
            assert bool(((t >= lo) & (t <= hi)).all())


SPECIAL = [*REALS, *OTHERS, Domain(kind="additive_mask")]


@pytest.mark.parametrize("domain", SPECIAL, ids=str)
def test_every_special_regime_stays_inside_its_domain(domain: Domain) -> None:
    sizes_ = regimes.extreme(domain, "float64", referenced=True)
    assert regimes.special(domain, "float64") or sizes_
    for regime in (*regimes.special(domain, "float64"), *sizes_):
        for seed, shape in enumerate(SHAPES[2:]):
            t = filled(domain, regime, shape if domain.kind != "spd" else (3, 3), seed)
            masked = domain.kind == "additive_mask"
            assert bool(((t == 0) | (t == -torch.inf)).all()) if masked else inside(domain, t), (regime, t)


def test_what_each_special_regime_is() -> None:
    x = filled(Domain(), "constant", (3, 4))
    assert torch.equal(x, x[:, :1].expand(3, 4))
    assert x[0, 0] != x[1, 0]
    up, down = filled(Domain(), "sorted", (3, 4)), filled(Domain(), "reversed", (3, 4))
    assert bool((up.diff() > 0).all())
    assert bool((down.diff() < 0).all())
    assert bool(torch.signbit(filled(Domain(), "minus zeros", (3,))).all())
    assert filled(Domain(), "onehot", (3, 4)).sum(-1).tolist() == [1.0, 1.0, 1.0]
    brink = filled(Domain(), "overflow", (50,)).abs()
    assert bool(brink.exp().isfinite().all())
    assert not bool(brink.exp().sum().isfinite())


def test_a_masked_row_keeps_nothing_and_another_all() -> None:
    kept = filled(Domain(kind="boolean"), "masked", (2, 3, 4)).reshape(-1, 4)
    added = filled(Domain(kind="additive_mask"), "masked", (2, 3, 4)).reshape(-1, 4)
    assert (kept[0].sum(), kept[-1].sum()) == (0, 4)
    assert (bool((added[0] == -torch.inf).all()), bool((added[-1] == 0).all())) == (True, True)
    ordinary = filled(Domain(kind="additive_mask"), "normal", (50, 2))
    assert bool(ordinary.isfinite().any(-1).all())
    assert not bool(ordinary.isfinite().all())


def test_a_regime_that_a_domain_cannot_do_is_not_offered() -> None:
    assert not {"zeros", "saturated", "shifted"} & set(regimes.regimes(Domain(lo=0.5, hi=2.0), "float64"))
    assert "ones" not in regimes.regimes(Domain(avoid=(1.0,)), "float64")
    assert "ties" not in regimes.regimes(Domain(avoid_ties=True), "float64")
    assert not [r for r in regimes.regimes(Domain(lo=2.0, hi=3.0), "float64") if r.startswith("scaled")]
    assert "scaled 1e-6" not in regimes.regimes(Domain(), "float16")
    assert "scaled 1e+6" in regimes.regimes(Domain(), "float64")


def test_bounds_puts_entries_exactly_on_the_bounds() -> None:
    t = filled(Domain(lo=0.01, hi=10.0), "bounds", (200,))
    assert {0.01, 10.0} < set(t.tolist())
    assert {0.0, 1.0, -1.0} < set(filled(Domain(), "bounds", (200,)).tolist())


def test_decimals_are_short_numbers() -> None:
    for domain in (Domain(), Domain(lo=0.0, hi=1.0), Domain(kind="positive")):
        assert all(len(f"{v:.6f}".rstrip("0")) <= 5 + (v < 0) for v in filled(domain, "decimals", (50,)).tolist())


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(sorted(regimes.SCALED)))
def test_a_scale_is_that_of_the_values_on_an_unbounded_and_a_one_sided_domain(regime: str) -> None:
    for domain in (Domain(), Domain(lo=0.0), Domain(kind="positive")):
        typical = float(filled(domain, regime, (99,)).abs().median())
        assert 0.2 < typical / regimes.SCALED[regime] < 3


def test_zeros_holds_zeros_and_other_values_or_zeros_only() -> None:
    shares = {float((filled(Domain(), "zeros", (64,), seed) == 0).double().mean()) for seed in range(12)}
    assert 1.0 in shares
    assert min(shares) < 0.8
