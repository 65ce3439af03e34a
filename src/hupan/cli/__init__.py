"""The command line. Each command imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

import sys

import typer

from hupan.cli import audit, call, coins, protocol, run, server, user
from hupan.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="hupan",
    help="Hupan (湖畔): an account server for Yunhu clients, its SDK's companion and its tools.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hupan {__version__}")
        raise typer.Exit()


@app.callback()
def common(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Hupan (湖畔)."""


app.command()(server.serve)
app.command()(server.dev)
app.command(context_settings={"allow_interspersed_args": False})(run.run)
app.command()(server.migrate)
app.command()(protocol.protocol)
app.command()(call.login)
app.command()(call.logout)
app.add_typer(run.app, name="intercept")
app.add_typer(call.app, name="call")
app.add_typer(user.app, name="user")
app.add_typer(coins.app, name="coins")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run the command line; what a person can mend is one line, not a traceback."""
    try:
        app()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("hupan", ""):
            raise
        print(f"hupan: this command needs {name}; install hupan[server]", file=sys.stderr)
        sys.exit(2)
