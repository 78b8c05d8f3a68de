"""Which setting wins: command line, environment, override, profile, defaults."""

from __future__ import annotations

import pytest

from gradverify.config import load, on_ci, seconds
from gradverify.errors import UsageError


def plan_of(engine):
    return engine.calls[-1][1]


@pytest.mark.parametrize(
    ("variables", "flags", "profile", "examples"),
    [
        ({}, (), "dev", 20),
        ({"CI": "true"}, (), "ci", 100),
        ({"CI": "1"}, ("--profile", "dev"), "dev", 20),
        ({"CI": "false"}, (), "dev", 20),
        ({"CI": "0"}, (), "dev", 20),
        ({"CI": ""}, (), "dev", 20),
        ({}, ("--profile", "nightly"), "nightly", 2000),
        ({"GRADVERIFY_PROFILE": "nightly"}, (), "nightly", 2000),
        ({"GRADVERIFY_PROFILE": "nightly"}, ("--profile", "ci"), "ci", 100),
        ({"GRADVERIFY_EXAMPLES": "5"}, (), "dev", 5),
        ({"GRADVERIFY_EXAMPLES": "5"}, ("--examples", "6"), "dev", 6),
        ({}, ("--profile", "mine"), "mine", 9),
    ],
)
def test_profile_and_examples(variables, flags, profile, examples, project, engine, gradverify_, monkeypatch) -> None:
    (project / "pyproject.toml").write_text('[tool.gradverify.profiles.mine]\nexamples = 9\nmax-time = "2m"\n')
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    gradverify_("check", "mypkg.ops:Scale", *flags)
    assert (plan_of(engine).profile, plan_of(engine).examples) == (profile, examples)
    assert plan_of(engine).max_seconds == (120 if profile == "mine" else None)


def test_flags_reach_the_plan(project, engine, gradverify_) -> None:
    gradverify_(
        *(
            "check",
            "mypkg.ops:Scale",
            "--checks",
            "vjp,linear",
            "--checks",
            "edges",
            "--skip",
            "linear",
            "--device",
            "cpu",
        ),
        *("--dtype", "torch.float32,float64", "--seed", "7", "--max-time", "1h30m", "--max-fail", "4"),
    )
    plan = plan_of(engine)
    assert (plan.claims, plan.skip, plan.devices) == (("vjp", "linear", "edges"), ("linear",), ("cpu",))
    assert (plan.dtypes, plan.seed, plan.max_seconds, plan.max_failures) == (("float32", "float64"), 7, 5400, 4)
    gradverify_("check", "mypkg.ops:Scale", "-x")
    assert plan_of(engine).max_failures == 1


@pytest.mark.parametrize("name", ["checks", "skip"])
def test_claims_from_the_environment(name, project, engine, gradverify_, monkeypatch) -> None:
    monkeypatch.setenv(f"GRADVERIFY_{name.upper()}", "vjp,linear")
    gradverify_("check", "mypkg.ops:Scale")
    assert {"checks": plan_of(engine).claims, "skip": plan_of(engine).skip}[name] == ("vjp", "linear")


def test_the_same_command_has_the_same_seed_and_nightly_explores(project, engine, gradverify_) -> None:
    seeds = {}
    for profile in ("dev", "ci", "nightly"):
        for _ in range(3):
            gradverify_("check", "mypkg.ops:Scale", "--profile", profile)
            seeds.setdefault(profile, set()).add(plan_of(engine).seed)
    assert seeds["dev"] == seeds["ci"] == {0}
    assert len(seeds["nightly"]) > 1
    gradverify_("check", "mypkg.ops:Scale", "--profile", "nightly", "--seed", "3")
    assert plan_of(engine).seed == 3


def test_the_table_of_the_project_is_the_base(project, engine, gradverify_) -> None:
    table = 'devices = ["cpu"]\ndtypes = ["float32"]\nseed = 11\nprofile = "ci"\nrequire = ["cuda"]\n'
    (project / "pyproject.toml").write_text(f"[tool.gradverify]\n{table}")
    assert gradverify_("check", "mypkg.ops:Scale").code == 3
    plan = plan_of(engine)
    assert (plan.devices, plan.dtypes, plan.seed, plan.profile) == (("cpu",), ("float32",), 11, "ci")


def test_the_last_matching_override_wins(project) -> None:
    tables = "".join(f'[[tool.gradverify.override]]\nmatch = "{m}"\nexamples = {n}\n' for m, n in (("*", 1), ("a*", 2)))
    (project / "pyproject.toml").write_text(tables)
    config = load()
    assert [config.override_for(name).examples for name in ("abc", "xyz")] == [2, 1]


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("30s", 30), ("20m", 1200), ("1h", 3600), ("1h5m2s", 3902), ("1.5h", 5400)]
)
def test_time_limits(text, value) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "s", "1d", "m20", "1m1h", "nan", "-1", "0s", "1 h"])
def test_what_is_no_time_limit(text) -> None:
    with pytest.raises(UsageError, match="is not a time limit"):
        seconds(text)


def test_ci_is_what_the_variable_says() -> None:
    assert [on_ci({"CI": v}) for v in ("true", "1", "yes", "False", "no", " 0 ")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert not on_ci({})
