"""Chains of hashes: each row's hash covers the row and the hash before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import Column, Select

from hupan.accounts.context import Context, Found

__all__ = ["BEGINNING", "link", "walk"]

#: What stands before the first row.
BEGINNING = bytes(32)
#: So many rows are read at a time, so that a long chain does not have to fit into memory.
CHUNK = 1000


def link(last: bytes, values: Mapping[str, object]) -> bytes:
    """The hash of a row that follows the row with the hash `last`."""
    # MessagePack tells a number from an infinite one and bytes from a text that shows them.
    covered = msgspec.msgpack.encode([values[name] for name in sorted(values)])
    return hashlib.sha256(last + covered).digest()


def walk(ctx: Context, rows_of: Select[*tuple[Any, ...]], place: Column[int]) -> Iterator[Found]:
    """The rows of a chain in the order of their place in it."""
    after = 0
    while True:
        rows = ctx.tx.all(rows_of.where(place > after).order_by(place).limit(CHUNK))
        yield from rows
        if len(rows) < CHUNK:
            return
        after = rows[-1]._mapping[place.name]
