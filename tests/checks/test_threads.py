"""Two threads: what is met in the midst of what, and what holds them up."""

import sys
import threading
import time

import pytest
import torch
from torch.autograd import Function

from gradverify.autodiff.transforms import threaded
from gradverify.checks import CHECKS
from gradverify.errors import CannotJudgeError, NotApplicableError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Policy
from gradverify.records.spec import Arg, Spec


def spec(op, **fields):
    return Spec(name="op", op=op, args=(Arg(name="x", shape="n"),), **fields)


def evidence(op, **fields):
    case = Case(spec="op", claim="transforms.threads", dims=(("n", 3),), differentiate=("x",), seed=5)
    return list(CHECKS["transforms.threads"](spec(op, **fields), case))


def verdict(op):
    return of_case([judge(e, Policy()) for e in evidence(op)])


def test_one_step_is_whole_in_the_midst_of_the_other():
    order = []

    def step(name, count):
        def run():
            for k in range(count):
                torch.ones(())
                order.append(f"{name}{k}")
            return threading.get_ident()

        return run

    found, passed = threaded.in_the_midst(step("a", 3), step("b", 2), after=2, seconds=0.0)
    assert order == ["a0", "b0", "b1", "a1", "a2"]
    assert passed
    assert len({*found, threading.get_ident()}) == 3
    assert threaded.operations(step("c", 4))[0] == 4


def test_a_step_that_waits_for_a_lock_of_the_other_is_not_waited_for():
    lock = threading.Lock()

    def locked():
        with lock:
            return torch.ones(()) + 1

    _, passed = threaded.in_the_midst(locked, locked, after=1, seconds=0.0)
    assert not passed


def test_what_a_step_raises_is_raised_and_one_that_hangs_cannot_be_judged(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        threaded.in_turn(lambda: 1 / 0)
    monkeypatch.setattr(threaded, "LONGEST", 0.05)
    with pytest.raises(CannotJudgeError, match=r"two threads did not come to an end in 0\.05 seconds"):
        threaded.in_turn(lambda: time.sleep(0.5))


def test_how_often_python_changes_threads_is_put_back():
    before = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        threaded.at_once(lambda: 1 / 0, lambda: None)
    assert sys.getswitchinterval() == before


class Locked(Function):
    """A buffer for all, behind a lock: right, and nothing passes in the midst of it."""

    lock, buffer = threading.Lock(), torch.zeros(3, dtype=torch.float64)

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        with Locked.lock:
            torch.sin(x, out=Locked.buffer)
            return Locked.buffer + 0

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        with Locked.lock:
            torch.cos(x, out=Locked.buffer)
            return u * Locked.buffer


class Unlocked(Locked):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        torch.sin(x, out=Locked.buffer)
        return Locked.buffer + 0


def test_a_lock_is_right_and_its_lack_is_met_at_the_same_place_each_time():
    assert verdict(Locked).code == ""
    places = {verdict(Unlocked).evidence.facts["relation"] for _ in range(3)}
    assert verdict(Unlocked).code == "GV511"
    assert len(places) == 1
    assert places.pop().startswith("another thread's call after ")


class OfThread(Function):
    kept = threading.local()

    @staticmethod
    def forward(ctx, x):
        OfThread.kept.slope = 2.0
        return 2 * x

    @staticmethod
    def backward(ctx, u):
        return OfThread.kept.slope * u


def test_what_forward_leaves_to_its_own_thread_is_not_there_in_another():
    e = verdict(OfThread).evidence
    assert e.facts["relation"] == "backward in another thread than forward"
    assert e.facts["said"] == "it raised AttributeError: '_thread._local' object has no attribute 'slope'"


def test_where_one_generator_serves_all_threads_nothing_is_said():
    with pytest.raises(NotApplicableError, match="the op draws random numbers"):
        evidence(torch.sin, stochastic=True)
    with pytest.raises(NotApplicableError, match="the spec says that threads is not supported"):
        evidence(torch.sin, supports={"threads": False})
