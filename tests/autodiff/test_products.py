"""A tape holds one recorded call; its vjp is torch's own."""

import pytest
import torch
from torch.autograd import Function

from gradverify.autodiff.calling import op_of
from gradverify.autodiff.products import record, values
from gradverify.errors import OpError
from gradverify.records.case import Point
from gradverify.records.spec import Arg, Spec

X, W = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])


def tape(op, *, differentiate=("x", "w"), **fields):
    spec = Spec(name="f", op=op, args=(Arg(name="x", shape="n"), Arg(name="w", shape="n")), **fields)
    point = Point(primals={"x": X, "w": W}, kwargs={}, differentiate=differentiate)
    return record(spec, op_of(spec), point)


def two(x, w):
    return x * w, x + 1, torch.argmax(x)


def test_the_vjp_of_a_product_is_the_other_factor():
    grads = tape(torch.mul).vjp([torch.ones(2)])
    assert grads["x"].tolist() == W.tolist()
    assert grads["w"].tolist() == X.tolist()


def test_the_graph_is_kept_so_that_a_second_vjp_works():
    t = tape(torch.mul)
    assert torch.equal(t.vjp([torch.ones(2)])["x"], t.vjp([torch.ones(2)])["x"])


def test_only_what_is_differentiated_is_a_leaf():
    assert set(tape(torch.mul, differentiate=("w",)).vjp([torch.ones(2)])) == {"w"}


def test_the_primals_are_not_touched():
    tape(lambda x, w: x.detach().mul_(5) + x * w)
    assert X.tolist() == [1.0, 2.0]
    assert not X.requires_grad


def test_an_output_without_a_cotangent_is_not_used():
    t = tape(two)
    assert t.vjp([torch.ones(2), None, None])["x"].tolist() == W.tolist()
    assert t.vjp([None, torch.ones(2), None])["w"] is None
    assert t.vjp([None, None, None]) == {"x": None, "w": None}


def test_integer_and_declared_outputs_carry_no_gradient():
    assert tape(two).active == (0, 1)
    assert tape(two, nondiff=(1,)).active == (0,)


class Wrong(Function):
    answer = None

    @staticmethod
    def forward(ctx, x, w):
        return x * w

    @staticmethod
    def backward(ctx, u):
        return Wrong.answer(u)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            lambda u: (u[:1].expand(3), u),
            "GV109",
            "backward() returned a gradient of shape [3] for `x`, whose shape is [2]; they must be equal.",
        ),
        (
            lambda u: (u,),
            "GV109",
            "backward() returned 1 gradient (a list or None counts as one), and forward() takes 2 inputs (x, w); "
            "return a tuple of 2, with None where there is none.",
        ),
        (
            lambda u: (u, u, u, u),
            "GV109",
            "backward() returned 4 gradients, and forward() takes 2 inputs (x, w); "
            "return a tuple of 2, with None where there is none.",
        ),
        (
            lambda u: ([u], u),
            "GV109",
            "backward() returned a list where a gradient is a tensor or None; return a tuple, not a list.",
        ),
        (lambda u: (1.0, u), "GV109", "backward() returned a float where a gradient is a tensor or None."),
        (
            lambda u: (u.to("meta"), u),
            "GV109",
            "backward() returned a gradient on meta for `x`, which is on cpu; they must be equal.",
        ),
        (lambda u: 1 / 0, "GV902", "the backward raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_torch_refuses_of_a_backward_has_a_code_and_is_said_in_our_words(answer, code, said):
    Wrong.answer = answer
    with pytest.raises(OpError) as caught:
        tape(Wrong).vjp([torch.ones(2)])
    assert (caught.value.code, str(caught.value)) == (code, f"f: {said}")


def test_inside_a_plain_function_an_input_of_backward_has_a_number_only():
    Wrong.answer = lambda u: (u[:1].expand(3), u)
    with pytest.raises(OpError, match=r"backward\(\) of Wrong returned a gradient of shape \[3\] for input 0, whose"):
        tape(lambda x, w: Wrong.apply(x, w)).vjp([torch.ones(2)])


def test_a_backward_of_the_right_shapes_is_not_refused():
    Wrong.answer = lambda u: (u, 2 * u)
    assert tape(Wrong).vjp([torch.ones(2)])["w"].tolist() == [2.0, 2.0]


class Saving(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, 2 * w)
        return x * w

    @staticmethod
    def backward(ctx, u):
        return u, u


def test_the_tensors_that_a_function_saved_are_found_and_those_of_torchs_own_ops_are_not():
    saved = tape(lambda x, w: Saving.apply(x.exp(), w).sin()).saved()
    assert any(torch.equal(t, 2 * W) for t in saved)
    assert len(saved) == 2
    assert tape(torch.mul).saved() == ()


def test_values_are_computed_without_a_graph():
    spec = Spec(name="f", op=torch.mul, args=(Arg(name="x", shape="n"), Arg(name="w", shape="n")))
    (y,) = values(op_of(spec), {"x": X.clone().requires_grad_(), "w": W}, {})
    assert not y.requires_grad
    assert tape(torch.mul).outputs[0].requires_grad


def nested(x, w):
    return {"z": w * x, "a": [x + 1, ("text", None, 3)], "n": torch.argmax(x)}


def test_nested_outputs_have_names_in_a_stable_order():
    t = tape(nested)
    assert [t.name(k) for k in range(3)] == ["y['a'][0]", "y['n']", "y['z']"]
    assert t.active == (0, 2)
    assert [tape(two).name(k) for k in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize("words", [("z",), ("y['z']",), ("['z']",)])
def test_outputs_without_a_gradient_go_by_key(words):
    assert tape(nested, nondiff=words).active == (0,)


@pytest.mark.parametrize("words", [("a",), ("a.0",), ("y['a'][0]",)])
def test_a_word_for_what_holds_outputs_means_all_of_them(words):
    assert tape(nested, nondiff=words).active == (2,)


def test_a_word_that_names_no_output_is_known():
    assert tape(nested, nondiff=("z", "q", 4)).unknown_nondiff() == ("q", 4)


class Ask(Function):
    asked = None

    @staticmethod
    def forward(ctx, x, w):
        ctx.set_materialize_grads(False)
        return x * 1, w * 1

    @staticmethod
    def backward(ctx, *cotangents):
        Ask.asked = cotangents
        return None, None


def test_undefined_gradients_reach_backward_as_none():
    assert tape(Ask).vjp_of_undefined() == {"x": None, "w": None}
    assert Ask.asked == (None, None)


class InPlace(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.mark_dirty(x)
        ctx.save_for_backward(w)
        return x.mul_(w)

    @staticmethod
    def backward(ctx, u):
        (w,) = ctx.saved_tensors
        return u * w, None


def test_an_op_that_writes_to_its_input_gets_one_that_may_be_written_to():
    t = tape(InPlace)
    assert t.written == {"x"}
    assert t.returned() == ("x",)
    assert t.outputs[0].tolist() == (X * W).tolist()
    assert t.vjp([torch.ones(2)])["x"].tolist() == W.tolist()
    assert X.tolist() == [1.0, 2.0]


def test_one_tensor_in_two_places_is_one_leaf():
    spec = Spec(name="f", op=torch.mul, args=(Arg(name="x", shape="n"), Arg(name="w", shape="n")))
    point = Point(primals={"x": X, "w": W}, kwargs={}, differentiate=("x", "w"))
    t = record(spec, op_of(spec), point, same=("x", "w"))
    assert set(t.leaves) == {"x"}
    assert t.vjp([torch.ones(2)])["x"].tolist() == (2 * X).tolist()
