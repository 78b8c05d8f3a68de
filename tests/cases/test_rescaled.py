"""The same case with other values and at other sizes stays within what the spec allows."""

from __future__ import annotations

import torch

from gradverify.cases.materialise import datum, materialise
from gradverify.cases.rescaled import at_sizes, grown, ladders, other_values
from gradverify.records.case import Case
from gradverify.records.spec import Arg, Dim, Domain, Spec


def spec(**fields):
    args = (Arg(name="x", shape="*b n"), Arg(name="w", shape="#n m", domain=Domain(lo=1.0, hi=2.0)))
    return Spec(name="f", op=torch.add, **{"args": args, **fields})


CASE = Case(spec="f", claim="lifetime", dims=(("b", (2, 3)), ("m", 5), ("n", 4), ("w#n", 1)), seed=1)


def test_other_values_have_the_same_shapes_and_keep_to_the_domain():
    point = materialise(spec(), CASE)
    other = other_values(spec(), CASE, point)
    for name, t in point.primals.items():
        assert other.primals[name].shape == t.shape
        assert not torch.equal(other.primals[name], t)
    assert 1 <= other.primals["w"].min() <= other.primals["w"].max() <= 2


def test_data_that_was_given_is_reversed():
    given = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    s = spec(args=(Arg(name="x", shape="a b"),))
    case = Case(spec="f", claim="lifetime", data=(("x", datum(given)),))
    assert torch.equal(other_values(s, case, materialise(s, case)).primals["x"], given.flip(0, 1))


def test_every_size_is_larger_and_a_broadcast_axis_takes_its_letter_s():
    dims = dict(grown(spec(), CASE).dims)
    assert dims == {"b": (6,), "m": 8, "n": 7, "w#n": 7}
    assert materialise(spec(), grown(spec(), CASE)).primals["w"].shape == (7, 8)


def test_one_size_alone_is_larger_where_the_spec_refuses_all():
    s = spec(where=lambda n, m: n == 4 or m == 5)
    assert dict(grown(s, CASE).dims) == {"b": (6,), "m": 5, "n": 4, "w#n": 4}


def test_nothing_is_larger_where_sizes_are_fixed_or_given():
    fixed = {n: Dim(choices=(size,)) for n, size in (("b", 3), ("m", 5), ("n", 4))}
    assert grown(spec(dims=fixed), CASE) is None
    assert grown(spec(inputs=lambda draw: {}), CASE) is None


def test_no_size_is_negative():
    s = spec(args=(Arg(name="x", shape="n"), Arg(name="y", shape="n-3")))
    case = Case(spec="f", claim="memory", dims=(("n", 9),))
    assert at_sizes(s, case, {"n": 2}) is None
    assert at_sizes(s, case, {"n": 3}) is not None


def test_a_letter_grows_alone_through_four_sizes_as_far_as_they_are_documented():
    found = ladders(spec(dims={"n": Dim(lo=2, hi=9), "m": Dim(choices=(5,))}), CASE)
    assert [size for size, _ in found["n"]] == [4, 8, 9]
    assert "m" not in found
    assert {dict(case.dims)["m"] for _, case in found["n"]} == {5}
    assert [dict(case.dims)["b"] for _, case in found["b"]] == [(4,), (8,), (16,), (32,)]
