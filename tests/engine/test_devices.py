"""What runs on which device, with a list of devices that is made up: `cpu:0` is a second name of the first one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Annotated

import pytest
import torch
from torch.autograd import Function

import gradverify as gv
from gradverify.checks import precision, repeat
from gradverify.cli.exit_codes import exit_code
from gradverify.engine import session, verify
from gradverify.engine.environment import environment
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Dim, Spec
from tests.faults.narrow import rounded

SECOND = "cpu:0"


class Scale(Function):
    """x w, on whatever device it is given."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, g * x


def product(x, w):
    return x * w


def spec(op=Scale, **fields):
    args = (Arg(name="x", shape="n"), Arg(name="w", shape="n"))
    return Spec(**{"name": "scale", "op": op, "args": args, "reference": product, "dims": {"n": Dim(lo=1)}, **fields})


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(verify, "present", lambda: ("cpu", SECOND))
    monkeypatch.setattr(session, "present", lambda: ("cpu", SECOND))


def ran(s, **plan):
    return [
        (r.device, r.dtype, r.outcome.value, r.reason) for r in verify.verify(s, Plan(examples=3, **plan), Policy())
    ]


@pytest.mark.usefixtures("two")
def test_a_spec_runs_on_every_device_that_is_present():
    assert ran(spec(), claims=("vjp",)) == [("cpu", "float64", "PASS", ""), (SECOND, "float64", "PASS", "")]


@pytest.mark.usefixtures("two")
def test_precision_on_a_device_holds_it_against_float64_on_the_cpu():
    seen = []

    def watched(x, w):
        seen.append((str(x.device), x.dtype))
        return x * w

    assert ran(spec(reference=watched), claims=("precision",), devices=(SECOND,), dtypes=("bfloat16",)) == [
        (SECOND, "bfloat16", "PASS", "")
    ]
    assert {d for d, dtype in seen if dtype is torch.float64} == {"cpu"}


@pytest.mark.usefixtures("two")
def test_a_declared_device_is_the_only_one():
    assert [d for d, *_ in ran(spec(devices=(SECOND,)), claims=("purity",))] == [SECOND]
    assert [d for d, *_ in ran(spec(devices=(SECOND,)), claims=("purity",), devices=("cpu",))] == ["cpu"]


@pytest.mark.usefixtures("two")
def test_auto_is_every_device_that_is_present():
    @gv.spec(Scale, devices="auto")
    def scale(x: Annotated[torch.Tensor, "n"], w: Annotated[torch.Tensor, "n"]) -> torch.Tensor:
        return x * w

    assert scale.devices == ()
    assert [d for d, *_ in ran(scale, claims=("purity",))] == ["cpu", SECOND]


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_an_absent_device_is_skipped_and_listed(monkeypatch, device):
    monkeypatch.setattr(verify, "present", lambda: ("cpu",))
    assert ran(spec(), claims=("vjp",), devices=(device,)) == [(device, "float64", "SKIP", "no such device here")]


def test_a_second_device_of_a_kind_must_be_there_too(monkeypatch):
    monkeypatch.setattr(verify, "present", lambda: ("cpu", "cuda"))
    monkeypatch.setattr(verify, "_count", lambda: 1)
    assert verify.available("cuda")
    assert verify.available("cuda:0")
    assert not verify.available("cuda:1")


@pytest.mark.usefixtures("two")
def test_a_required_device_that_is_absent_makes_exit_three():
    done = session.run([spec()], Plan(claims=("vjp",), examples=2, devices=("cpu", SECOND)), Policy())
    assert exit_code(done, strict=True, required=("cpu",)) == 0
    assert exit_code(done, strict=True, required=(SECOND,)) == 0
    assert exit_code(done, strict=True, required=("cuda",)) == 3
    assert [n.what for n in done.ops[0].not_covered if n.why == "no such device here"] == ["cuda"]


@pytest.mark.usefixtures("two")
def test_what_ran_on_an_absent_device_alone_is_not_verified():
    done = session.run([spec()], Plan(claims=("vjp",), examples=2, devices=("cuda",)), Policy())
    assert exit_code(done, strict=True) == 3


