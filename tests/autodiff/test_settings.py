"""Torch's settings of tf32, and streams: what is changed is put back, whichever way it was set."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from gradverify.autodiff import settings
from gradverify.autodiff.settings import digits_of_float32, has_streams, has_tf32, put_back, side_stream, tf32


@pytest.mark.parametrize("word", ["highest", "high", "medium"])
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_allowed_or_not_within_and_as_before_after(word, allowed):
    own = digits_of_float32()
    torch.set_float32_matmul_precision(word)
    try:
        before = digits_of_float32()
        with tf32(allowed=allowed):
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert digits_of_float32()["cuda_matmul_fp32_precision"] == ("tf32" if allowed else "ieee")
        assert digits_of_float32() == before
        assert torch.get_float32_matmul_precision() == word
    finally:
        torch.set_float32_matmul_precision("highest")
        put_back(own)
    with tf32(allowed=allowed):
        pass
    assert digits_of_float32() == own


NEWER = """
import torch
torch.backends.cuda.matmul.fp32_precision = "tf32"
from gradverify.autodiff.settings import digits_of_float32, tf32
from gradverify.engine.environment import environment
with tf32(allowed=False):
    print(digits_of_float32()["cuda_matmul_fp32_precision"], torch.backends.cudnn.conv.fp32_precision)
print(environment().flags["cuda_matmul_fp32_precision"])
"""


def test_the_newer_settings_are_read_and_put_back_too():
    done = subprocess.run([sys.executable, "-c", NEWER], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["ieee ieee", "tf32"]


def test_devices_that_have_tf32_and_streams():
    assert [has_tf32(d) for d in ("cpu", "cpu:0", "cuda", "cuda:1")] == [False, False, True, True]
    assert [has_streams(d) for d in ("cpu", "meta", "cuda:1")] == [False, False, True]


def test_a_side_stream_waits_for_the_one_before_and_that_for_it(monkeypatch):
    told = []

    class Stream:
        def __init__(self, where="home"):
            self.where = str(where)

        def wait_stream(self, other):
            told.append(f"{self.where} waits for {other.where}")

        def __enter__(self):
            told.append(f"enter {self.where}")

        def __exit__(self, *_):
            told.append(f"leave {self.where}")

    home = Stream()
    fake = SimpleNamespace(current_stream=lambda _: home, Stream=Stream, stream=lambda s: s)
    monkeypatch.setattr(settings, "_streams_of", lambda _: fake)
    with side_stream("cpu:0"):
        told.append("work")
    assert told == ["cpu:0 waits for home", "enter cpu:0", "work", "leave cpu:0", "home waits for cpu:0"]
