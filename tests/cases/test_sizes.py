import pytest

from gradverify.cases import sizes
from gradverify.records.spec import Arg, Dim, Spec


def test_ordinary_sizes_straddle_blocks_start_at_one_and_leave_out_zero() -> None:
    found = sizes.ordinary(Dim(around=(64,)))
    assert found[0] == 1
    assert {63, 64, 65, 129} < set(found)
    assert found == tuple(sorted(found))


def test_edge_sizes_hold_zero_one_and_both_sides_of_a_block() -> None:
    assert sizes.edges(Dim(around=(8,))) == (1, 0, 7, 8, 9, 17)
    assert sizes.edges(Dim(lo=2, hi=9, around=(8,))) == (2, 7, 8, 9)


@pytest.mark.parametrize("dim", [Dim(lo=3, hi=4), Dim(lo=100), Dim(hi=2), Dim(choices=(32, 64)), Dim(lo=0, hi=0)])
def test_sizes_stay_inside_the_dim(dim: Dim) -> None:
    for size in (*sizes.ordinary(dim), *sizes.edges(dim)):
        assert size >= dim.lo
        assert dim.hi is None or size <= dim.hi
        assert dim.choices is None or size in dim.choices


def fitting(letter: str, spec: Spec, **known: int) -> tuple[int, ...]:
    outline = sizes.outline(spec)
    return sizes.fitting(letter, outline.ordinary[letter], outline, known=known)


def test_sizes_that_would_make_a_tensor_too_large_are_left_out() -> None:
    spec = Spec(name="f", op=None, args=(Arg(name="x", shape="k n"),), dims={"k": Dim(around=(512,))})
    assert max(fitting("k", spec, n=8)) == 512
    assert max(fitting("k", spec, n=37)) < 100


def test_sizes_that_make_an_expression_negative_are_left_out() -> None:
    spec = Spec(name="f", op=None, args=(Arg(name="x", shape="k n"), Arg(name="y", shape="k-n")))
    assert min(fitting("k", spec, n=6)) == 6
    assert max(fitting("n", spec, k=6)) == 6


def test_sizes_near_those_of_other_letters_stand_in_where_no_candidate_fits() -> None:
    spec = Spec(name="f", op=None, args=(Arg(name="x", shape="k n"), Arg(name="y", shape="k-n")))
    assert fitting("k", spec, n=500)[0] == 500
