"""Tests that users write: the fixture, and properties over the inputs of a spec."""

from __future__ import annotations

from tests.plugin.conftest import HEAD, Project, spec

FIXTURE = """
def test_right(gradverify):
    run = gradverify(Scale, x="*b k", w="k", claims="linear")
    assert [r.outcome.value for r in run.results] == ["PASS"]

def test_wrong(gradverify):
    gradverify(Wrong, x="*b k", w="k")

def test_no_op(gradverify):
    gradverify(3, x="n")
"""

PROPERTY = """
import torch

@gv.parametrize([scale, wrong], claim="{claim}")
def test_gradients_are_those_of_the_reference({parameters}):
    x, w = case.inputs
    got = torch.autograd.grad(case.op(x, w), (x, w), case.cotangents)
    want = torch.autograd.grad(case.spec(x, w), (x, w), case.cotangents)
    assert all(map(torch.equal, got, want))
"""


def test_the_fixture_verifies_and_fails_with_the_block(project: Project) -> None:
    project.write("test_ops.py", HEAD + FIXTURE)
    done = project.run("--gv-checks", "vjp", "--gv-examples", "2", "--gv-report", "out")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["E*GradcheckError: GV101 wrong scale*", "E   *✗ vjp *GV101 wrong scale*"])
    done.stdout.fnmatch_lines(["*is not callable*"])
    done.stdout.fnmatch_lines(["*= gradverify =*", "Wrong *✗ vjp GV101"])
    assert "def check(" not in done.stdout.str()


def test_a_property_is_tried_on_what_the_spec_allows_and_its_failure_is_shrunk(project: Project) -> None:
    text = PROPERTY.format(claim="layout", parameters="tmp_path, case")
    project.write("test_ops.py", HEAD + spec("scale") + spec("wrong", "Wrong") + text)
    done = project.run("-k", "test_gradients")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*test_gradients_are_those_of_the_reference[[]wrong]*", "case = wrong: b=1  k=1 seed=*"])


def test_a_property_draws_the_same_cases_each_time_and_as_many_as_it_is_told(project: Project) -> None:
    text = "@gv.parametrize(scale)\ndef test_it(case, request):\n    print('drew', case.recipe.id, request.node.name)\n"
    project.write("test_ops.py", HEAD + spec("scale") + text)
    runs = [project.run("-k", "test_it", "-s", "--gv-examples", "5", "-p", "no:randomly") for _ in range(2)]
    drew = [[line for line in done.outlines if "drew" in line] for done in runs]
    assert len(drew[0]) == 5
    assert drew[0] == drew[1]


def test_a_property_without_a_case_is_refused(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("scale") + "@gv.parametrize(scale)\ndef test_it(x): ...\n")
    done = project.run()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*UsageError: test_it: takes no `case`; write `def test_it(case): ...`*"])
