"""Logging in: by a code or by a password."""

from __future__ import annotations

from sqlalchemy import bindparam, update

from hupan.accounts import codes, contact, devices, invites, limits, passwords, people, sessions
from hupan.accounts.context import Context
from hupan.accounts.operation import aside
from hupan.accounts.refusals import (
    PhoneTaken,
    RegistrationClosed,
    TooManyRequests,
    WrongPassword,
)
from hupan.accounts.tables import account

__all__ = ["by_code", "by_password"]


def by_code(
    ctx: Context, mobile: str, guess: str, device_id: str, platform: str, invite_code: str = ""
) -> str:
    """Log in with a code; a first login opens the account. Returns the token."""
    device_id = devices.short_name(device_id)
    phone = contact.phone(mobile)
    _count_login(ctx)
    who = people.by_phone(ctx, phone)
    budget = devices.budget(ctx, who.id if who else 0, device_id)
    codes.use(ctx, codes.prove(ctx, phone, guess, budget=budget))
    # From here on this call is a writer and nobody else can open or take the account.
    who = people.by_phone(ctx, phone)
    if who is None:
        if not ctx.settings.open_registration:
            raise RegistrationClosed()
        with ctx.tx.unique(PhoneTaken()):
            account_id = people.create(ctx, phone=phone)
        if invite_code:
            invites.answer(ctx, account_id, invite_code)
        who = people.get(ctx, account_id)
    people.refuse_banned(ctx, who)
    return sessions.open_session(ctx, who.id, device_id, platform, by="code")


_STILL_SO = (
    update(account)
    .where(account.c.id == bindparam("which"), account.c.password_version == bindparam("version"))
    .values(password_hash=bindparam("hash"))
)


def by_password(ctx: Context, email: str, password: str, device_id: str, platform: str) -> str:
    """Log in with a password. Returns the token.

    An unknown address costs the same work and gets the same answer as a wrong password.
    """
    device_id = devices.short_name(device_id)
    address = contact.email(email)
    _count_login(ctx)
    who = people.by_email(ctx, address)
    failures = f"password:{address}:{devices.budget(ctx, who.id if who else 0, device_id)}"
    limits.check_failures(ctx, failures)
    right = passwords.verify(ctx, who.password_hash if who else None, password)
    if who is None or not right:
        ctx.note("login-wrong", who.id if who else 0)
        limits.count_failure(ctx, failures, passwords.FREE_FAILURES)
        raise WrongPassword()
    people.refuse_banned(ctx, who)
    newer = passwords.renewed(ctx, who.password_hash, password)
    # The password that was verified must still be the password: a reset may have come between.
    hashed = newer or who.password_hash
    if not ctx.tx.run(_STILL_SO, which=who.id, version=who.password_version, hash=hashed):
        raise WrongPassword()
    # So may many wrong guesses, of which this one is not to be told apart.
    limits.check_failures(ctx, failures)
    limits.forget(ctx, f"password:{address}:")
    people.refuse_banned(ctx, people.get(ctx, who.id))
    return sessions.open_session(ctx, who.id, device_id, platform, by="password")


def _count_login(ctx: Context) -> None:
    if ctx.settings.limit_sources and ctx.source.address:
        with aside(ctx):
            limits.take(
                ctx,
                f"login-ip:{ctx.source.address}",
                ctx.settings.source_login_limit,
                600,
                TooManyRequests,
            )
