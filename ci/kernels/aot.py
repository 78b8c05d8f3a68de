"""Compile kernels for a GPU that is not there, and read from the binary what a GPU would not like.

A driver that only names an architecture is enough for Triton to compile; the op runs on meta tensors, so that its real
strides, sizes and compile-time constants are compiled, and every launch becomes a compilation.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget

FACTS = "facts-1.json"
"""Where facts are kept beside what Triton caches; another number makes them anew."""

MATRIX = ("UTCHMMA", "UTCQMMA", "HGMMA", "HMMA", "DMMA")
"""Instructions of the tensor cores: sm_100's, sm_90's, the older ones, those of float64."""
WATCHED = (*MATRIX, "DFMA", "FFMA", "LDL", "STL")


@dataclass(frozen=True)
class Facts:
    """What the binary of a kernel says.

    `spilled`: bytes of a thread that do not fit into registers. `serialized`: ptxas gave up running wgmma beside other
    work (C7512). `dots`: whether the kernel has matrix products at all. `instructions`: how many of WATCHED.
    `seconds`: of the compilation. `binary`: its hash.
    """

    kernel: str
    arch: int
    registers: int
    spilled: int
    shared: int
    threads: int
    serialized: bool
    dots: bool
    instructions: dict[str, int]
    seconds: float
    binary: str


class NamedDriver:
    """All that Triton asks of a driver before it launches."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        """A device for each architecture: what is compiled is kept by device."""
        return self.arch

    def get_current_stream(self, _device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling(module: ModuleType, arch: int) -> Iterator[list[Facts]]:
    """While it lasts, the launches of an op's module compile for an architecture; yields what was compiled."""
    found: list[Facts] = []
    launch: Callable[..., None] = module.launch  # type: ignore[attr-defined]

    def compiled_only(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
        found.append(compiled(kernel, grid, args, meta, arch))

    active = triton.runtime.driver._active  # noqa: SLF001 (asking for the active one would look for a GPU)
    triton.runtime.driver.set_active(NamedDriver(arch))
    module.launch = compiled_only  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        module.launch = launch  # type: ignore[attr-defined]
        triton.runtime.driver.set_active(active)


def compiled(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any], arch: int) -> Facts:
    """The facts of one launch; from beside Triton's cache where they are."""
    began = time.perf_counter()
    binary, log = _compiled(kernel, grid, args, meta)
    folder = Path(next(iter(binary.metadata_group.values()))).parent
    kept = folder / FACTS
    if kept.exists():
        return Facts(**json.loads(kept.read_text()))
    if not log:
        # Compiled by somebody who did not look: once more, for what ptxas says.
        shutil.rmtree(folder)
        kernel.device_caches[arch][0].clear()
        binary, log = _compiled(kernel, grid, args, meta)
    facts = read(binary, log, kernel=kernel.fn.__name__, arch=arch, seconds=time.perf_counter() - began)
    kept.write_text(json.dumps(asdict(facts)))
    return facts


def _compiled(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> tuple[Any, str]:
    said = io.StringIO()
    with triton.knobs.nvidia.scope(), contextlib.redirect_stdout(said):
        triton.knobs.nvidia.dump_ptxas_log = True
        binary = kernel.warmup(*args, grid=grid, **meta)
    return binary, said.getvalue()


def read(binary: Any, log: str, *, kernel: str, arch: int, seconds: float) -> Facts:
    """The facts of a binary and of what ptxas said when it made it."""
    used = [int(n) for n in re.findall(r"Used (\d+) registers", log)]
    frames = [max(map(int, n)) for n in re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", log)]
    if not used or not frames:
        raise LookupError(f"ptxas of triton {triton.__version__} says neither registers nor spills: adapt ci/kernels.")
    return Facts(
        kernel=kernel,
        arch=arch,
        registers=max(used),
        spilled=max(frames),
        shared=binary.metadata.shared,
        threads=32 * binary.metadata.num_warps,
        serialized="C7512" in log or "wgmma.mma_async instructions are serialized" in log,
        dots="tt.dot" in binary.asm["ttir"],
        instructions=instructions(binary.asm["cubin"]),
        seconds=seconds,
        binary=binary.hash,
    )


def instructions(cubin: bytes) -> dict[str, int]:
    """How many of the watched instructions a binary holds."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
        listing = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout
    counts = Counter(re.findall(rf"\b({'|'.join(WATCHED)})\b", listing))
    return {name: counts[name] for name in WATCHED if counts[name]}
