"""Everything in float64, and every step rounded, forward and backward."""

from __future__ import annotations

import torch

from gradverify.autodiff.rounded import in_float64

THIRD = torch.tensor(1.0, dtype=torch.float64) / 3


def test_a_cast_to_less_stays_float64():
    with in_float64():
        assert torch.equal(THIRD.float(), THIRD)
        assert torch.equal(THIRD.to(torch.bfloat16), THIRD)
        assert torch.equal(THIRD.half().double(), THIRD)
    assert THIRD.float().dtype is torch.float32


def test_tensors_made_in_less_are_float64():
    with in_float64():
        assert torch.zeros(2, dtype=torch.float16).dtype is torch.float64
        assert torch.ones(2).dtype is torch.float64
        assert torch.arange(3).dtype is torch.int64
        assert (torch.zeros(2, dtype=torch.complex64)).dtype is torch.complex128


def test_backward_is_in_float64_too():
    x = THIRD.clone().requires_grad_()
    with in_float64():
        y = x.float().exp().to(torch.bfloat16)
        (g,) = torch.autograd.grad(y, x)
    assert torch.equal(g, THIRD.exp())


def test_each_step_is_rounded_and_a_view_is_not_a_step():
    with in_float64(rounded_to=torch.bfloat16):
        y = THIRD + 0
        view = THIRD.reshape(1)
    assert y.dtype is torch.float64
    assert torch.equal(y, THIRD.bfloat16().double())
    assert torch.equal(view, THIRD.reshape(1))


def test_what_is_written_in_place_is_rounded_in_place():
    y = THIRD.clone()
    with in_float64(rounded_to=torch.float16):
        out = y.mul_(3.1)
    assert out is y
    assert torch.equal(y, (THIRD * 3.1).half().double())


def test_the_steps_of_backward_are_rounded():
    x = THIRD.clone().requires_grad_()
    with in_float64(rounded_to=torch.bfloat16):
        (g,) = torch.autograd.grad(x * x * x, x)
    assert torch.equal(g, g.bfloat16().double())
    assert g != 3 * THIRD * THIRD


def test_integers_and_several_results_pass_through():
    with in_float64(rounded_to=torch.bfloat16):
        values, places = torch.stack([THIRD, THIRD * 2]).max(0)
    assert places.dtype is torch.int64
    assert torch.equal(values, (THIRD * 2).bfloat16().double())
