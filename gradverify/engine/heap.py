"""What is in memory before a run is no business of the garbage collections in it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def set_aside() -> Iterator[None]:
    """Collections skip what is there already (`gc.freeze`), and see it again at the end.

    Hypothesis makes one full collection in every process, which takes 0.15 to 0.3 s over all that torch has loaded.
    Objects that somebody else has frozen stay frozen, and then nothing is done here.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
