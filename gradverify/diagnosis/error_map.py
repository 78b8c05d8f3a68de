"""Where a gradient is wrong, as a picture of its entries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradverify.diagnosis.sample import Array, Sample, off

SHADES = ((1e-4, "░"), (1e-2, "▒"), (0.3, "▓"))
"""An error below that part of the largest entry, and how it is drawn; right entries are `·`, larger errors `█`.

That is for the eye alone: which entries are wrong is decided in error bars."""

LEGEND = "· right  ░ <1e-4  ▒ <.01  ▓ <.3  █ more"
WIDEST, HIGHEST, LEAST = 32, 6, 4


def error_map(samples: Sequence[Sample], name: str) -> tuple[str, ...]:
    """The error of each entry beside the largest true one, rows and columns grouped; empty where all look alike."""
    s = max(samples, key=lambda s: s.x[name].size)
    if s.x[name].size < LEAST or len(s.shape[name]) > 3:
        return ()
    value, _ = s.true(name)
    with np.errstate(all="ignore"):
        error = np.where(off(s, name), np.abs(s.got[name] - value), 0).max(0)
    top = float(np.max(np.abs(value)))
    shape = s.shape[name] if s.shape[name] else (1,)
    grid = np.nan_to_num((error / top if top else error), nan=np.inf).reshape(-1, shape[-1])
    if len({_shade(e) for e in grid.reshape(-1)}) < 2:
        return ()
    grid = grid.T if grid.shape[1] == 1 else grid
    rows, columns = _grouped(grid, HIGHEST), -(-grid.shape[1] // WIDEST)
    said = "x".join(map(str, s.shape[name]))
    lines = [f"where          error / largest entry, {said}   {LEGEND}"]
    for label, row in rows:
        cells = "".join(_shade(float(np.max(row[:, c : c + columns]))) for c in range(0, row.shape[1], columns))
        lines.append(f"  {label:>7} |{cells}|")
    return tuple(lines)


def _grouped(grid: Array, most: int) -> list[tuple[str, Array]]:
    """Rows in groups of equal size, with the label of each."""
    step = -(-len(grid) // most)
    spans = [(k, min(k + step, len(grid))) for k in range(0, len(grid), step)]
    return [(f"{a}" if b - a == 1 else f"{a}-{b - 1}", grid[a:b]) for a, b in spans]


def _shade(error: float) -> str:
    if error == 0:
        return "·"
    return next((mark for limit, mark in SHADES if error < limit), "█")
