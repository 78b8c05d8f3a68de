"""`gradverify check`: its flags; what they set in motion is in running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gradverify.cli.options import DOCUMENTS, FORMS, request
from gradverify.config import load

_SOME: dict[str, Any] = {"multiple": True, "metavar": "NAME[,NAME]"}


def _env(name: str) -> dict[str, Any]:
    """A flag that the environment variable GRADVERIFY_NAME sets too."""
    return {"envvar": f"GRADVERIFY_{name}", "show_envvar": True}


@click.command("check")
@click.argument("targets", nargs=-1, metavar="[TARGETS]...")
@click.option("--arg", multiple=True, metavar="'x=*b k'", help="Shape of an argument of a bare op; once for each.")
@click.option("--checks", **_SOME, **_env("CHECKS"), help="Only these claims.")
@click.option("--skip", **_SOME, **_env("SKIP"), help="Not these claims.")
@click.option(
    "--device", **_SOME, **_env("DEVICE"), help="cpu, cuda, cuda:1, ...; default, and auto: every device present."
)
@click.option("--dtype", **_SOME, **_env("DTYPE"), help="Floating dtypes of the inputs; default: the spec's.")
@click.option("--examples", type=int, metavar="N", **_env("EXAMPLES"), help="Cases a claim; default: the profile's.")
@click.option(
    "--profile", metavar="NAME", **_env("PROFILE"), help="dev (20 cases), ci (100, when CI is set), nightly (2000)."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", **_env("SEED"), help="Same seed, same cases.")
@click.option(
    "--max-time", metavar="TIME", **_env("MAX_TIME"), help="Stop after 30s, 20m, 1h; what was not tried is said."
)
@click.option("-k", "keyword", metavar="TEXT", help="Only specs with this text in their name or target.")
@click.option("-x", "--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--max-fail", type=click.IntRange(1), metavar="N", help="Stop after N failures.")
@click.option("--require", **_SOME, **_env("REQUIRE"), help="Exit 3 if nothing ran on this device.")
@click.option("--allow-inconclusive", is_flag=True, help="A claim that cannot be judged does not cause exit 3.")
@click.option("--exit-zero", is_flag=True, help="Exit 0 on failures too; misuse and bugs keep their codes.")
@click.option(
    "--format",
    type=click.Choice([*FORMS, *DOCUMENTS]),
    help="A block an op, a line an op, or the run as JSON, JUnit XML, SARIF or GitHub's annotations.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="The whole run as JSON on standard output, and nothing else there."
)
@click.option(
    "--output-file", type=click.Path(path_type=Path), metavar="FILE", help="Write there, not to standard output."
)
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="DIR", help="Write report.json into this directory too."
)
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write every case there as NDJSON, as it is judged.",
)
@click.option("-q", "--quiet", is_flag=True, help="One line a failure, nothing else.")
@click.option("-v", "--verbose", is_flag=True, help="Add times, power and everything measured in the worst case.")
@click.option("--no-color", is_flag=True, help="No colours; NO_COLOR and FORCE_COLOR work too.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Verify ops.

    TARGETS are pkg.mod:Attr (an autograd.Function, a function, a module instance), torch.ops.ns.op, a spec file,
    file.py::name, a directory, or a spec's name. The current directory and its src/ are importable. Without
    targets, every spec that [tool.gradverify] specs finds is verified.
    """
    wanted = request(given, load())
    from gradverify.cli.running import verify_request

    ctx.exit(verify_request(wanted))
