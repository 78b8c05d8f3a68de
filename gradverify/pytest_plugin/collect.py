"""From specs to pytest items: one a claim, device and dtype."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gradverify.cases.signatures import resolved
from gradverify.discovery.files import make_importable
from gradverify.discovery.loading import seeded
from gradverify.engine.verify import Trial, trials
from gradverify.errors import UsageError
from gradverify.failures import Failure, from_root
from gradverify.pytest_plugin.items import OfSpec, StaleItem, TrialItem
from gradverify.pytest_plugin.settings import settings
from gradverify.records.claims import CLAIMS
from gradverify.records.spec import Spec
from gradverify.records.verdict import Result


class SpecModule(pytest.Module):
    """A file of specs that pytest would not collect by itself; what it imports is found as on the command line."""

    def collect(self) -> Any:
        """As pytest, with the project's own folders importable and what the file draws always the same."""
        root = Path(settings(self.config).config.root)
        make_importable(root)
        return seeded(lambda: list(super(SpecModule, self).collect() or ()))


class SpecCollector(OfSpec):
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


def collected(parent: pytest.Collector, name: str, spec: Spec) -> list[pytest.Collector]:
    """The collector of a spec, or none where the module has only imported it, or named it before."""
    if not isinstance(parent, pytest.Module) or not _defined(parent.path, name, spec):
        return []
    first = next(n for n, v in vars(parent.obj).items() if v is spec)
    return [SpecCollector.from_parent(parent, name=name, spec=spec)] if name == first else []


def _item(kind: Any, parent: SpecCollector, name: str, **more: Any) -> pytest.Item:
    # Given as text, the id has its brackets where pytest looks for parameters, as `--lf` does.
    item: pytest.Item = kind.from_parent(parent, name=name, nodeid=f"{parent.nodeid}::{name}", **more)
    return item


def _marks(spec: Spec) -> list[pytest.Mark]:
    """The marks above `@gradverify.spec`, or below it."""
    found: list[pytest.Mark] = getattr(spec, "pytestmark", [])
    return found or getattr(spec.reference, "pytestmark", [])


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


def replaying(items: Sequence[pytest.Item], config: pytest.Config) -> list[pytest.Item]:
    """The items that try the failures of `--gv-replay` again. Raises UsageError where one has no item in this run."""
    own = settings(config)
    for failure in own.replays:
        mine = [i for i in items if isinstance(i, TrialItem) and _is_of(i, failure, own.config.root)]
        if not mine:
            raise UsageError(
                f"--gv-replay: {failure.id} is {failure.claim}[{failure.case.device}-{failure.case.dtype}] of "
                f"{failure.target}, and this run has no such item: name its file, or use "
                f"`gradverify replay {failure.id}`."
            )
        for item in mine:
            item.failures.append(failure)
    return [i for i in items if isinstance(i, TrialItem) and i.failures]


def _is_of(item: TrialItem, failure: Failure, root: str) -> bool:
    """Whether a failure is of the claim, device and dtype of an item, and of its spec in its file."""
    case, spec = failure.case, item.parent.spec
    path, mark, name = from_root(failure.target, root).partition("::")
    here = not mark or (Path(path).absolute() == item.path and name in (item.parent.name, spec.name))
    return here and spec.name == failure.spec and item.trial == (case.device, case.dtype, failure.claim)
