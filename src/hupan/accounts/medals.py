"""Medals: what there is, and who has which."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select

from hupan.accounts import people
from hupan.accounts.context import Context
from hupan.accounts.refusals import UnknownMedal
from hupan.accounts.tables import account_medal, medal

__all__ = ["Medal", "define", "grant", "held", "listing", "take"]


@dataclass(frozen=True, slots=True)
class Medal:
    """A medal."""

    id: int
    name: str
    description: str
    image_url: str
    sort: int


_COLUMNS = (medal.c.id, medal.c.name, medal.c.description, medal.c.image_url, medal.c.sort)


def define(
    ctx: Context, name: str, description: str = "", image_url: str = "", sort: int = 0
) -> int:
    """Make a medal, or change the one of this name; returns its id."""
    values = {"description": description, "image_url": image_url, "sort": sort}
    insert = ctx.tx.insert(medal).values(name=name, **values)
    ctx.tx.begin()
    medal_id = ctx.tx.value(
        insert.on_conflict_do_update(index_elements=["name"], set_=values).returning(medal.c.id)
    )
    ctx.note("medal-defined", medal=medal_id, name=name)
    return int(medal_id)


def listing(ctx: Context) -> list[Medal]:
    """All medals, by their order."""
    rows = ctx.tx.all(select(*_COLUMNS).order_by(medal.c.sort, medal.c.id))
    return [Medal(*row) for row in rows]


_HELD = (
    select(*_COLUMNS)
    .join(account_medal, account_medal.c.medal_id == medal.c.id)
    .where(account_medal.c.account_id == bindparam("which"))
    .order_by(medal.c.sort, medal.c.id)
)


def held(ctx: Context, account_id: int) -> list[Medal]:
    """The medals of an account, by their order."""
    rows = ctx.tx.all(_HELD, which=account_id)
    return [Medal(*row) for row in rows]


def _by_name(ctx: Context, name: str) -> int:
    found = ctx.tx.value(select(medal.c.id).where(medal.c.name == name))
    if found is None:
        raise UnknownMedal()
    return int(found)


def grant(ctx: Context, account_id: int, name: str) -> None:
    """Give a medal; having it already changes nothing."""
    who = people.get(ctx, account_id)
    insert = ctx.tx.insert(account_medal).values(
        account_id=who.id, medal_id=_by_name(ctx, name), granted_at=ctx.now
    )
    if ctx.tx.run(insert.on_conflict_do_nothing()):
        ctx.note("medal-granted", who.id, name=name)


def take(ctx: Context, account_id: int, name: str) -> None:
    """Take a medal back."""
    medal_id = _by_name(ctx, name)
    if ctx.tx.run(
        delete(account_medal).where(
            account_medal.c.account_id == account_id, account_medal.c.medal_id == medal_id
        )
    ):
        ctx.note("medal-taken", account_id, name=name)
