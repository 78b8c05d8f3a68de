"""Wrong forms of the op in scale_add.py, each caught in another way."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kernels.record import Mutant

OP = f"{Path(__file__).with_name('scale_add.py')}:scale_add"


def mutant(name: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, op=OP, kind="", old=old, new=new)


MUTANTS = (
    mutant("bias_unmasked", "tl.load(b + n * sb, mask=n < N, other=0.0)", "tl.load(b + n * sb)"),
    mutant("store_unmasked", "out, mask=inside)", "out, mask=(m < M)[:, None])"),
    mutant("stored_by_all", "        total += tl", "        tl.store(db, start)\n        total += tl"),
    mutant("lane_undefined", "mask=inside, other=0.0)\n        tl.store", "mask=inside)\n        tl.store"),
    mutant("rows_forgotten", "range(0, M, ROWS)", "range(0, M - ROWS, ROWS)"),
    mutant("scaled_twice", "(A * tile).to(dx", "(A * A * tile).to(dx"),
    mutant(
        "column_stride_ignored",
        "tl.load(u + m[:, None] * sm + n[None, :] * sn",
        "tl.load(u + m[:, None] * sm + n[None, :]",
    ),
)
