"""Everything in float64, and every step rounded, forward and backward."""

from __future__ import annotations

import pytest
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


def test_at_random_it_is_rounded_to_either_neighbour_and_exactly_so_in_the_mean():
    x = torch.full((100_000,), 1 + 2.0**-25, dtype=torch.float64)
    with in_float64(rounded_to=torch.float32, generator=torch.Generator().manual_seed(0)):
        y = x * 1
    assert set(y.unique().tolist()) == {1.0, 1 + 2.0**-23}
    assert abs((y == 1.0).double().mean().item() - 0.75) < 0.01


def test_what_is_a_float_stays_one():
    x = torch.tensor([1.5, 0.0, -torch.inf, torch.nan, 3e38], dtype=torch.float64)
    with in_float64(rounded_to=torch.float32, generator=torch.Generator().manual_seed(0)):
        y = x * torch.tensor([1.0, 1.0, 1.0, 1.0, 10.0], dtype=torch.float64)
    assert torch.equal(y[:3], x[:3])
    assert y[3].isnan()
    assert y[4] > 3e38


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_softmax_step_by_step_is_softmax_and_rounds_what_cancels(function):
    x = torch.tensor([[0.3, -17.2, -1.0], [2.0, -15.0, -20.0]], dtype=torch.float64, requires_grad=True)
    u = torch.tensor([[0.7, -1.2, 0.4], [1.1, 0.3, -0.9]], dtype=torch.float64)
    y = function(x, -1)
    (want,) = torch.autograd.grad(y, x, u)
    with in_float64(rounded_to=torch.float32):
        z = function(x, -1)
        (got,) = torch.autograd.grad(z, x, u)
    # Four roundings of numbers of size 1, or of the size of the value.
    assert ((z - y).abs() <= 2.0**-22 * y.abs().clamp(min=1)).all()
    assert ((got - want).abs() <= 2.0**-22).all()
    assert ((got - want).abs() > 1e-9).any()


def test_both_parts_of_a_complex_number_are_rounded():
    z = torch.complex(THIRD, -2 * THIRD).conj()
    for generator in (None, torch.Generator().manual_seed(0)):
        with in_float64(rounded_to=torch.float32, generator=generator):
            w = z * 1.7
        assert w.dtype is torch.complex128
        assert torch.equal(w, w.to(torch.complex64).to(torch.complex128))
        assert 0 < abs(w - z * 1.7) < 1e-7


def test_the_gradient_of_silu_rounds_the_step_that_cancels():
    x = torch.tensor([16.3, 15.9, 0.5], dtype=torch.float64, requires_grad=True)
    (want,) = torch.autograd.grad(torch.nn.functional.silu(x).sum(), x)
    with in_float64(rounded_to=torch.float32):
        (got,) = torch.autograd.grad(torch.nn.functional.silu(x).sum(), x)
    apart = (got - want).abs()
    assert (apart <= 2.0**-24 * (2 + x.abs())).all()
    assert apart[:2].max() > 2.0**-23, "x times one rounding of 1 - sigmoid"


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_zeros_that_have_no_memory_stay_as_they_are(dtype):
    with in_float64(rounded_to=torch.float32):
        zero = torch._efficientzerotensor((3,), dtype=dtype)
    assert zero._is_zerotensor()
    assert not (zero + torch.zeros(3, dtype=dtype)).any()
