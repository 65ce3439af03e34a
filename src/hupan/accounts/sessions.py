"""Sessions: a token is handed out once, kept as a hash, and dies in many ways."""

from __future__ import annotations

import hashlib
import re
import zlib
from functools import cache
from typing import Any

from sqlalchemy import Integer, bindparam, case, delete, exists, not_, select, update

from hupan.accounts import devices
from hupan.accounts.context import Caller, Context, Insert
from hupan.accounts.operation import aside
from hupan.accounts.record import COLUMNS, Account
from hupan.accounts.refusals import UnknownUser
from hupan.accounts.tables import account, known_device, remark, session, wallet
from hupan.accounts.texts import clean

__all__ = [
    "admit",
    "end",
    "end_all",
    "new_token",
    "open_session",
    "shape",
    "sweep",
    "token_hash",
    "well_formed",
]

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: 22 random characters are 130 bits; 6 more hold a CRC-32 of them.
RANDOM = 22
_SHAPE = re.compile(r"[0-9A-Za-z]{8}-[0-9A-Za-z]{4}-[0-9A-Za-z]{4}-[0-9A-Za-z]{12}", re.ASCII)
# Two digits at a time, the lower one first.
_PAIRS = [low + high for high in ALPHABET for low in ALPHABET]
#: How old a session's last-seen may be before it is written anew, in seconds.
TOUCH = 300
LONGEST_PLATFORM = 400
KNOWN_DEVICES = 50


# ---------------------------------------------------------------- tokens


def new_token(ctx: Context) -> str:
    """A new token, shaped `8-4-4-12`, base62."""
    return shape("".join(ALPHABET[ctx.world.random.below(62)] for _ in range(RANDOM)))


def shape(secret: str) -> str:
    """Put the checksum behind the random part, and the hyphens between."""
    text = secret + _checksum(secret)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:]))


def well_formed(token: str) -> bool:
    """Whether this can be a token at all; junk never reaches the database."""
    if not _SHAPE.fullmatch(token):
        return False
    text = token.replace("-", "")
    return _checksum(text[:RANDOM]) == text[RANDOM:]


def _checksum(secret: str) -> str:
    whole = zlib.crc32(secret.encode())
    high, lowest = divmod(whole, 62 * 62)
    highest, middle = divmod(high, 62 * 62)
    return _PAIRS[lowest] + _PAIRS[middle] + _PAIRS[highest]


def token_hash(token: str) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


# ---------------------------------------------------------------- coming in


_COME = (
    update(account)
    .where(
        account.c.id == bindparam("which"),
        account.c.banned_until <= bindparam("now"),
        account.c.deleted_at == 0,
    )
    .values(
        last_login_at=case(
            (account.c.last_login_at > bindparam("now"), account.c.last_login_at),
            else_=bindparam("now"),
        ),
        last_seen_at=bindparam("now"),
    )
    .returning(account.c.last_login_at)
)
_OPEN = session.insert().values(
    account_id=bindparam("account_id"),
    token_hash=bindparam("token_hash"),
    device_id=bindparam("device_id"),
    platform=bindparam("platform"),
    created_at=bindparam("now"),
    seen_at=bindparam("now"),
)
_THEIRS = session.c.account_id == bindparam("which")
_LEAVE = delete(session).where(
    _THEIRS,
    session.c.id.not_in(
        select(session.c.id)
        .where(_THEIRS)
        .order_by(session.c.seen_at.desc(), session.c.id.desc())
        .limit(bindparam("most", type_=Integer))
        .scalar_subquery()
    ),
)


def open_session(
    ctx: Context, account_id: int, device_id: str, platform: str, *, by: str, token: str = ""
) -> str:
    """Start a session. Others live on; past the limit the longest idle leaves."""
    ctx.tx.begin()
    # Writing the account first makes parallel logins of one account wait for each other.
    # Its last login never goes back either: a call that began earlier may come to its turn later,
    # and the order of sessions is the order of those turns.
    now = ctx.tx.value(_COME, which=account_id, now=ctx.now)
    if now is None:
        # Banned or deleted since it was looked at.
        raise UnknownUser()
    token = token or new_token(ctx)
    ctx.tx.run(
        _OPEN,
        account_id=account_id,
        token_hash=token_hash(token),
        device_id=device_id,
        platform=clean(platform)[:LONGEST_PLATFORM],
        now=now,
    )
    if ctx.tx.run(_LEAVE, which=account_id, most=ctx.settings.max_sessions):
        devices.settle(ctx, account_id)
    if device_id:
        _remember_device(ctx, account_id, device_id)
    count_day(ctx, account_id)
    ctx.note("login", account_id, by=by, platform=clean(platform)[:64])
    return token


