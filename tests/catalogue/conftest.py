"""What tests of the catalogue share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def modules_kept() -> Iterator[None]:
    """Modules that a test loads are forgotten after it."""
    kept = set(sys.modules)
    yield
    for name in set(sys.modules) - kept:
        del sys.modules[name]
