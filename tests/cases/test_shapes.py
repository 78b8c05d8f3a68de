import pytest

from gradverify.cases import shapes
from gradverify.errors import SpecError
from gradverify.records.spec import Arg, Dim, Domain, Spec

DIMS = {"k": 5, "n": 7, "b": (2, 3), "x...": (4,), "x.0": 6}


def shape(words: str, dims: dict = DIMS) -> tuple[int, ...]:
    return shapes.shape_of(Arg(name="x", shape=words), dims)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ()),
        ("k", (5,)),
        ("3 k", (3, 5)),
        ("*b k", (2, 3, 5)),
        ("... k", (4, 5)),
        ("_ k", (6, 5)),
        ("#k n", (5, 7)),
        ("*#b k", (2, 3, 5)),
        ("k-1", (4,)),
        ("2*(k+n)//3 k%2", (8, 1)),
        ("min(k,n) max(k,n,9)", (5, 9)),
        ("rows=3 cols=k", (3, 5)),
    ],
)
def test_every_word_of_the_grammar_gives_its_sizes(words: str, expected: tuple[int, ...]) -> None:
    assert shape(words) == expected


def test_a_broadcast_word_takes_the_size_that_was_drawn_for_its_argument() -> None:
    assert shape("#k #*b", DIMS | {"x#k": 1, "x#b": (1, 3)}) == (1, 1, 3)
    assert shape("#k", DIMS | {"y#k": 1}) == (5,)


@pytest.mark.parametrize(
    "word", ["k!", "k.n", "__import__('os')", "k**2", "k[0]", "f(k)", "class", "*", "#", "1.5", "*k-1", "k/2"]
)
def test_a_word_outside_the_grammar_is_refused_by_argument_and_word(word: str) -> None:
    with pytest.raises(SpecError, match="argument 'x'"):
        shapes.parse(word, "x")


def test_nothing_in_a_shape_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.eval", None)
    assert shape("k*n-1") == (34,)


def test_two_variadic_words_are_refused() -> None:
    with pytest.raises(SpecError, match="two variadic"):
        shapes.parse("*b ... k", "x")


def test_a_letter_that_is_one_axis_and_many_is_refused_by_argument() -> None:
    with pytest.raises(SpecError, match=r"argument 'w'.*use two letters"):
        shapes.letters([Arg(name="x", shape="*k n"), Arg(name="w", shape="k n")])


def test_a_negative_size_is_refused_by_argument() -> None:
    with pytest.raises(SpecError, match=r"argument 'x'.*negative"):
        shape("k-6")


def test_a_letter_without_a_size_is_refused_by_argument() -> None:
    with pytest.raises(SpecError, match=r"argument 'x'.*'m'"):
        shape("m+1")


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        (Arg(name="p", shape="n", domain=Domain(kind="prob", of="k")), "no axis 'k'"),
        (Arg(name="i", shape="n", domain=Domain(kind="index", of="c")), "size of no axis"),
        (Arg(name="a", shape="n k", domain=Domain(kind="spd")), "not equal"),
    ],
)
def test_a_domain_that_its_shape_contradicts_is_refused_by_argument(arg: Arg, message: str) -> None:
    with pytest.raises(SpecError, match=f"argument '{arg.name}'.*{message}"):
        shapes.validate(Spec(name="f", op=None, args=(arg,)))


def test_a_spec_without_tensors_is_refused() -> None:
    with pytest.raises(SpecError, match="no argument is a tensor"):
        shapes.validate(Spec(name="f", op=None, args=()))


def test_a_dim_of_no_shape_is_refused() -> None:
    with pytest.raises(SpecError, match="'q'"):
        shapes.validate(Spec(name="f", op=None, args=(Arg(name="x", shape="k"),), dims={"q": Dim()}))
