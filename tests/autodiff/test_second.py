"""Second derivatives through torch's engine: reverse over reverse, forward over reverse, reverse over forward."""

import pytest
import torch

from gradverify.autodiff import calling, products, second
from gradverify.errors import OpError
from gradverify.records.case import Point
from gradverify.records.spec import Arg, Spec
from tests.faults import double_backward as ops

X = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
U = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
W = torch.tensor([1.5, 0.25, -1.0], dtype=torch.float64)
D = torch.tensor([-0.5, 2.0, 1.0], dtype=torch.float64)
POINT = Point(primals={"x": X}, kwargs={}, differentiate=("x",))


def spec(op):
    return Spec(name="op", op=op, args=(Arg(name="x", shape="n"),))


def recorded(op):
    return second.twice(products.record(spec(op), calling.op_of(spec(op)), POINT), (U,))


def slopes(x):
    """f' and f'' of x exp(-x^2)."""
    return (1 - 2 * x**2) * torch.exp(-(x**2)), (4 * x**3 - 6 * x) * torch.exp(-(x**2))


def close(a, b):
    return bool(((a - b).abs() <= 1e-14).all())


def test_reverse_over_reverse_is_the_derivative_by_inputs_and_cotangents():
    first, curved = slopes(X)
    by_x, by_u = recorded(ops.Bell).vjp({"x": W})
    assert close(by_x, W * U * curved)
    assert close(by_u, W * first)


def test_forward_over_reverse_pushes_both_tangents():
    first, curved = slopes(X)
    pushed = second.forward_over_reverse(calling.op_of(spec(ops.BellBothWays)), POINT, (U,), (D, W))
    assert close(pushed.outputs[0], first * D)
    assert close(pushed.grads["x"], U * curved * D + W * first)


def test_reverse_over_forward_differentiates_the_tangent():
    first, curved = slopes(X)
    found = second.reverse_over_forward(calling.op_of(spec(ops.BellBothWays)), POINT, (U,), {"x": W})
    by_x, by_v = found.by_x, found.by_v
    assert close(by_x["x"], U * curved * W)
    assert close(by_v["x"], U * first)


def test_an_op_without_forward_mode_has_neither():
    called = calling.op_of(spec(ops.Bell))
    assert second.forward_over_reverse(called, POINT, (U,), (D, W)) is None
    assert second.reverse_over_forward(called, POINT, (U,), {"x": W}) is None


@pytest.mark.parametrize(("op", "refuses"), [(ops.BellRefused, True), (ops.RunningByAccident, False)])
def test_a_refusal_is_told_from_an_accident(op, refuses):
    point = Point(primals={"x": X[None]}, kwargs={}, differentiate=("x",))
    tape = products.record(spec(op), calling.op_of(spec(op)), point)
    us = tuple(torch.ones_like(y) for y in tape.outputs)
    with pytest.raises(OpError, match="the double backward raised RuntimeError") as caught:
        second.twice(tape, us)
    assert second.refused(caught.value) is refuses
    assert caught.value.stage == second.STAGE


def test_what_has_no_history_is_none():
    by_x, by_u = recorded(lambda x: 2 * x).vjp({"x": W})
    assert by_x is None
    assert close(by_u, 2 * W)


def test_what_forward_kept_without_history_is_named():
    assert second.without_history(recorded(ops.BellOnContext).tape) == ("ctx.gate",)
    assert second.without_history(recorded(ops.Bell).tape) == ()


def test_what_cuts_history_in_backward_is_named_and_undone_for_a_look():
    class Cut(ops.Bell):
        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with torch.no_grad():
                gate = torch.exp(-(x.detach() ** 2))
            return g * (1 - 2 * x.data**2) * gate

    found = recorded(Cut)
    assert found.vjp({"x": W})[0] is None
    seen = second.uncut(found, {"x": W})
    assert (seen.names, seen.numbers) == (("no_grad", "detach", ".data"), ())
    assert close(seen.derivatives[0], W * U * slopes(X)[1])
    assert X.detach().data.requires_grad is False
    with torch.no_grad():
        assert not torch.is_grad_enabled()
