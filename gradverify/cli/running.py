"""One run of `check`: resolve the targets, verify them while the report is written, and keep what was found."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import msgspec

from gradverify import failures
from gradverify.cli import last, output
from gradverify.cli.events import Events, emptied
from gradverify.cli.exit_codes import exit_code
from gradverify.cli.options import Request
from gradverify.cli.progress import Progress
from gradverify.cli.trouble import report_me, version_of
from gradverify.discovery.targets import located
from gradverify.errors import UsageError
from gradverify.planning import overridden, replace
from gradverify.records.claims import selected
from gradverify.records.described import described
from gradverify.records.policy import Plan, Policy
from gradverify.records.run import Environment, Invocation, OpRun, Run, Tool, Unusable, absent, totals
from gradverify.records.spec import Spec
from gradverify.records.verdict import Result
from gradverify.reports import formats, json_
from gradverify.reports.console import Console, Form, View, render
from gradverify.reports.style import Style

# From this many specs on, a row an op reads better than a block an op.
_TABLE_FROM = 4


def verify_request(request: Request) -> int:
    """Do what the request says; the exit code. Raises UsageError before anything is run, never after."""
    report = formats.prepare(request.report, request.config.report.formats) if request.report else None
    target = json_.output_file(request.output_file) if request.output_file else None
    if request.events:
        emptied(request.events)
    document = request.document
    with output.only_ours() if document else nullcontext():
        run, bug = _verified(request, streamed=not document and target is None)
    if document or target:
        _print(_text(run, request), target)
    _keep(run, request, report)
    required = request.require
    return exit_code(run, strict=request.policy.strict, required=required, bug=bug, exit_zero=request.exit_zero)


def _text(run: Run, request: Request) -> str:
    if request.document:
        return formats.made(run, request.document, strict=request.policy.strict)
    return render(run, _view(request, len(run.ops), Style()))


def _print(text: str, target: Path | None) -> None:
    if target:
        output.save(text, target)
    else:
        output.emit(text)


def _verified(request: Request, *, streamed: bool) -> tuple[Run, bool]:
    """The run, complete or cut short, and whether gradverify itself broke down."""
    try:
        found = located(request.targets, shapes=request.shapes, config=request.config)
        specs = _chosen([spec for _, spec in found], request.keyword)
    except KeyboardInterrupt:
        return _cut_short(request), False
    _say_if_empty(specs, request)
    listener = _Listener(request, specs, streamed=streamed, targets=_by_name(found))
    try:
        run = _run(specs, request, listener)
    except KeyboardInterrupt:
        run = _cut_short(request, listener.ops)
        listener.finish(run)
    except Exception as error:  # noqa: BLE001 a bug of ours must not lose what was verified before it
        click.echo(report_me(error, sys.argv[1:]), err=True)
        return _cut_short(request, listener.ops, interrupted=False), True
    finally:
        listener.close()
        if listener.note:
            click.echo(listener.note, err=True)
    return run, False


def _run(specs: list[Any], request: Request, listener: _Listener) -> Run:
    if specs and not any(isinstance(s, Spec) for s in specs):
        run = _unusable(request, specs)
        listener.begin(run.environment)
    else:
        listener.begin(_environment())
        run = _merged([_session(group, plan, policy, listener) for group, plan, policy in _groups(specs, request)])
    listener.finish(run)
    return run


class _Listener:
    """Hears what the engine says: shows it, and remembers it in case the engine does not live to tell."""

    def __init__(self, request: Request, specs: Sequence[Any], *, streamed: bool, targets: dict[str, str]) -> None:
        self.ops: list[OpRun] = []
        self._progress = Progress(silent=request.quiet, total=len(specs))
        style = output.style_of(sys.stdout, no_colour=request.no_colour)
        self._console = Console(self._write, _view(request, len(specs), style)) if streamed else None
        self._request = request
        self._targets = targets
        self._events = Events(request.events) if request.events else None
        self.note = ""

    def begin(self, environment: Environment) -> None:
        if self._console:
            self._console.begin(environment, _invocation(self._request))

    def start(self, spec: Spec) -> None:
        from gradverify.cases.modules import note

        self.ops.append(described(spec, note=note(spec)))
        self._progress.started(spec.name)
        if self._console:
            self._console.start(self.ops[-1])

    def result(self, spec: Spec, result: Result) -> None:  # noqa: ARG002 the engine names the spec that it has started
        self.ops[-1] = msgspec.structs.replace(self.ops[-1], checks=(*self.ops[-1].checks, result))
        self._progress.advanced()
        if self._events:
            self._events.result(self.ops[-1], result)
        if self._console:
            self._console.result(result)

    def kept(self, spec: Spec, result: Result) -> Result:
        """The result, its failing case kept for `gradverify replay`; where it cannot be, that is said at the end."""
        target, root = self._targets.get(spec.name, spec.name), Path(self._request.config.root)
        try:
            return failures.kept(spec, result, target=target, shapes=self._request.shapes, root=root)
        except UsageError as error:
            self.note = f"failing cases were not kept for `gradverify replay`: {error}"
            return result

    def finish(self, run: Run) -> None:
        self._progress.close()
        if self._events:
            self._events.finish(run)
            self.note = self.note or self._events.note
        if self._console:
            self._console.finish(run)

    def close(self) -> None:
        self._progress.close()

    def _write(self, text: str) -> None:
        """Write; when nobody reads any more, stop as if the user had."""
        with self._progress.hidden():
            if not output.emit(text):
                self._console = None
                raise KeyboardInterrupt


def _session(specs: Sequence[Any], plan: Plan, policy: Policy, listener: _Listener) -> Run:
    from gradverify.engine import session

    return session.run(
        specs,
        plan,
        policy,
        argv=tuple(sys.argv[1:]),
        on_result=listener.result,
        on_start=listener.start,
        keep=listener.kept,
    )


def _by_name(found: Sequence[tuple[str, Any]]) -> dict[str, str]:
    """The name of a spec -> the target that names it alone."""
    return {spec.name: target for target, spec in found if isinstance(spec, Spec)}


def _groups(specs: Sequence[Any], request: Request) -> Iterator[tuple[list[Any], Plan, Policy]]:
    """Neighbouring specs that the same override table governs share one session."""

    def override(item: Any) -> Any:
        names = (item.name, described(item).target) if isinstance(item, Spec) else (item.target,)
        return request.config.override_for(*names)

    for table, members in groupby(specs, key=override):
        yield list(members), *overridden(request.plan, request.policy, table, request.fixed)
    if not specs:
        yield [], request.plan, request.policy


def _merged(runs: list[Run]) -> Run:
    """One run of several sessions: all ops, summed totals and durations."""
    first, *rest = runs
    if not rest:
        return first
    totals = {key: sum(r.totals.get(key, 0) for r in runs) for r in runs for key in r.totals}
    invocation = replace(
        first.run,
        duration_s=sum(r.run.duration_s for r in runs),
        interrupted=any(r.run.interrupted for r in runs),
    )
    merged: Run = replace(first, ops=tuple(op for r in runs for op in r.ops), totals=totals, run=invocation)
    return merged


def _chosen(specs: list[Any], keyword: str) -> list[Any]:
    """Those with the keyword in their name or target; whatever is unusable stays, to be told."""
    wanted = keyword.lower()
    return [s for s in specs if not isinstance(s, Spec) or wanted in f"{s.name} {described(s).target}".lower()]


def _say_if_empty(specs: list[Any], request: Request) -> None:
    if not specs and request.keyword:
        click.echo(f"-k {request.keyword!r} leaves no spec; `gradverify list` shows their names.", err=True)
    elif not specs:
        globs = ", ".join(request.config.specs)
        click.echo(
            f"No specs: nothing matches {globs} in {request.config.root}. Name a target, for example "
            "`gradverify check mypkg.ops:MyFunction`, or set `specs` in [tool.gradverify].",
            err=True,
        )


def _view(request: Request, ops: int, style: Style) -> View:
    form: Form = "full" if ops < _TABLE_FROM else "table"
    if request.quiet:
        form = "quiet"
    elif request.form:
        form = request.form
    claims = selected(request.plan.claims, request.plan.skip)
    return View(form=form, verbose=request.verbose, style=style, claims=claims)


def _invocation(request: Request) -> Invocation:
    return Invocation(argv=tuple(sys.argv[1:]), seed=request.plan.seed, profile=request.plan.profile)


def _environment() -> Environment:
    from gradverify.engine.environment import environment

    return environment()


def _unusable(request: Request, targets: Sequence[Unusable]) -> Run:
    """The run where no target is usable: torch is not imported to say so."""
    ops = tuple(OpRun(target=t.target, spec="", error=t.error) for t in targets)
    known = Environment(python=platform.python_version(), torch=version_of("torch"), platform=platform.platform())
    run: Run = replace(_cut_short(request, ops, interrupted=False), environment=known, totals=totals(ops))
    return run


def _cut_short(request: Request, ops: Sequence[OpRun] = (), *, interrupted: bool = True) -> Run:
    """What was verified before the run ended early."""
    from gradverify import __version__

    invocation = replace(_invocation(request), interrupted=interrupted)
    return Run(tool=Tool(version=__version__), run=invocation, ops=tuple(ops))


def _keep(run: Run, request: Request, report: Path | None) -> None:
    """Write the report and the memory of `list`; a failure to do so is said, and changes no verdict."""
    notes = [last.keep(run, Path(request.config.root))]
    if report:
        notes.append(_reports(run, request, report))
    if request.document == "github":
        notes.append(output.summarise(formats.made(run, "md")))
    missing = absent(run, request.require)
    notes += [f"required device absent: nothing ran on {', '.join(missing)}"] if missing else []
    for note in filter(None, notes):
        click.echo(note, err=True)


def _reports(run: Run, request: Request, report: Path) -> str:
    try:
        files = formats.write(run, report.parent, request.config.report.formats, strict=request.policy.strict)
    except UsageError as error:
        return str(error)
    return "" if request.quiet else f"report: {', '.join(map(str, files))}"
