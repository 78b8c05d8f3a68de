"""Python processes of their own, and modules loaded from copies."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python as it would run for a user: warnings stay warnings, TRITON_INTERPRET only where it is given."""
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env = {**kept, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def load(path: Path, name: str) -> ModuleType:
    made = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(made)
    sys.modules[name] = module
    made.loader.exec_module(module)
    return module
