"""One point, one answer."""

import pytest
import torch
from torch.autograd import Function

from gradverify.engine.at import examine
from gradverify.errors import UsageError
from gradverify.records.policy import Policy
from gradverify.records.verdict import Outcome

PASS, FAIL, OPEN, ERROR = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def claiming(forward, slope):
    """An elementwise op with this slope as its backward."""

    class Op(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx, u):
            return u * slope(*ctx.saved_tensors)

    return Op.apply


X = float64(0.3, 1.7, -2.2)
STEEP = claiming(torch.sin, lambda x: 1.001 * torch.cos(x))


@pytest.mark.parametrize("op", [torch.sin, torch.exp, torch.tanh, torch.nn.functional.gelu, lambda x: x.cumsum(0)])
def test_a_right_gradient_passes_in_few_forwards(op):
    answer = examine(op, (X,))
    assert (answer.outcome, answer.code, answer.reason) == (PASS, "", "")
    assert answer.forwards <= 60


def test_a_gradient_off_by_one_in_a_thousand_fails_and_says_where():
    answer = examine(STEEP, (X,))
    assert (answer.outcome, answer.code) == (FAIL, "GV199")
    assert answer.reason.startswith("FAIL vjp[cpu-float64] GV199 wrong gradient of `")
    assert "+-" in answer.reason
    assert answer.verdicts


def test_several_inputs_are_told_apart():
    class Matmul(Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        def backward(ctx, u):
            a, b = ctx.saved_tensors
            return u @ b.t(), 2 * a.t() @ u

    a, b = torch.eye(3, dtype=torch.float64) + 0.5, torch.full((3, 2), 0.25, dtype=torch.float64)
    answer = examine(Matmul.apply, (a, b))
    worst = next(v for v in answer.verdicts if v.outcome is FAIL).evidence.worst
    assert worst.argument == "b"
    assert examine(torch.matmul, (a, b)).outcome is PASS


@pytest.mark.parametrize("claim", [0.0, 0.5, 1.0])
def test_at_a_kink_a_subgradient_is_undecided_and_named_as_such(claim):
    relu = claiming(torch.relu, lambda x: torch.where(x == 0, claim, (x > 0).double()))
    answer = examine(relu, (torch.zeros(3, dtype=torch.float64),))
    assert (answer.outcome, answer.code) == (OPEN, "GV302")
    assert all(v.moot for v in answer.verdicts)


@pytest.mark.parametrize("claim", [2.0, -1.0])
def test_at_a_kink_what_is_no_subgradient_fails(claim):
    relu = claiming(torch.relu, lambda x: torch.where(x == 0, claim, (x > 0).double()))
    assert examine(relu, (torch.zeros(3, dtype=torch.float64),)).outcome is FAIL


def test_an_op_that_raises_is_an_error_and_nothing_is_raised():
    def op(x):
        raise RuntimeError("no")

    answer = examine(op, (X,))
    assert (answer.outcome, answer.code) == (ERROR, "GV902")
    assert "the forward raised RuntimeError: no" in answer.reason


def test_a_jump_is_not_called_a_wrong_gradient():
    answer = examine(claiming(lambda x: (x >= 0).double(), torch.zeros_like), (float64(0.0, 0.0),))
    assert answer.outcome is not FAIL


def test_the_users_tensors_and_generator_are_left_alone():
    x = X.clone().requires_grad_()
    state = torch.random.get_rng_state()
    examine(torch.sin, (x,))
    assert torch.equal(x.detach(), X)
    assert x.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_seed_gives_the_same_answer():
    first, again = examine(STEEP, (X,), seed=3), examine(STEEP, (X,), seed=3)
    assert first == again


def test_a_policy_of_the_user_is_followed():
    assert examine(STEEP, (X,), policy=Policy(loosened=0.01)).outcome is PASS
    assert examine(STEEP, (X,), policy=Policy(loosened=1e-5)).outcome is FAIL


def test_calls_are_counted_as_they_are():
    calls = []
    answer = examine(lambda x: calls.append(1) or torch.sin(x), (X,))
    assert answer.forwards == len(calls)


def test_without_a_floating_tensor_there_is_nothing_to_examine():
    with pytest.raises(UsageError, match="no floating-point tensor"):
        examine(torch.neg, (torch.tensor([1, 2]),))


def test_backward_passes_are_counted():
    passes = []

    class Sine(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.sin(x)

        @staticmethod
        def backward(ctx, u):
            passes.append(1)
            return u * torch.cos(*ctx.saved_tensors)

    answer = examine(Sine.apply, (X,))
    assert answer.backwards == len(passes) > 0
