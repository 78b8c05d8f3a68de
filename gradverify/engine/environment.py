"""What the report says of the machine: versions, devices, the flags that change numerics, the commit."""

from __future__ import annotations

import os
import platform
import subprocess

import torch

from gradverify.autodiff.settings import digits_of_float32
from gradverify.engine.threads import SMALL
from gradverify.records.run import Environment


def environment() -> Environment:
    """The environment of this process. `git` is the commit of the current directory's checkout, if it is one."""
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        platform=platform.platform(),
        devices=("cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))),
        flags=_flags(),
        git=_commit(),
    )


def _flags() -> dict[str, str]:
    return {
        "deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()),
        **digits_of_float32(),
        "fp16_reduced_precision_reduction": str(torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction),
        "bf16_reduced_precision_reduction": str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction),
        "flush_denormal": str(not bool(torch.tensor(1e-310, dtype=torch.float64) * 1)),
        "threads": str(torch.get_num_threads()),
        f"threads_below_{SMALL}_elements": "1",
        **{k: v for k in ("OMP_NUM_THREADS", "TRITON_INTERPRET") if (v := os.environ.get(k)) is not None},
    }


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 whichever git the user has
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
