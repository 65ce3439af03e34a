"""One call as one unit: everything is committed at its end, or nothing.

This is the only place where a commit is made, and the audit is written here, last of all, because
its chain is the one row that every writer needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hupan.accounts import audit
from hupan.accounts.context import NOBODY, NOWHERE, Actor, Context, Source, World

__all__ = ["aside", "operation"]


@contextmanager
def operation(
    world: World,
    actor: Actor = NOBODY,
    source: Source = NOWHERE,
) -> Iterator[Context]:
    """Run rules in one transaction; when something is raised, it is rolled back."""
    with world.database.transaction() as tx:
        ctx = Context(world, tx, actor, source)
        yield ctx
        audit.flush(ctx)
        if ctx.posted:
            tx.after(world.wake)


@contextmanager
def aside(ctx: Context) -> Iterator[None]:
    """Write something that stays even when the rest of the call is refused.

    What was noted for the audit so far is written with it. Only before the first write.
    """
    with ctx.tx.aside():
        yield
        audit.flush(ctx)
