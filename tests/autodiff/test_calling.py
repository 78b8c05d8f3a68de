"""An op is called by its own signature, on exact copies, and its failures carry a code."""

import pytest
import torch
from torch.autograd import Function

from gradverify.autodiff.calling import accepted, clone_exactly, companion, copies, op_of
from gradverify.errors import OpError, SpecError
from gradverify.records.spec import Arg, Spec

X, W = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])


def spec(op, **fields):
    return Spec(**{"name": "f", "op": op, "args": (Arg(name="x", shape="n"), Arg(name="w", shape="n")), **fields})


class Scaled(Function):
    @staticmethod
    def forward(ctx, x, factor, w):
        return factor * x - w

    @staticmethod
    def backward(ctx, u):
        return u, None, -u


def call(op):
    return op_of(spec(op))({"x": X, "w": W}, {})


def test_a_function_is_called_positionally_in_the_order_of_its_signature():
    called = op_of(spec(Scaled, kwargs={"factor": (2,)}, order=("x", "factor", "w")))
    (y,) = called({"x": X, "w": W}, {"factor": 2})
    assert y.tolist() == [-1.0, -1.0]


def test_keyword_only_arguments_go_by_name():
    def op(x, w, *, power):
        return x**power + w

    (y,) = op_of(spec(op, kwargs={"power": (2,)}))({"x": X, "w": W}, {"power": 2})
    assert y.tolist() == [4.0, 9.0]


def test_a_reference_is_given_only_the_keywords_that_it_accepts():
    def reference(a, b):
        return a - b

    s = spec(torch.sub, kwargs={"alpha": (1,)}, reference=reference)
    (y,) = companion(s, reference)({"x": X, "w": W}, {"alpha": 1})
    assert y.tolist() == [-2.0, -3.0]
    assert accepted(reference, s) == ()
    assert accepted(lambda alpha: alpha, s) == ("alpha",)
    assert accepted(lambda **k: k, s) == ("alpha",)


def test_a_tuple_of_outputs_is_flattened_and_none_is_left_out():
    assert len(call(lambda x, w: (x, None, w))) == 2
    assert len(call(lambda x, w: [x])) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3.0, "a float"),
        (3, "an int"),
        ({"y": 3.0}, "a dict without a tensor"),
        (None, "None"),
        ((), "a tuple without a tensor"),
        ([None], "a list without a tensor"),
    ],
)
def test_what_is_no_tensor_is_named(value, words):
    with pytest.raises(OpError) as caught:
        call(lambda x, w: value)
    assert str(caught.value) == (f"f: the op returned {words}; return a tensor, or tensors in tuples, lists and dicts.")
    assert caught.value.code == "GV903"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda x: None, "f: forward() returned None; return a tensor, or a tuple of tensors."),
        (
            lambda x: [x + 0],
            "f: forward() returned tensors inside a list, which autograd.Function does not connect to backward(); "
            "return a tensor, or a tuple of tensors.",
        ),
    ],
)
def test_a_function_is_named_by_its_forward_and_may_return_no_list(value, said):
    class Odd(Function):
        @staticmethod
        def forward(ctx, x, w):
            return value(x)

        @staticmethod
        def backward(ctx, u):
            return u, None

    with pytest.raises(OpError) as caught:
        call(Odd)
    assert str(caught.value) == said


def test_an_op_that_raises_is_quoted_by_its_first_line():
    def op(x, w):
        raise ValueError("no such mode\nand much more")

    with pytest.raises(OpError) as caught:
        call(op)
    assert str(caught.value) == "f: the forward raised ValueError: no such mode"
    assert (caught.value.code, caught.value.stage) == ("GV902", "forward")


def test_a_reference_that_raises_is_called_the_reference():
    def reference(x, w):
        raise KeyError("k")

    with pytest.raises(OpError, match="the reference raised KeyError") as caught:
        companion(spec(torch.add), reference)({"x": X, "w": W}, {})
    assert caught.value.stage == "reference"


def test_our_own_errors_pass_through_unwrapped():
    def op(x, w):
        raise SpecError("declare it")

    with pytest.raises(SpecError, match=r"^declare it$"):
        call(op)


@pytest.mark.parametrize(
    "t",
    [
        torch.arange(6.0).reshape(2, 3).t(),
        torch.arange(6.0)[1::2],
        torch.ones(1).expand(4),
        torch.tensor(2.0),
        torch.zeros(0, 3),
    ],
)
def test_a_copy_has_the_same_values_and_layout_and_storage_of_its_own(t):
    copy = clone_exactly(t)
    assert torch.equal(copy, t)
    assert (copy.stride(), copy.storage_offset(), copy.dtype) == (t.stride(), t.storage_offset(), t.dtype)
    if t.numel():
        before = t.clone()
        copy.untyped_storage().fill_(0)
        assert torch.equal(t, before)


def test_an_absent_optional_argument_stays_absent():
    assert copies({"x": X, "w": None})["w"] is None


def test_nested_arguments_are_assembled_from_their_names():
    def op(params, xs):
        assert isinstance(xs, list)
        return params["w"] * xs[0] - xs[1]

    args = tuple(Arg(name=n, shape="n") for n in ("params['w']", "xs[1]", "xs[0]"))
    called = op_of(Spec(name="f", op=op, args=args))
    (y,) = called({"params['w']": W, "xs[0]": X, "xs[1]": W}, {})
    assert y.tolist() == (W * X - W).tolist()


def test_what_stands_fixed_in_a_nested_argument_takes_the_dtype_of_the_primals():
    def op(x, rest):
        assert rest[0].dtype == x.dtype
        return x * rest[0] * rest[1]

    args, nested = (Arg(name="x", shape="n"),), {"rest": (torch.ones(2), 3)}
    (y,) = op_of(Spec(name="f", op=op, args=args, nested=nested, order=("x", "rest")))({"x": X.double()}, {})
    assert y.tolist() == [3.0, 6.0]


class Packed(Function):
    @staticmethod
    def forward(ctx, x, w):
        return {"y": x * w}

    @staticmethod
    def backward(ctx, u):
        return u, u


def test_a_function_that_hides_its_outputs_from_autograd_is_told_so():
    with pytest.raises(OpError) as caught:
        call(Packed)
    assert caught.value.code == "GV903"
    assert str(caught.value).endswith(
        "forward() returned tensors inside a dict, which autograd.Function does not connect to backward(); "
        "return a tensor, or a tuple of tensors."
    )
