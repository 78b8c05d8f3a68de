"""What is in memory before a run is set aside, and given back."""

from __future__ import annotations

import gc

import pytest

from gradverify.engine.heap import set_aside


def test_what_is_there_is_frozen_and_given_back_even_after_an_exception() -> None:
    assert gc.get_freeze_count() == 0
    with set_aside():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    with pytest.raises(KeyError), set_aside():
        raise KeyError
    assert gc.get_freeze_count() == 0


def test_what_somebody_else_has_frozen_stays_frozen() -> None:
    gc.freeze()
    try:
        with set_aside():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
