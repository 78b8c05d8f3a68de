"""Torch's settings that change the digits of float32 (tf32), and streams other than the current one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

DELAY = 20_000_000
"""Clock cycles, some 10 ms, by which a side stream lags behind: what runs on another stream comes too early."""


def digits_of_float32() -> dict[str, str]:
    """What products of float32 are computed in: `ieee`, `tf32`, `bf16`, or `none`, which leaves it to torch.

    Read by the newer settings, which know what was set by the older ones; the reverse raises.
    """
    return {name: place.fp32_precision for name, place in _places().items()}


def put_back(words: Mapping[str, str]) -> None:
    """Set what `digits_of_float32` has read: the older settings make `ieee` of a `none`."""
    for name, place in _places().items():
        if place.fp32_precision != words[name]:
            place.fp32_precision = words[name]


def _places() -> dict[str, Any]:
    backends: Any = torch.backends
    return {
        "cuda_matmul_fp32_precision": backends.cuda.matmul,
        "cudnn_conv_fp32_precision": backends.cudnn.conv,
        "cudnn_rnn_fp32_precision": backends.cudnn.rnn,
        "cpu_matmul_fp32_precision": backends.mkldnn.matmul,
    }


def has_tf32(device: str) -> bool:
    """Whether products of float32 may be computed in tf32 on a device."""
    return torch.device(device).type == "cuda"


@contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Within it tf32 is allowed in products and convolutions, or it is not; afterwards all is as it was.

    By the older settings, which ops read, unless the newer ones are in use, which forbid that.
    """
    try:
        word, conv = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        with _by_newer_settings("tf32" if allowed else "ieee"):
            yield
        return
    before = digits_of_float32()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(word)
        torch.backends.cudnn.allow_tf32 = conv
        put_back(before)


@contextmanager
def _by_newer_settings(word: str) -> Iterator[None]:
    before = digits_of_float32()
    put_back({name: old if name.startswith("cpu") else word for name, old in before.items()})
    try:
        yield
    finally:
        put_back(before)


def has_streams(device: str) -> bool:
    """Whether work on a device is queued on streams."""
    return torch.device(device).type not in ("cpu", "meta")


def _streams_of(device: str) -> Any:
    return torch.get_device_module(torch.device(device))


@contextmanager
def side_stream(device: str) -> Iterator[None]:
    """Within it another stream is current, on which the work lags behind; both wait for each other at either end."""
    where, streams = torch.device(device), _streams_of(device)
    home, side = streams.current_stream(where), streams.Stream(where)
    side.wait_stream(home)
    with streams.stream(side):
        if where.type == "cuda":
            torch.cuda._sleep(DELAY)  # type: ignore[no-untyped-call]  # noqa: SLF001 torch's own tests use it
        yield
    home.wait_stream(side)
