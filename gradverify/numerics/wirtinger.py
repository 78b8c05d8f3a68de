"""One entry of a derivative between complex numbers: its Wirtinger parts, and how a wrong one is related to the true.

With z = x + iy and F = R + iI, the real block is [[R_x, R_y], [I_x, I_y]], and
dF/dz = (R_x + I_y + i (I_x - R_y)) / 2, dF/dz* = (R_x - I_y + i (I_x + R_y)) / 2.
The vjp is g = u conj(dF/dz) + conj(u) dF/dz*; a real F has g = R_x + i R_y at u = 1.
Source: Kreutz-Delgado, The Complex Gradient Operator and the CR-Calculus, 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradverify.numerics.difference import Array
from gradverify.numerics.measurement import SAFETY

RELATED = 1e-9
"""A relation between two entries holds when what is left is this small beside them, or within the bars."""

CONJUGATED = "the derivative is conjugated: conj() is missing, or once too often"
COTANGENT = "the cotangent is conjugated"
GRADIENT = "the gradient comes back conjugated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A claimed and a true block, [rows, columns]: two rows for a complex output, two columns for a complex input."""

    claimed: Array
    true: Array
    error: Array

    @property
    def slack(self) -> float:
        """How far two entries that are equal may be apart."""
        return SAFETY * float(self.error.sum()) + RELATED * float(np.abs(self.true).max())


def numbers(block: Array) -> dict[str, complex]:
    """The block as complex numbers: both Wirtinger parts; a real output's gradient; the derivative by a real input."""
    if block.shape == (2, 2):
        (rx, ry), (ix, iy) = block
        return {
            "dy/dz": 0.5 * complex(rx + iy, ix - ry),
            "dy/dz*": 0.5 * complex(rx - iy, ix + ry),
        }
    if block.size == 1:
        return {}
    return {"gradient" if block.shape == (1, 2) else "dy/dz": complex(*block.reshape(-1))}


def relation(block: Block) -> str:
    """What the claimed block is to the true one, in words; empty where it is nothing simple."""
    for words, candidate in _candidates(block.true):
        if _same(candidate, block.claimed, block.slack) and not _same(candidate, block.true, block.slack):
            return words
    return ""


def _same(a: Array, b: Array, slack: float) -> bool:
    return bool(np.abs(a - b).max() <= slack)


def _candidates(true: Array) -> list[tuple[str, Array]]:
    found = []
    rows, columns = true.shape
    if columns == 2:
        # Conjugating dF/dz and dF/dz* both changes the sign of I_x and R_y.
        flipped = np.array([[1.0, -1.0], [-1.0, 1.0]])[:rows]
        found += [(CONJUGATED, true * flipped), ("the gradient by Im z is missing", true * [1.0, 0.0])]
        found += [("the gradient by Re z is missing", true * [0.0, 1.0])]
    if rows == 2:
        word = COTANGENT if columns == 2 else CONJUGATED
        found += [(word, true * [[1.0], [-1.0]]), ("what flows back through Im y is missing", true * [[1.0], [0.0]])]
        found += [("what flows back through Re y is missing", true * [[0.0], [1.0]])]
    if true.shape == (2, 2):
        (rx, ry), (ix, iy) = true
        same, other = (
            np.array([[rx + iy, ry - ix], [ix - ry, rx + iy]]),
            np.array([[rx - iy, ry + ix], [ix + ry, iy - rx]]),
        )
        found += [(GRADIENT, true * [1.0, -1.0])]
        found += [("the part by z* is missing", same / 2), ("the part by z is missing", other / 2)]
    return [*found, ("it is twice the true one", 2 * true), (HALF, true / 2)]


HALF = "it is half the true one: torch's gradient is dL/dRe z + i dL/dIm z, twice the Wirtinger derivative by z*"
