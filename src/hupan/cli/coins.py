"""`hupan coins …`"""

from __future__ import annotations

from hupan.cli.common import Parser, fail, operator

__all__ = ["register"]


def register(hupan: Parser) -> None:
    """Add the group."""
    hupan.group("coins", "Look after the coin book.", _commands)


def _commands(book: Parser) -> None:
    book.command(verify, extra="server")


def verify() -> None:
    """Check every sum, every chain and every balance."""
    from hupan.accounts import coins

    with operator() as ctx:
        wrong = coins.verify(ctx)
    if wrong:
        fail("the coin book does not hold:\n  " + "\n  ".join(wrong))
    print("the coin book holds")
