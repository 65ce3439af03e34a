"""Devices: where one is logged in, what a device is told, and what it hides."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, or_, select, true

from hupan.accounts import locks
from hupan.accounts.context import Caller, Context
from hupan.accounts.refusals import (
    BadDevice,
    BadIgnore,
    BadSwitch,
    UnknownDevice,
    VipOnly,
)
from hupan.accounts.tables import known_device, module_ignore, notification, session

__all__ = [
    "Device",
    "Ignored",
    "Registration",
    "budget",
    "hidden",
    "hide",
    "known",
    "limits_of_life",
    "listing",
    "live",
    "offline",
    "register",
    "registration",
    "settle",
    "short_name",
]

#: So many registrations and so many hidden modules an account may keep; older ones go.
MOST_KEPT = 100
#: Longer names are shortened: clients put whole user agents here.
LONGEST = 255
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Device:
    """A place where the account is logged in."""

    device_id: str
    platform: str
    login_at: int


@dataclass(frozen=True, slots=True)
class Registration:
    """A push registration; id 0 where nothing is stored."""

    id: int
    device_id: str
    registration_id: str
    is_open: int
    type: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Ignored:
    """What a device hides; id 0 where nothing is stored."""

    id: int
    ignore: str
    updated_at: int


def short_name(text: str) -> str:
    """A device's or a registration's name as it is kept; a long one ends in its hash."""
    if len(text) <= LONGEST:
        return text
    return text[: LONGEST - 64] + hashlib.sha256(text.encode()).hexdigest()


_KNOWN = select(known_device.c.device_id).where(
    known_device.c.account_id == bindparam("which"), known_device.c.device_id == bindparam("device")
)


def budget(ctx: Context, account_id: int, device_id: str) -> str:
    """The device's own budget of tries where the account knows it, else everybody's."""
    return str(ctx.tx.value(_KNOWN, which=account_id, device=device_id) or "")


def known(ctx: Context, account_id: int) -> list[str]:
    """The devices on which an account has logged in before."""
    rows = ctx.tx.all(
        select(known_device.c.device_id).where(known_device.c.account_id == account_id)
    )
    return [row.device_id for row in rows]


def limits_of_life(ctx: Context) -> tuple[int, int]:
    """A session lives that was seen, and was opened, after these two moments."""
    settings = ctx.settings
    return ctx.now - settings.session_idle_days * DAY, ctx.now - settings.session_life_days * DAY


def live(ctx: Context) -> ColumnElement[bool]:
    """The condition under which a session lives: neither idle nor old."""
    idle, born = limits_of_life(ctx)
    return and_(session.c.seen_at > idle, session.c.created_at > born)


def listing(ctx: Context, who: Caller) -> list[Device]:
    """The caller's devices, newest login first; one line a device, however many its sessions."""
    rows = ctx.tx.all(
        select(session.c.device_id, session.c.platform, session.c.created_at)
        .where(session.c.account_id == who.account_id, live(ctx))
        .order_by(session.c.created_at.desc(), session.c.id.desc())
    )
    newest: dict[tuple[str, str], Device] = {}
    for row in rows:
        newest.setdefault((row.device_id, row.platform), Device(*row))
    return list(newest.values())


def offline(ctx: Context, who: Caller, device_id: str) -> None:
    """End all sessions of one of the caller's devices."""
    if not device_id:
        # Without a name it would be every session that gave none.
        raise BadDevice()
    device_id = short_name(device_id)
    ended = ctx.tx.run(
        delete(session).where(
            session.c.account_id == who.account_id, session.c.device_id == device_id, live(ctx)
        )
    )
    if not ended:
        raise UnknownDevice()
    settle(ctx, who.account_id)
    ctx.note("device-offline", who.account_id, sessions=ended)


