"""The report that machines read: its schema, its round trip, and whose files it may replace."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from gradverify.errors import UsageError
from gradverify.records.run import Run
from gradverify.reports import json_
from tests.reports import runs

PUBLISHED = Path(__file__).parents[2] / "specs" / "report.schema.json"
RUNS = {
    "passing": runs.PASSING,
    "failing": runs.FAILING,
    "unjudged": runs.UNJUDGED,
    "mixed": runs.MIXED,
    "empty": Run(),
}


def validate(text: str) -> None:
    jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text())).validate(json.loads(text))


def test_the_published_schema_is_that_of_the_records() -> None:
    """After a change of the records: `gradverify.reports.json_.schema_text()` into specs/report.schema.json."""
    jsonschema.Draft202012Validator.check_schema(json_.schema())
    assert PUBLISHED.read_text() == json_.schema_text()


@pytest.mark.parametrize("name", RUNS)
def test_a_report_fits_its_schema_and_reads_back_the_same(name: str) -> None:
    text = json_.dumps(RUNS[name])
    validate(text)
    assert json_.dumps(json_.loads(text)) == text


def test_a_report_holds_no_bare_nan() -> None:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    text = json_.dumps(runs.FAILING)
    assert json.loads(text, parse_constant=refuse)["ops"][0]["checks"][1]["digits"] == "nan"


@pytest.mark.parametrize(
    ("path", "value"),
    [(("outcome",), "MAYBE"), (("resolution",), "tiny"), (("resolution",), None), (("cases",), {"run": 1.5})],
)
def test_the_schema_refuses_what_no_report_says(path: tuple[str, ...], value: object) -> None:
    report = json.loads(json_.dumps(runs.FAILING))
    report["ops"][0]["checks"][0][path[0]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(json.dumps(report))


def test_reading_what_is_no_report_says_where_it_does_not_fit() -> None:
    report = json.loads(json_.dumps(runs.PASSING))
    report["ops"][0]["checks"][0]["outcome"] = "MAYBE"
    with pytest.raises(UsageError, match=r"not a report of gradverify: .*\$\.ops\[0\]\.checks\[0\]\.outcome"):
        json_.loads(json.dumps(report))


def test_writing_replaces_an_earlier_report_whole(tmp_path: Path) -> None:
    target = json_.prepare(tmp_path / "a" / "b")
    json_.write(json_.dumps(runs.FAILING), target)
    json_.write(json_.dumps(runs.PASSING), json_.prepare(tmp_path / "a" / "b"))
    assert json_.loads(target.read_bytes()) == json_.loads(json_.dumps(runs.PASSING)) or "nan" in target.read_text()
    assert [p.name for p in target.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize("content", ["{}", "not json", '{"schema": "somebody/else"}', "[1]", '{"schema": 3}'])
def test_a_report_json_of_somebody_else_is_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match=r"its report\.json was not written by gradverify; name another directory"):
        json_.prepare(tmp_path)
    assert (tmp_path / "report.json").read_text() == content


def test_a_report_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for path in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(UsageError, match=r"--report .*taken.*; name a directory that can be made"):
            json_.prepare(path)
    assert (tmp_path / "taken").read_text() == "mine"


def test_texts_and_numbers_of_subclasses_are_written_plain() -> None:
    class Version(str):
        __slots__ = ()

    class Number(float):
        __slots__ = ()

    run = runs.run(runs.op(runs.passed("vjp", resolution=Number("nan"), digits=Number(2.5), truth=Version("t"))))
    check = json.loads(json_.dumps(run))["ops"][0]["checks"][0]
    assert (check["resolution"], check["digits"], check["truth"]) == ("nan", 2.5, "t")
