"""The items that a spec becomes: a claim on a device in a dtype, and an expected failure that must show in one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gradverify import failures
from gradverify.engine.environment import environment
from gradverify.engine.session import run_of, run_one
from gradverify.engine.verify import Trial
from gradverify.errors import GradverifyError, UsageError
from gradverify.failures import Failure
from gradverify.judge import FAMILY, KINDS, WITH_TRUTH
from gradverify.pytest_plugin.settings import settings
from gradverify.records.codes import matches
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import Environment, Run, to_json
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import headline, result_lines
from gradverify.reports.merge import merged
from gradverify.reports.style import Style
from gradverify.reports.totals import worst_of

RUNS: pytest.StashKey[list[Run]] = pytest.StashKey()
"""On an item: what it has verified."""


class InconclusiveWarning(UserWarning):
    """A claim could not be judged, and that was allowed. Narrow the domain, or give a smooth reference."""


class Wrong(GradverifyError):
    """What fails an item: the block of its result. `headline`: the same in one line."""

    def __init__(self, block: str, *, headline: str) -> None:
        super().__init__(block)
        self.headline = headline


class OfSpec(pytest.Collector):
    """Whatever holds the items of a spec, and remembers what became of them."""

    spec: Spec
    known: dict[Trial, Result]


class SpecItem(pytest.Item):
    """What items of a spec have in common."""

    parent: OfSpec

    def __init__(self, *, plan: Plan, policy: Policy, **more: Any) -> None:
        super().__init__(**more)
        self.plan, self.policy = plan, policy
        self.add_marker("gradverify")
        self.stash[RUNS] = []

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The spec's file and line, and what stands above a failure."""
        source = self.parent.spec.source
        same = source is not None and Path(source.file) == self.path
        line = source.line - 1 if source is not None and same else None
        return self.path, line, f"{self.parent.name}::{self.name}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The block of the command line; only `--tb=long` adds where it was raised."""
        if not isinstance(excinfo.value, Wrong) or self.config.getoption("tbstyle") == "long":
            return super().repr_failure(excinfo, style)
        shown = excinfo.getrepr(style="value", chain=False)
        if shown.reprcrash is not None:
            path, line, _ = self.reportinfo()
            crash = shown.reprcrash
            crash.path, crash.lineno, crash.message = str(path), (line or 0) + 1, excinfo.value.headline
        return shown

    def verify(self, trial: Trial) -> Result:
        """The result of a trial."""
        deadline = settings(self.config).deadline(self.plan)
        result = self._heard(
            lambda: run_one(self.parent.spec, trial, self.plan, self.policy, where=_environment(), deadline=deadline),
            self._kept,
        )
        self.parent.known[trial] = result
        return result

    def again(self, failure: Failure) -> Result:
        """What is found now of a case that failed."""

        def one() -> Run:
            result = failures.replayed(self.parent.spec, failure, self.policy)
            return run_of(self.parent.spec, lambda: result, self.plan, where=_environment())

        return self._heard(one, lambda result: _named(result, failure.id))

    def _heard(self, do: Callable[[], Run], touched: Callable[[Result], Result]) -> Result:
        """The one result of a run; under the filters of the command line, so that the verdict is the same there."""
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            run = do()
            result = touched(run.results[0])
        op = replace(run.ops[0], checks=(result,))
        self.stash[RUNS].append(replace(run, ops=(op,)))
        return result

    def _kept(self, result: Result) -> Result:
        """The result, its failing case kept for `gradverify replay`."""
        target, root = f"{self.path}::{self.parent.name}", Path(settings(self.config).config.root)
        try:
            return failures.kept(self.parent.spec, result, target=target, shapes={}, root=root)
        except UsageError as error:
            warnings.warn(f"failing cases are not kept for `gradverify replay`: {error}", stacklevel=1)
            return result


class TrialItem(SpecItem):
    """One claim of a spec on one device in one dtype."""

    def __init__(self, *, trial: Trial, **more: Any) -> None:
        super().__init__(**more)
        self.trial = trial
        self.failures: list[Failure] = []
        own = any(True for _ in self.iter_markers("xdist_group"))
        if self.config.pluginmanager.hasplugin("xdist") and not own:
            self.add_marker(pytest.mark.xdist_group(f"{self.parent.nodeid}[{trial.device}]"))

    def runtest(self) -> None:
        """Verify the claim, or try the failures that were named, and say what became of it in pytest's words."""
        try:
            tried = [self.again(f) for f in self.failures] or [self.verify(self.trial)]
        except UsageError as error:
            raise Wrong(str(error), headline=str(error).splitlines()[0]) from error
        result = worst_of(tried) or tried[0]
        self.user_properties += properties(result, seed=self.plan.seed)
        conclude(result, strict=self.policy.strict, verbose=self.config.get_verbosity() > 1)


