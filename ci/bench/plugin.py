"""What the pytest plugin costs a run that has no spec: processor time of the same run with and without it.

`python -m ci.bench.plugin` writes results/plugin.md.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from ci.bench.tables import publish, table

REPEATS = 15
LIMIT_MS = 30
ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ("-p", "gradverify.pytest_plugin.hooks")
TESTS = "import pytest\n@pytest.mark.parametrize('k', range(100))\ndef test_it(k): ...\n"


def cost(folder: Path, *plugin: str) -> float:
    """Milliseconds of processor time of one run of pytest; what else the machine does hardly matters to that."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin]
    before = spent()
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return spent() - before


def spent() -> float:
    """Milliseconds that finished children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (used.ru_utime + used.ru_stime)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_it.py").write_text(TESTS)
        cost(folder, *PLUGIN)
        pairs = [(cost(folder), cost(folder, *PLUGIN)) for _ in range(REPEATS)]
    without, beside = (median(times) for times in zip(*pairs, strict=True))
    more = median(b - a for a, b in pairs)
    body = table(
        ["100 tests, no spec", "without the plugin", "with it", "more", "limit"],
        [["median of processor time, ms", f"{without:.0f}", f"{beside:.0f}", f"{more:.1f}", str(LIMIT_MS)]],
    )
    publish("plugin", body, {"pairs_ms": pairs, "more_ms": more, "limit_ms": LIMIT_MS})
    if more >= LIMIT_MS:
        raise SystemExit(f"the plugin costs {more:.0f} ms, the limit is {LIMIT_MS}")


if __name__ == "__main__":
    main()
