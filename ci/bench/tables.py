"""Markdown tables, result files, and their places in the README."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "ci" / "bench" / "results"
README = ROOT / "README.md"
MORE = "<!-- more -->"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    cpu = re.search(r"model name\s*:\s*(.+)", _read(Path("/proc/cpuinfo")))
    return {
        "date": datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpu.group(1) if cpu else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "commit": _commit(),
    }


def _commit() -> str:
    """The revision that is measured; empty outside of a git checkout."""
    command = ["git", "log", "-1", "--format=%h", "--", "gradverify"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def publish(name: str, body: str, data: Any, *, more: str = "") -> None:
    """Write `results/NAME.md` and `results/NAME.json`; `more` stays out of the README."""
    facts = machine()
    RESULTS.mkdir(parents=True, exist_ok=True)
    versions = f"torch {facts['torch']}, Python {facts['python']}, gradverify at {facts['commit'] or 'no commit'}"
    line = f"*{facts['date']}, {facts['cpu']}, {facts['threads']} thread, load {facts['load']}, {versions}.*"
    (RESULTS / f"{name}.md").write_text(f"{body}\n\n{line}\n" + (f"\n{MORE}\n\n{more}\n" if more else ""))
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": facts, **data}, indent=1) + "\n")
    print(f"\n{body}\n\n{more}\n", flush=True)


def update_readme() -> list[str]:
    """Copy every result into the README, between `<!-- bench:NAME -->` and `<!-- /bench -->`. Returns the names."""
    text, done = README.read_text(), []
    for file in sorted(RESULTS.glob("*.md")):
        block = re.compile(rf"(<!-- bench:{file.stem} -->\n).*?(<!-- /bench -->)", re.DOTALL)
        if block.search(text):
            body = file.read_text().split(MORE)[0].rstrip() + "\n"
            text = block.sub(lambda m, body=body: f"{m[1]}{body}{m[2]}", text)
            done.append(file.stem)
    README.write_text(text)
    return done


def bullets(items: Mapping[str, str]) -> str:
    """One Markdown bullet for each item."""
    return "\n".join(f"* {key}: {value}" for key, value in items.items())


def ratio(a: float, b: float) -> str:
    """`a / b` to two digits, a dash where it cannot be said."""
    return f"{a / b:.2g}" if a and b else "-"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    print("README:", ", ".join(update_readme()) or "no block found")
