"""A gradient of any size is judged in a handful of forwards, and one wrong entry among many is named."""

from dataclasses import replace

import numpy as np
import pytest

from gradverify.numerics import probe
from gradverify.numerics.directions import GROUP, groups, jitter
from gradverify.numerics.noise import noise_levels
from gradverify.numerics.problem import Part, Problem, sizes
from gradverify.numerics.sketch import measure

RNG = np.random.default_rng(7)


class Op:
    """A function of one vector with its Jacobian's transpose: counts its calls."""

    def __init__(self, forward, pull, x):
        self.forward, self.pull, self.x = forward, pull, np.asarray(x, dtype=np.float64)
        self.forwards = 0

    def __call__(self, x):
        self.forwards += 1
        with np.errstate(all="ignore"):
            return np.asarray(self.forward(x), dtype=np.float64)

    def pulled(self, x, v):
        with np.errstate(all="ignore"):
            return self.pull(x, v)

    def problem(self):
        centre = self(self.x)
        return Problem(
            x=self.x,
            parts=(Part(name="x", start=0, stop=self.x.size, shape=self.x.shape),),
            outputs=(Part(name="0", start=0, stop=centre.size, shape=centre.shape),),
            centre=centre,
            rerun=np.abs(np.nan_to_num(self(self.x)) - np.nan_to_num(centre)),
            forward=self,
            vjp=lambda v: self.pulled(self.x, v),
            vjp_at=self.pulled,
            unit=2.0**-53,
        )

    def measure(self, seed=0):
        return list(measure(self.problem(), np.random.default_rng(seed)))


def two(share):
    """x + share w, elementwise, as two tensors."""
    op = Op(lambda z: z[:8] + share * np.sin(z[8:]), lambda z, v: np.concatenate([v, share * v * np.cos(z[8:])]), None)
    op.x = np.random.default_rng(3).standard_normal(16)
    shape = (8,)
    parts = (Part(name="x", start=0, stop=8, shape=shape), Part(name="w", start=8, stop=16, shape=shape))
    return replace(op.problem(), parts=parts)


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-4, 1e-5, 1e-6, 1e-7])
def test_the_resolution_is_that_of_each_tensor_however_small_its_part(share):
    found = list(measure(two(share), np.random.default_rng(0)))
    for name in "xw":
        best = min(m.facts[f"resolution {name}"] for m in found if m.facts.get(f"resolution {name}", np.inf) < np.inf)
        assert best <= 1e-5
        assert max(m.resolution for m in found) >= best


def elementwise(forward, slope, x):
    return Op(forward, lambda x, v: v * slope(x), x)


def sine(size, change=lambda g: g):
    return Op(np.sin, lambda x, v: change(v * np.cos(x)), np.linspace(0.2, 3.0, size))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def soft(size, scale=1.0):
    return Op(softmax, lambda x, v: scale * softmax(x) * (v - np.dot(v, softmax(x))), RNG.standard_normal(size))


def right(found):
    return all(m.bars <= 3 or m.interval is not None for m in found)


def wrong(found):
    return [m for m in found if m.bars > 3 and m.confirmed and m.interval is None]


def zero_at(k):
    def change(g):
        g = g.copy()
        g[k] = 0.0
        return g

    return change


