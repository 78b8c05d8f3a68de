"""Wrong forms of the op in scale_add.py, each caught in another way."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kernels.record import Mutant

OP = f"{Path(__file__).with_name('scale_add.py')}:scale_add"


def mutant(name: str, function: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, op=OP, kind="", function=function, old=old, new=new)


MUTANTS = (
    mutant("bias_unmasked", "_forward", "tl.load(b + n * sb, mask=n < N, other=0.0)", "tl.load(b + n * sb)"),
    mutant("store_unmasked", "_forward", "out, mask=inside)", "out, mask=(m < M)[:, None])"),
    mutant("stored_by_all", "_backward", "        total += tl", "        tl.store(db, start)\n        total += tl"),
    mutant(
        "lane_undefined", "_backward", "mask=inside, other=0.0)\n        tl.store", "mask=inside)\n        tl.store"
    ),
    mutant("rows_forgotten", "_backward", "range(0, M, ROWS)", "range(0, M - ROWS, ROWS)"),
    mutant("scaled_twice", "_backward", "(A * tile).to(dx", "(A * A * tile).to(dx"),
    mutant(
        "column_stride_ignored",
        "_backward",
        "tl.load(u + m[:, None] * sm + n[None, :] * sn",
        "tl.load(u + m[:, None] * sm + n[None, :]",
    ),
)
