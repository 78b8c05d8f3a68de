"""SARIF 2.1.0, for code scanning: a rule a code, a result a finding, with a fingerprint by which it is known again."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

from gradverify.records.codes import TITLES
from gradverify.records.explained import Page, page
from gradverify.records.finding import Location
from gradverify.records.run import Run
from gradverify.records.verdict import Outcome
from gradverify.reports.findings import Entry, expected, findings, uri

FINGERPRINT = "gradverify/v1"
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Outcome.INCONCLUSIVE: "note"}


def sarif(run: Run, *, compared: bool = False) -> str:
    """The findings as SARIF. What is expected to fail is there, suppressed. `compared`: a baseline was applied."""
    found = [*findings(run), *expected(run)]
    rules = sorted({_code(entry) for entry in found})
    invocation: dict[str, Any] = {"executionSuccessful": not run.run.interrupted}
    if run.run.started:
        invocation["startTimeUtc"] = run.run.started.replace("+00:00", "Z")
    driver = {"name": "gradverify", "version": run.tool.version or "0", "rules": [_rule(code) for code in rules]}
    results = [_result(entry, rules, compared=compared) for entry in found]
    made = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [made]}, indent=2, ensure_ascii=False) + "\n"


def fingerprints(document: Any) -> Set[str]:
    """The fingerprints of a SARIF document that was read. Raises ValueError where it is none."""
    try:
        results = [r for made in document["runs"] for r in made.get("results") or ()]
        return {
            r["partialFingerprints"][FINGERPRINT] for r in results if FINGERPRINT in r.get("partialFingerprints", {})
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not SARIF") from error


def _rule(code: str) -> dict[str, Any]:
    title = TITLES.get(code, code)
    rule = {
        "id": code,
        "name": "".join(word.capitalize() for word in title.replace(".", " ").replace("-", " ").split()),
        "shortDescription": {"text": title},
        "defaultConfiguration": {"level": "note" if code.startswith("GV3") else "error"},
    }
    explained = page(code)
    return rule | ({"help": _help(explained)} if explained else {})


def _help(explained: Page) -> dict[str, str]:
    text = "\n\n".join([*explained.before, *explained.after])
    pair = f"\n\n```python\n{explained.pair.rstrip()}\n```\n\n" if explained.pair else "\n\n"
    return {"text": text, "markdown": "\n\n".join(explained.before) + pair + "\n\n".join(explained.after)}


def _result(entry: Entry, rules: list[str], *, compared: bool) -> dict[str, Any]:
    code, result = _code(entry), entry.result
    made: dict[str, Any] = {
        "ruleId": code,
        "ruleIndex": rules.index(code),
        "level": _LEVELS.get(result.outcome, "error"),
        "message": {"text": f"{entry.name}: {entry.headline}\n{entry.block}".rstrip()},
        "partialFingerprints": {FINGERPRINT: entry.fingerprint},
        "properties": {
            "target": entry.op.target,
            "claim": result.claim,
            "device": result.device,
            "dtype": result.dtype,
        },
    }
    if entry.location:
        made["locations"] = [{"physicalLocation": _place(entry.location)}]
    if compared:
        made["baselineState"] = "unchanged" if entry.known else "new"
    if result.xfailed:
        made["suppressions"] = [{"kind": "external" if entry.known else "inSource", "justification": result.reason}]
    return made


def _place(location: Location) -> dict[str, Any]:
    region = {"startLine": location.line}
    region |= {"startColumn": location.col} if location.col else {}
    region |= {"endColumn": location.end_col} if location.end_col else {}
    where = uri(location.file)
    base = {} if where.startswith("file:") else {"uriBaseId": "%SRCROOT%"}
    return {"artifactLocation": {"uri": where, **base}, "region": region}


def _code(entry: Entry) -> str:
    return entry.result.xfailed or entry.result.code
