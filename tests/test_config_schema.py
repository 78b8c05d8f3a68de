"""The schema of `[tool.gradverify]`, by which editors complete and check it: it says what the loader says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gradverify.config import parse, schema, schema_text
from gradverify.errors import UsageError

PUBLISHED = Path(__file__).parents[1] / "specs" / "config.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(schema())

WHOLE = {
    "specs": ["specs/*.py"],
    "devices": "auto",
    "dtypes": ["float64"],
    "require": ["cuda"],
    "profile": "nightly",
    "seed": 3,
    "report": {"dir": "out", "formats": ["json", "html", "junit", "sarif", "md", "events"]},
    "profiles": {"nightly": {"examples": 2000, "max-time": "20m"}},
    "override": [{"match": "a:*", "checks": {"double_backward": False, "transforms": False}, "digits": 7}],
}
WRONG: list[dict[str, Any]] = [
    {"spces": []},
    {"seed": "three"},
    {"devices": "some"},
    {"report": {"formats": ["pdf"]}},
    {"profiles": {"fast": {"max_time": "20m"}}},
    {"override": [{"checks": {}}]},
    {"override": [{"match": "*", "checks": {"vpj": False}}]},
    {"root": "/"},
]


def test_the_published_schema_is_that_of_the_table() -> None:
    """After a change of the table: `gradverify.config.schema_text()` into specs/config.schema.json."""
    jsonschema.Draft202012Validator.check_schema(schema())
    assert PUBLISHED.read_text() == schema_text()


def test_a_table_with_every_key_fits_the_schema_and_is_read() -> None:
    VALIDATOR.validate(WHOLE)
    assert parse(WHOLE, file=Path("pyproject.toml")).report.dir == "out"
    assert {*schema()["properties"]} == {*WHOLE}


@pytest.mark.parametrize("table", WRONG, ids=str)
def test_what_does_not_fit_is_refused_by_both(table: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(table))
    with pytest.raises(UsageError):
        parse(table, file=Path("pyproject.toml"))
