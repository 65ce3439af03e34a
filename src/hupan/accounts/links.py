"""One-time links: undo a change of contact, choose a first password.

The database has a nonce; the secret in the link is derived from it under the key.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from sqlalchemy import delete, select, true, update

from hupan.accounts.context import Context, World
from hupan.accounts.refusals import BadLink
from hupan.accounts.tables import link, outbox

__all__ = ["LIFE", "Link", "create", "look", "revoke", "secret", "sweep", "text", "use"]

#: Seconds that a link can be used for: 72 hours.
LIFE = 72 * 3600


@dataclass(frozen=True, slots=True)
class Link:
    """A link that can still be used. `value` is what it restores, where it restores something."""

    id: int
    account_id: int
    kind: str
    value: str


def create(ctx: Context, account_id: int, kind: str, value: str = "") -> int:
    """Make a link; returns its row's id. `secret` tells the text that opens it."""
    ctx.note("link-made", account_id, kind=kind)
    return int(
        ctx.tx.value(
            link.insert()
            .values(
                account_id=account_id,
                kind=kind,
                nonce=ctx.world.random.bytes(16),
                value=value,
                created_at=ctx.now,
                expires_at=ctx.now + LIFE,
            )
            .returning(link.c.id)
        )
    )


def secret(world: World, link_id: int, nonce: bytes) -> str:
    """The text that opens a link."""
    return f"{link_id}-{world.derive('link', link_id, nonce).hex()[:40]}"


def text(ctx: Context, link_id: int) -> str:
    """The text that opens the link of this row."""
    return secret(
        ctx.world, link_id, ctx.tx.value(select(link.c.nonce).where(link.c.id == link_id))
    )


def look(ctx: Context, given: str) -> Link:
    """Find what a text opens, without using it up.

    Raises:
        BadLink: it is not ours, used, or over.
    """
    number, _, _ = given.partition("-")
    if not (number.isascii() and number.isdigit()) or len(number) > 15:
        raise BadLink()
    row = ctx.tx.one(
        select(link).where(
            link.c.id == int(number), link.c.used_at == 0, link.c.expires_at > ctx.now
        )
    )
    if row is None or not hmac.compare_digest(
        secret(ctx.world, row.id, row.nonce).encode(), given.encode()
    ):
        raise BadLink()
    return Link(row.id, row.account_id, row.kind, row.value)


def use(ctx: Context, found: Link) -> None:
    """Use a link up; one of many at once succeeds."""
    if not ctx.tx.run(
        update(link).where(link.c.id == found.id, link.c.used_at == 0).values(used_at=ctx.now)
    ):
        raise BadLink()
    ctx.note("link-used", found.account_id, kind=found.kind)


def revoke(ctx: Context, account_id: int, kind: str = "", *, after: int = 0) -> None:
    """Make the open links of an account useless: all, those of a kind, those after a link."""
    these = link.c.kind == kind if kind else true()
    ctx.tx.run(
        update(link)
        .where(link.c.account_id == account_id, link.c.used_at == 0, link.c.id > after, these)
        .values(used_at=ctx.now)
    )


def sweep(ctx: Context) -> None:
    """Forget links that ended a month ago and that no letter speaks of any more."""
    ctx.tx.run(
        delete(link).where(
            link.c.expires_at <= ctx.now - 30 * 86_400,
            link.c.id.not_in(select(outbox.c.link_id).where(outbox.c.link_id.is_not(None))),
        )
    )
