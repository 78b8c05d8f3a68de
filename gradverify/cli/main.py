"""The command `gradverify`. A command is imported when it is used; help, version and usage errors import no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from gradverify import __version__
from gradverify.cli.trouble import report_me
from gradverify.errors import GradverifyError
from gradverify.records.names import did_you_mean
from gradverify.reports.style import wrapped

# Command -> the module below gradverify.cli that defines it, and its one-line help.
_COMMANDS = {
    "check": ("check", "Verify ops: is the backward right, and how sure is that?"),
    "list": ("list_", "List the specs of this project and of the catalogue."),
    "show": ("show", "Show what a spec promises, what is checked, and what is not."),
    "replay": ("replay", "Try the failures that are kept again: FIXED, FAILED or ERROR."),
    "report": ("report", "Turn runs that were kept as JSON into JUnit, SARIF, Markdown and others; merge them."),
    "explain": ("explain", "Explain a code: what it means, how it is found, how to silence it."),
}

_EPILOG = (
    "Exit codes: 0 verified, 1 FAIL, or the op raised, 2 unusable target or option, 3 not verified (INCONCLUSIVE, an "
    "op without float64, no spec at all), 4 our bug, 130 interrupted."
)


class _Lazy(click.Group):
    """A group that imports a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order in which people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, imported now."""
        if name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"gradverify.cli.{_COMMANDS[name][0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with the nearest known command where the name is unknown."""
        name = args[0]
        if not name.startswith("-") and name not in _COMMANDS:
            hint = did_you_mean(name, _COMMANDS) or f"; to verify it: gradverify check {name}"
            ctx.fail(f"no such command {name!r}{hint}.")
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="gradverify %(version)s")
def cli() -> None:
    """Say whether a custom backward pass in PyTorch is right, how sure that is, and what is wrong with it."""


def _fitted(row: str) -> list[str]:
    """A line in the width of the page; what is indented stays as it is."""
    return [row] if row.startswith(" ") else wrapped(row, rest="  ")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line: its exit code. Messages of unusable input go to stderr in one piece."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = cli.main(args=arguments, prog_name="gradverify", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except GradverifyError as error:
        click.echo("\n".join(line for row in f"Error: {error}".splitlines() for line in _fitted(row)), err=True)
        return 2
    except Exception as error:  # noqa: BLE001 a bug of ours, whatever it is, ends with exit 4 and says so
        click.echo(report_me(error, arguments), err=True)
        return 4
    return code if isinstance(code, int) else 0
