"""`gradverify replay`: a failing case is kept, fails again, is fixed, and goes; what cannot be tried stays."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from gradverify.cases import values
from tests.cli.conftest import OPS

WRONG = OPS.replace("(g * x).reshape(-1, w.numel()).sum(0)", "2 * (g * x).sum_to_size(w.shape)")
RIGHT = OPS.replace("(g * x).reshape(-1, w.numel()).sum(0)", "(g * x).sum_to_size(w.shape)")


@pytest.fixture
def write(project, monkeypatch):
    """Write `mypkg.ops` anew, to be imported anew."""

    def written(text):
        (project / "src" / "mypkg" / "ops.py").write_text(text, encoding="utf-8")
        for name in [n for n in sys.modules if n.partition(".")[0] == "mypkg" or n.startswith("gradverify_spec_")]:
            del sys.modules[name]

    # Two versions of a file within a second look alike to the cache of bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return written


@pytest.fixture
def failed(write, project, gradverify_):
    """The file of a failure of vjp that was kept."""

    def check(target="mypkg.ops:Scale", *flags):
        write(WRONG)
        answer = gradverify_("check", target, "--checks", "vjp", "--examples", "5", *flags)
        assert answer.code == 1
        (id_,) = re.findall(r"^      gradverify replay (\w+) · gradverify explain GV\d+$", answer.out, re.MULTILINE)
        return project / ".gradverify" / "failures" / f"{id_}.json"

    return check


def test_a_failure_is_kept_as_json_that_people_can_read(failed):
    kept = json.loads(failed().read_text())
    assert (kept["schema"], kept["target"], kept["claim"], kept["outcome"]) == (
        "gradverify/failure/1",
        "mypkg.ops:Scale",
        "vjp",
        "FAIL",
    )
    exact = dict(kept["data"])
    assert np.ravel(kept["inputs"]["w"]).tolist() == [float.fromhex(v) for v in exact["w"]["values"]]
    assert any("central differences of the forward" in line for line in kept["seen"])


def test_it_fails_again_until_it_is_fixed_and_then_it_goes(failed, write, gradverify_):
    file = failed()
    answer = gradverify_("replay")
    assert answer.code == 1
    assert re.match(rf"✗ FAILED {file.stem}  vjp of mypkg.ops:Scale: GV\d+ ", answer.out)
    assert answer.out.endswith("\n1 failure: 1 kept, 0 removed\n")
    write(RIGHT)
    answer = gradverify_("replay")
    assert answer.code == 0
    assert re.match(rf"✓ FIXED  {file.stem}  vjp of mypkg.ops:Scale: was GV\d+ ", answer.out)
    assert answer.out.endswith("\n1 failure: 0 kept, 1 removed\n")
    assert not file.exists()
    assert gradverify_("replay").err.startswith("No failure is kept in ")


def test_one_that_is_named_is_shown_in_full(failed, gradverify_):
    file = failed()
    for word in (file.stem, file.stem[:3], str(file)):
        answer = gradverify_("replay", word)
        assert answer.code == 1
        assert "  ✗ vjp " in answer.out
        assert "central differences of the forward  dy" in answer.out


def test_a_replay_says_what_check_said(failed, gradverify_):
    file = failed()
    kept = json.loads(file.read_text())
    assert (kept["code"], kept["summary"][:11]) == ("GV101", "wrong scale")
    said = " ".join(gradverify_("replay", file.stem).out.split())
    # Of the smallest case only the effort that found it is told no more.
    lines = [" ".join(line.partition("   shrunk in ")[0].split()) for line in kept["seen"]]
    assert len(lines) >= 5
    assert all(line in said for line in lines), said
    assert "✗ vjp GV101 wrong scale: " in said
    assert "try a factor applied twice" in said
    assert f"GV101 {kept['summary']}" in " ".join(gradverify_("replay").out.split())


def test_what_is_fixed_stays_where_that_is_asked_for_or_the_file_is_the_users(failed, write, project, gradverify_):
    file = failed()
    mine = project / "mine.json"
    mine.write_text(file.read_text())
    write(RIGHT)
    assert gradverify_("replay", "--keep").out.endswith("1 failure: 1 kept, 0 removed\n")
    assert gradverify_("replay", str(mine)).out.endswith("1 failure: 1 kept, 0 removed\n")
    assert file.exists()
    assert mine.exists()


ENDS = {
    "the op was renamed": (
        WRONG.replace("class Scale(", "class Scaled(").replace("apply = Scale.apply", ""),
        "mypkg.ops has no attribute 'Scale'",
    ),
    "an argument was renamed": (
        RIGHT.replace("ctx, x: Annotated", "ctx, z: Annotated").replace("(x, w)", "(z, w)").replace("x * w", "z * w"),
        "the case has w, x, the op now takes w, z; check it anew.",
    ),
    "the module is broken": ("1 / 0", "ZeroDivisionError"),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_cannot_be_tried_any_more_is_an_error_and_stays(end, failed, write, gradverify_):
    file, (text, said) = failed(), ENDS[end]
    write(text)
    answer = gradverify_("replay")
    assert answer.code == 2
    assert answer.out.startswith(f"! ERROR  {file.stem}  vjp of mypkg.ops:Scale: ")
    assert said in " ".join(answer.out.split())
    assert file.exists()


def test_an_op_that_raises_now_has_failed(failed, write, gradverify_):
    failed()
    write(WRONG.replace("return g * w, 2", "raise ValueError('no')\n        return g * w, 2"))
    answer = gradverify_("replay")
    assert answer.code == 1
    assert ": GV902 " in answer.out


def test_a_file_that_is_none_of_ours_is_an_error_and_the_others_are_tried(failed, gradverify_):
    file = failed()
    file.with_name("000000.json").write_text("{}")
    answer = gradverify_("replay")
    assert answer.code == 1
    assert "! ERROR  000000  000000.json:" in answer.out
    assert "is no failure that gradverify kept" in answer.out
    assert f"✗ FAILED {file.stem}" in answer.out


def test_an_unknown_id_is_told_those_that_are_kept(failed, gradverify_):
    file = failed()
    answer = gradverify_("replay", "zzz")
    assert (answer.code, answer.out) == (2, "")
    assert f"those in .gradverify/failures are: {file.stem}." in " ".join(answer.err.split())


def test_a_spec_of_a_file_is_found_again_from_any_directory(failed, project, gradverify_, monkeypatch):
    file = failed("specs/scale.py::scale")
    assert json.loads(file.read_text())["target"] == "specs/scale.py::scale"
    monkeypatch.chdir(project / "src")
    assert gradverify_("replay", file.stem).code == 1


def test_shapes_of_the_command_line_are_kept(write, project, gradverify_):
    write(WRONG + "\ndef twice(x):\n    return Scale.apply(x, x[..., :1].squeeze(-1).mean().reshape(1))\n")
    flags = ("--arg", "x=b 1", "--checks", "vjp", "--examples", "5")
    assert gradverify_("check", "mypkg.ops:twice", *flags).code == 1
    (file,) = (project / ".gradverify" / "failures").glob("*.json")
    assert json.loads(file.read_text())["shapes"] == {"x": "b 1"}
    assert gradverify_("replay").code == 1


def test_a_case_is_the_same_whatever_draws_numbers_now(failed, gradverify_, monkeypatch):
    file = failed()
    drawn = values.fill
    monkeypatch.setattr(values, "fill", lambda regime, draw: 3 * drawn(regime, draw))
    monkeypatch.setattr(np.random, "default_rng", lambda seed: np.random.Generator(np.random.MT19937(seed)))
    answer = gradverify_("replay", file.stem)
    assert answer.code == 1
    backward = next(line for line in json.loads(file.read_text())["seen"] if line.startswith("backward()"))
    assert " ".join(backward.split()) in " ".join(answer.out.split())


def test_as_example_prints_the_line_that_pins_it(failed, gradverify_):
    file = failed()
    answer = gradverify_("replay", file.stem, "--as", "example")
    case = json.loads(file.read_text())["case"]
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in case["dims"]}
    assert answer.out == f"examples=[gv.example(b={sizes['b']!r}, k={sizes['k']!r})],\n"


def test_the_outcomes_as_json(failed, gradverify_):
    file = failed()
    (row,) = json.loads(gradverify_("replay", "--json").out)
    assert (row["id"], row["state"], row["removed"]) == (file.stem, "FAILED", False)


def test_a_folder_that_cannot_be_written_changes_no_verdict(write, project, gradverify_):
    write(WRONG)
    (project / ".gradverify").write_text("in the way")
    answer = gradverify_("check", "mypkg.ops:Scale", "--checks", "vjp", "--examples", "5")
    assert answer.code == 1
    assert "failing cases were not kept for `gradverify replay`: " in answer.err
    assert "gradverify replay" not in answer.out
