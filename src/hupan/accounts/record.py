"""The record of an account."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select

from hupan.accounts.tables import account, wallet

__all__ = ["ACCOUNTS", "COLUMNS", "Account"]


class Account(NamedTuple):
    """One account, as the database has it. Times are Unix seconds, 0 for never; the balance is in
    hundredths of a coin.
    """

    id: int
    name: str
    name_id: int
    avatar_url: str
    avatar_id: int
    phone: str | None
    email: str | None
    password_hash: str | None
    password_version: int
    vip_until: int
    banned_until: int
    ban_reason: str
    invite_code: str
    invited_by: int | None
    registered_at: int
    online_days: int
    streak_days: int
    last_day: int
    last_login_at: int
    last_seen_at: int
    balance: int


COLUMNS = [
    wallet.c.balance if field == "balance" else account.c[field] for field in Account._fields
]
#: Everybody who has not left.
ACCOUNTS = (
    select(*COLUMNS)
    .join_from(account, wallet, wallet.c.account_id == account.c.id)
    .where(account.c.deleted_at == 0)
)
