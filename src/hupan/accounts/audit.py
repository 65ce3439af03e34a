"""The audit: what happened, who did it, in a chain that shows every later change.

Each row's hash covers the row and the hash before it. `audit_head` names the last one, so that a
cut tail is seen as well as a flipped byte.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import bindparam, select, update

from hupan.accounts import chains
from hupan.accounts.context import Context
from hupan.accounts.tables import audit, audit_head

__all__ = ["flush", "verify"]


_LENGTHEN = (
    update(audit_head)
    .values(seq=audit_head.c.seq + bindparam("more"))
    .returning(audit_head.c.seq, audit_head.c.hash)
)
_ROW = audit.insert().values({column.name: bindparam(column.name) for column in audit.c})
_HEAD = update(audit_head).values(hash=bindparam("new"))


def flush(ctx: Context) -> None:
    """Write what the call noted. Called once, right before the commit."""
    if not ctx.notes:
        return
    notes, ctx.notes = ctx.notes, []
    head = ctx.tx.one(_LENGTHEN, more=len(notes))
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
            "detail": msgspec.json.encode(detail, order="sorted").decode(),
        }
        last = chains.link(last, row)
        ctx.tx.run(_ROW, **row, hash=last)
    ctx.tx.run(_HEAD, new=last)


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
