"""A module is judged as a copy in the dtype under test; the user's own is never touched."""

import pytest
import torch
from torch import nn

import gradverify
from gradverify.cases.concrete import Fixed
from gradverify.cases.modules import copied, in_dtype, note
from gradverify.cases.signatures import from_data
from gradverify.errors import UsageError
from gradverify.records.run import Run
from gradverify.records.spec import Arg, Contract, Spec, describe_callable
from gradverify.records.verdict import Outcome

ARGS = (Arg(name="input", shape="b 3"),)


def linear() -> nn.Linear:
    return nn.Linear(3, 4)


def plain(x):
    return x


def test_op_reference_and_formula_become_copies_and_the_rest_stays():
    op, reference, formula = linear(), linear(), linear()
    contract = Contract(kind="backward_of", formula=formula)
    spec = Spec(name="f", op=op, args=ARGS, reference=reference, contract=contract)
    made = in_dtype(spec, "float64")
    assert {m.weight.dtype for m in (made.op, made.reference, made.contract.formula)} == {torch.float64}
    assert {m.weight.dtype for m in (op, reference, formula)} == {torch.float32}
    assert made.contract.kind == "backward_of"
    untouched = Spec(name="f", op=plain, args=ARGS)
    assert in_dtype(untouched, "float64") is untouched


def test_a_method_and_what_is_held_at_inputs_follow_their_module():
    layer = linear()
    assert copied(layer.forward, "float64").__self__.weight.dtype is torch.float64
    fixed = Fixed(layer, {"scale": torch.ones(2)})
    assert copied(fixed, "float64").call.weight.dtype is torch.float64
    assert copied(fixed, "float64").held is not fixed.held
    assert copied(plain, "float64") is plain


def test_a_module_that_cannot_be_copied_says_so():
    class Stubborn(nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("holds a socket")

    with pytest.raises(UsageError, match=r"cannot be copied to float64 \(TypeError: holds a socket\); give a function"):
        copied(Stubborn(), "float64")


def test_the_note_names_the_dtype_and_only_where_it_differs():
    held = "its parameters are held fixed, and their gradients are not judged"
    assert note(Spec(name="f", op=linear(), args=ARGS)) == f"judged as a float64 copy; {held}"
    assert note(Spec(name="f", op=linear(), args=ARGS, dtypes=("float32",))) == held
    assert note(Spec(name="f", op=nn.Tanh(), args=ARGS)) == ""
    assert note(from_data(linear().double(), {"input": "b 3"})) == ""
    assert note(from_data(nn.BatchNorm1d(3).double(), {"input": "b 3"})) == "its buffers keep their values"
    assert note(Spec(name="f", op=plain, args=ARGS)) == ""


def test_a_float32_module_is_verified_and_left_as_it_was():
    torch.manual_seed(0)  # noqa: TID251 the module draws its weights from the global generator
    layer = nn.Sequential(linear(), nn.BatchNorm1d(4), nn.Tanh())
    before = {n: t.clone() for n, t in layer.state_dict().items()}
    run: Run = gradverify.check(layer, torch.randn(5, 3), examples=2, claims=("vjp", "repeat"))
    assert [r.outcome for r in run.results] == [Outcome.PASS, Outcome.PASS]
    assert run.ops[0].note == "judged as a float64 copy; its buffers keep their values"
    assert run.ops[0].target == "torch.nn.modules.container:Sequential()"
    after = layer.state_dict()
    assert all(torch.equal(after[n], t) and after[n].dtype is t.dtype for n, t in before.items())
    assert all(p.grad is None for p in layer.parameters())


def test_gradcheck_takes_a_float32_module_and_says_how_it_was_judged():
    with pytest.warns(UserWarning, match=r"inputs are float32, judged in float64; the module, as a float64 copy"):
        assert gradverify.gradcheck(linear(), (torch.randn(5, 3, requires_grad=True),))


def test_a_module_has_a_name_and_not_a_page():
    assert describe_callable(linear()) == "torch.nn.modules.linear:Linear()"
    assert describe_callable(torch.sin) == "torch:sin"
