"""Where text goes: standard output in the alphabet and colours that it can show, or a file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from gradverify.reports.json_ import write
from gradverify.reports.style import Style


def style_of(stream: TextIO, *, no_colour: bool = False) -> Style:
    """Colours where the stream is a terminal (NO_COLOR and FORCE_COLOR decide otherwise); ASCII where it must be."""
    if no_colour or os.environ.get("NO_COLOR"):
        colour = False
    elif os.environ.get("FORCE_COLOR"):
        colour = True
    else:
        colour = stream.isatty() and os.environ.get("TERM") != "dumb"
    return Style(colour=colour, unicode=_shows_unicode(stream))


def emit(text: str) -> bool:
    """Write to standard output at once. False: nobody reads it any more (`| head`), and nothing was raised."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it ends, and would complain about the same pipe.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def save(text: str, path: Path) -> None:
    """Write a text to a file in one step."""
    write(text, path)


def summarise(markdown: str) -> str:
    """Append to the summary of the step where GitHub wants one; a sentence where that cannot be done, else ""."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return ""
    try:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown)
    except OSError as error:
        return f"GITHUB_STEP_SUMMARY={summary}: {(error.strerror or str(error)).lower()}."
    return ""


@contextlib.contextmanager
def only_ours() -> Iterator[None]:
    """Keep standard output for us: what the user's modules and ops print there goes to standard error instead.

    Covers prints from C and from GPU kernels where standard output is a real file descriptor.
    """
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr), _descriptor_redirected():
        yield


@contextlib.contextmanager
def _descriptor_redirected() -> Iterator[None]:
    try:
        kept = os.dup(1)
    except OSError:
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _shows_unicode(stream: TextIO) -> bool:
    try:
        "✓✗·…█".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
