"""Which items a pytest run has, by which names they are chosen, and which options reach them."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import HEAD, ROOT, Answers, Project, spec

TWO = ("--gv-checks", "vjp,linear")


def test_each_claim_device_and_dtype_of_a_spec_is_an_item(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("scale", options='dtypes=["float64", "float32"]'))
    assert project.ids(*TWO) == [
        "test_ops.py::scale::vjp[cpu-float64]",
        "test_ops.py::scale::linear[cpu-float64]",
        "test_ops.py::scale::vjp[cpu-float32]",
        "test_ops.py::scale::linear[cpu-float32]",
    ]


def test_a_spec_that_is_imported_is_collected_where_it_is_defined_alone(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("scale") + spec("test_scale") + "again = scale\n")
    project.write(
        "test_more.py", "from test_ops import *\nfrom test_ops import scale, test_scale as test_it\nother = scale\n"
    )
    assert {i.rpartition("::")[0] for i in project.ids(*TWO)} == {"test_ops.py::scale", "test_ops.py::test_scale"}


def test_specs_from_data_and_from_helpers_are_collected_where_they_are_made(project: Project) -> None:
    project.write(
        "helpers.py", HEAD + "def made(op):\n" + spec("inner", "op").replace("\n", "\n    ") + "\n    return inner\n"
    )
    project.write(
        "test_ops.py",
        HEAD
        + 'from helpers import made\ndata = gv.from_data("ops:Scale", {"x": "*b k", "w": "k"})\nmine = made(Scale)\n'
        "narrow = mine.with_(dtypes=('float32',))\n",
    )
    project.write("test_more.py", "from test_ops import data, mine\n")
    assert project.ids("--gv-checks", "vjp") == [
        "test_ops.py::data::vjp[cpu-float64]",
        "test_ops.py::mine::vjp[cpu-float64]",
        "test_ops.py::narrow::vjp[cpu-float32]",
    ]


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (("test_ops.py::scale",), 2),
        (("test_ops.py::scale::vjp[cpu-float64]",), 1),
        (("test_ops.py::scale::vjp",), 1),
        (("-k", "linear"), 2),
        (("-k", "wrong and vjp"), 1),
        (("-m", "gradverify"), 4),
        (("-m", "not gradverify"), 1),
        (("-m", "slow"), 2),
        (("--deselect", "test_ops.py::wrong"), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_items_are_chosen_like_any_test(project: Project, arguments: tuple[str, ...], chosen: int) -> None:
    slow = spec("wrong", "Wrong", above="@pytest.mark.slow")
    project.write("test_ops.py", HEAD + spec("scale") + slow + "def test_plain(): ...\n")
    project.write("pytest.ini", "[pytest]\nmarkers = slow\naddopts = --strict-markers --strict-config\n")
    assert len(project.ids(*TWO, *arguments)) == chosen


def test_last_failed_failed_first_and_stopping_at_the_first_failure(project: Project) -> None:
    project.write("test_ops.py", HEAD + spec("scale") + spec("wrong", "Wrong"))
    options = ("--gv-checks", "linear,vjp", "--gv-examples", "2")
    cache = ("cacheprovider",)
    project.run(*options, plugins=cache).assert_outcomes(passed=3, failed=1)
    assert project.ids("--lf", *options, plugins=cache) == ["test_ops.py::wrong::vjp[cpu-float64]"]
    assert project.ids("--ff", *options, plugins=cache)[0] == "test_ops.py::wrong::vjp[cpu-float64]"
    project.run("-x", "--ff", *options, plugins=cache).assert_outcomes(failed=1)
    project.run("--maxfail=1", *options, plugins=cache).assert_outcomes(passed=2, failed=1)


@pytest.mark.parametrize("where", ["above", "below"])
def test_marks_of_pytest_hold_for_a_spec(project: Project, answers: Answers, where: str) -> None:
    mark = "@pytest.mark.skipif(True, reason='not today')"
    text = spec("scale", above=mark) if where == "above" else spec("scale").replace("def scale", f"{mark}\ndef scale")
    project.write("test_ops.py", HEAD + text)
    done = project.run(*TWO, "-rs")
    done.assert_outcomes(skipped=2)
    done.stdout.fnmatch_lines(["*not today"])
    assert answers.asked == []


def test_the_marker_sets_options_the_nearest_wins_and_the_command_line_before_all(
    project: Project, answers: Answers
) -> None:
    near = spec("near", above="@pytest.mark.gradverify(examples=7, checks='vjp')")
    project.write(
        "test_ops.py", HEAD + "pytestmark = pytest.mark.gradverify(examples=3, seed=5)\n" + spec("far") + near
    )
    project.run(*TWO)
    assert [(p.examples, p.seed) for p in answers.plans] == [(3, 5), (3, 5), (7, 5), (7, 5)]
    answers.plans.clear()
    project.run("--gv-examples", "11")
    assert {p.examples for p in answers.plans} == {11}
    assert sum(name == "near" for name, _ in answers.asked) == 2 + 1


def test_the_configuration_and_the_environment_hold(
    project: Project, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(
        "pyproject.toml",
        '[tool.gradverify]\nprofile = "fast"\nseed = 9\n[tool.gradverify.profiles.fast]\nexamples = 4\n'
        '[[tool.gradverify.override]]\nmatch = "scale"\nchecks.linear = false\n',
    )
    project.write("test_ops.py", HEAD + spec("scale"))
    monkeypatch.setenv("GRADVERIFY_SEED", "12")
    project.run()
    assert {(p.profile, p.examples, p.seed) for p in answers.plans} == {("fast", 4, 12)}
    assert "linear" not in {claim for _, claim in answers.asked}
    assert "vjp" in {claim for _, claim in answers.asked}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gv-checks", "vpj"), "*unknown claim 'vpj' (did you mean 'vjp'?)*"),
        (("--gv-profile", "fast"), "*unknown profile 'fast'*known: dev, ci, nightly*"),
        (("--gv-device", "gpu"), "*unknown device 'gpu' (did you mean 'cuda'?)*"),
        (("--gv-examples", "0"), "*examples must lie between 1 and 1,000,000*"),
        (("--gv-checks", "vjp", "--gv-skip", "vjp"), "*leave no claim*"),
        (("--gv-report", "ops.py"), "*--report ops.py*name a directory*"),
        (("--gv-events", "no/where.ndjson"), "*--gv-events no/where.ndjson: its directory does not exist*"),
        (("--gv-events", "-"), "*--gv-events -: standard output has the report; name a file*"),
        (("--gv-require", "gpu"), "*unknown device 'gpu' (did you mean 'cuda'?)*"),
        (("--gv-replay", "gone"), "*gone: no failure of this id is kept*"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_unusable_option_ends_the_run_before_any_test(
    project: Project, arguments: tuple[str, ...], said: str
) -> None:
    project.write("test_ops.py", HEAD + spec("scale") + "def test_plain(): ...\n")
    done = project.run(*arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([said])


def test_an_unknown_option_of_the_marker_and_a_lazy_op_that_is_missing_are_errors_of_collection(
    project: Project,
) -> None:
    project.write("test_a.py", HEAD + spec("scale", above="@pytest.mark.gradverify(exmaples=3)"))
    project.write("test_b.py", HEAD + 'gone = gv.from_data("nowhere:Op", {"x": "n"})\n')
    done = project.run(*TWO)
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(
        [
            "*unknown option of the marker gradverify: 'exmaples' (did you mean 'examples'?)*",
            "nowhere:Op: cannot be loaded*",
        ]
    )


GLOBS = {
    "ini": ("pytest.ini", "[pytest]\ngradverify_specs = specs/*.py\n"),
    "toml": ("pyproject.toml", '[tool.pytest.ini_options]\ngradverify_specs = ["specs/*.py"]\n'),
    "table": ("pyproject.toml", '[tool.gradverify]\nspecs = ["specs/*.py"]\n'),
}


@pytest.mark.parametrize("kind", GLOBS)
def test_files_of_specs_are_found_by_their_globs(project: Project, kind: str) -> None:
    project.write(*GLOBS[kind])
    project.write("src/inside/__init__.py", "")
    project.write("specs/scale.py", "import inside\n" + HEAD + spec("scale"))
    project.write("elsewhere/scale_too.py", HEAD + spec("scale_too"))
    wanted = ["specs/scale.py::scale::vjp[cpu-float64]"]
    assert project.ids("--gv-checks", "vjp") == wanted
    assert project.ids("--gv-checks", "vjp", "specs") == wanted
    assert project.ids("--gv-checks", "vjp", "specs/scale.py") == wanted
    assert project.ids("--gv-checks", "vjp", "specs/scale.py", "-o", "python_files=*.py") == wanted


def test_without_a_word_of_the_project_its_other_files_are_left_alone(project: Project) -> None:
    project.write("specs/scale.py", "raise RuntimeError('imported')")
    project.write("pyproject.toml", "[tool.other]\n")
    assert project.run().ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_file_that_is_named_is_collected_without_a_glob(project: Project) -> None:
    project.write("some/scale.py", HEAD + spec("scale"))
    assert project.ids("--gv-checks", "vjp", "some/scale.py") == ["some/scale.py::scale::vjp[cpu-float64]"]


def test_what_a_file_of_specs_draws_at_import_is_what_the_command_line_sees(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\ngradverify_specs = specs/*.py\n")
    project.write("specs/drawn.py", "import torch\nprint('drawn', torch.rand(1).item())\n" + HEAD + spec("s"))
    lines = [line for _ in range(2) for line in project.run("--co", "-q", "-s").outlines]
    seen = [line for line in lines if line.startswith("drawn")]
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_the_specs_that_are_shipped_are_collected_by_their_folder(project: Project) -> None:
    ids = project.ids("--gv-checks", "vjp", "-c", str(ROOT / "pyproject.toml"), str(ROOT / "specs"))
    assert any(i.startswith("specs/ste_quant.py::") for i in ids)
    assert len(ids) > 4
