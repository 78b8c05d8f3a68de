"""Forward mode runs on torch's dual numbers, hands over copies, and names what is missing or refused."""

import pytest
import torch
from torch.autograd import Function, forward_ad

from gradverify.autodiff.calling import Clock, op_of
from gradverify.autodiff.forward_mode import jvp, lacking, refused
from gradverify.errors import NotApplicableError, OpError
from gradverify.records.case import Point
from gradverify.records.spec import Arg, Spec

X, W = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
V = torch.tensor([1.0, -1.0])
POINT = Point(primals={"x": X, "w": W}, kwargs={}, differentiate=("x", "w"))


def called(op, **tangents):
    spec = Spec(name="f", op=op, args=(Arg(name="x", shape="n"), Arg(name="w", shape="n")))
    return jvp(spec, op_of(spec), POINT, tangents)


class Times(Function):
    """x w; `answer` is what jvp does."""

    answer = None

    @staticmethod
    def forward(ctx, x, w):
        ctx.set_materialize_grads(False)
        ctx.x, ctx.w = x, w
        return x * w, x + w

    @staticmethod
    def jvp(ctx, vx, vw):
        return Times.answer(ctx, vx, vw)


class Backward(Function):
    @staticmethod
    def forward(_ctx, x, w):
        return x * w

    @staticmethod
    def backward(_ctx, u):
        return u, u


def test_the_jvp_of_a_product_is_the_sum_of_both_terms():
    dual = called(torch.mul, x=V, w=V)
    assert dual.outputs[0].tolist() == [3.0, 10.0]
    assert dual.tangents[0].tolist() == [4.0, -7.0]


def test_an_input_without_a_tangent_is_a_constant():
    assert called(torch.mul, x=V, w=None).tangents[0].tolist() == [3.0, -5.0]
    assert called(torch.mul, x=V).tangents[0].tolist() == [3.0, -5.0]


def test_an_output_that_does_not_depend_on_the_tangents_has_none():
    assert called(lambda x, w: (x * w, w * 2, torch.argmax(x)), x=V).tangents[1:] == (None, None)


def test_an_undefined_tangent_arrives_as_none():
    seen = []
    Times.answer = lambda _, vx, vw: seen.append((vx, vw)) or (vx, vx)
    called(Times, x=V)
    assert seen[0][0].tolist() == V.tolist()
    assert seen[0][1] is None


def test_primals_and_tangents_are_copies_and_what_the_op_did_to_them_is_kept():
    Times.answer = lambda _, vx, vw: (vx.mul_(2), vw)
    dual = called(Times, x=V, w=V)
    assert V.tolist() == [1.0, -1.0]
    assert [t.tolist() for t in dual.given["x"]] == [X.tolist(), [2.0, -2.0]]


def test_an_op_without_a_jvp_is_no_fault():
    with pytest.raises(NotApplicableError, match=r"^the op has no jvp$"):
        called(Backward, x=V)
    assert lacking(Backward)
    assert not lacking(Times)
    assert not lacking(torch.mul)


def test_an_operator_of_torch_without_forward_mode_is_named():
    with pytest.raises(NotApplicableError, match=r"^Trying to use forward AD with _cdist_forward that does not"):
        called(lambda x, w: torch.cdist(x[None], w[None], p=3.0), x=V)


def test_a_jvp_that_says_that_it_is_not_implemented_is_no_fault():
    def answer(*_):
        raise NotImplementedError("only for n = 1")

    Times.answer = answer
    with pytest.raises(NotApplicableError, match=r"^only for n = 1$"):
        called(Times, x=V)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (lambda *_: 1 / 0, "GV902", "the jvp raised ZeroDivisionError"),
        (lambda _, vx, vw: (vx * vw, vx), "GV902", "the jvp raised TypeError"),
        (lambda _, vx, __: vx, "GV401", "invalid number of forward gradients"),
        (lambda _, vx, __: (vx, vx[:1]), "GV401", "different size"),
        (lambda _, vx, __: (vx, None), "GV401", "the jvp returned None for an output that carries a gradient"),
    ],
)
def test_what_is_wrong_with_a_jvp_has_a_code_and_leaves_no_level_behind(answer, code, said):
    Times.answer = answer
    with pytest.raises(OpError, match=said) as caught:
        called(Times, x=V)
    assert (caught.value.code, caught.value.stage) == (code, "jvp")
    with forward_ad.dual_level():  # a level that was left open would be nested, which torch refuses
        assert forward_ad.unpack_dual(forward_ad.make_dual(X, V)).tangent is not None


def test_a_view_needs_a_view_for_its_tangent():
    class View(Function):
        @staticmethod
        def forward(_ctx, x, _w):
            return x.view_as(x)

        @staticmethod
        def jvp(_ctx, vx, _vw):
            return 2 * vx

    with pytest.raises(OpError, match="not returning a view") as caught:
        called(View, x=V)
    assert caught.value.code == "GV401"


def test_an_operator_of_torch_library_drops_its_tangent_and_is_asked_again():
    @torch.library.custom_op("gradverify_tests::doubled", mutates_args=())
    def doubled(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x * 2 + w

    doubled.register_autograd(lambda _, u: (2 * u, u))
    spec = Spec(name="f", op=doubled, args=(Arg(name="x", shape="n"), Arg(name="w", shape="n")))
    assert jvp(spec, op_of(spec), POINT, {"x": V}).tangents == (None,)
    assert refused(op_of(spec), POINT, {"x": V}) == "the op has no jvp"
    mul = Spec(name="f", op=torch.mul, args=spec.args)
    assert refused(op_of(mul), POINT, {"x": V}) == ""


def test_the_time_in_the_op_is_counted():
    before = Clock.seconds
    called(torch.mul, x=V)
    assert Clock.seconds > before
