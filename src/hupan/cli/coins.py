"""`hupan coins …`"""

from __future__ import annotations

import typer

from hupan.cli.common import fail, operator

app = typer.Typer(help="Look after the coin book.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look after the coin book."""


@app.command()
def verify() -> None:
    """Check every sum, every chain and every balance."""
    from hupan.accounts import coins

    with operator() as ctx:
        wrong = coins.verify(ctx)
    if wrong:
        fail("the coin book does not hold:\n  " + "\n  ".join(wrong))
    print("the coin book holds")
