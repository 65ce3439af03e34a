"""Passwords: what may be one, and how it is kept.

argon2id is slow on purpose, so none of these functions is called while a transaction holds the
write lock.
"""

from __future__ import annotations

import unicodedata
from functools import cache

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import update

from hupan.accounts import codes, contact, limits, links, outbox, people, sessions
from hupan.accounts.context import Context
from hupan.accounts.refusals import (
    BadLink,
    PasswordFromContact,
    PasswordTooCommon,
    PasswordTooLong,
    PasswordTooShort,
    UnknownUser,
)
from hupan.accounts.tables import account
from hupan.settings import Settings

__all__ = [
    "FREE_FAILURES",
    "check",
    "choose_by_link",
    "make_hash",
    "renewed",
    "reset",
    "store",
    "verify",
    "warm",
]

#: So many wrong passwords cost nothing; then each one costs twice as long a wait.
FREE_FAILURES = 5
LONGEST = 128
LONGEST_JUDGED = 16
LEAST = {"compat": 8, "strict": 15}


@cache
def _hasher(memory: int, passes: int) -> PasswordHasher:
    return PasswordHasher(memory_cost=memory, time_cost=passes, parallelism=1)


@cache
def _nobodys_hash(memory: int, passes: int) -> str:
    """What an unknown account's password is compared with, at the same cost."""
    return _hasher(memory, passes).hash("nobody has this password")


def hasher(settings: Settings) -> PasswordHasher:
    """The hasher with the configured cost."""
    return _hasher(settings.argon2_memory_kib, settings.argon2_time)


def warm(settings: Settings) -> None:
    """Make, and load, what the first password would otherwise have to wait for."""
    _nobodys_hash(settings.argon2_memory_kib, settings.argon2_time)
    contact.email("nobody@example.org")


def _canonical(password: str) -> str:
    """The same password typed on two keyboards is the same text after NFKC."""
    return unicodedata.normalize("NFKC", password)


def make_hash(settings: Settings, password: str) -> str:
    """Hash a password that was checked."""
    return hasher(settings).hash(_canonical(password))


def verify(ctx: Context, known: str | None, password: str) -> bool:
    """Compare; without a known hash the same work is done for nothing."""
    settings = ctx.settings
    compared = known or _nobodys_hash(settings.argon2_memory_kib, settings.argon2_time)
    text = _canonical(password)
    if len(text) > LONGEST:
        # It cannot be anybody's; the work is done all the same.
        text = ""
    try:
        right = hasher(settings).verify(compared, text)
    except (VerificationError, InvalidHashError):
        return False
    return right and known is not None


def renewed(ctx: Context, known: str | None, password: str) -> str | None:
    """A new hash, where the cost has grown since the known one was made."""
    if known is None:
        return None
    cost, settings = extract_parameters(known), ctx.settings
    if cost.memory_cost >= settings.argon2_memory_kib and cost.time_cost >= settings.argon2_time:
        return None
    return make_hash(settings, password)


def check(settings: Settings, password: str, who: people.Account | None = None) -> None:
    """Refuse what is guessed first, and say why. There are no rules of composition.

    Raises:
        PasswordTooShort, PasswordTooLong, PasswordTooCommon, PasswordFromContact
    """
    text = _canonical(password)
    least = LEAST[settings.profile]
    if len(text) < least:
        raise PasswordTooShort(least=least)
    if len(text) > LONGEST:
        raise PasswordTooLong(most=LONGEST)
    if who is not None:
        own = {who.phone, who.email, (who.email or "").partition("@")[0], who.name}
        if text.lower() in {word.lower() for word in own if word}:
            raise PasswordFromContact()
    # zxcvbn and its lists are loaded when a password is first chosen, not at every start.
    from zxcvbn import zxcvbn
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    if len(text) > LONGEST_JUDGED:
        # zxcvbn's work grows steeply with the length; a long text is guessed first only when it
        # is little more than a repetition.
        common = len(set(text)) < 4
    else:
        common = text.lower() in FREQUENCY_LISTS["passwords"] or zxcvbn(text)["score"] == 0
    if common:
        raise PasswordTooCommon()


def store(ctx: Context, account_id: int, hashed: str) -> None:
    """Replace the password: every session ends and every contact is told."""
    ctx.tx.begin()
    who = people.get(ctx, account_id)
    ctx.tx.run(
        update(account)
        .where(account.c.id == account_id)
        .values(password_hash=hashed, password_version=account.c.password_version + 1)
    )
    sessions.end_all(ctx, account_id)
    links.revoke(ctx, account_id, "setup")
    if who.email:
        limits.forget(ctx, f"password:{who.email}:")
    outbox.tell(ctx, who.phone, who.email, "password-changed")
    ctx.note("password-changed", account_id)


def reset(ctx: Context, email: str, guess: str, password: str) -> None:
    """Set a new password with a code that was sent to the address.

    Raises:
        UnknownUser: the code was right, but no account holds the address.
    """
    address = contact.email(email)
    # What can be said without knowing whose address it is comes first, and costs no try.
    check(ctx.settings, password)
    proof = codes.prove(ctx, address, guess, (codes.ANY, codes.RESET))
    check(ctx.settings, password, people.by_email(ctx, address))
    hashed = make_hash(ctx.settings, password)
    codes.use(ctx, proof)
    holder = people.by_email(ctx, address)
    if holder is None:
        raise UnknownUser()
    store(ctx, holder.id, hashed)


def choose_by_link(ctx: Context, text: str, password: str) -> None:
    """Choose a first password with a one-time link."""
    found = links.look(ctx, text)
    if found.kind != "setup":
        raise BadLink()
    check(ctx.settings, password, people.get(ctx, found.account_id))
    hashed = make_hash(ctx.settings, password)
    ctx.tx.begin()
    links.use(ctx, found)
    store(ctx, found.account_id, hashed)
