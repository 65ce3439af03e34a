"""Coins: a double-entry book in hundredths.

Every posting moves coins between an account's wallet and the counterpart, so that the sum over all
wallets is always 0. A wallet's entries form a chain of hashes; nothing is ever changed or deleted,
which triggers in the database enforce. Wallets are changed by one conditional UPDATE, in the order
of their ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import bindparam, func, select, update

from hupan.accounts import chains
from hupan.accounts.context import Caller, Context, Found, Insert
from hupan.accounts.operation import aside
from hupan.accounts.refusals import (
    AlreadyReversed,
    BadAmount,
    CoinsShort,
    KeyReused,
    UnknownUser,
)
from hupan.accounts.tables import entry, posting, session, wallet

__all__ = ["COUNTERPART", "Record", "balance", "page", "post", "reverse", "reward", "verify"]

#: The wallet that coins come from and go to; the only one that may be negative.
COUNTERPART = 1
#: The largest amount of one posting, in hundredths: ten thousand million coins.
LARGEST = 10**12
#: An operator's correction has this type.
CORRECTION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a coin book: the wallet's side of a posting, whose id it has. Hundredths."""

    id: int
    typ: int
    before: int
    change: int
    after: int
    reason: str
    remark: str
    created_at: int


@dataclass(frozen=True, slots=True)
class _Posting:
    """What the hashes of a posting's entries cover of the posting itself."""

    id: int
    key: str
    digest: bytes
    reverses: int | None


_MINE = wallet.c.account_id == bindparam("which")
_BALANCE = select(wallet.c.balance).where(_MINE)
_WALLET = select(wallet.c.id).where(_MINE)
_BY_KEY = select(posting.c.id, posting.c.digest).where(posting.c.key == bindparam("key"))
_MOVE = (
    update(wallet)
    .where(
        wallet.c.id == bindparam("which"),
        (wallet.c.account_id.is_(None)) | (wallet.c.balance + bindparam("change") >= 0),
    )
    .values(balance=wallet.c.balance + bindparam("change"), entries=wallet.c.entries + 1)
    .returning(wallet.c.account_id, wallet.c.balance, wallet.c.entries, wallet.c.head)
)
_HEAD = update(wallet).where(wallet.c.id == bindparam("which")).values(head=bindparam("new"))
_ENTRY = entry.insert().values(
    {column.name: bindparam(column.name) for column in entry.c if column.name != "id"}
)


def balance(ctx: Context, account_id: int) -> int:
    """The newest record's amount after it, in hundredths."""
    return int(ctx.tx.value(_BALANCE, which=account_id) or 0)


def post(
    ctx: Context,
    account_id: int,
    change: int,
    *,
    typ: int,
    reason: str,
    key: str,
    remark: str = "",
) -> int:
    """Add coins to an account, or take them, exactly once for a key.

    Returns:
        The posting's id; that of the first posting where the key repeats.

    Raises:
        CoinsShort: the account has fewer than that.
        KeyReused: the key belongs to another posting.
        UnknownUser: there is no such account.
        BadAmount: nothing, or more than can be counted.
    """
    if not 0 < abs(change) <= LARGEST:
        raise BadAmount()
    ctx.tx.begin()
    mine = ctx.tx.value(_WALLET, which=account_id)
    if mine is None:
        raise UnknownUser()
    digest = _digest(account_id, change, typ, reason, remark)
    made, first = _claim(ctx, key, digest)
    if first:
        # The counterpart's id is the smallest, so that all postings lock in the same order.
        for wallet_id, part in ((COUNTERPART, -change), (mine, change)):
            _move(ctx, made, wallet_id, part, typ, reason, remark)
        ctx.note("coins", account_id, posting=made.id, change=change, typ=typ)
    return made.id


def reward(ctx: Context, account_id: int, amount: int, typ: int, key: str, reason: str) -> None:
    """Grant a reward once in an account's life; nothing where the setting says 0."""
    if amount:
        # Who has had it keeps it, whatever the setting said then.
        with suppress(KeyReused):
            post(ctx, account_id, amount, typ=typ, reason=reason, key=f"{key}:{account_id}")


def reverse(ctx: Context, posting_id: int, reason: str) -> int:
    """Correct a posting by its opposite, once. Returns the id of the reversing posting.

    Raises:
        AlreadyReversed: it was, or it does not exist, or is itself a reversal.
        CoinsShort: the account has spent the coins.
    """
    ctx.tx.begin()
    original = ctx.tx.one(select(posting).where(posting.c.id == posting_id))
    if original is None or original.reverses is not None:
        raise AlreadyReversed()
    key = f"reverse:{posting_id}"
    digest = hashlib.sha256(key.encode()).digest()
    insert = ctx.tx.insert(posting).values(
        key=key, digest=digest, reverses=posting_id, created_at=ctx.now
    )
    new_id = ctx.tx.value(insert.on_conflict_do_nothing().returning(posting.c.id))
    if new_id is None:
        raise AlreadyReversed()
    made = _Posting(int(new_id), key, digest, posting_id)
    parts = ctx.tx.all(
        select(entry.c.wallet_id, entry.c.change, wallet.c.account_id)
        .join(wallet, wallet.c.id == entry.c.wallet_id)
        .where(entry.c.posting_id == posting_id)
        .order_by(entry.c.wallet_id)
    )
    for part in parts:
        _move(ctx, made, part.wallet_id, -part.change, CORRECTION, reason, f"#{posting_id}")
        if part.account_id:
            ctx.note("coins-reversed", part.account_id, posting=posting_id, by=made.id)
    return made.id


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


