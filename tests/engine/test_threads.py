"""Small tensors get one thread, large ones the user's; afterwards the user's number stands again."""

import pytest
import torch

from gradverify.cases.concrete import Fixed, spec_at
from gradverify.engine.at import examine
from gradverify.engine.session import run
from gradverify.engine.threads import SMALL, largest, threads_for
from gradverify.engine.verify import verify
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Spec


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_small_tensors_get_one_thread_and_large_ones_all():
    with threads_for(SMALL - 1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with threads_for(SMALL):
        assert torch.get_num_threads() == 3


def test_the_number_is_restored_after_an_exception():
    with pytest.raises(KeyboardInterrupt), threads_for(0):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("size", "threads"), [(4, 1), (512, 3)])
def test_an_op_is_called_with_the_threads_of_its_largest_tensor(size, threads):
    seen = set()

    def op(x):
        seen.add(torch.get_num_threads())
        return x.sum(0)

    spec = spec_at(op, (torch.ones(size, 512),), {}, name="op")
    for _ in verify(spec, Plan(claims=("repeat",), examples=1), Policy()):
        assert torch.get_num_threads() == 3
    assert seen == {threads}
    examine(op, (torch.ones(4, 2, dtype=torch.float64),))
    assert seen == {threads, 1}


def test_what_the_op_itself_holds_counts():
    spec = Spec(name="linear", op=torch.nn.Linear(8, 6), args=(Arg(name="input", shape="b 8"),))
    assert largest(spec, Case(spec="linear", claim="vjp", dims=(("b", 2),))) == 48
    held = spec_at(torch.mul, (torch.ones(1, requires_grad=True), torch.ones(100)), {}, name="mul")
    assert largest(held, Case(spec="mul", claim="vjp")) == 100
    fixed = Spec(name="mul", op=Fixed(torch.mul, {"other": torch.ones(70)}), args=(Arg(name="x", shape="3"),))
    assert largest(fixed, Case(spec="mul", claim="vjp")) == 70


def test_a_run_restores_the_number_and_says_both():
    def breaks(x):
        raise ValueError("no")

    spec = Spec(name="breaks", op=breaks, args=(Arg(name="x", shape="n"),))
    flags = run([spec], Plan(claims=("vjp",), examples=1), Policy()).environment.flags
    assert torch.get_num_threads() == 3
    assert flags["threads"] == "3"
    assert flags[f"threads_below_{SMALL}_elements"] == "1"
