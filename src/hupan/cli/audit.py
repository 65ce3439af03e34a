"""`hupan audit …`"""

from __future__ import annotations

from hupan.cli.common import Parser, fail, operator

__all__ = ["register"]


def register(hupan: Parser) -> None:
    """Add the group."""
    hupan.group("audit", "Look after the audit.", _commands)


def _commands(book: Parser) -> None:
    book.command(verify, extra="server")


def verify() -> None:
    """Check the chain of the audit from its first row to its last."""
    from hupan.accounts import audit

    with operator() as ctx:
        wrong = audit.verify(ctx)
    if wrong:
        fail("the audit does not hold: " + "; ".join(wrong))
    print("the audit holds")