def settle(ctx: Context, account_id: int | None = None) -> None:
    """Forget the push registrations of devices whose last session has ended.

    Whatever ends sessions calls this: of one account, or of all. Some clients register under
    another name than the one they log in with; such a registration goes with the account's last
    session.
    """
    same_account = session.c.account_id == notification.c.account_id
    any_session = select(session.c.id).where(same_account)
    same_device = any_session.where(session.c.device_id == notification.c.device_id)
    logged_in = select(known_device.c.device_id).where(
        known_device.c.account_id == notification.c.account_id,
        known_device.c.device_id == notification.c.device_id,
    )
    mine = true() if account_id is None else notification.c.account_id == account_id
    over = or_(and_(logged_in.exists(), ~same_device.exists()), ~any_session.exists())
    ctx.tx.run(delete(notification).where(mine, over))


def _trim(ctx: Context, table: Table, account_id: int) -> None:
    """Keep the newest rows of an account; device names are free text, of which there is no end."""
    mine = table.c.account_id == account_id
    newest = select(table.c.id).where(mine).order_by(table.c.updated_at.desc(), table.c.id.desc())
    ctx.tx.run(
        delete(table).where(mine, table.c.id.not_in(newest.limit(MOST_KEPT).scalar_subquery()))
    )


# ---------------------------------------------------------------- push registrations


def _names(device_id: str, registration_id: str) -> tuple[str, str]:
    if not device_id:
        raise BadDevice()
    return short_name(device_id), short_name(registration_id)


def register(
    ctx: Context, who: Caller, device_id: str, registration_id: str, is_open: int, kind: int
) -> None:
    """Store what push service a device listens to, and whether it wants to hear."""
    device_id, registration_id = _names(device_id, registration_id)
    if is_open not in (0, 1):
        raise BadSwitch()
    locks.accounts(ctx, who.account_id)
    insert = ctx.tx.insert(notification).values(
        account_id=who.account_id,
        device_id=device_id,
        registration_id=registration_id,
        is_open=is_open,
        type=kind,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.tx.run(
        insert.on_conflict_do_update(
            index_elements=["account_id", "device_id", "registration_id"],
            set_={"is_open": is_open, "type": kind, "updated_at": ctx.now},
        )
    )
    _trim(ctx, notification, who.account_id)


def registration(ctx: Context, who: Caller, device_id: str, registration_id: str) -> Registration:
    """Read a registration; one that was never stored is closed."""
    device_id, registration_id = _names(device_id, registration_id)
    row = ctx.tx.one(
        select(
            notification.c.id,
            notification.c.device_id,
            notification.c.registration_id,
            notification.c.is_open,
            notification.c.type,
            notification.c.created_at,
            notification.c.updated_at,
        ).where(
            notification.c.account_id == who.account_id,
            notification.c.device_id == device_id,
            notification.c.registration_id == registration_id,
        )
    )
    if row is None:
        return Registration(0, device_id, registration_id, 0, 0, 0, 0)
    return Registration(*row)


# ---------------------------------------------------------------- hidden modules


def _check_vip(ctx: Context, who: Caller) -> None:
    if who.vip_until <= ctx.now:
        raise VipOnly()


def hide(ctx: Context, who: Caller, device_id: str, ignore: str) -> None:
    """Store what a device hides, such as `",30,20,10"`."""
    _check_vip(ctx, who)
    if not device_id:
        raise BadDevice()
    device_id = short_name(device_id)
    if not re.fullmatch(r"[0-9,]{0,255}", ignore):
        raise BadIgnore()
    locks.accounts(ctx, who.account_id)
    insert = ctx.tx.insert(module_ignore).values(
        account_id=who.account_id, device_id=device_id, ignore=ignore, updated_at=ctx.now
    )
    ctx.tx.run(
        insert.on_conflict_do_update(
            index_elements=["account_id", "device_id"],
            set_={"ignore": ignore, "updated_at": ctx.now},
        )
    )
    _trim(ctx, module_ignore, who.account_id)


def hidden(ctx: Context, who: Caller, device_id: str) -> Ignored:
    """Read what a device hides."""
    _check_vip(ctx, who)
    row = ctx.tx.one(
        select(module_ignore.c.id, module_ignore.c.ignore, module_ignore.c.updated_at).where(
            module_ignore.c.account_id == who.account_id,
            module_ignore.c.device_id == short_name(device_id),
        )
    )
    return Ignored(0, "", 0) if row is None else Ignored(*row)
