"""How often, and how many failures.

Every count lives in the database and changes by one atomic statement in a short transaction of
its own: a restart, another process or another node sees the same number, and a refusal's rollback
does not give anything back.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from sqlalchemy import bindparam, case, delete, or_, select, update

from hupan.accounts.context import Context, Insert
from hupan.accounts.operation import aside
from hupan.accounts.refusals import Locked, Refusal, TooManyTries
from hupan.accounts.tables import failure, rate

__all__ = ["check_failures", "count_failure", "forget", "locked", "sweep", "take"]

#: The first back-off after too many failures, in seconds; it doubles up to the longest.
FIRST_WAIT = 30
LONGEST_WAIT = 3600
#: From so many consecutive failures on, nothing is tried any more.
OFF = 100


@cache
def _taking(insert: Insert) -> Any:
    """One atomic step: a closed window begins anew, a full one gives no row back."""
    over = rate.c.opened_at <= bindparam("closed")
    return (
        insert(rate)
        .values(key=bindparam("key"), opened_at=bindparam("now"), taken=1)
        .on_conflict_do_update(
            index_elements=[rate.c.key],
            set_={
                "taken": case((over, 1), else_=rate.c.taken + 1),
                "opened_at": case((over, bindparam("now")), else_=rate.c.opened_at),
            },
            where=or_(over, rate.c.taken < bindparam("most")),
        )
        .returning(rate.c.taken)
    )


_OPENED = select(rate.c.opened_at).where(rate.c.key == bindparam("key"))


def take(ctx: Context, key: str, most: int, seconds: int, refusal: type[Refusal]) -> int:
    """Take one of `most` in a window of `seconds`, or refuse. Call it inside `aside`.

    The window opens with its first event and ends exactly `seconds` later.

    Returns:
        How many were taken in this window, this one included.
    """
    taken = ctx.tx.value(
        _taking(ctx.tx.insert), key=key, now=ctx.now, closed=ctx.now - seconds, most=most
    )
    if taken is None:
        opened = ctx.tx.value(_OPENED, key=key)
        raise refusal(retry_after=max(1, opened + seconds - ctx.now))
    return int(taken)


_FAILURES = select(failure.c.failures, failure.c.until).where(failure.c.key == bindparam("key"))


def check_failures(ctx: Context, key: str) -> None:
    """Refuse while the back-off of earlier failures runs.

    Raises:
        TooManyTries: wait a while.
        Locked: there were so many that waiting does not help.
    """
    row = ctx.tx.one(_FAILURES, key=key)
    if row is None:
        return
    if row.failures >= OFF:
        raise Locked()
    if row.until > ctx.now:
        raise TooManyTries(retry_after=row.until - ctx.now)


def locked(ctx: Context, key: str) -> bool:
    """Whether so many failures were counted that the key is off."""
    count = ctx.tx.value(_FAILURES, key=key)
    return count is not None and count >= OFF


@cache
def _failing(insert: Insert) -> Any:
    """One more failure, unless the back-off runs."""
    return (
        insert(failure)
        .values(key=bindparam("key"), failures=1, until=0)
        .on_conflict_do_update(
            index_elements=[failure.c.key],
            set_={"failures": failure.c.failures + 1},
            where=(failure.c.until <= bindparam("now")) & (failure.c.failures < OFF),
        )
        .returning(failure.c.failures)
    )


_WAIT = update(failure).where(failure.c.key == bindparam("which")).values(until=bindparam("until"))


def count_failure(ctx: Context, key: str, free: int) -> None:
    """Count one failure; the `free`-th and each later one starts a back-off twice as long.

    Raises:
        TooManyTries, Locked: of many tries at once, others have started the back-off meanwhile.
            This one learns no more than if it had come after them.
    """
    with aside(ctx):
        count = ctx.tx.value(_failing(ctx.tx.insert), key=key, now=ctx.now)
        if count is not None and count >= free:
            wait = min(FIRST_WAIT << min(count - free, 30), LONGEST_WAIT)
            ctx.tx.run(_WAIT, which=key, until=ctx.now + wait)
    if count is None:
        check_failures(ctx, key)


# Keys are compared byte by byte, so that those with one beginning are neighbours in the index.
_BEGIN_SO = failure.c.key.between(bindparam("first"), bindparam("last"))
_ANY = select(failure.c.key).where(_BEGIN_SO).limit(1)
_FORGET = delete(failure).where(_BEGIN_SO)


def forget(ctx: Context, prefix: str) -> None:
    """Forget the failures of all keys that begin so, in the transaction of a success."""
    bounds = {"first": prefix, "last": prefix + chr(sys.maxunicode)}
    if ctx.tx.value(_ANY, **bounds) is not None:
        ctx.tx.run(_FORGET, **bounds)


def sweep(ctx: Context) -> None:
    """Drop windows that closed long ago: none is longer than a day."""
    ctx.tx.run(delete(rate).where(rate.c.opened_at <= ctx.now - 2 * 86_400))
