"""From specs to pytest items: one a claim, device and dtype."""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gradverify import failures
from gradverify.cases.signatures import resolved
from gradverify.discovery.files import make_importable
from gradverify.discovery.loading import seeded
from gradverify.engine.environment import environment
from gradverify.engine.session import run_one
from gradverify.engine.verify import Trial, trials
from gradverify.errors import GradverifyError, UsageError
from gradverify.judge import FAMILY
from gradverify.pytest_plugin.settings import settings
from gradverify.records.claims import CLAIMS
from gradverify.records.codes import matches
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import Environment, Run, to_json
from gradverify.records.spec import Spec
from gradverify.records.verdict import Outcome, Result
from gradverify.reports.lines import headline, result_lines
from gradverify.reports.merge import merged
from gradverify.reports.style import Style

RUNS: pytest.StashKey[list[Run]] = pytest.StashKey()
"""On an item: what it has verified."""


class InconclusiveWarning(UserWarning):
    """A claim could not be judged, and that was allowed. Narrow the domain, or give a smooth reference."""


class Wrong(GradverifyError):
    """What fails an item: the block of its result. `headline`: the same in one line."""

    def __init__(self, block: str, *, headline: str) -> None:
        super().__init__(block)
        self.headline = headline


class SpecModule(pytest.Module):
    """A file of specs that pytest would not collect by itself; what it imports is found as on the command line."""

    def collect(self) -> Any:
        """As pytest, with the project's own folders importable and what the file draws always the same."""
        root = Path(settings(self.config).config.root)
        make_importable(root)
        return seeded(lambda: list(super(SpecModule, self).collect() or ()))


class SpecCollector(pytest.Collector):
    """A spec at module level."""

    def __init__(self, *, spec: Spec, **more: Any) -> None:
        super().__init__(**more)
        self.spec = spec
        self.extra_keyword_matches.add(spec.name)
        for mark in _marks(spec):
            self.add_marker(getattr(pytest.mark, mark.name).with_args(*mark.args, **mark.kwargs))
        self.known: dict[Trial, Result] = {}

    def collect(self) -> Iterator[pytest.Item]:
        """An item for each trial; then one for each expected failure that is named by its code."""
        try:
            plan, policy = settings(self.config).plan(self.spec, self._marked())
            self.spec = resolved(self.spec)
            tried = list(trials(self.spec, plan))
        except UsageError as error:
            raise self.CollectError(str(error)) from error
        for trial in tried:
            name = f"{trial.claim}[{trial.device}-{trial.dtype}]"
            yield _item(TrialItem, self, name, plan=plan, policy=policy, trial=trial)
        for code in self.spec.xfail:
            if code not in CLAIMS:
                yield _item(StaleItem, self, f"xfail[{code}]", plan=plan, policy=policy, code=code, tried=tried)

    def _marked(self) -> dict[str, Any]:
        """The options of the markers; the nearest wins."""
        options: dict[str, Any] = {}
        for mark in self.iter_markers("gradverify"):
            if mark.args:
                raise UsageError(f"{self.spec.name}: the marker gradverify takes options by name, got {mark.args!r}.")
            options = {**mark.kwargs, **options}
        return options


class _SpecItem(pytest.Item):
    """What items of a spec have in common."""

    parent: SpecCollector

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
        """The result of a trial; under the filters of the command line, so that the verdict is the same there."""
        deadline = settings(self.config).deadline(self.plan)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            run = run_one(self.parent.spec, trial, self.plan, self.policy, where=_environment(), deadline=deadline)
            result = self._kept(run.results[0])
        op = replace(run.ops[0], checks=(result,))
        self.stash[RUNS].append(replace(run, ops=(op,)))
        self.parent.known[trial] = result
        return result

    def _kept(self, result: Result) -> Result:
        """The result, its failing case kept for `gradverify replay`."""
        target, root = f"{self.path}::{self.parent.name}", Path(settings(self.config).config.root)
        try:
            return failures.kept(self.parent.spec, result, target=target, shapes={}, root=root)
        except UsageError as error:
            warnings.warn(f"failing cases are not kept for `gradverify replay`: {error}", stacklevel=1)
            return result


class TrialItem(_SpecItem):
    """One claim of a spec on one device in one dtype."""

    def __init__(self, *, trial: Trial, **more: Any) -> None:
        super().__init__(**more)
        self.trial = trial
        own = any(True for _ in self.iter_markers("xdist_group"))
        if self.config.pluginmanager.hasplugin("xdist") and not own:
            self.add_marker(pytest.mark.xdist_group(f"{self.parent.nodeid}[{trial.device}]"))

    def runtest(self) -> None:
        """Verify the claim, and say what became of it in pytest's words."""
        try:
            result = self.verify(self.trial)
        except UsageError as error:
            raise Wrong(str(error), headline=str(error).splitlines()[0]) from error
        self.user_properties += properties(result, seed=self.plan.seed)
        conclude(result, strict=self.policy.strict, verbose=self.config.get_verbosity() > 1)


class StaleItem(_SpecItem):
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
        said = f"xfail {self.code!r} ({self.parent.spec.xfail[self.code]}) passes: remove it"
        raise Wrong(f"{self.parent.spec.name}: {said}", headline=said)


def collected(parent: pytest.Collector, name: str, spec: Spec) -> list[pytest.Collector]:
    """The collector of a spec, or none where the module has only imported it, or named it before."""
    if not isinstance(parent, pytest.Module) or not _defined(parent.path, name, spec):
        return []
    first = next(n for n, v in vars(parent.obj).items() if v is spec)
    return [SpecCollector.from_parent(parent, name=name, spec=spec)] if name == first else []


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
    if isinstance(item, _SpecItem) and report.skipped and isinstance(report.longrepr, tuple):
        path, line, _ = item.reportinfo()
        report.longrepr = (str(path), (line or 0) + 1, report.longrepr[2])


def _item(kind: Any, parent: SpecCollector, name: str, **more: Any) -> pytest.Item:
    # Given as text, the id has its brackets where pytest looks for parameters, as `--lf` does.
    item: pytest.Item = kind.from_parent(parent, name=name, nodeid=f"{parent.nodeid}::{name}", **more)
    return item


def _marks(spec: Spec) -> list[pytest.Mark]:
    """The marks above `@gradverify.spec`, or below it."""
    found: list[pytest.Mark] = getattr(spec, "pytestmark", [])
    return found or getattr(spec.reference, "pytestmark", [])


def _shows(result: Result, code: str) -> bool:
    """Whether a result is the failure that a code expects; a pattern's own code is that of its family, too."""
    return bool(result.xfailed) and (matches(result.xfailed, code) or result.reason.startswith(f"xfail {code}: "))


@cache
def _environment() -> Environment:
    return environment()


def _defined(file: Path, name: str, spec: Spec) -> bool:
    """Whether the file defines the spec: its reference stands there, or the name is given to something made there."""
    if spec.source is not None and Path(spec.source.file).resolve() == file.resolve():
        return True
    return name in _made(file)


@cache
def _made(file: Path) -> frozenset[str]:
    """The names that a file gives to what it calls into being: `matmul = gv.from_data(...)`, and its functions."""
    names = set()
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return frozenset(names)
