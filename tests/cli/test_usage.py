"""Misuse: each ends in exit 2 with one clear sentence that names rule, value and remedy; no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])

UNUSABLE_TARGETS = {
    "nomod.ops:Op": "cannot import nomod.ops: no module named 'nomod'; modules are looked for in",
    "mypkg.opps:Op": "no module named 'mypkg.opps' (did you mean 'mypkg.ops'?)",
    "mypkg.ops:Scael": "mypkg.ops has no attribute 'Scael' (did you mean 'Scale'?).",
    "mypkg.ops:Scale.gone": "mypkg.ops:Scale has no attribute 'gone'",
    "mypkg.ops:number": "is not callable, it is an int; name a function or Function.",
    "mypkg.ops:NoBackward": "is an autograd.Function without a backward; define `backward(ctx, *cotangents)`.",
    "mypkg.ops:Sized": "is an nn.Module class that needs arguments; name an instance, or a function that makes one",
    "mypkg.ops:Plain": "is a class, but no torch.autograd.Function",
    "mypkg.ops:later": "is a coroutine or generator",
    "mypkg.ops:torch": "is a module; name an attribute of it",
    "mypkg.ops:bare": "GV901 cannot tell the shapes of x, w",
    "mypkg.ops": "is a module; name an op in it: mypkg.ops:attribute.",
    "mypkg.ops.Scale": "An op is named as module:attribute: `mypkg.ops:Scale`.",
    "mypkg.ops:": "not a target; write module:attribute",
    ":Scale": "not a target; write module:attribute",
    "a:b:c": "not a target; write module:attribute",
    "scael": "no spec has this name (did you mean 'scale'?)",
    "specs/scael.py": "no such spec file (did you mean 'scale.py'?)",
    "specs/scale.py::scael": "no spec 'scael' (did you mean 'scale'?); it defines scale, scale_twice.",
    "gone/dir": "no such file or directory.",
    "src": "no file below it declares a spec; write one with `@gradverify.spec(op)`.",
    "src/mypkg/ops.py": "defines no spec; decorate a reference with `@gradverify.spec(op)`.",
    "torch.ops.nope.nope": "no such registered op; name the module that registers it, too: mypkg.ops:torch.ops.nope",
    "mypkg.ops:torch.ops.nope.nope": "no such registered op; name the module that registers it",
}


@pytest.mark.parametrize("target", UNUSABLE_TARGETS)
def test_an_unusable_target_is_told_why(target, project, engine, gradverify_) -> None:
    answer = gradverify_("check", target)
    assert UNUSABLE_TARGETS[target] in _in_one_line(answer.out)
    assert (answer.code, answer.err) == (2, "")
    shown = gradverify_("show", target)
    assert shown.code == 2
    assert UNUSABLE_TARGETS[target] in _in_one_line(shown.err)


BROKEN_MODULES = {
    "import sys\nsys.exit(3)\n": "it calls sys.exit(3) while it is imported (broken.py:2); guard the script part",
    "x = 1\n1 / 0\n": "cannot import broken: ZeroDivisionError: division by zero (broken.py:2).",
    "import not_there\n": "cannot import broken: it needs 'not_there', which is not installed (broken.py:1).",
    "def f(:\n    pass\n": "cannot import broken: broken.py:1: syntax error: invalid syntax",
    "raise BaseException('own')\n": "cannot import broken: BaseException: own (broken.py:1).",
}


@pytest.mark.parametrize("text", BROKEN_MODULES)
def test_a_module_that_breaks_on_import_is_one_sentence(text, project, engine, gradverify_) -> None:
    (project / "broken.py").write_text(text)
    answer = gradverify_("check", "broken:Op", "scale")
    assert answer.code == 2
    assert BROKEN_MODULES[text] in _in_one_line(answer.out)
    assert "Traceback" not in answer.out + answer.err
    assert "✓ vjp" in answer.out


def test_a_syntax_error_in_a_spec_file_shows_its_line(project, engine, gradverify_) -> None:
    (project / "specs" / "bad.py").write_text("import gradverify\n\ndef f(x):\n    return (x\n")
    answer = gradverify_("check", "specs/bad.py")
    assert answer.code == 2
    assert "specs/bad.py:4: syntax error: '(' was never closed\n      return (x\n             ^" in answer.out
    everything = gradverify_("check")
    assert everything.code == 2
    assert "scale_twice" in everything.out
    listed = gradverify_("list")
    assert (listed.code, "specs/bad.py:4: syntax error" in listed.err, "scale_twice" in listed.out) == (2, True, True)


MISUSE = {
    ("--checks", "vpj"): "unknown claim 'vpj' (did you mean 'vjp'?); known: forward, vjp, linear",
    ("--skip", "lniear"): "unknown claim 'lniear' (did you mean 'linear'?)",
    ("--checks", "vjp", "--skip", "vjp"): "--checks vjp --skip vjp leave no claim; ask for one at least.",
    ("--dtype", "bf16"): "unknown dtype 'bf16' (did you mean 'bfloat16'?); known: float64, float32, float16, bfloat16.",
    ("--dtype", "torch.flaot32"): "unknown dtype 'flaot32' (did you mean 'float32'?)",
    ("--device", "cudda"): "unknown device 'cudda' (did you mean 'cuda'?)",
    ("--require", "gpu"): "unknown device 'gpu' (did you mean 'cuda'?)",
    ("--profile", "nigthly"): "unknown profile 'nigthly' (did you mean 'nightly'?); known: dev, ci, nightly.",
    ("--examples", "0"): "examples must lie between 1 and 1,000,000, got 0",
    ("--examples", "-5"): "examples must lie between 1 and 1,000,000, got -5",
    ("--examples", "100000000000"): "examples must lie between 1 and 1,000,000, got 100000000000",
    ("--examples", "many"): "'many' is not a valid integer",
    ("--seed", "-1"): "-1 is not in the range",
    ("--max-time", "soon"): "'soon' is not a time limit; write for example 30s, 20m or 1h.",
    ("--max-time", "0"): "'0' is not a time limit",
    ("--max-time", "-3s"): "'-3s' is not a time limit",
    ("--max-fail", "0"): "0 is not in the range",
    ("--arg", "x"): "--arg 'x': write NAME=SHAPE, for example --arg 'x=*b k'",
    ("--arg", "=k"): "--arg '=k': write NAME=SHAPE",
    ("--arg", "x y=k"): "--arg 'x y=k': write NAME=SHAPE",
    ("--arg", "x=k", "--arg", "x=n"): "--arg: 'x' is given two shapes, 'k' and 'n'; keep one of them.",
    ("-q", "-v"): "-q and -v contradict each other",
    ("--json", "--format", "full"): "--json and --format full contradict each other",
    ("--format", "jsn"): "'jsn' is not one of 'full', 'concise', 'json', 'junit', 'sarif', 'github'",
    ("--exampels", "3"): "--exampels",
    ("--report", "pyproject.toml"): "--report pyproject.toml: file exists; name a directory that can be made.",
    ("--report", "pyproject.toml/x"): "--report pyproject.toml/x: not a directory",
    ("--output-file", "specs"): "--output-file specs: is a directory; name a file.",
    ("--output-file", "specs/scale.py"): "--output-file specs/scale.py: is Python source",
    ("--output-file", "spec/o.txt"): "its directory does not exist (did you mean 'specs'?); make it first.",
}


@pytest.mark.parametrize("flags", MISUSE, ids=" ".join)
def test_a_flag_that_cannot_be_used_is_refused_before_anything_runs(flags, project, engine, gradverify_) -> None:
    answer = gradverify_("check", "mypkg.ops:Scale", *flags)
    assert MISUSE[flags] in _in_one_line(answer.err)
    assert answer.err.startswith("Usage:") or max(map(len, answer.err.splitlines())) <= 88
    assert (answer.code, answer.out, engine.calls) == (2, "", [])
    assert (project / "specs" / "scale.py").read_text().startswith("\nfrom typing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_report_directory_is_refused(project, engine, gradverify_) -> None:
    (project / "locked").mkdir(mode=0o500)
    assert "cannot be written there" in gradverify_("check", "scale", "--report", "locked").err


MISCONFIGURED = {
    "exampels = 3": "[tool.gradverify] unknown key 'exampels'",
    "spec = ['a']": "unknown key 'spec' (did you mean 'specs'?); known: specs, devices",
    "specs = 3": "[tool.gradverify] specs: expected array, got int.",
    "seed = 'x'": "seed: expected int | null, got str.",
    "devices = ['cudda']": "unknown device 'cudda' (did you mean 'cuda'?)",
    "dtypes = ['f32']": "unknown dtype 'f32' (did you mean 'float32'?)",
    "profile = 'devv'": "unknown profile 'devv' (did you mean 'dev'?)",
    "[tool.gradverify.profiles.night]\nexample = 3": "profiles.night] unknown key 'example' (did you mean",
    "[tool.gradverify.profiles.night]\nmax-time = 'x'": "'x' is not a time limit",
    "[tool.gradverify.profiles.night]\nexamples = -3": "examples must lie between 1 and 1,000,000, got -3",
    "[[tool.gradverify.override]]\nmatch = 'a'\nchecks = { vpj = false }": "unknown claim 'vpj' (did you mean 'vjp'?)",
    "[[tool.gradverify.override]]\nmatc = 'a'": "override[0]] unknown key 'matc' (did you mean 'match'?)",
    "report = { dir = 'r', formats = ['pdf'] }": "report.formats[0]: invalid enum value 'pdf'.",
    "= 3": "cannot be read: Invalid",
}


@pytest.mark.parametrize("text", MISCONFIGURED)
def test_a_configuration_that_cannot_be_used_names_file_key_and_remedy(text, project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text(f"[tool.gradverify]\n{text}\n")
    answer = gradverify_("check", "mypkg.ops:Scale")
    assert MISCONFIGURED[text] in answer.err
    assert str(project / "pyproject.toml") in answer.err
    assert (answer.code, answer.out, engine.calls) == (2, "", [])


@pytest.mark.parametrize("pattern", ["/abs/*.py", ""])
def test_a_glob_that_cannot_be_used_is_named(pattern, project, engine, gradverify_) -> None:
    (project / "pyproject.toml").write_text(f"[tool.gradverify]\nspecs = ['{pattern}']\n")
    answer = gradverify_("check")
    assert answer.code == 2
    assert f"specs: '{pattern}' is not usable" in answer.err


def test_arg_contradicts_a_spec(project, engine, gradverify_) -> None:
    answer = gradverify_("check", "scale", "--arg", "x=n")
    assert answer.code == 2
    assert "--arg x=... describes a bare op (module:attribute); a spec has its own shapes." in _in_one_line(answer.out)


def test_two_specs_of_one_name_must_be_told_apart(project, engine, gradverify_) -> None:
    (project / "specs" / "again.py").write_text((project / "specs" / "scale.py").read_text())
    answer = gradverify_("check", "scale")
    assert answer.code == 2
    assert "choose one of specs/again.py::scale, specs/scale.py::scale." in _in_one_line(answer.out)
    assert gradverify_("check", "specs/again.py::scale").code == 0


@pytest.mark.parametrize(
    ("name", "hint"), [("chekc", "(did you mean 'check'?)"), ("a.b:C", "to verify it: gradverify check a.b:C")]
)
def test_an_unknown_command_is_told_the_nearest(name, hint, gradverify_) -> None:
    answer = gradverify_(name)
    assert answer.code == 2
    assert hint in answer.err


QUICK = [
    ("--help",),
    ("--version",),
    ("check", "--help"),
    ("show", "--help"),
    ("list",),
    ("list", "--json"),
    ("check", "x:y", "--checks", "vpj"),
    ("check", "x:y", "--dtype", "bf16"),
    ("check", "x:y", "--report", "pyproject.toml"),
    ("check", "x:y", "--arg", "x"),
    ("check", "no_such_spec"),
    ("check", "no_such.py"),
    ("check", "no_such_module:f"),
    ("show", "no_such_spec"),
    ("show",),
]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_what_needs_no_torch_does_not_import_it(arguments, project) -> None:
    program = (
        "import sys; from gradverify.cli.main import run; code = run(sys.argv[1:]); "
        "print('modules', *(m for m in ('torch', 'hypothesis', 'numpy') if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    assert done.stderr.splitlines()[-1].strip() == "modules"


def test_that_test_can_fail(project) -> None:
    program = "import sys, hypothesis; print('modules', *(m for m in ('torch', 'hypothesis') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "modules hypothesis"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