class StaleItem(SpecItem):
    """An expected failure that is named by its code must show in one claim at least; else it is out of date."""

    def __init__(self, *, code: str, tried: list[Trial], **more: Any) -> None:
        super().__init__(**more)
        self.code, self.tried = code, tried

    def runtest(self) -> None:
        """Look for the code in what is known already, then in what was not tried in this process."""
        known = self.parent.known
        if any(_shows(known[t], self.code) for t in self.tried if t in known):
            return
        own = [t for t in self.tried if t not in known]
        for trial in sorted(own, key=lambda t: not matches(FAMILY.get(t.claim, ""), self.code)):
            if _shows(self.verify(trial), self.code):
                return
        if not any(_may_show(t.claim, self.code) and r.outcome is not Outcome.SKIP for t, r in known.items()):
            pytest.skip(f"xfail {self.code!r}: nothing was judged that could show it")
        said = f"xfail {self.code!r} ({self.parent.spec.xfail[self.code]}) passes: remove it"
        raise Wrong(f"{self.parent.spec.name}: {said}", headline=said)


def conclude(result: Result, *, strict: bool, verbose: bool = False) -> None:
    """Return where a claim holds; else skip, xfail or raise Wrong. An imprecise pass holds, and is warned of."""
    if result.xfailed:
        pytest.xfail(f"{headline(result)}")
    if result.outcome is Outcome.SKIP:
        pytest.skip(result.reason or "skipped")
    if result.outcome is Outcome.INCONCLUSIVE and not strict:
        with contextlib.suppress(InconclusiveWarning):
            warnings.warn(f"{result.claim}: {headline(result)}", InconclusiveWarning, stacklevel=1)
        pytest.skip(f"INCONCLUSIVE {headline(result)}")
    if result.outcome is not Outcome.PASS:
        block = "\n".join(result_lines(result, style=Style(), verbose=verbose))
        raise Wrong(block, headline=headline(result))


def properties(result: Result, *, seed: int) -> list[tuple[str, object]]:
    """What JUnit and other plugins read of a result."""
    replay = result.finding.replay_id if result.finding else None
    found = {
        "outcome": result.outcome.value,
        "code": result.code,
        "cases": result.cases.run,
        "resolution": f"{result.resolution:.3g}",
        "seed": seed,
        "replay": replay,
    }
    return [(f"gradverify.{name}", value) for name, value in found.items() if value not in ("", None)]


def complete(report: pytest.TestReport, item: pytest.Item) -> None:
    """Add to a report what its item has verified; a skip is said to be at the spec."""
    runs = item.stash.get(RUNS, [])
    if runs:
        report.gradverify = to_json(merged(runs)).decode()  # type: ignore[attr-defined]
    if isinstance(item, SpecItem) and report.skipped and isinstance(report.longrepr, tuple):
        path, line, _ = item.reportinfo()
        report.longrepr = (str(path), (line or 0) + 1, report.longrepr[2])


def _may_show(claim: str, code: str) -> bool:
    """Whether a failure of a claim can have the code: that of its family, of a breach, or of a wrong gradient."""
    own = {c: [FAMILY[c], *(code for (name, _), code in KINDS.items() if name == c)] for c in FAMILY}
    if any(matches(k, code) for k in own.get(claim, ())) or (code.startswith("GV1") and claim in WITH_TRUTH):
        return True
    return not code.startswith("GV1") and not any(matches(k, code) for codes in own.values() for k in codes)


def _named(result: Result, replay_id: str) -> Result:
    """A result that was wrong under an id still has it."""
    finding = result.finding
    return replace(result, finding=replace(finding, replay_id=replay_id)) if finding else result


def _shows(result: Result, code: str) -> bool:
    """Whether a result is the failure that a code expects; a pattern's own code is that of its family, too."""
    return bool(result.xfailed) and (matches(result.xfailed, code) or result.reason.startswith(f"xfail {code}: "))


@cache
def _environment() -> Environment:
    return environment()
