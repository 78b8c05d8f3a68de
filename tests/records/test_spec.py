import json

import pytest

import gradverify as gv
from gradverify.errors import SpecError
from gradverify.records.case import Case, Datum
from gradverify.records.spec import Arg, Spec


def make(**changes: object) -> Spec:
    return Spec(**{"name": "f", "op": len, "args": (Arg(name="x", shape="k"),), **changes})


def test_a_spec_cannot_be_changed_nor_can_its_mappings() -> None:
    spec = make(kwargs={"causal": (False, True)})
    with pytest.raises(AttributeError):
        spec.name = "g"
    with pytest.raises(TypeError):
        spec.kwargs["causal"] = (True,)


def test_a_spec_is_plain_data() -> None:
    spec = gv.Spec(
        "mypkg.ops:FusedLinear",
        args={"x": "*b k", "w": "k n", "bias": gv.Arg("n", optional=True)},
        kwargs={"scale": 0.5},
        dims={"k": gv.dim(max=200, around=64), "n": 32},
        dtypes="float32",
        devices=["cpu", "cuda:1"],
    )
    assert (spec.name, spec.op, spec.described_by) == ("FusedLinear", "mypkg.ops:FusedLinear", "from the spec")
    assert [(a.name, a.shape, a.optional) for a in spec.args] == [
        ("x", "*b k", False),
        ("w", "k n", False),
        ("bias", "n", True),
    ]
    assert spec.order == ("x", "w", "bias", "scale")
    assert (spec.kwargs["scale"], spec.dims["n"]) == ((0.5,), gv.one_of(32))
    assert (spec.dtypes, spec.devices) == (("float32",), ("cpu", "cuda:1"))


def test_data_may_be_nested() -> None:
    spec = gv.Spec(len, args={"xs": ["b n", gv.Arg("n", domain=gv.positive)], "p['w']": "n"})
    assert [a.name for a in spec.args] == ["xs[0]", "xs[1]", "p['w']"]
    assert spec.parameters() == ("xs", "p")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"args": {"x": 3}}, "argument 'x' is 3; give its shape as a string, or an Arg"),
        ({"args": {"x[a]": "n"}}, r"argument 'x\[a\]': write a nested argument as"),
        ({"supports": {"vmpa": False}}, "f: supports does not know 'vmpa'; did you mean 'vmap'"),
    ],
)
def test_data_that_is_none_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make(**fields)


def test_a_spec_equals_only_itself() -> None:
    assert make() != make()
    assert len({make(), make()}) == 2


def test_a_spec_with_a_reference_is_called_like_it() -> None:
    def double(x: float) -> float:
        """Twice."""
        return 2 * x

    spec = make(reference=double)
    assert spec(4) == 8
    assert (spec.__name__, spec.__doc__, spec.__wrapped__) == ("double", "Twice.", double)


def test_a_spec_without_a_reference_says_so_when_it_is_called() -> None:
    with pytest.raises(SpecError, match="no reference"):
        make()(1)


def test_a_name_that_is_declared_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="'x' is declared twice"):
        make(kwargs={"x": (1,)})


def test_a_name_that_only_the_order_knows_is_refused() -> None:
    with pytest.raises(SpecError, match="'y'"):
        make(order=("x", "y"))


def test_truth_by_reference_needs_a_reference() -> None:
    with pytest.raises(SpecError, match="needs a reference"):
        make(truth="reference")


def test_a_spec_is_json() -> None:
    spec = make(dims={"k": gv.dim(1, 9, around=4)}, tol={"float32": gv.times(3)}, examples=(gv.example(k=2),))
    assert json.loads(json.dumps(spec.to_builtins()))["dims"]["k"]["around"] == [4]


def test_the_id_of_a_case_is_that_of_its_content() -> None:
    one = Case(spec="f", claim="vjp", dims=(("k", 3),))
    assert one.id == Case(spec="f", claim="vjp", dims=(("k", 3),)).id
    assert one.id != Case(spec="f", claim="vjp", dims=(("k", 4),)).id
    assert hash(
        Case(spec="f", claim="vjp", data=(("x", Datum(dtype="float64", shape=(), stride=(), values=("0x1p0",))),))
    )


@pytest.mark.parametrize(
    ("make_word", "message"),
    [
        (lambda: gv.dim(3, 2), "lo=3 and hi=2"),
        (lambda: gv.dim(-1), "lo=-1"),
        (lambda: gv.dim(around=0), "no block size"),
        (lambda: gv.one_of(), "one size or more"),
        (lambda: gv.domain(2, 1), "lo=2 to hi=1"),
        (lambda: gv.domain(float("nan"), 1), "nan"),
        (lambda: gv.integers(3, 1), "lo=3 and hi=1"),
        (lambda: gv.times(0), "a factor above 0"),
    ],
)
def test_a_word_that_leaves_nothing_to_draw_is_refused(make_word: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_word()


def test_the_words_print_as_they_are_read() -> None:
    assert str(gv.domain(0.1, 2)) == "[0.1, 2]"
    assert str(gv.index("n")) == "index(n)"
    assert str(gv.avoid(0, 20)) == "avoid 0, 20"
    assert str(gv.avoid_ties) == "no ties"
    assert gv.domain(float("-inf"), 1).lo is None
    assert gv.dim(max=200, around=64) == gv.dim(0, 200, around=(64,))
