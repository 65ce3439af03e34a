"""`hupan audit …`"""

from __future__ import annotations

import typer

from hupan.cli.common import fail, operator

app = typer.Typer(help="Look after the audit.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look after the audit."""


@app.command()
def verify() -> None:
    """Check the chain of the audit from its first row to its last."""
    from hupan.accounts import audit

    with operator() as ctx:
        wrong = audit.verify(ctx)
    if wrong:
        fail("the audit does not hold: " + "; ".join(wrong))
    print("the audit holds")
