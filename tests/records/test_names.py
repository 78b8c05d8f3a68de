import pytest

from gradverify.config import claims_named
from gradverify.records.names import DTYPES, EXPECTED, FEATURES, did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("FusedLinaer", ["FusedLinear", "load"], "FusedLinear"),
        ("mull", ["Mul", "Add"], "Mul"),
        ("half", DTYPES, "float16"),
        ("flaot64", DTYPES, "float64"),
        ("half", ["halve"], "halve"),
        ("qqq", ["Mul"], None),
    ],
)
def test_the_nearest_name_is_found_whatever_its_capitals(name, known, meant) -> None:
    assert nearest(name, known) == meant
    assert did_you_mean(name, known) == (f" (did you mean {meant!r}?)" if meant else "")


def test_what_may_be_declared_is_what_there_is() -> None:
    assert {"GV199", "GV1xx", "vjp", "transforms", "transforms.vmap"} <= set(EXPECTED)
    assert {"double_backward", "vmap", "compile"} <= set(FEATURES)
    assert claims_named(["transforms"]) == ("transforms",)
