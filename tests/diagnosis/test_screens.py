"""What a kernel author reads of a failure: one screen that says what is wrong, where, and from which sizes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.reports.lines import result_lines
from gradverify.reports.style import Style
from tests.diagnosis.shown import SHOWN

ROOT = Path(__file__).parents[2]

MACHINE = (
    (r"\b\d(\.\d+)?e-(1\d|0[89])\b", "tiny"),
    (r"stable for h = \S+ \.\.\. \S+", "stable for h = ..."),
    (r"shrunk in \d+ runs?", "shrunk in some runs"),
)
"""What depends on how a machine rounds, and on how the cases were searched."""


@pytest.mark.parametrize("name", SHOWN)
def test_a_failure_is_told_on_one_screen(name, golden, monkeypatch):
    monkeypatch.chdir(ROOT)
    spec, claim = SHOWN[name]
    (result,) = verify(spec, Plan(examples=20, claims=(claim,)), Policy())
    assert result.code == name.split()[0]
    lines = result_lines(result, style=Style())
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 88
    text = "\n".join(lines) + "\n"
    for found, told in MACHINE:
        text = re.sub(found, told, text)
    golden(f"screens/{name.replace(' ', '-')}.txt", text)