RIGHT = {
    "sine": sine(40),
    "softmax": soft(30),
    "linear": elementwise(lambda x: 3 * x, lambda x: np.full_like(x, 3.0), RNG.standard_normal(20)),
    "large": elementwise(lambda x: x * x, lambda x: 2 * x, 1e8 * (1 + RNG.random(20))),
    "small": elementwise(np.log, lambda x: 1 / x, 1e-8 * (1 + RNG.random(20))),
    "mixed": elementwise(lambda x: x**3, lambda x: 3 * x * x, np.exp2(np.linspace(-40, 40, 30))),
    "float32 inside": elementwise(
        lambda x: np.sin(x.astype(np.float32)).astype(np.float64), np.cos, 1 + RNG.random(40)
    ),
    "a scalar": Op(lambda x: np.array([np.sin(x).sum()]), lambda x, v: v[0] * np.cos(x), RNG.standard_normal(25)),
    "one input": elementwise(np.exp, np.exp, [0.5]),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_right_gradient_agrees(name, seed):
    assert right(RIGHT[name].measure(seed))


@pytest.mark.parametrize("name", RIGHT)
def test_a_gradient_twice_as_large_does_not(name):
    op = RIGHT[name]
    assert wrong(Op(op.forward, lambda x, v: 2 * op.pull(x, v), op.x).measure())


@pytest.mark.parametrize("name", ["sine", "softmax", "large", "small", "a scalar"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_vjp_wrong_by_one_part_in_a_thousand_is_found(name, seed):
    op = RIGHT[name]
    assert wrong(Op(op.forward, lambda x, v: 1.001 * op.pull(x, v), op.x).measure(seed))


def test_a_vjp_wrong_by_one_part_in_a_hundred_million_under_noise_is_not_claimed():
    rng = np.random.default_rng(3)
    noisy = elementwise(
        lambda x: np.sin(x) + 1e-8 * rng.standard_normal(x.size), lambda x: (1 + 1e-8) * np.cos(x), 1 + RNG.random(30)
    )
    found = noisy.measure()
    assert right(found)
    assert max(m.resolution for m in found) > 1e-8


def test_a_vjp_twice_as_large_under_the_same_noise_is_found():
    rng = np.random.default_rng(3)
    noisy = elementwise(
        lambda x: np.sin(x) + 1e-8 * rng.standard_normal(x.size), lambda x: 2 * np.cos(x), 1 + 0.4 * RNG.random(30)
    )
    assert wrong(noisy.measure())


@pytest.mark.parametrize(("size", "at"), [(16, 0), (1000, 333), (20_000, 12_345)])
def test_one_wrong_entry_among_n_is_named(size, at):
    op = sine(size, zero_at(at))
    (worst,) = wrong(op.measure())
    assert worst.place.argument == "x"
    assert worst.place.index == (at,)
    assert worst.analytic == 0
    assert abs(worst.value - np.cos(op.x[at])) <= 3 * worst.error
    assert op.forwards <= 150


def test_one_entry_wrong_by_a_hundredth_among_a_thousand_is_named():
    def change(g):
        g = g.copy()
        g[77] *= 1.01
        return g

    (worst,) = wrong(sine(1000, change).measure())
    assert worst.place.index == (77,)


def test_the_wrong_output_is_named_where_every_input_matters():
    op = soft(24)

    def pull(x, v):
        return op.pull(x, np.where(np.arange(24) == 5, 0.0, v))

    (worst,) = wrong(Op(softmax, pull, op.x).measure())
    assert worst.place.output_index == (5,)


def test_a_smooth_op_of_one_magnitude_costs_at_most_sixty_forwards_at_any_size():
    for size in (1, 50, 50_000):
        op = sine(size)
        assert right(op.measure())
        assert op.forwards <= 60


def test_the_resolution_is_what_a_fault_must_exceed_to_be_seen():
    (found,) = sine(50).measure()
    assert 0 < found.resolution < 1e-5
    above = 1 + 100 * max(found.resolution, 1e-12)
    assert wrong(sine(50, lambda g: above * g).measure())


def test_a_backward_that_is_not_linear_is_wrong_though_every_output_alone_is_right():
    op = sine(20)
    bent = Op(np.sin, lambda x, v: (v if np.count_nonzero(v) < 2 else v * np.abs(v)) * np.cos(x), op.x)
    assert wrong(bent.measure())


def test_relu_at_zero_is_consistent_for_every_subgradient_and_for_nothing_else():
    for claim, inside in ((0.0, True), (0.5, True), (1.0, True), (2.0, False), (-1.0, False)):
        relu = elementwise(lambda x: np.maximum(x, 0), lambda x, c=claim: np.where(x == 0, c, x > 0), np.zeros(6))
        kinks = [m for m in relu.measure() if m.interval is not None]
        assert kinks
        ok = [m.interval[0] - 3 * m.error <= m.analytic <= m.interval[1] + 3 * m.error for m in kinks]
        assert all(ok) if inside else not all(ok)


def test_relu_close_to_zero_is_no_kink_at_all():
    relu = elementwise(lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, np.full(6, 5e-7))
    found = relu.measure()
    assert right(found)
    assert all(m.interval is None for m in found)


def test_a_straight_through_rounding_is_never_a_confirmed_wrong_slope_of_a_smooth_function():
    rounding = elementwise(lambda x: np.round(x), lambda x: np.ones_like(x), 0.3 + 5 * RNG.random(20))
    found = rounding.measure()
    assert all(m.code in ("flat", "staircase", "jump") for m in found if m.bars > 3)
    assert any(m.code in ("flat", "staircase", "jump") for m in found)


def test_a_claim_that_is_not_finite_is_judged_along_its_own_axis():
    bad = elementwise(np.sin, lambda x: np.where(np.arange(x.size) == 2, np.nan, np.cos(x)), 1 + RNG.random(5))
    named = [m for m in bad.measure() if m.facts.get("kind") == "not finite"]
    assert [m.place.index for m in named] == [(2,)]
    assert named[0].confirmed
    edge = elementwise(
        np.sqrt, lambda x: np.where(x > 0, 0.5 / np.sqrt(np.where(x > 0, x, 1.0)), np.inf), np.array([0.0, 1.0, 2.0])
    )
    assert not any(m.confirmed for m in edge.measure() if m.facts.get("kind") == "not finite")


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_slope_that_grows_without_end_does_not_exist_whatever_it_is_added_to(offset):
    def entropy(x):
        return offset + np.where(x == 0, 0.0, x * np.log(np.abs(np.where(x == 0, 1.0, x))))

    bad = elementwise(
        entropy, lambda x: np.where(x == 0, -np.inf, 1 + np.log(np.abs(x) + (x == 0))), np.array([0.0, 1.0, 2.0])
    )
    assert not any(m.confirmed for m in bad.measure() if m.facts.get("kind") == "not finite")


def test_at_the_edge_of_a_domain_a_claim_that_is_not_finite_is_held_against_the_side_that_is():
    power = elementwise(
        lambda x: x * np.sqrt(x), lambda x: np.where(x > 0, 1.5 * np.sqrt(np.abs(x)), np.nan), np.array([0.0, 1.0, 2.0])
    )
    (found,) = [m for m in power.measure() if m.facts.get("kind") == "not finite"]
    assert (found.confirmed, found.code) == (True, "edge")
    assert abs(found.value) <= found.error < 0.01


def test_the_same_seed_gives_the_same_measurement_and_another_a_different_one():
    first, again, other = (sine(30).measure(seed)[0] for seed in (0, 0, 1))
    assert first.analytic == again.analytic
    assert first.analytic != other.analytic


def test_steps_are_powers_of_two_of_each_inputs_own_size():
    part = (Part(name="x", start=0, stop=4, shape=(4,)),)
    assert sizes(np.array([3.0, -0.7, 0.0, 1e-8]), part)[:2].tolist() == [2.0, 0.5]
    assert (np.log2(sizes(RNG.standard_normal(4), part)) % 1 == 0).all()
    assert (sizes(np.zeros(4), part) == 1).all()
    # A mask of 0 and -inf: what is infinite says nothing of the size of a zero.
    assert sizes(np.array([0.0, -np.inf, 0.0, -np.inf]), part)[[0, 2]].tolist() == [1.0, 1.0]
    assert sizes(np.array([0.0, -np.inf, 4.0, -4.0]), part)[0] == 2.0


def test_no_direction_has_a_part_below_one_half():
    d = np.abs(jitter(np.random.default_rng(0), 1000))
    assert d.min() >= 0.5
    assert d.max() <= 1


def test_inputs_of_unlike_size_are_moved_apart_and_stragglers_together_last():
    scale = np.exp2(np.concatenate([np.zeros(10), np.full(10, 30.0)]))
    assert [int(g.sum()) for g in groups(scale)] == [10, 10]
    assert groups(scale)[0][10:].all()
    assert len(groups(np.exp2(np.linspace(0, GROUP - 0.5, 50)))) == 1
    lonely = np.concatenate([np.ones(1000), [2.0**-20, 2.0**-40]])
    assert [int(g.sum()) for g in groups(lonely)] == [1000, 2]


def test_a_place_tells_the_tensors_own_index():
    part = Part(name="w", start=10, stop=16, shape=(2, 3))
    assert part.index(14) == (1, 1)
    assert Part(name="s", start=3, stop=4, shape=()).index(3) == ()


@pytest.mark.parametrize("size", [1e10, 1e12, 1e15])
@pytest.mark.parametrize("seed", range(3))
def test_a_function_that_turns_many_times_within_every_step_has_no_slope_to_hold_against_a_claim(size, seed):
    op = elementwise(np.sin, np.cos, size * np.random.default_rng(seed).standard_normal(5))
    assert not any(m.off and m.confirmed for m in op.measure(seed))


def test_a_claim_that_is_not_finite_beside_an_overflow_is_not_confirmed():
    def pull(x, v):
        return v[:3] * np.cos(x) + v[3:] * np.exp(x)

    def both(x):
        return np.concatenate([np.sin(x), np.exp(x)])

    found = Op(both, pull, [1.0, 2.0, 1e3]).measure()
    assert not any(m.confirmed for m in found if not np.isfinite(m.analytic))
    lost = Op(np.sin, lambda x, v: v * np.where(x > 1.5, np.nan, np.cos(x)), [1.0, 2.0]).measure()
    assert any(m.confirmed for m in lost if not np.isfinite(m.analytic))


@pytest.mark.parametrize("seed", range(5))
def test_what_a_float32_sum_hides_of_a_few_small_inputs_is_no_mismatch(seed):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.standard_normal(3000), 1e-6 * rng.standard_normal(4)])
    w = rng.standard_normal((40, x.size)).astype(np.float32)

    def product(x):
        return (w @ x.astype(np.float32)).astype(np.float64)

    op = Op(product, lambda _, v: w.T.astype(np.float64) @ v, x)
    assert not any(m.off and m.confirmed for m in op.measure(seed))


def test_a_slope_far_below_the_terms_that_cancel_is_zero_and_one_that_is_not_is_seen():
    """1 + x - 1 - x: the residue of the terms has no slope to find, unless one knows how large the terms are."""

    def problem(slope, terms):
        x = np.linspace(0.3, 2.9, 40)
        own = Op(lambda x: (1e3 + x) - 1e3 - x + slope * x, lambda x, v: 0 * v, x).problem()
        return replace(own, terms=terms)

    def worst(slope, terms):
        return max(measure(problem(slope, terms), np.random.default_rng(3)), key=lambda m: m.bars)

    assert worst(0.0, np.full(40, 1e3)).bars <= 3
    assert worst(0.0, np.full(40, 1e3)).resolution < 1e-4
    assert not worst(0.0, None).resolution < 1e-4
    assert worst(1e-3, np.full(40, 1e3)).off


def test_inputs_of_all_sizes_are_moved_together_where_that_resolves_them():
    spread = elementwise(np.arctan, lambda x: 1 / (1 + x * x), np.exp2(np.linspace(-40, 0, 500)))
    assert right(spread.measure())
    assert spread.forwards == 14


def added(size):
    """Each output is the sum of the whole of a large vector and of a small one: the latter must be moved apart."""
    x = np.concatenate([1 + RNG.random(size), 1e-8 * (1 + RNG.random(size))])
    return Op(lambda x: np.array([np.sin(x).sum()]), lambda x, v: v[0] * np.cos(x), x)


def test_small_inputs_that_large_ones_drown_are_moved_apart_and_their_fault_is_found():
    op = added(40)
    powers = [m.resolution for m in op.measure()]
    assert len(powers) == 2

    def pull(x, v):
        return np.where(np.arange(80) == 50, 1.001, 1.0) * op.pull(x, v)

    (worst,) = wrong(Op(op.forward, pull, op.x).measure())
    assert worst.place.index == (50,)


def lonely(forward, slope, at):
    """One tiny input among 400 ordinary ones, all of which every output adds up."""
    x = 1 + RNG.random(400)
    x[7] = at
    return Op(lambda x: np.array([forward(x).sum()]), lambda x, v: v[0] * slope(x), x)


def test_a_straggler_is_moved_as_far_as_the_others_and_so_its_fault_is_seen():
    op = lonely(np.sin, np.cos, 1e-9)
    found = op.measure()
    assert right(found)
    assert max(m.resolution for m in found) < 1e-5
    assert op.forwards <= 30

    def pull(x, v):
        return np.where(np.arange(400) == 7, 1.0001, 1.0) * op.pull(x, v)

    assert wrong(Op(op.forward, pull, op.x).measure())


def test_a_straggler_near_a_singularity_is_moved_by_its_own_size():
    op = lonely(np.log, lambda x: 1 / x, 1e-9)
    assert right(op.measure())
    assert wrong(Op(op.forward, lambda x, v: np.where(np.arange(400) == 7, 2.0, 1.0) * op.pull(x, v), op.x).measure())


def test_noise_is_measured_once_for_all_directions(monkeypatch):
    paths = []

    def counted(path, **keywords):
        paths.append(path)
        return noise_levels(path, **keywords)

    monkeypatch.setattr(probe, "noise_levels", counted)
    x = 1 + np.random.default_rng(5).random(400)
    assert right(elementwise(lambda x: np.exp(x.astype(np.float32)).astype(np.float64), np.exp, x).measure())
    assert len(paths) == 1


@pytest.mark.parametrize("size", [1e8, 1e10, 1e11])
@pytest.mark.parametrize("seed", range(3))
def test_a_ripple_below_the_rounding_of_a_float32_is_no_noise_to_hold_a_claim_against(size, seed):
    x = size * np.random.default_rng(seed).standard_normal(5)
    op = elementwise(lambda x: x + np.sin(x), lambda x: 1 + np.cos(x), x)
    assert not any(m.off and m.confirmed for m in op.measure(seed))


def test_one_wrong_entry_of_a_sum_costs_one_forward_a_halving():
    x = 1 + np.random.default_rng(4).random(4096)

    def pull(x, v):
        return np.where(np.arange(4096) == 3000, 0.5, 1.0) * v[0] * np.cos(x)

    op = Op(lambda x: np.array([np.sin(x).sum()]), pull, x)
    (worst,) = wrong(op.measure())
    assert worst.place.index == (3000,)
    assert op.forwards <= 140
