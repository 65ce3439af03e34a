"""Locks: being the only writer of an account."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from hupan.accounts.context import Context
from hupan.accounts.refusals import UnknownUser
from hupan.accounts.tables import account

__all__ = ["accounts"]


_ONE = (
    select(account.c.id)
    .where(account.c.id == bindparam("which"), account.c.deleted_at == 0)
    .with_for_update()
)


def accounts(ctx: Context, *account_ids: int) -> None:
    """Be the only writer of these accounts until the commit, and know that they still are there.

    A call was admitted a moment ago; its account may have been deleted since. What belongs to an
    account is written after this, so that a deletion takes everything along. Several are locked
    in the order of their ids, so that two callers do not wait for each other.

    Raises:
        UnknownUser: one of them was deleted, or never was.
    """
    ctx.tx.begin()
    wanted = set(account_ids)
    if len(wanted) == 1:
        if ctx.tx.one(_ONE, which=account_ids[0]) is None:
            raise UnknownUser()
        return
    rows = ctx.tx.all(
        select(account.c.id)
        .where(account.c.id.in_(wanted), account.c.deleted_at == 0)
        .order_by(account.c.id)
        .with_for_update()
    )
    if len(rows) < len(wanted):
        raise UnknownUser()