@cache
def _claiming(insert: Insert) -> Any:
    values: dict[str, Any] = {name: bindparam(name) for name in ("key", "digest", "created_at")}
    statement = insert(posting).values(values)
    return statement.on_conflict_do_nothing(index_elements=["key"]).returning(posting.c.id)


def _claim(ctx: Context, key: str, digest: bytes) -> tuple[_Posting, bool]:
    """Take the key; of many at once, one is first and the others see its posting."""
    new_id = ctx.tx.value(_claiming(ctx.tx.insert), key=key, digest=digest, created_at=ctx.now)
    if new_id is not None:
        return _Posting(int(new_id), key, digest, None), True
    known = ctx.tx.one(_BY_KEY, key=key)
    if known is None or bytes(known.digest) != digest:
        raise KeyReused()
    return _Posting(int(known.id), key, digest, None), False


def _move(
    ctx: Context, made: _Posting, wallet_id: int, change: int, typ: int, reason: str, remark: str
) -> None:
    row = ctx.tx.one(_MOVE, which=wallet_id, change=change)
    if row is None:
        raise CoinsShort()
    values = {
        "posting_id": made.id,
        "wallet_id": wallet_id,
        "seq": row.entries,
        "typ": typ,
        "before": row.balance - change,
        "change": change,
        "after": row.balance,
        "reason": reason,
        "remark": remark,
        "created_at": ctx.now,
    }
    head = chains.link(bytes(row.head), _covered(values, row.account_id, made))
    ctx.tx.run(_ENTRY, **values, hash=head)
    ctx.tx.run(_HEAD, which=wallet_id, new=head)


def _covered(
    values: Mapping[str, object], account_id: int | None, made: _Posting
) -> dict[str, object]:
    """What an entry's hash covers: itself, whose wallet it is, and what the posting says.

    So a wallet that changes hands is seen, and a key that is made free to be used again.
    """
    return {
        **values,
        "account_id": account_id,
        "key": made.key,
        "digest": made.digest.hex(),
        "reverses": made.reverses,
    }


def page(ctx: Context, who: Caller, number: int, size: int) -> tuple[list[Record], int]:
    """One page of the caller's book, newest first, and how many records there are.

    Reading page 1 sets an anchor: later pages count from what was newest then, so that a posting
    that arrives between two pages moves nothing. Entries are numbered without gaps, which makes a
    page a range and the total a number, at any depth.
    """
    row = ctx.tx.one(
        select(wallet.c.id, wallet.c.entries).where(wallet.c.account_id == who.account_id)
    )
    if row is None:
        return [], 0
    newest = row.entries if number == 1 or not who.coin_anchor else who.coin_anchor
    if number == 1 and newest != who.coin_anchor:
        with aside(ctx):
            ctx.tx.run(
                update(session).where(session.c.id == who.session_id).values(coin_anchor=newest)
            )
    last = newest - (number - 1) * size
    rows = ctx.tx.all(
        select(
            entry.c.posting_id,
            entry.c.typ,
            entry.c.before,
            entry.c.change,
            entry.c.after,
            entry.c.reason,
            entry.c.remark,
            entry.c.created_at,
        )
        .where(entry.c.wallet_id == row.id, entry.c.seq <= last, entry.c.seq > last - size)
        .order_by(entry.c.seq.desc())
    )
    return [Record(*found) for found in rows], newest


def verify(ctx: Context) -> list[str]:
    """Check the whole book; say what does not hold, or nothing."""
    with ctx.tx.snapshot():
        return _verify(ctx)


def _verify(ctx: Context) -> list[str]:
    wrong = []
    if total := ctx.tx.value(select(func.sum(wallet.c.balance))):
        wrong.append(f"the wallets sum up to {total} instead of 0")
    unbalanced = ctx.tx.all(
        select(entry.c.posting_id, func.sum(entry.c.change))
        .group_by(entry.c.posting_id)
        .having(func.sum(entry.c.change) != 0)
    )
    wrong += [f"posting {row[0]} sums up to {row[1]} instead of 0" for row in unbalanced]
    for mine in chains.walk(ctx, select(wallet), wallet.c.id):
        wrong += _verify_wallet(ctx, mine)
    return wrong


def _verify_wallet(ctx: Context, mine: Found) -> list[str]:
    last, count, amount = chains.BEGINNING, 0, 0
    said = [posting.c.key, posting.c.digest, posting.c.reverses, posting.c.created_at.label("made")]
    entries = select(entry, *said).join(posting, posting.c.id == entry.c.posting_id)
    for row in chains.walk(ctx, entries.where(entry.c.wallet_id == mine.id), entry.c.seq):
        values = {column.name: row._mapping[column] for column in entry.c}
        claimed = bytes(values.pop("hash"))
        made = _Posting(values["posting_id"], row.key, bytes(row.digest), row.reverses)
        del values["id"]
        count += 1
        last = chains.link(last, _covered(values, mine.account_id, made))
        if row.made != row.created_at:
            return [f"wallet {mine.id}: the posting of entry {count} was changed"]
        if values["seq"] != count or values["before"] != amount:
            return [f"wallet {mine.id}: entry {count} does not follow the one before"]
        if claimed != last:
            return [f"wallet {mine.id}: entry {count} was changed"]
        amount = values["after"]
    if (count, amount, last) != (mine.entries, mine.balance, bytes(mine.head)):
        return [f"wallet {mine.id}: its entries end elsewhere than it says"]
    return []
