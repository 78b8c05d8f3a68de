"""JUnit XML, as Jenkins and GitLab read it: a suite an op, a case a claim."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from gradverify.records.run import OpRun, Run
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.findings import Entry
from gradverify.reports.lines import headline, relative

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""

_TAGS = {Outcome.FAIL: "failure", Outcome.INCONCLUSIVE: "failure", Outcome.ERROR: "error", Outcome.SKIP: "skipped"}


def junit(run: Run, *, strict: bool = True) -> str:
    """The run as JUnit XML. INCONCLUSIVE is a failure under `strict`, else skipped; an op that raises is an error."""
    root = Element("testsuites", name="gradverify")
    suites = [_suite(root, op, run, strict=strict) for op in run.ops]
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in suites)))
    root.set("time", f"{sum(_seconds(op) for op in run.ops):.3f}")
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='UTF-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _suite(root: Element, op: OpRun, run: Run, *, strict: bool) -> Element:
    suite = SubElement(root, "testsuite", name=_text(op.spec or op.target))
    about = {
        "target": relative(op.target),
        "contract": op.contract,
        "seed": str(run.run.seed),
        "torch": run.environment.torch,
    }
    properties = SubElement(suite, "properties")
    for name, value in about.items():
        SubElement(properties, "property", name=f"gradverify.{name}", value=_text(value))
    for result in op.checks:
        _case(suite, op, result, strict=strict)
    if op.error:
        case = SubElement(suite, "testcase", name="usable", classname=_text(op.spec or op.target))
        _said(case, "error", "unusable", op.error.splitlines()[0], op.error)
    suite.set("tests", str(len(suite.findall("testcase"))))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("time", f"{_seconds(op):.3f}")
    if run.run.started:
        suite.set("timestamp", run.run.started)
    return suite


def _case(suite: Element, op: OpRun, result: Result, *, strict: bool) -> None:
    name = f"{result.claim}[{result.device}-{result.dtype}]"
    seconds = sum(result.seconds.values())
    case = SubElement(suite, "testcase", name=_text(name), classname=_text(op.spec), time=f"{seconds:.3f}")
    if result.outcome is Outcome.PASS:
        if result.code:
            SubElement(case, "system-out").text = _text(headline(result))
        return
    tag = _TAGS[result.outcome] if strict or result.outcome is not Outcome.INCONCLUSIVE else "skipped"
    if result.outcome is Outcome.SKIP:
        _said(case, tag, result.xfailed or "skipped", headline(result) if result.xfailed else result.reason, "")
    else:
        _said(case, tag, result.code, headline(result), Entry(op=op, result=result).block)


def _said(case: Element, tag: str, kind: str, message: str, text: str) -> None:
    SubElement(case, tag, type=_text(kind), message=_text(message)).text = _text(text)


def _seconds(op: OpRun) -> float:
    return sum(sum(r.seconds.values()) for r in op.checks)


def _text(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
