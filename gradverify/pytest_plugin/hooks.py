"""What pytest calls. Every pytest run imports this file, so it imports nothing: the rest waits for the first spec."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradverify.records.run import Run

_SHIPPED = Path(__file__).resolve().parents[1] / "specs"
_TABLE = "[tool.gradverify"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options `--gv-*` and the ini option `gradverify_specs`."""
    group = parser.getgroup("gradverify", "gradverify: are the gradients right?")
    some: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME[,NAME]"}
    group.addoption("--gv-profile", metavar="NAME", help="dev (20 cases a claim), ci (100, when CI is set), nightly.")
    group.addoption("--gv-checks", **some, help="Only these claims.")
    group.addoption("--gv-skip", **some, help="Not these claims.")
    group.addoption("--gv-device", **some, help="cpu, cuda, ...; default: every device present.")
    group.addoption("--gv-dtype", **some, help="Floating dtypes of the inputs; default: the spec's.")
    group.addoption("--gv-examples", type=int, metavar="N", help="Cases a claim; default: the profile's.")
    group.addoption("--gv-seed", type=int, metavar="N", help="Same seed, same cases.")
    group.addoption("--gv-max-time", metavar="TIME", help="Draw no more cases after 30s, 20m, 1h.")
    group.addoption("--gv-report", metavar="DIR", help="Write report.json into this directory.")
    group.addoption("--gv-events", metavar="FILE", help="Write every case as NDJSON, as Hypothesis' observations are.")
    group.addoption(
        "--gv-replay", **{**some, "metavar": "ID[,ID]"}, help="Only these failures: the kept cases, tried again."
    )
    group.addoption("--gv-require", **some, help="Fail if specs were verified, and nothing ran on this device.")
    group.addoption("--gv-allow-inconclusive", action="store_true", help="What cannot be judged is skipped.")
    parser.addini("gradverify_specs", "globs of further files with specs, relative to rootdir", "linelist", [])


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and the listener that gathers results; a wrong `--gv-*` ends the run here, before any test."""
    config.addinivalue_line(
        "markers",
        "gradverify(**options): options of the specs below it, named as in --gv-*: examples, seed, checks, skip, "
        "device, dtype, profile, max_time, digits, allow_inconclusive. Every item made of a spec has this marker.",
    )
    given = [v for n, v in vars(config.option).items() if n.startswith("gv_")]
    if any(v is not None and v is not False and v != [] for v in given):
        _or_usage_error(lambda: _settings(config))
    config.pluginmanager.register(_Gathered(config), "gradverify-results")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Any:
    """Files that hold specs, beside those that pytest collects anyway."""
    if file_path.suffix != ".py" or parent.session.isinitpath(file_path) or _is_test_file(file_path, parent.config):
        return None
    return pytest_pycollect_makemodule(file_path, parent)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> Any:
    """A file of specs, however it was named, finds what it imports as on the command line."""
    if not _holds_specs(module_path, parent.config):
        return None
    from gradverify.pytest_plugin.collect import SpecModule

    return SpecModule.from_parent(parent, path=module_path)


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: Any) -> Any:
    """A spec becomes a collector of its items in the file that defines it, and nothing elsewhere."""
    records = sys.modules.get("gradverify.records.spec")
    if records is None or not issubclass(type(obj), records.Spec):
        return None
    from gradverify.pytest_plugin.collect import collected

    return collected(collector, name, obj)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under `--gv-replay`, only the items of those failures."""
    if config.getoption("gv_replay"):
        from gradverify.pytest_plugin.collect import replaying

        chosen: list[pytest.Item] = []
        _or_usage_error(lambda: chosen.extend(replaying(items, config)))
        config.hook.pytest_deselected(items=[i for i in items if i not in chosen])
        items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """What was verified travels with the report, as JSON: under xdist to the process that prints."""
    report = yield
    ours = sys.modules.get("gradverify.pytest_plugin.items")
    if ours is not None and call.when == "call":
        ours.complete(report, item)
    return report


@pytest.fixture
def gradverify(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """`gradverify(op, x="*b k", w="k n")`: verify an op, a spec or a target; the test fails where it is wrong.

    Called like `gradverify.check`, with the options of this pytest run; returns the Run.
    """
    from gradverify.pytest_plugin.fixture import checker

    return checker(request)


class _Gathered:
    """The results of all items, for the end of the run. One in each process; under xdist one of them gets all."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.parts: list[str] = []
        self.began = 0.0
        self.run: Run | None = None
        self.notes: list[str] = []

    def pytest_sessionstart(self) -> None:
        """When the run began."""
        import time

        self.began = time.perf_counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what an item has brought along."""
        part = getattr(report, "gradverify", None)
        if part is not None:
            self.parts.append(part)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the report, in the process that has all results."""
        if self.parts and not hasattr(self.config, "workerinput"):
            from gradverify.pytest_plugin.report import required, whole, write

            # What a plugin stops by itself (`--stepwise`) ends as an interruption, too, and is none.
            interrupted = exitstatus == pytest.ExitCode.INTERRUPTED and not session.shouldstop
            self.run = whole(self.parts, self.config, began=self.began, interrupted=interrupted)
            self.notes = [*required(self.run, session), *write(self.run, session)]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The section `gradverify`: a row an op, what was not covered, the totals."""
        if self.run is not None and self.config.get_verbosity() > -2:
            from gradverify.pytest_plugin.report import summary

            terminalreporter.section("gradverify")
            for line in [*summary(self.run, colour=terminalreporter.hasmarkup), *self.notes]:
                terminalreporter.write_line(line)


def _holds_specs(path: Path, config: pytest.Config) -> bool:
    return path.parent == _SHIPPED or (_looks_for_specs(config) and path in _settings(config).files)


def _is_test_file(path: Path, config: pytest.Config) -> bool:
    return any(path.match(pattern) for pattern in config.getini("python_files"))


_LOOKS: pytest.StashKey[bool] = pytest.StashKey()


def _looks_for_specs(config: pytest.Config) -> bool:
    """Whether the project has said where its specs are; told once a run, without reading its configuration."""
    if _LOOKS not in config.stash:
        config.stash[_LOOKS] = bool(config.getini("gradverify_specs")) or _has_table(config)
    return config.stash[_LOOKS]


def _has_table(config: pytest.Config) -> bool:
    file = next((d / "pyproject.toml" for d in _upwards(config.rootpath) if (d / "pyproject.toml").is_file()), None)
    return file is not None and _TABLE in file.read_text(encoding="utf-8", errors="replace")


def _upwards(path: Path) -> list[Path]:
    return [path, *path.parents]


def _settings(config: pytest.Config) -> Any:
    from gradverify.pytest_plugin.settings import settings

    return settings(config)


def _or_usage_error(do: Callable[[], object]) -> None:
    from gradverify.errors import UsageError

    try:
        do()
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
