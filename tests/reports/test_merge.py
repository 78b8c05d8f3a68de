"""Several runs as one."""

from __future__ import annotations

from itertools import permutations

from msgspec.structs import replace

from gradverify.records.run import Environment, NotCovered, from_json, to_json
from gradverify.records.verdict import Outcome
from gradverify.reports.merge import merged
from tests.reports import runs


def shard(*checks, **changes):
    return runs.run(runs.op(*checks, **changes))


def same(one, other) -> bool:
    return to_json(one) == to_json(other)


def test_one_run_stays_as_it_is_and_none_is_empty() -> None:
    assert merged([runs.MIXED]) is runs.MIXED
    assert merged([]).ops == ()


def test_shards_in_any_order_make_the_run_they_are_of() -> None:
    whole = runs.op(runs.passed("forward"), runs.VJP_FAIL, runs.passed("linear"), runs.NO_CUDA)
    parts = [shard(result) for result in whole.checks]
    for order in permutations(parts):
        made = merged(order)
        assert [(r.claim, r.device) for r in made.results] == [(r.claim, r.device) for r in whole.checks]
        assert made.totals["FAIL"] == 1
        assert made.totals["PASS"] == 2
    assert same(from_json(to_json(merged(parts))), merged(parts))


def test_of_two_results_of_the_same_claim_the_worse_stands() -> None:
    for order in permutations([shard(runs.passed("vjp")), shard(runs.VJP_FAIL), shard(runs.UNSURE)]):
        (result,) = merged(order).results
        assert result.outcome is Outcome.FAIL


def test_ops_of_one_name_in_two_files_stay_two_and_a_checkout_elsewhere_is_the_same() -> None:
    here = runs.op(runs.passed("vjp"))
    elsewhere = replace(here, source=replace(here.source, file="/elsewhere/src/mypkg/ops.py"))
    other = replace(here, source=replace(here.source, line=99))
    assert len(merged([runs.run(here), runs.run(elsewhere)]).ops) == 1
    assert len(merged([runs.run(here, other), runs.run(here)]).ops) == 2


def test_machines_are_named_together_and_durations_add_up() -> None:
    gpu = Environment(
        python="3.12.1", torch="2.13.0+cu130", platform="Linux", devices=("cpu", "H100"), flags={"tf32": "1"}
    )
    one, two = runs.PASSING, replace(runs.FAILING, environment=gpu, run=replace(runs.FAILING.run, interrupted=True))
    made = merged([one, two])
    assert made.environment.torch == "2.13.0+cpu, 2.13.0+cu130"
    assert (made.environment.python, made.environment.devices) == ("3.12.1", ("cpu", "H100"))
    assert made.environment.flags == {"tf32": "1"}
    assert made.run.duration_s == one.run.duration_s + two.run.duration_s
    assert made.run.interrupted


def test_what_one_shard_left_out_and_another_tried_is_no_gap() -> None:
    def gaps(*what):
        return tuple(NotCovered(what=w, why="not here") for w in what)

    cpu = shard(runs.passed("vjp"), not_covered=gaps("cuda", "linear", "transforms", "jvp"))
    gpu = shard(
        runs.passed("linear", device="cuda:0"),
        runs.passed("transforms.vmap", device="cuda:0"),
        not_covered=gaps("vjp", "transforms.func"),
    )
    (op,) = merged([cpu, gpu]).ops
    assert [gap.what for gap in op.not_covered] == ["transforms", "jvp", "transforms.func"]
    absent = shard(replace(runs.NO_CUDA, claim="linear"), not_covered=gaps("cuda"))
    (op,) = merged([cpu, absent]).ops
    assert "cuda" in [gap.what for gap in op.not_covered]
