"""People: opening, finding, banning and deleting accounts, and their VIP."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, or_, select, update

from hupan.accounts import chains, links, locks, outbox, sessions
from hupan.accounts.context import FOREVER, Context
from hupan.accounts.record import ACCOUNTS, Account
from hupan.accounts.refusals import Banned, BannedForGood, UnknownUser
from hupan.accounts.tables import (
    account,
    account_medal,
    known_device,
    module_ignore,
    notification,
    profile,
    remark,
    session,
    wallet,
)

__all__ = [
    "FOREVER",
    "Account",
    "ban",
    "by_email",
    "by_id",
    "by_phone",
    "by_text",
    "create",
    "erase",
    "get",
    "make_vip",
    "refuse_banned",
    "search",
    "unban",
]

#: Letters and digits that cannot be taken for one another.
CODE_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
CODE_LENGTH = 8


_BY_ID = ACCOUNTS.where(account.c.id == bindparam("which"))
_BY_PHONE = ACCOUNTS.where(account.c.phone == bindparam("phone"))
_BY_EMAIL = ACCOUNTS.where(account.c.email == bindparam("email"))


def by_id(ctx: Context, account_id: int) -> Account | None:
    """The account of this id, unless it was deleted."""
    row = ctx.tx.one(_BY_ID, which=account_id)
    return None if row is None else Account._make(row)


def by_phone(ctx: Context, phone: str) -> Account | None:
    """The account that holds this (normalised) number."""
    row = ctx.tx.one(_BY_PHONE, phone=phone)
    return None if row is None else Account._make(row)


def by_email(ctx: Context, email: str) -> Account | None:
    """The account that holds this (normalised) address."""
    row = ctx.tx.one(_BY_EMAIL, email=email)
    return None if row is None else Account._make(row)


def by_text(ctx: Context, text: str) -> Account | None:
    """The account whose id the wire writes as this text."""
    # Ids have no leading zeros on this wire; 15 digits stay below 2**53.
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or text.startswith("0"):
        return None
    return by_id(ctx, int(text))


def get(ctx: Context, account_id: int) -> Account:
    """The account of this id.

    Raises:
        UnknownUser: there is none, or it was deleted.
    """
    found = by_id(ctx, account_id)
    if found is None:
        raise UnknownUser()
    return found


def search(ctx: Context, text: str = "", *, most: int = 100, after: int = 0) -> list[Account]:
    """Accounts in the order of their ids; `text` is looked for in names and contacts."""
    statement = ACCOUNTS.where(account.c.id > after)
    if text:
        statement = statement.where(
            or_(
                *(
                    column.icontains(text, autoescape=True)
                    for column in (account.c.name, account.c.phone, account.c.email)
                )
            )
        )
    rows = ctx.tx.all(statement.order_by(account.c.id).limit(most))
    return [Account(*row) for row in rows]


def create(
    ctx: Context,
    *,
    phone: str | None = None,
    email: str | None = None,
    name: str = "",
    account_id: int | None = None,
) -> int:
    """Open an account; returns its id. Contacts are normalised by the caller."""
    ctx.tx.begin()
    values = {
        "name": name or "",
        "phone": phone,
        "email": email,
        "invite_code": new_invite_code(ctx),
        "registered_at": ctx.now,
    }
    if account_id is not None:
        values["id"] = account_id
    new_id = int(ctx.tx.value(account.insert().values(**values).returning(account.c.id)))
    if not name:
        # A name that tells the newcomers apart until they choose one.
        ctx.tx.run(update(account).where(account.c.id == new_id).values(name=f"用户{new_id}"))
    ctx.tx.run(wallet.insert().values(account_id=new_id, head=chains.BEGINNING))
    ctx.note("account-opened", new_id)
    return new_id


def new_invite_code(ctx: Context) -> str:
    """A code nobody has yet: with 32**8 of them, a clash is left to the unique constraint."""
    return "".join(
        CODE_ALPHABET[ctx.world.random.below(len(CODE_ALPHABET))] for _ in range(CODE_LENGTH)
    )


def refuse_banned(ctx: Context, who: Account) -> None:
    """Refuse while a ban runs; it ends by itself, to the second."""
    if who.banned_until > ctx.now:
        if who.banned_until >= FOREVER:
            raise BannedForGood()
        raise Banned(until=ctx.world.local_text(who.banned_until))


def ban(ctx: Context, account_id: int, until: int, reason: str = "") -> None:
    """Ban until a moment; every session ends at once."""
    who = get(ctx, account_id)
    ctx.tx.run(
        update(account).where(account.c.id == who.id).values(banned_until=until, ban_reason=reason)
    )
    sessions.end_all(ctx, who.id)
    ctx.note("banned", who.id, until=until, reason=reason)


def unban(ctx: Context, account_id: int) -> None:
    """End a ban early."""
    who = get(ctx, account_id)
    ctx.tx.run(update(account).where(account.c.id == who.id).values(banned_until=0, ban_reason=""))
    ctx.note("unbanned", who.id)


def make_vip(ctx: Context, account_id: int, until: int) -> None:
    """Make an account VIP until a moment; 0 ends it."""
    who = get(ctx, account_id)
    ctx.tx.run(update(account).where(account.c.id == who.id).values(vip_until=until))
    ctx.note("vip", who.id, until=until)


def erase(ctx: Context, who: Account) -> None:
    """Delete an account: what is personal goes, the coin book and the audit stay.

    The contacts become free and may open a new account with a new id.
    """
    locks.accounts(ctx, who.id)
    outbox.tell(ctx, who.phone, who.email, "account-deleted")
    # Two friends who leave at once have the same remarks to delete, and take them in one order.
    about = or_(remark.c.owner_id == who.id, remark.c.friend_id == who.id)
    ctx.tx.all(
        select(remark.c.owner_id)
        .where(about)
        .order_by(remark.c.owner_id, remark.c.friend_id)
        .with_for_update()
    )
    ctx.tx.run(delete(remark).where(about))
    for table, column in (
        (session, session.c.account_id),
        (profile, profile.c.account_id),
        (known_device, known_device.c.account_id),
        (notification, notification.c.account_id),
        (module_ignore, module_ignore.c.account_id),
        (account_medal, account_medal.c.account_id),
    ):
        ctx.tx.run(delete(table).where(column == who.id))
    links.revoke(ctx, who.id)
    ctx.tx.run(
        update(account)
        .where(account.c.id == who.id)
        .values(
            deleted_at=ctx.now,
            phone=None,
            email=None,
            password_hash=None,
            name="",
            avatar_url="",
            vip_until=0,
            # The column is unique and never null; an id is no code anybody may choose.
            invite_code=f"-{who.id}",
        )
    )
    ctx.note("account-deleted", who.id)
