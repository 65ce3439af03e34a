"""Invitations: everybody has a code; answering somebody's code pays the inviter, once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time

from sqlalchemy import func, select, update

from hupan.accounts import coins, locks
from hupan.accounts.context import Context
from hupan.accounts.refusals import AlreadyInvited, BadInviteCode, OwnInvitation
from hupan.accounts.tables import account

__all__ = ["Progress", "answer", "answer_or_choose", "progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How many people came, today and in all."""

    today: int
    total: int


def progress(ctx: Context, account_id: int) -> Progress:
    """Count the people whom an account has invited."""
    midnight = datetime.combine(ctx.world.local(ctx.now).date(), time(), ctx.settings.zone)
    mine = account.c.invited_by == account_id
    row = ctx.tx.one(
        select(
            func.count(),
            func.count().filter(account.c.invited_at >= int(midnight.timestamp())),
        ).where(mine)
    )
    assert row is not None
    return Progress(today=row[1], total=row[0])


def answer_or_choose(ctx: Context, account_id: int, text: str) -> None:
    """Answer the invitation of whoever has this code, or take a free code for oneself."""
    text = _checked(text)
    ctx.tx.begin()
    if _owner(ctx, text) is not None:
        answer(ctx, account_id, text)
        return
    locks.accounts(ctx, account_id)
    with ctx.tx.unique(BadInviteCode()):
        ctx.tx.run(update(account).where(account.c.id == account_id).values(invite_code=text))
    ctx.note("invite-code-chosen", account_id)


def answer(ctx: Context, account_id: int, text: str) -> None:
    """Record who invited an account, once, and pay the inviter up to the targets.

    Raises:
        BadInviteCode: nobody has this code.
        OwnInvitation: it is one's own, or that of somebody whom one has invited.
        AlreadyInvited: an invitation was answered before.
    """
    text = _checked(text)
    ctx.tx.begin()
    inviter = _owner(ctx, text)
    if inviter is None:
        raise BadInviteCode()
    locks.accounts(ctx, inviter, account_id)
    invited_by = ctx.tx.value(select(account.c.invited_by).where(account.c.id == inviter))
    if inviter == account_id or invited_by == account_id:
        raise OwnInvitation()
    changed = ctx.tx.run(
        update(account)
        .where(account.c.id == account_id, account.c.invited_by.is_(None))
        .values(invited_by=inviter, invited_at=ctx.now)
    )
    if not changed:
        raise AlreadyInvited()
    so_far = progress(ctx, inviter)
    settings = ctx.settings
    if (
        settings.reward_invitation
        and so_far.today <= settings.invite_target_day
        and so_far.total <= settings.invite_target_total
    ):
        coins.post(
            ctx,
            inviter,
            settings.reward_invitation,
            typ=9,
            reason="邀请用户",
            key=f"invitation:{account_id}",
        )
    ctx.note("invited", account_id, inviter=inviter)


def _checked(text: str) -> str:
    text = text.strip()
    if not re.fullmatch(r"[A-Za-z0-9]{4,16}", text, re.ASCII):
        raise BadInviteCode()
    return text


def _owner(ctx: Context, text: str) -> int | None:
    found = ctx.tx.value(
        select(account.c.id).where(account.c.invite_code == text, account.c.deleted_at == 0)
    )
    return None if found is None else int(found)
