"""What complex sees in ops that differ by one conj, in what words; and complex numbers under the other claims."""

from __future__ import annotations

from typing import Annotated

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

import gradverify
from gradverify.autodiff.calling import clone_exactly, op_of
from gradverify.cases.layouts import with_layout
from gradverify.checks import CHECKS
from gradverify.checks.flat import array, flat, parts, tensors
from gradverify.engine.verify import verify
from gradverify.errors import NotApplicableError, SpecError
from gradverify.judge import judge, of_case
from gradverify.records.case import Case
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Dim, Domain, Spec
from gradverify.records.verdict import Outcome
from tests.complex_specs import COMPLEX

Z, W = (Arg(name=n, shape="n", complex=True) for n in "zw")
X = Arg(name="x", shape="n")
LAZY = {"layouts": (("z", "lazy"), ("w", "lazy"))}


class Times(Function):
    """z w, right."""

    @staticmethod
    def forward(ctx, z, w):
        ctx.save_for_backward(z, w)
        return z * w

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w.conj(), g * z.conj()


class Unconjugated(Times):
    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w.conj(), g * z


class ConjugatesCotangent(Times):
    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w.conj(), g.conj() * z.conj()


class RefusesCotangent(Times):
    """View_as_real refuses what is not resolved."""

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        g = torch.view_as_complex(torch.view_as_real(g))
        return g * w.conj(), g * z.conj()


class RefusesInput(Times):
    @staticmethod
    def forward(ctx, z, w):
        return Times.forward(ctx, torch.view_as_complex(torch.view_as_real(z)), w)


def case_of(spec, claim="complex", **fields):
    return Case(spec=spec.name, claim=claim, seed=7, dims=(("n", 3),), differentiate=spec.differentiable(), **fields)


def verdict(op, *args, claim="complex", **fields):
    spec = Spec(name="op", op=op, args=args or (Z, W))
    return of_case([judge(e, Policy()) for e in CHECKS[claim](spec, case_of(spec, claim, **fields))])


def failing(op, *args, **fields):
    spec = Spec(name="op", op=op, args=args or (Z, W), dims={"n": Dim(lo=1)}, **fields)
    (result,) = verify(spec, Plan(claims=("complex",), examples=10), Policy())
    assert result.outcome is Outcome.FAIL
    return describe(result).splitlines()


def test_a_right_product_passes_plain_and_at_lazy_views():
    assert verdict(Times).outcome is Outcome.PASS
    assert verdict(Times, cotangents=("lazy",), **LAZY).outcome is Outcome.PASS


def test_a_conj_that_is_missing_is_told_with_both_wirtinger_parts():
    first, case, ours, theirs, numbers, said = failing(Unconjugated)
    assert first == "FAIL complex[cpu-float64] GV216 wrong with complex numbers: the gradient of `Re w`"
    assert ours.split() == ["backward()", "dIm", "y[0]/dRe", "w[0]", "=", "2.89"]
    assert theirs.startswith("    central differences of the forward  dIm y[0]/dRe w[0] = -2.89 +- ")
    assert numbers == "  found dy/dw = 1.3 + 2.89i, dy/dw* = 0 + 0i, wanted dy/dw = 1.3 - 2.89i, dy/dw* = 0 + 0i"
    assert said == "  the derivative is conjugated: conj() is missing, or once too often"
    assert "n=1" in case


def test_a_cotangent_that_is_conjugated_is_told():
    assert failing(ConjugatesCotangent)[-1] == "  the cotangent is conjugated"


def test_vjp_tells_the_same_of_a_complex_gradient():
    spec = Spec(name="op", op=Unconjugated, args=(Z, W), dims={"n": Dim(lo=1)})
    (result,) = verify(spec, Plan(claims=("vjp",), examples=5), Policy())
    assert result.code == "GV199"
    assert "conj() is missing, or once too often" in describe(result)


def test_a_backward_that_refuses_lazy_conjugates_fails():
    lines = failing(RefusesCotangent)
    assert lines[0].endswith("GV217 refuses lazy conjugates: backward (a cotangent lazily conjugated)")
    assert "use self.resolve_conj()" in lines[2]


def test_a_forward_that_refuses_them_passes_with_a_warning():
    found = verdict(RefusesInput, **LAZY)
    assert (found.outcome, found.code) == (Outcome.PASS, "GV217")


