"""The Wirtinger parts of closed forms, and what a wrong block is to a true one."""

from __future__ import annotations

import numpy as np
import pytest

from gradverify.numerics.wirtinger import CONJUGATED, COTANGENT, GRADIENT, HALF, Block, numbers, relation

A, B = 1.5 - 0.75j, -0.25 + 2j


def block(a: complex, b: complex) -> np.ndarray:
    """The real block of F(z) = a z + b z*."""
    columns = [a * v + b * np.conj(v) for v in (1, 1j)]
    return np.array([[c.real for c in columns], [c.imag for c in columns]])


def judged(claimed, true):
    true = np.asarray(true, dtype=float)
    return relation(Block(claimed=np.asarray(claimed, dtype=float), true=true, error=np.full(true.shape, 1e-13)))


def test_the_parts_of_a_linear_map_are_its_coefficients():
    assert numbers(block(A, B)) == {"dy/dz": A, "dy/dz*": B}


def test_one_row_is_a_gradient_and_one_column_a_derivative():
    assert numbers(np.array([[1.0, -2.0]])) == {"gradient": 1 - 2j}
    assert numbers(np.array([[1.0], [-2.0]])) == {"dy/dz": 1 - 2j}
    assert numbers(np.array([[1.0]])) == {}


def of_backward(backward):
    """The block that a backward u -> g claims: its rows are the gradients at u = 1 and u = i."""
    return np.array([[g.real, g.imag] for g in (backward(1 + 0j), backward(1j))])


def test_the_block_of_the_right_backward_is_that_of_the_map():
    right = of_backward(lambda u: u * np.conj(A) + np.conj(u) * B)
    assert np.allclose(right, block(A, B), atol=0)


@pytest.mark.parametrize(
    ("backward", "a", "b", "words"),
    [
        (lambda u: u * A, A, 0, CONJUGATED),
        (lambda u: np.conj(u) * np.conj(A), A, 0, COTANGENT),
        (lambda u: u * np.conj(B), 0, B, GRADIENT),
        (lambda u: u * np.conj(A), A, B, "the part by z* is missing"),
        (lambda u: np.conj(u) * B, A, B, "the part by z is missing"),
        (lambda u: (u * np.conj(A)).real + 0j, A, 0, "the gradient by Im z is missing"),
        (lambda u: 1j * (u * np.conj(A)).imag, A, 0, "the gradient by Re z is missing"),
        (lambda u: u.real * np.conj(A), A, 0, "what flows back through Im y is missing"),
        (lambda u: 1j * u.imag * np.conj(A), A, 0, "what flows back through Re y is missing"),
        (lambda u: (u * np.conj(A) + np.conj(u) * B) / 2, A, B, HALF),
        (lambda u: 2 * (u * np.conj(A) + np.conj(u) * B), A, B, "it is twice the true one"),
    ],
)
def test_a_simple_mistake_is_told(backward, a, b, words):
    assert judged(of_backward(backward), block(a, b)) == words


def test_a_gradient_that_is_right_or_wrong_in_no_simple_way_is_told_nothing():
    assert judged(block(A, B), block(A, B)) == ""
    assert judged(np.add(block(A, B), [[0.1, 0.2], [0.3, 0.4]]), block(A, B)) == ""


def test_nothing_is_told_where_the_bars_hide_the_difference():
    true = block(A, 0)
    assert relation(Block(claimed=block(np.conj(A), 0), true=true, error=np.full((2, 2), 10.0))) == ""


def test_a_real_output_and_a_real_input():
    assert judged([[1.0, 2.0]], [[1.0, -2.0]]) == CONJUGATED
    assert judged([[1.0], [2.0]], [[1.0], [-2.0]]) == CONJUGATED
    assert judged([[1.0, 0.0]], [[1.0, -2.0]]) == "the gradient by Im z is missing"
    assert judged([[0.5, -1.0]], [[1.0, -2.0]]) == HALF
