"""`gradverify list` and `gradverify show`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gradverify.cases.outline import outlines
from gradverify.discovery import files
from gradverify.records.claims import CLAIMS
from tests.cli.conftest import SPEC

HEAD = "from typing import Annotated\nfrom torch import Tensor\n"


def test_list_shows_project_and_catalogue_without_importing(project, gradverify_) -> None:
    (project / "specs" / "bomb.py").write_text(
        f"{HEAD}import gradverify as gv\nraise SystemExit\n@gv.spec(f)\ndef bomb(x: Annotated[Tensor, 'n']): ...\n"
    )
    answer = gradverify_("list")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "INPUTS", "CONTRACT"]
    assert lines[1].split() == ["bomb", "project", "x[n]", "exact"]
    assert lines[3].split() == ["scale_twice", "project", "x[*b", "k]", "w[k]", "backward_of"]
    assert any(line.split()[:2] == ["ste_quant", "catalogue"] for line in lines)
    assert (answer.code, answer.err, max(map(len, lines)) <= 88) == (0, "", True)


INSTALLED = {
    "folder": ("theirs.checks", "theirs/checks/op.py"),
    "module": ("theirs.checks", "theirs/checks.py"),
    "top": ("theirs_checks", "theirs_checks.py"),
}


@pytest.mark.parametrize("kind", INSTALLED)
def test_specs_of_installed_packages_are_found_by_their_entry_points(
    kind, project, engine, tmp_path_factory, monkeypatch, gradverify_
) -> None:
    """The package itself is not imported: it would end the process."""
    named, file = INSTALLED[kind]
    lib = tmp_path_factory.mktemp("lib")
    texts = {
        "theirs/__init__.py": "raise SystemExit",
        file: f"{HEAD}import gradverify as gv\n@gv.spec(abs)\ndef their_op(x: Annotated[Tensor, 'n']): ...\n",
        "theirs-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n",
        "theirs-1.0.dist-info/entry_points.txt": f"[{files.GROUP}]\nmine = {named}\ngone = no.such.module\n",
    }
    for name, text in texts.items():
        (lib / name).parent.mkdir(parents=True, exist_ok=True)
        (lib / name).write_text(text)
    monkeypatch.syspath_prepend(str(lib))
    assert any(line.split()[:2] == ["their_op", "installed"] for line in gradverify_("list").out.splitlines())
    assert gradverify_("check", "their_op").code == 0
    assert engine.calls[0][0] == ["their_op"]
    gradverify_("check")
    assert "their_op" not in engine.calls[1][0]


def test_list_as_json(project, gradverify_) -> None:
    rows = json.loads(gradverify_("list", "--json").out)
    first = rows[0]
    assert (first["name"], first["op"], first["line"], first["target"]) == (
        "scale",
        "Scale",
        8,
        "specs/scale.py::scale",
    )
    assert first["last"] is None


def test_list_of_an_empty_project_still_shows_the_catalogue(tmp_path, monkeypatch, gradverify_) -> None:
    monkeypatch.chdir(tmp_path)
    answer = gradverify_("list")
    assert answer.code == 0
    assert "ste_quant" in answer.out


OUTLINES = {
    "import gradverify\n@gradverify.spec(A.B)\ndef f(x: Annotated[Tensor, 'n']): ...": ("f", "A.B", ("x[n]",), "exact"),
    "from gradverify import spec as s\n@s('m:A', vjp=v)\ndef f(x: Float[Tensor, '*b k']): ...": (
        "f",
        "m:A",
        ("x[*b k]",),
        "vjp",
    ),
    "import gradverify as gv\n@gv.spec(A)\ndef f(x: Annotated[Tensor, 'n'] | None = None, *, k: int = 1): ...": (
        "f",
        "A",
        ("x[n]?",),
        "exact",
    ),
    "import gradverify as gv\nV = Annotated[Tensor, 'n']\n@gv.spec(A)\ndef f(x: V, y: 'V'): ...": (
        "f",
        "A",
        ("x[n]", "y[n]"),
        "exact",
    ),
    "import gradverify as gv\nf = gv.Spec(name='g', op='m:A', args=(gv.Arg(name='x', shape='n'),), "
    "contract=gv.Contract(kind='vjp', formula=v))": ("g", "m:A", ("x[n]",), "vjp"),
    "import gradverify as gv\n"
    "f = gv.Spec('m:A', args={'x': '*b k', 'w': gv.Arg('k', optional=True), 'v': gv.Arg(shape='k')})": (
        "A",
        "m:A",
        ("x[*b k]", "w[k]?", "v[k]"),
        "exact",
    ),
    "import gradverify as gv\nf = gv.from_data(ops.A.apply, {'xs': ['n', 'm']}, backward_of=g)": (
        "A",
        "ops.A.apply",
        ("xs[['n', 'm']]",),
        "backward_of",
    ),
    "import gradverify as gv\nf = gv.spec(A)(reference)": ("f", "A", (), "exact"),
    "import gradverify as gv\n@gv.spec(größe)\ndef größe_梯度(x: Annotated[Tensor, 'n']): ...": (
        "größe_梯度",
        "größe",
        ("x[n]",),
        "exact",
    ),
}


@pytest.mark.parametrize("text", OUTLINES)
def test_a_spec_is_read_from_its_text(text) -> None:
    (found,) = outlines(text)
    assert (found.name, found.op, found.inputs, found.contract) == OUTLINES[text]


@pytest.mark.parametrize(
    "text", ["", "import other as gv\n@gv.spec(A)\ndef f(): ...", "import gradverify as gv\n@gv.other(A)\ndef f(): ..."]
)
def test_what_is_no_spec_is_not_listed(text) -> None:
    assert outlines(text) == ()


def test_outline_and_import_agree_on_the_catalogue(engine) -> None:
    from gradverify.discovery.loading import from_file

    for file in files.shipped_files():
        imported = {
            s.name: [f"{a.name}[{a.shape}]" + "?" * a.optional for a in s.args] for s in from_file(file, name=None)
        }
        assert {o.name: list(o.inputs) for o in outlines(file.read_text())} == imported


def test_the_catalogue_is_found_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch) -> None:
    assert files.shipped() == Path(__file__).parents[2] / "specs"
    package = tmp_path / "site-packages" / "gradverify"
    (package / "specs").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(package / "discovery" / "files.py"))
    assert files.shipped() is None
    (package / "specs" / "report.schema.json").write_text("{}")
    assert files.shipped() == package / "specs"


def test_show_says_what_the_spec_promises_and_what_is_checked(project, engine, gradverify_, golden) -> None:
    (project / "specs" / "full.py").write_text(
        f"""{HEAD}import gradverify as gv
