"""What runs on which device, with a list of devices that is made up: `cpu:0` is a second name of the first one."""

from __future__ import annotations

from typing import Annotated

import pytest
import torch
from torch.autograd import Function

import gradverify as gv
from gradverify.cli.exit_codes import exit_code
from gradverify.engine import session, verify
from gradverify.engine.environment import environment
from gradverify.records.policy import Plan, Policy
from gradverify.records.spec import Arg, Dim, Spec

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


def test_the_environment_says_what_changes_the_digits():
    flags = environment().flags
    assert flags["flush_denormal"] == "False"
    assert {"float32_matmul_precision", "cuda_matmul_allow_tf32", "cudnn_allow_tf32"} <= set(flags)
    torch.set_flush_denormal(True)
    try:
        assert environment().flags["flush_denormal"] in ("True", "False")
    finally:
        torch.set_flush_denormal(False)