def test_without_complex_numbers_there_is_nothing_to_say():
    with pytest.raises(NotApplicableError, match="no input or output is complex"):
        verdict(torch.sin, X)


def test_a_complex_output_of_real_inputs_is_judged():
    assert verdict(lambda x: torch.polar(1 + x * x, x), X).outcome is Outcome.PASS


def test_a_surrogate_of_complex_numbers():
    def clipped(z):
        return z / torch.clamp(z.abs(), min=1.0)

    class Through(Function):
        @staticmethod
        def forward(ctx, z):
            return clipped(z)

        @staticmethod
        def backward(ctx, g):
            return g

    spec = gradverify.from_data(Through, {"z": Arg(name="z", shape="n", complex=True)}, backward_of=lambda z: 1 * z)
    found = of_case([judge(e, Policy()) for e in CHECKS["complex"](spec, case_of(spec))])
    assert found.outcome is Outcome.PASS


# Other claims, at complex numbers.


class BothModes(Times):
    """Forward mode, and a second derivative."""

    @staticmethod
    def forward(ctx, z, w):
        ctx.save_for_forward(z, w)
        return Times.forward(ctx, z, w)

    @staticmethod
    def jvp(ctx, vz, vw):
        z, w = ctx.saved_tensors
        return vz * w + z * vw


class ConjugatesTangent(BothModes):
    @staticmethod
    def jvp(ctx, vz, vw):
        z, w = ctx.saved_tensors
        return vz * w + z.conj() * vw


class CutsHistory(BothModes):
    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g * w.conj(), g * z.detach().conj()


class TwiceUnconjugated(BothModes):
    """The derivative of g w* by w* in the gradient's own backward lacks a conj."""

    class Gradient(Function):
        @staticmethod
        def forward(ctx, w, g):
            ctx.save_for_backward(w, g)
            return g * w.conj()

        @staticmethod
        def backward(ctx, h):
            w, g = ctx.saved_tensors
            return h * g.conj(), h * w

    @staticmethod
    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return TwiceUnconjugated.Gradient.apply(w, g), g * z.conj()


@pytest.mark.parametrize(
    ("op", "claim", "code", "said"),
    [
        (ConjugatesTangent, "jvp", "GV401", "the tangent of output Im y"),
        (ConjugatesTangent, "adjoint", "GV402", "forward and reverse mode disagree about `Re w`: jvp() is off"),
        (CutsHistory, "double_backward", "GV505", "the gradient of `Re w` by `Re z`"),
        (TwiceUnconjugated, "double_backward", "GV501", "the gradient of `Im z` by `Im w`"),
    ],
)
def test_a_conj_that_is_missing_in_another_derivative_fails_under_its_claim(op, claim, code, said):
    spec = Spec(name="op", op=op, args=(Z, W), dims={"n": Dim(lo=1)})
    results = {r.claim: r for r in verify(spec, Plan(claims=("vjp", claim), examples=5), Policy())}
    assert (results["vjp"].outcome, results[claim].code) == (Outcome.PASS, code)
    assert describe(results[claim]).splitlines()[0].endswith(said)
    right = Spec(name="op", op=BothModes, args=(Z, W), dims={"n": Dim(lo=1)})
    (twin,) = verify(right, Plan(claims=(claim,), examples=5), Policy())
    assert twin.outcome is Outcome.PASS


# Complex numbers as pairs of real ones.


def test_a_complex_tensor_is_its_real_then_its_imaginary_parts():
    z = torch.tensor([[1 + 2j, 3 - 4j]], dtype=torch.complex128)
    assert flat(z).tolist() == [1, 3, 2, -4]
    assert flat(z.conj()).tolist() == [1, 3, -2, 4]
    assert flat(z.conj().imag).tolist() == [-2, 4]
    assert torch.equal(tensors(flat(z), [z])[0], z)
    assert [(p.name, p.start, p.stop, p.shape) for p in parts({"z": z})] == [
        ("Re z", 0, 2, (1, 2)),
        ("Im z", 2, 4, (1, 2)),
    ]


def test_a_real_gradient_of_a_complex_tensor_has_no_imaginary_part():
    z = torch.ones(2, dtype=torch.complex128)
    assert array([torch.ones(2)], [z]).tolist() == [1, 1, 0, 0]
    assert array([None], [z]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float32, torch.complex64])
