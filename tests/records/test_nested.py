"""A nested value is its leaves under the names by which Python reads them, and can be put together again."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest

from gradverify.records.nested import Slot, leaves, mapped, parameters, slots, templates

Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class State:
    h: object
    c: object = None


VALUE = {"b": [1, (2, Pair(3, None))], "a": State(h=OrderedDict(z=5, y=6))}


def test_names_are_what_python_reads_and_keys_come_sorted():
    assert dict(leaves(VALUE, "y")) == {
        "y['a'].h['y']": 6,
        "y['a'].h['z']": 5,
        "y['a'].c": None,
        "y['b'][0]": 1,
        "y['b'][1][0]": 2,
        "y['b'][1][1].left": 3,
        "y['b'][1][1].right": None,
    }
    for name, leaf in leaves(VALUE, "VALUE"):
        assert eval(name) == leaf


def test_what_is_no_container_is_one_leaf():
    assert list(leaves("text", "y")) == [("y", "text")]
    assert list(leaves(Slot("x"), "y")) == [("y", Slot("x"))]


def test_a_mapped_value_is_a_copy_of_the_same_kinds():
    same = mapped(VALUE, "y", lambda _, leaf: leaf)
    assert same == VALUE
    assert same["b"] is not VALUE["b"]
    assert isinstance(same["a"].h, OrderedDict)
    named = mapped(VALUE, "y", lambda name, _: name)
    assert dict(leaves(named, "y")) == {n: n for n, _ in leaves(VALUE, "y")}


def test_names_spell_lists_and_dicts():
    names = ["x", "xs[1]", "xs[0]", "p['w']", "p['inner'][0]"]
    made = templates(names)
    assert made == {"xs": [Slot("xs[0]"), Slot("xs[1]")], "p": {"w": Slot("p['w']"), "inner": [Slot("p['inner'][0]")]}}
    assert slots(made["p"]) == ("p['inner'][0]", "p['w']")
    assert parameters(names, made) == ("x", "xs", "p")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["xs[a]"], "argument 'xs[a]': write a nested argument as xs[0] or params['w']."),
        (["xs[0]", "xs[2]"], "argument 'xs': its positions are [0, 2]; name them from 0 without a gap."),
        (["xs[0]", "xs['w']"], "argument 'xs': its positions are [0, 'w']; name them from 0 without a gap."),
        (["xs[0]", "xs[0][1]"], "argument 'xs[0][1]': another argument stands in its place."),
    ],
)
def test_what_names_no_place_is_refused(names, said):
    with pytest.raises(ValueError, match="argument") as caught:
        templates(names)
    assert str(caught.value) == said
