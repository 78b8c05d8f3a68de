"""What is printed when gradverify itself is at fault."""

from __future__ import annotations

import platform
import shlex
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from gradverify import __version__


def report_me(error: BaseException, arguments: Sequence[str]) -> str:
    """The block to paste into a bug report: what happened, with which command, versions, and the traceback."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    return "\n".join(
        [
            f"gradverify has a bug: {type(error).__name__}: {error}",
            "This says nothing about your op. Please report the lines below.",
            f"  command  gradverify {shlex.join(arguments)}",
            f"  versions gradverify {__version__}, torch {version_of('torch')}, "
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
            *(f"  {line}" for line in trace.splitlines()),
        ]
    )


def version_of(package: str) -> str:
    """The version of a package as it is installed, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