def test_a_lazy_view_holds_the_same_values(dtype):
    t = torch.randn(4, dtype=dtype)
    lazy = with_layout(t, "lazy")
    assert torch.equal(lazy, t)
    assert lazy.is_conj() if t.is_complex() else lazy.is_neg()
    again = clone_exactly(lazy)
    assert torch.equal(again, t)
    assert (again.is_conj(), again.is_neg()) == (lazy.is_conj(), lazy.is_neg())
    assert again.untyped_storage().data_ptr() != lazy.untyped_storage().data_ptr()


def test_a_marker_and_a_domain_declare_a_complex_argument():
    @gradverify.spec(torch.mul)
    def product(
        input: Annotated[Tensor, "n", gradverify.complex, gradverify.domain(1.0, 2.0)],  # noqa: A002
        other: Annotated[Tensor, "n"],
    ) -> Tensor:
        return input * other

    assert [a.complex for a in product.args] == [True, False]
    from gradverify.cases.materialise import materialise

    z = materialise(product, case_of(product)).primals["input"]
    assert z.dtype is torch.complex128
    assert bool(((z.real >= 1) & (z.real <= 2) & (z.imag >= 1) & (z.imag <= 2)).all())
    assert not torch.equal(z.real, z.imag)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"domain": Domain(kind="spd")}, "argument 'z' is both complex and spd"),
        ({"role": "mask"}, "argument 'z' is both complex and mask"),
    ],
)
def test_what_cannot_be_complex_is_refused(declared, said):
    with pytest.raises(SpecError, match=said):
        Spec(name="op", op=torch.abs, args=(Arg(name="z", shape="n n", complex=True, **declared),))


def test_dtypes_name_the_precision():
    with pytest.raises(SpecError, match="dtypes names the precision under test, got complex64"):
        gradverify.from_data(torch.abs, {"z": "n"}, dtypes=["complex64"])
    spec = Spec(name="op", op=torch.abs, args=(Z,), order=("z",))
    (result,) = verify(spec, Plan(claims=("linear",), dtypes=("bfloat16",)), Policy())
    assert (result.outcome, result.reason) == (Outcome.SKIP, "torch has no complex numbers in bfloat16")


def test_gradcheck_and_check_take_complex_tensors():
    z, w = (torch.randn(3, dtype=torch.complex128, requires_grad=True) for _ in range(2))
    assert gradverify.gradcheck(Times.apply, (z, w))
    assert not gradverify.gradcheck(Unconjugated.apply, (z, w), raise_exception=False)
    run = gradverify.check(Times, z, w, examples=3, claims=("vjp", "complex"))
    assert [r.outcome for r in run.results] == [Outcome.PASS] * 2


def test_a_module_with_complex_parameters_is_judged_as_a_copy_that_stays_complex():
    class Filter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))
            self.shift = torch.nn.Parameter(torch.ones(2))

        def forward(self, z):
            return z * self.gain + self.shift

    module = Filter()
    run = gradverify.check(module, torch.randn(2, dtype=torch.complex64), examples=3, claims=("complex",))
    assert [r.outcome for r in run.results] == [Outcome.PASS]
    assert [(i.name, i.domain) for i in run.ops[0].inputs] == [
        ("z", "complex"),
        ("gain", "complex parameter"),
        ("shift", "parameter"),
    ]
    assert module.gain.dtype is torch.complex64


def test_the_op_is_called_with_the_dtypes_that_are_declared():
    seen = []

    def op(x, z):
        seen.append((x.dtype, z.dtype))
        return x * z

    spec = Spec(name="op", op=op, args=(X, Z))
    (result,) = verify(spec, Plan(claims=("purity",), dtypes=("float32",), examples=1), Policy())
    assert result.outcome is Outcome.PASS
    assert set(seen) == {(torch.float32, torch.complex64)}
    assert callable(op_of(spec))


@pytest.mark.parametrize("spec", COMPLEX, ids=lambda s: s.name)
def test_a_right_complex_function_passes_every_claim(spec):
    found = list(verify(spec, Plan(examples=5), Policy()))
    alarms = [describe(r) for r in found if r.outcome not in (Outcome.PASS, Outcome.SKIP)]
    assert not alarms
    assert next(r for r in found if r.claim == "complex").outcome is Outcome.PASS
