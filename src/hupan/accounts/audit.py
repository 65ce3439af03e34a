"""The audit: what happened, who did it, in a chain that shows every later change.

Each row's hash covers the row and the hash before it. `audit_head` names the last one, so that a
cut tail is seen as well as a flipped byte.
"""

from __future__ import annotations

import json

from sqlalchemy import select, update

from hupan.accounts import chains
from hupan.accounts.context import Context
from hupan.accounts.tables import audit, audit_head

__all__ = ["flush", "verify"]


def flush(ctx: Context) -> None:
    """Write what the call noted. Called once, right before the commit."""
    if not ctx.notes:
        return
    notes, ctx.notes = ctx.notes, []
    head = ctx.tx.one(
        update(audit_head)
        .values(seq=audit_head.c.seq + len(notes))
        .returning(audit_head.c.seq, audit_head.c.hash)
    )
    assert head is not None, "migrations make the one row of audit_head"
    seq, last = head.seq - len(notes), bytes(head.hash)
    for action, account_id, detail in notes:
        seq += 1
        row = {
            "seq": seq,
            "at": ctx.now,
            "actor": str(ctx.actor),
            "action": action,
            "account_id": account_id,
            "source": ctx.source.address,
            "detail": json.dumps(detail, ensure_ascii=False, sort_keys=True),
        }
        last = chains.link(last, row)
        ctx.tx.run(audit.insert().values(**row, hash=last))
    ctx.tx.run(update(audit_head).values(hash=last))


def verify(ctx: Context) -> list[str]:
    """Walk the chain; say what does not hold, or nothing."""
    with ctx.tx.snapshot():
        return _verify(ctx)


def _verify(ctx: Context) -> list[str]:
    last, count = chains.BEGINNING, 0
    for row in chains.walk(ctx, select(audit), audit.c.seq):
        values = dict(row._mapping)
        claimed = bytes(values.pop("hash"))
        count += 1
        if values["seq"] != count:
            return [f"row {count} is missing, row {values['seq']} stands in its place"]
        last = chains.link(last, values)
        if claimed != last:
            return [f"row {count} was changed"]
    head = ctx.tx.one(select(audit_head))
    if head is None or head.seq != count or bytes(head.hash) != last:
        return [f"the chain ends at row {count}, its head says otherwise"]
    return []
