"""How often, and how many failures.

Every count lives in the database and changes by one atomic statement in a short transaction of
its own: a restart, another process or another node sees the same number, and a refusal's rollback
does not give anything back.
"""

from __future__ import annotations

from sqlalchemy import case, delete, or_, select, update

from hupan.accounts.context import Context
from hupan.accounts.operation import aside
from hupan.accounts.refusals import Locked, Refusal, TooManyTries
from hupan.accounts.tables import failure, rate

__all__ = ["check_failures", "count_failure", "forget", "locked", "sweep", "take"]

#: The first back-off after too many failures, in seconds; it doubles up to the longest.
FIRST_WAIT = 30
LONGEST_WAIT = 3600
#: From so many consecutive failures on, nothing is tried any more.
OFF = 100


def take(ctx: Context, key: str, most: int, seconds: int, refusal: type[Refusal]) -> int:
    """Take one of `most` in a window of `seconds`, or refuse. Call it inside `aside`.

    The window opens with its first event and ends exactly `seconds` later.

    Returns:
        How many were taken in this window, this one included.
    """
    over = rate.c.opened_at <= ctx.now - seconds
    insert = ctx.tx.insert(rate).values(key=key, opened_at=ctx.now, taken=1)
    taken = ctx.tx.value(
        insert.on_conflict_do_update(
            index_elements=[rate.c.key],
            set_={
                "taken": case((over, 1), else_=rate.c.taken + 1),
                "opened_at": case((over, ctx.now), else_=rate.c.opened_at),
            },
            where=or_(over, rate.c.taken < most),
        ).returning(rate.c.taken)
    )
    if taken is None:
        opened = ctx.tx.value(select(rate.c.opened_at).where(rate.c.key == key))
        raise refusal(retry_after=max(1, opened + seconds - ctx.now))
    return int(taken)


def check_failures(ctx: Context, key: str) -> None:
    """Refuse while the back-off of earlier failures runs.

    Raises:
        TooManyTries: wait a while.
        Locked: there were so many that waiting does not help.
    """
    row = ctx.tx.one(select(failure.c.failures, failure.c.until).where(failure.c.key == key))
    if row is None:
        return
    if row.failures >= OFF:
        raise Locked()
    if row.until > ctx.now:
        raise TooManyTries(retry_after=row.until - ctx.now)


def locked(ctx: Context, key: str) -> bool:
    """Whether so many failures were counted that the key is off."""
    count = ctx.tx.value(select(failure.c.failures).where(failure.c.key == key))
    return count is not None and count >= OFF


def count_failure(ctx: Context, key: str, free: int) -> None:
    """Count one failure; the `free`-th and each later one starts a back-off twice as long.

    Raises:
        TooManyTries, Locked: of many tries at once, others have started the back-off meanwhile.
            This one learns no more than if it had come after them.
    """
    with aside(ctx):
        insert = ctx.tx.insert(failure).values(key=key, failures=1, until=0)
        count = ctx.tx.value(
            insert.on_conflict_do_update(
                index_elements=[failure.c.key],
                set_={"failures": failure.c.failures + 1},
                where=(failure.c.until <= ctx.now) & (failure.c.failures < OFF),
            ).returning(failure.c.failures)
        )
        if count is not None and count >= free:
            wait = min(FIRST_WAIT << min(count - free, 30), LONGEST_WAIT)
            ctx.tx.run(update(failure).where(failure.c.key == key).values(until=ctx.now + wait))
    if count is None:
        check_failures(ctx, key)


def forget(ctx: Context, prefix: str) -> None:
    """Forget the failures of all keys that begin so, in the transaction of a success."""
    begins = failure.c.key.startswith(prefix, autoescape=True)
    if ctx.tx.value(select(failure.c.key).where(begins).limit(1)) is not None:
        ctx.tx.run(delete(failure).where(begins))


def sweep(ctx: Context) -> None:
    """Drop windows that closed long ago: none is longer than a day."""
    ctx.tx.run(delete(rate).where(rate.c.opened_at <= ctx.now - 2 * 86_400))