from typing import Literal
from mypkg.ops import Scale

@gv.spec(
    Scale,
    backward_of=lambda x, w: x * w,
    dims={{"k": gv.dim(1, 200, around=64), "b": gv.dim(0, 3)}},
    linear=False,
    digits=9,
    examples=[gv.example(k=65)],
    xfail={{"GV203": "#12 sliced cotangents"}},
    devices=["cpu"],
)
def full(x: Annotated[Tensor, "*b k", gv.domain(0, 1)], w: Annotated[Tensor, "k"]) -> Tensor: ...
"""
    )
    golden("show.txt", gradverify_("show", "full").out)


def test_show_as_json_is_the_spec_and_its_claims(project, engine, gradverify_) -> None:
    (row,) = json.loads(gradverify_("show", "scale", "--json").out)
    assert row["spec"]["name"] == "scale"
    assert [a["shape"] for a in row["spec"]["args"]] == ["*b k", "k"]
    assert [c["claim"] for c in row["claims"]][:2] == ["forward", "vjp"]


def test_show_of_a_bare_op(project, engine, gradverify_) -> None:
    answer = gradverify_("show", "mypkg.ops:bare", "--arg", "x=n", "--arg", "w=n")
    assert answer.code == 0
    assert re.search(r"- forward +the spec has no reference; give it a body", answer.out)


def test_show_keeps_one_column_of_claims(project, engine, gradverify_) -> None:
    lines = gradverify_("show", "mypkg.ops:bare", "--arg", "x=n", "--arg", "w=n").out.splitlines()
    rows = [line for line in lines if re.match(r"  [✓-] [a-z_.]+ ", line)]
    assert len(rows) == len(CLAIMS)
    assert len({re.match(r"  . \S+ +", row).end() for row in rows}) == 1


def test_show_says_what_a_function_lacks_for_torch_func(project, gradverify_) -> None:
    out = gradverify_("show", "scale").out
    assert re.search(r"- transforms.vmap +the op has no setup_context, which torch.func needs", out)
    assert re.search(r"- jvp +the op has no jvp", out)


def test_show_names_what_a_spec_file_defines_by_the_path_of_the_file(project, gradverify_) -> None:
    file = project / "specs" / "own.py"
    file.write_text(
        SPEC.replace("@gv.spec(Scale)", "def twice(x, w): return x * w\n\n@gv.spec(twice, backward_of=twice)", 1)
    )
    answer = gradverify_("show", "specs/own.py::scale")
    assert "op           specs/own.py:twice" in answer.out
    assert "contract backward_of specs/own.py:twice" in answer.out
    assert "gradverify_spec_" not in answer.out
