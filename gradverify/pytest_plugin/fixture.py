"""The fixture `gradverify`: verify an op inside a test that is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gradverify
from gradverify.errors import GradcheckError
from gradverify.pytest_plugin.items import RUNS, properties
from gradverify.pytest_plugin.settings import settings
from gradverify.records.lead import led
from gradverify.records.run import Run
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import headline, result_lines
from gradverify.reports.style import Style

_NAMES = {"checks": "claims"}
"""Options that `gradverify.check` calls otherwise."""


def checker(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """`gradverify.check` under the options of this run; raises GradcheckError where anything is not verified."""
    chosen = settings(request.config)
    item = request.node
    item.stash[RUNS] = []
    given = {_NAMES.get(n, n): v for n, v in chosen.given.items()}

    def check(op: Any, /, *inputs: Any, **more: Any) -> Run:
        __tracebackhide__ = True
        run: Run = gradverify.check(op, *inputs, **{**given, **more})
        item.stash[RUNS].append(run)
        bad = [r for o in run.ops for r in led(o.checks) if _bad(r, strict=chosen.strict)]
        unusable = [op.error for op in run.ops if op.error]
        for result in bad[:1]:
            item.user_properties.extend(properties(result, seed=run.run.seed))
        if bad or unusable:
            blocks = [line for r in bad for line in result_lines(r, style=Style())]
            raise GradcheckError("\n".join([*map(headline, bad[:1]), *unusable, *blocks]))
        return run

    return check


def _bad(result: Result, *, strict: bool) -> bool:
    wrong = (Outcome.FAIL, Outcome.ERROR, *([Outcome.INCONCLUSIVE] if strict else []))
    return result.outcome in wrong and not result.xfailed
