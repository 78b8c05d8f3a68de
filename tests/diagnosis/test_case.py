"""The smallest case in a reader's words."""

import pytest

from gradverify.cases import regimes
from gradverify.cases.crowded import CROWDED
from gradverify.cases.regimes import special
from gradverify.diagnosis.case import VALUES, told
from gradverify.records.case import Case
from gradverify.records.spec import Arg, Domain, Spec

KINDS = ("real", "positive", "index", "integers", "boolean", "additive_mask", "prob", "spd")
EVERY = {
    *regimes.COMMON,
    *regimes.SCALED,
    *regimes.EXTREME,
    *CROWDED,
    regimes.ABSENT,
    regimes.REPEATED,
    *(word for kind in KINDS for word in special(Domain(kind=kind), "float64")),
}


def words(*, domain: Domain | None = None, layout: str = "contiguous", value: str = "normal") -> str:
    spec = Spec(name="f", op=abs, args=(Arg(name="x", shape="n", domain=domain or Domain()),))
    return told(spec, Case(spec="f", claim="vjp", dims=(("n", 5),), values=(("x", value),), layouts=(("x", layout),)))


@pytest.mark.parametrize("word", sorted(EVERY - {"bounds"}))
def test_every_regime_of_values_has_words(word):
    assert word in VALUES
    said = words(value=word)
    assert said == f"n=5  x {VALUES[word]}" if VALUES[word] else said == "n=5"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("decimals", ""),
        ("scaled 1e+3", "x of size 1e3"),
        ("scaled 1e-6", "x of size 1e-6"),
        ("scaled 1e-310", "x of size 1e-310"),
        ("shifted", "x near 1000"),
        ("shifted 2^4", "x near 16"),
        ("close 2^-12", "x relatively 1/4096 apart"),
        ("masked", "x with a row masked out"),
        ("bounds", "x with 0, 1 and -1"),
    ],
)
def test_values_are_said_where_they_are_special(value, said):
    assert words(value=value) == "  ".join(["n=5", *([said] if said else [])])


def test_bounds_are_those_of_the_domain_where_it_has_any():
    assert words(value="bounds", domain=Domain(lo=0.0)) == "n=5  x at its bounds"


def test_a_layout_is_said_unless_it_is_the_plain_one():
    assert words(layout="channels_last") == "n=5  x channels last"
    assert words(layout="lazy") == "n=5  x as a view not resolved"
    assert words(value="repeated", layout="expanded") == "n=5  x expanded"


def test_without_sizes_the_case_is_what_was_given():
    assert told(Spec(name="f", op=abs, args=()), Case(spec="f", claim="vjp")) == "the given inputs"