def test_a_module_is_judged_as_a_copy_on_the_device():
    class Shift(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("by", torch.ones(()))

        def forward(self, x):
            return x + self.by

    from gradverify.cases.modules import in_dtype

    module = Shift()
    made = in_dtype(Spec(name="s", op=module, args=(Arg(name="x", shape="n"),)), "bfloat16", "meta")
    assert (made.op.by.device.type, made.op.by.dtype) == ("meta", torch.bfloat16)
    assert module.by.device.type == "cpu"


class Elsewhere(Scale):
    """A gradient on another device than its input."""

    @staticmethod
    def backward(ctx, g):
        gx, gw = Scale.backward(ctx, g)
        return gx.to("meta"), gw


@pytest.mark.usefixtures("two")
def test_a_gradient_on_another_device_is_told():
    (found,) = verify.verify(spec(Elsewhere), Plan(claims=("convention",), devices=(SECOND,)), Policy())
    assert (found.outcome.value, found.code) == ("FAIL", "GV109")


# Tf32, on a device that is said to have it: the op and the plain computation read torch's setting, as kernels do.


def in_tf32(t, *, bits=10):
    """The same with so many bits left, where tf32 is allowed."""
    return rounded(t, bits) if torch.backends.cuda.matmul.allow_tf32 else t


class Obedient(Function):
    """Takes tf32 where it is allowed."""

    backward_bits = 10

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return in_tf32(a) @ in_tf32(b)

    @classmethod
    def pulled(cls, ctx, g):
        a, b = (in_tf32(t, bits=cls.backward_bits) for t in ctx.saved_tensors)
        g = in_tf32(g, bits=cls.backward_bits)
        return g @ b.T, a.T @ g

    @staticmethod
    def backward(ctx, g):
        return Obedient.pulled(ctx, g)


def plain_product(a, b):
    """As torch has it on such a device, forward and backward; the truth is in float64, which has no tf32."""
    return a @ b if a.dtype is torch.float64 else Obedient.apply(a, b)


class Stubborn(Obedient):
    """Takes tf32 in its backward whatever is allowed."""

    @staticmethod
    def backward(ctx, g):
        a, b = (rounded(t, 10) for t in ctx.saved_tensors)
        return rounded(g, 10) @ b.T, a.T @ rounded(g, 10)


class Coarse(Obedient):
    """Takes bfloat16 where tf32 is allowed."""

    backward_bits = 7

    @staticmethod
    def backward(ctx, g):
        return Coarse.pulled(ctx, g)


@pytest.mark.parametrize(
    ("op", "outcome", "phase"),
    [(Obedient, "PASS", None), (Stubborn, "FAIL", None), (Coarse, "FAIL", "with tf32 allowed")],
)
@pytest.mark.usefixtures("two")
def test_float32_is_judged_with_and_without_tf32_where_a_device_has_it(monkeypatch, op, outcome, phase):
    monkeypatch.setattr(precision, "has_tf32", lambda device: device == SECOND)
    args = (Arg(name="a", shape="m k"), Arg(name="b", shape="k n"))
    s = Spec(name="product", op=op, args=args, reference=plain_product)
    plan = Plan(claims=("precision",), dtypes=("float32",), devices=(SECOND,), examples=3)
    (r,) = verify.verify(s, plan, Policy())
    assert r.outcome.value == outcome, describe(r)
    if outcome == "FAIL":
        assert r.worst.evidence.facts.get("phase") == phase
    else:
        assert str(r.measured["tf32"]).startswith("with tf32 allowed within ")
        assert r.budget.value < 1e-4
    assert torch.backends.cuda.matmul.allow_tf32 is False


# Streams, of a device that is made up: work that is queued on the wrong one finds what was there before.


class Queues:
    """Which stream is current, and whether the device has come to the work of the side stream."""

    current = "home"


@contextmanager
def aside(device):
    Queues.current = "side"
    try:
        yield
    finally:
        Queues.current = "home"


class Launched(Scale):
    """A kernel that is launched on the current stream."""

    stream = staticmethod(lambda: Queues.current)

    @classmethod
    def late(cls, *tensors):
        """What a kernel reads: on another stream than the one on which its inputs are made, not them."""
        return tensors if cls.stream() == Queues.current else tuple(torch.zeros_like(t) for t in tensors)

    @staticmethod
    def backward(ctx, g):
        return Scale.backward(ctx, Launched.late(g)[0])


class LaunchedAtHome(Launched):
    """A backward that is launched on the default stream, whichever is current."""

    stream = staticmethod(lambda: "home")

    @staticmethod
    def backward(ctx, g):
        return Scale.backward(ctx, LaunchedAtHome.late(g)[0])


@pytest.mark.parametrize(("op", "outcome", "code"), [(Launched, "PASS", ""), (LaunchedAtHome, "FAIL", "GV204")])
@pytest.mark.usefixtures("two")
def test_forward_and_backward_are_called_on_a_side_stream_where_a_device_has_streams(monkeypatch, op, outcome, code):
    monkeypatch.setattr(repeat, "has_streams", lambda device: device == SECOND)
    monkeypatch.setattr(repeat, "side_stream", aside)
    plan = Plan(claims=("repeat",), devices=(SECOND,), examples=3)
    (r,) = verify.verify(spec(op), plan, Policy())
    assert (r.outcome.value, r.code) == (outcome, code)
    if code:
        text = describe(r)
        assert "not repeatable: the gradient of `x` (forward and backward on a side stream)" in text
        assert "torch.cuda.current_stream()" in text


@pytest.mark.usefixtures("two")
def test_a_device_without_streams_has_none_tried(monkeypatch):
    monkeypatch.setattr(repeat, "side_stream", lambda device: pytest.fail(device))
    assert ran(spec(), claims=("repeat",), devices=("cpu",)) == [("cpu", "float64", "PASS", "")]


def test_the_environment_says_what_changes_the_digits():
    flags = environment().flags
    assert flags["flush_denormal"] == "False"
    assert {"cuda_matmul_fp32_precision", "cudnn_conv_fp32_precision", "cpu_matmul_fp32_precision"} <= set(flags)
    torch.set_flush_denormal(True)
    try:
        assert environment().flags["flush_denormal"] in ("True", "False")
    finally:
        torch.set_flush_denormal(False)
