"""What a kernel may touch: the elements of the tensors that it was launched with, and none of them by two programs.

What programs add to atomically they may share, but not with one that stores or loads plainly, and it must hold a number
beforehand.

Every pointer of the interpreter knows the tensor that it was made from, so that an access is held against that tensor's
own elements: not those of its storage, and not those of a neighbour. Two programs of one launch run at the same time on
a GPU; what one of them stores plainly, no other may load, store or add to.
"""

from __future__ import annotations

import inspect
import linecache
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

TRITON = str(Path(triton.__file__).parent)
OURS = (__file__, str(Path(__file__).with_name("interpreter.py")))
MANY = -1


class KernelFault(IndexError):
    """A kernel touched what is not its own. The message names the line, the argument and the distance."""

    def __repr__(self) -> str:
        return str(self)


class OutOfBounds(KernelFault):
    """An access outside of the tensor's elements."""


class Race(KernelFault):
    """Two programs of one launch at one element, and one of them stores it plainly."""


class Uninitialised(KernelFault):
    """An atomic addition to memory that nothing has written."""


@dataclass(frozen=True)
class Owner:
    """A tensor as a kernel sees it: the addresses of its elements, sorted."""

    addresses: np.ndarray
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> Owner:
        at = np.zeros((1,) * tensor.dim(), dtype=np.int64)
        for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            at = at + (np.arange(size) * stride).reshape([-1 if k == axis else 1 for k in range(tensor.dim())])
        addresses = np.unique(tensor.data_ptr() + at * tensor.element_size()).astype(np.uint64)
        return cls(addresses, tuple(tensor.shape), tuple(tensor.stride()), str(tensor.dtype).removeprefix("torch."))

    def outside(self, pointers: np.ndarray) -> np.ndarray:
        """Which pointers are none of its elements."""
        if not self.addresses.size:
            return np.ones(pointers.shape, dtype=bool)
        at = np.searchsorted(self.addresses, pointers).clip(max=self.addresses.size - 1)
        return np.asarray(self.addresses[at] != pointers)

    def distance(self, pointers: np.ndarray) -> str:
        """How far outside the farthest of some pointers is."""
        if not self.addresses.size:
            return "which has no elements"
        before = int(self.addresses[0]) - int(pointers.min())
        behind = int(pointers.max()) - int(self.addresses[-1])
        if max(before, behind) <= 0:
            return "between its elements"
        return f"up to {before} bytes before its first" if before > behind else f"up to {behind} bytes past its last"

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)} of strides {list(self.stride)}"


class Owned(tl.pointer_type):
    """The type of a pointer that knows its tensor. Pointer arithmetic, broadcasts and splats keep the type."""

    def __init__(self, element: tl.dtype, owner: Owner) -> None:
        super().__init__(element)
        self.owner = owner

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass
class Launch:
    """What the programs of one launch have touched: element -> program, MANY for several."""

    stored: dict[int, int] = field(default_factory=dict)
    added: dict[int, int] = field(default_factory=dict)
    loaded: dict[int, int] = field(default_factory=dict)

    def clash(self, how: str, program: int, pointers: list[int]) -> int | None:
        """The first element at which this access meets another program's; the access is noted."""
        against = {"load": (self.stored, self.added), "store": (self.stored, self.added, self.loaded)}
        for seen in against.get(how, (self.stored, self.loaded)):
            if seen:
                for p in pointers:
                    if seen.get(p, program) != program:
                        return p
        mine = {"load": self.loaded, "store": self.stored}.get(how, self.added)
        for p in pointers:
            mine[p] = program if mine.get(p, program) == program else MANY
        return None


class Memory:
    """The state of the checker: the launch that is under way, what ran, and every fault that was found."""

    def __init__(self) -> None:
        self.launch = Launch()
        self.clear()

    def clear(self) -> None:
        """Forget the faults and what ran."""
        self.faults: dict[str, KernelFault] = {}
        self.ran: set[str] = set()
        self.programs = 0

    def check(self, how: str, pointers: Any, mask: np.ndarray, program: tuple[int, int, int]) -> None:
        """Hold one access against the owner of its pointers and the other programs. Raises OutOfBounds, Race."""
        owner = getattr(pointers.dtype, "owner", None)
        at = pointers.data[np.broadcast_to(mask, pointers.data.shape)]
        if not at.size:
            return
        if owner is None:
            self._raise(OutOfBounds, how, None, "a pointer that was made from no tensor of the launch")
        outside = owner.outside(at)
        if outside.any():
            count = f"{int(outside.sum())} of {at.size} elements outside of {owner}, {owner.distance(at[outside])}"
            self._raise(OutOfBounds, how, owner, count)
        x, y, z = program
        clash = self.launch.clash(how, (x << 40) + (y << 20) + z, at.tolist())
        if clash is not None:
            words = f"an element of {owner} that another program of this launch touches, too: a race on a GPU"
            self._raise(Race, how, owner, words)

    def unseen(self, pointers: Any, mask: np.ndarray) -> np.ndarray:
        """Where the elements are that this launch has neither stored nor added to so far."""
        seen = self.launch.added.keys() | self.launch.stored.keys()
        new = np.array([p not in seen for p in pointers.data.ravel().tolist()], dtype=bool)
        return np.asarray(new.reshape(pointers.data.shape) & mask)

    def check_written(self, pointers: Any, values: np.ndarray) -> None:
        """Hold what an addition finds, when it is the first of its launch, against the fill of fresh memory: NaN."""
        count = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
        if count:
            owner = pointers.dtype.owner
            self._raise(Uninitialised, "add", owner, f"to {count} elements of {owner} that nothing has written")

    def _raise(self, kind: type[KernelFault], how: str, owner: Owner | None, what: str) -> None:
        frame = kernel_frame()
        place, source = where(frame)
        name = _name(frame, owner)
        fault = kind(f"{place}: {how}s {what}{f' (`{name}`)' if name else ''}: {source}")
        self.faults.setdefault(f"{kind.__name__} {place}", fault)
        raise fault


def kernel_frame() -> FrameType | None:
    """The innermost frame that is a kernel's own."""
    frame = inspect.currentframe()
    while frame is not None and not _is_kernel(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_kernel(file: str) -> bool:
    return not (file in OURS or file.startswith(("<", TRITON)))


def where(frame: FrameType | None) -> tuple[str, str]:
    """`file:line` of a frame and the text of the line."""
    if frame is None:
        return "?", ""
    file = frame.f_code.co_filename
    return f"{Path(file).name}:{frame.f_lineno}", linecache.getline(file, frame.f_lineno).strip()


def _name(frame: FrameType | None, owner: Owner | None) -> str:
    """The argument of the kernel that points into a tensor."""
    for name, value in () if frame is None or owner is None else frame.f_locals.items():
        if getattr(getattr(getattr(value, "handle", None), "dtype", None), "owner", None) is owner:
            return str(name)
    return ""
