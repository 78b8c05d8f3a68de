"""What is said of a module: the parameter by its path, the mode by its name; running statistics are no fault."""

import pytest
import torch
from torch import nn

from gradverify.cases.signatures import from_data
from gradverify.engine.verify import verify
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import describe
from gradverify.records.spec import Arg, Dim, Domain
from gradverify.records.verdict import Outcome
from tests.faults import modules


def results(spec, *claims, examples=6):
    return {r.claim: r for r in verify(spec, Plan(claims=claims, examples=examples), Policy())}


def named(name):
    return next(f.wrong for f in modules.FAULTS if f.name == name)


def test_a_wrong_function_inside_is_named_by_the_path_of_the_parameter():
    said = describe(results(named("norm_weight_by_the_raw_input"), "vjp")["vjp"])
    assert "FAIL vjp[cpu-float64] GV199 wrong gradient of `0.weight`" in said
    assert "/d0.weight[" in said
    assert "training=True" in said


def test_a_wrong_mode_is_named():
    result = results(named("evaluation_runs_the_backward_of_training"), "vjp")["vjp"]
    assert "training=False" in result.finding.lines[0]
    assert result.finding.summary == "wrong gradient of `x`"


@pytest.mark.parametrize("mode", [True, False])
def test_batch_norm_in_either_mode_is_right(mode):
    spec = from_data(nn.BatchNorm1d(3).train(mode), {"input": "b 3"}, dims={"b": Dim(lo=2)})
    claims = ("vjp", "linear", "layout", "purity", "repeat", "partial", "lifetime", "memory", "transforms.vmap")
    found = results(spec, *claims)
    bad = [describe(r) for c, r in found.items() if r.outcome not in (Outcome.PASS, Outcome.SKIP)]
    assert not bad
    shared = "the module writes to its buffer `num_batches_tracked`, which a batch would share"
    assert found["transforms.vmap"].reason == (shared if mode else "")


def test_the_buffers_are_of_the_dtype_that_is_judged():
    right = next(f.right for f in modules.FAULTS if f.name == "evaluation_runs_the_backward_of_training")
    result = results(right, "convention", examples=20)["convention"]
    assert (result.outcome, result.code) == (Outcome.PASS, "")


def test_both_modes_are_judged():
    spec = from_data(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), {"input": "b 3"})
    seen = set()

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            seen.add(self.training)
            return x * self.weight

    assert results(spec, "vjp", "repeat")["vjp"].outcome is Outcome.PASS
    assert results(from_data(Watched(), {"x": "b 3"}), "repeat")["repeat"].outcome is Outcome.PASS
    assert seen == {True, False}


LEFT_ALONE = {
    "memory": (nn.LSTM(3, 2, batch_first=True), {"input": "b s 3"}, "keeps the weights of the last call in a list"),
    "layout": (nn.BatchNorm1d(3, affine=False), {"input": "b 3"}, "nothing is left of equal rows but rounding"),
}


@pytest.mark.parametrize("claim", LEFT_ALONE)
def test_what_torch_does_in_its_own_way_is_no_fault(claim):
    module, shapes, _ = LEFT_ALONE[claim]
    spec = from_data(module, shapes, dims={"b": Dim(lo=2, hi=5)})
    assert results(spec, claim, examples=20)[claim].outcome is Outcome.PASS


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_module_cannot_be_given_parameters_and_keeps_its_own():
    spec = from_data(torch.jit.script(nn.Linear(3, 2)), {"input": "b 3"})
    assert [a.name for a in spec.args] == ["input"]
    assert results(spec, "vjp")["vjp"].outcome is Outcome.PASS


def test_sparse_gradients_are_compared_as_dense_ones():
    integers = Arg(name="input", shape="b", role="integer", dtype="int64", domain=Domain(kind="integers", lo=0, hi=5))
    found = results(from_data(nn.Embedding(6, 3, sparse=True), {"input": integers}), "vjp", "partial", "lifetime")
    assert {r.outcome for r in found.values()} == {Outcome.PASS}
