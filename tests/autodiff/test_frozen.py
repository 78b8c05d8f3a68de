"""What is frozen keeps its value while the point is shifted."""

import pytest
import torch

from gradverify.autodiff.frozen import Recorder, frozen
from gradverify.errors import SpecError

X = torch.tensor([0.3, 1.4])


def straight_through(x):
    return x + frozen(torch.round(x) - x)


def test_outside_of_a_verification_it_is_a_detach():
    x = X.clone().requires_grad_()
    assert straight_through(x).tolist() == torch.round(X).tolist()
    assert torch.autograd.grad(straight_through(x).sum(), x)[0].tolist() == [1.0, 1.0]


def test_at_a_shifted_point_the_value_of_the_base_point_is_replayed():
    g = Recorder().around(straight_through)
    assert torch.equal(g(X), torch.round(X) - X + X)
    assert torch.equal(g(X + 0.125) - g(X), torch.full((2,), 0.125))


def test_a_plain_detach_is_seen_through():
    g = Recorder().around(lambda x: x + (torch.round(x) - x).detach())
    g(X)
    assert not torch.equal(g(X + 0.125) - g(X), torch.full((2,), 0.125))


def test_values_are_replayed_in_the_order_of_the_calls():
    def g(x):
        return frozen(2 * x) + frozen(3 * x) * x

    shifted = Recorder().around(g)
    shifted(X)
    assert torch.equal(shifted(X + 1), 2 * X + 3 * X * (X + 1))


def test_two_functions_do_not_share_what_they_froze():
    first, second = Recorder().around(frozen), Recorder().around(frozen)
    first(X)
    second(2 * X)
    assert torch.equal(first(0 * X), X)
    assert torch.equal(second(0 * X), 2 * X)


def test_a_surrogate_that_freezes_more_or_other_shapes_near_the_point_is_refused():
    sometimes = Recorder().around(lambda x: frozen(x) + (frozen(x) if x[0] > 1 else 0))
    sometimes(X)
    with pytest.raises(SpecError, match="call it unconditionally"):
        sometimes(X + 5)
    shapes = Recorder().around(lambda x: frozen(x[x > 1]).sum() + x)
    shapes(X)
    with pytest.raises(SpecError, match="call it unconditionally"):
        shapes(X + 5)


def test_a_refusal_does_not_leave_the_recorder_active():
    def broken(x):
        frozen(x)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 any
        Recorder().around(broken)(X)
    assert torch.equal(frozen(2 * X), 2 * X)