@cache
def _remembering(insert: Insert) -> Any:
    columns: dict[str, Any] = {
        "account_id": bindparam("account_id"),
        "device_id": bindparam("device_id"),
    }
    return (
        insert(known_device)
        .values(**columns, first_at=bindparam("now"), last_at=bindparam("now"))
        .on_conflict_do_update(index_elements=[*columns], set_={"last_at": bindparam("now")})
    )


_KNOWN = known_device.c.account_id == bindparam("which")
_TOO_MANY = delete(known_device).where(
    _KNOWN,
    known_device.c.last_at
    <= (
        select(known_device.c.last_at)
        .where(_KNOWN)
        .order_by(known_device.c.last_at.desc())
        .offset(KNOWN_DEVICES)
        .limit(1)
        .scalar_subquery()
    ),
)


def _remember_device(ctx: Context, account_id: int, device_id: str) -> None:
    ctx.tx.run(_remembering(ctx.tx.insert), account_id=account_id, device_id=device_id, now=ctx.now)
    ctx.tx.run(_TOO_MANY, which=account_id)


# ---------------------------------------------------------------- being in


_FIND = (
    select(
        session.c.id.label("session_id"),
        session.c.device_id,
        session.c.created_at,
        session.c.seen_at,
        session.c.coin_anchor,
        exists(select(remark.c.owner_id).where(remark.c.owner_id == session.c.account_id)).label(
            "has_remarks"
        ),
        *COLUMNS,
    )
    .join_from(session, account, account.c.id == session.c.account_id)
    .join(wallet, wallet.c.account_id == account.c.id)
    .where(
        session.c.token_hash == bindparam("token_hash"),
        session.c.seen_at > bindparam("idle"),
        session.c.created_at > bindparam("born"),
        account.c.banned_until <= bindparam("now"),
        account.c.deleted_at == 0,
    )
)
# So many columns stand before the account's.
_WIDTH = len(_FIND.exported_columns) - len(COLUMNS)
_TOUCH = update(session).where(session.c.id == bindparam("which")).values(seen_at=bindparam("now"))


def admit(ctx: Context, token: str) -> Caller | None:
    """Find the live session of a token, and count that its owner was here."""
    if not well_formed(token):
        return None
    idle, born = devices.limits_of_life(ctx)
    row = ctx.tx.one(_FIND, token_hash=token_hash(token), idle=idle, born=born, now=ctx.now)
    if row is None:
        return None
    ctx.ahead(row.created_at + ctx.settings.session_life_days * devices.DAY)
    if not (ctx.ahead(row.seen_at + TOUCH) and ctx.ahead(ctx.world.midnight(row.seen_at))):
        with aside(ctx):
            # The account comes before its sessions, as in every other writer of both.
            count_day(ctx, row.id)
            ctx.tx.run(_TOUCH, which=row.session_id, now=ctx.now)
    mine = Account._make(row[_WIDTH:])
    return Caller(row.session_id, row.device_id, row.coin_anchor, bool(row.has_remarks), mine)


_NEW_DAY = (
    update(account)
    .where(account.c.id == bindparam("which"), account.c.last_day < bindparam("today"))
    .values(
        online_days=account.c.online_days + 1,
        streak_days=case(
            (account.c.last_day == bindparam("yesterday"), account.c.streak_days + 1), else_=1
        ),
        last_day=bindparam("today"),
    )
)
_SEEN = (
    update(account).where(account.c.id == bindparam("which")).values(last_seen_at=bindparam("now"))
)


def count_day(ctx: Context, account_id: int) -> None:
    """Count this local day once; a day without a visit ends the row of consecutive days."""
    today = ctx.world.day(ctx.now)
    ctx.tx.run(_NEW_DAY, which=account_id, today=today, yesterday=today - 1)
    ctx.tx.run(_SEEN, which=account_id, now=ctx.now)


# ---------------------------------------------------------------- going out


def end(ctx: Context, who: Caller) -> None:
    """End exactly this session; what the device was to be told goes with its last session."""
    mine = session.c.account_id == who.account_id
    ctx.tx.run(delete(session).where(session.c.id == who.session_id, mine))
    devices.settle(ctx, who.account_id)
    ctx.note("logout", who.account_id)


def end_all(ctx: Context, account_id: int) -> None:
    """End every session of an account."""
    ctx.tx.run(delete(session).where(session.c.account_id == account_id))
    devices.settle(ctx, account_id)
    ctx.note("all-sessions-ended", account_id)


def sweep(ctx: Context) -> None:
    """Drop sessions that are over: idle or old."""
    over = select(session.c.id).where(not_(devices.live(ctx)))
    # Whoever is ending some of them has locked them in another order, and needs no help.
    theirs = over.with_for_update(skip_locked=True)
    ctx.tx.run(delete(session).where(session.c.id.in_(theirs)))
    devices.settle(ctx)
