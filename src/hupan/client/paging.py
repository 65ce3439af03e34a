"""Going through a list that comes in pages, without trusting the pages."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Pages"]

T = TypeVar("T")


class Pages(Generic[T]):
    """Which page to ask for next, and what on it is new.

    A host may give fewer lines than were asked for, so that a short page is not yet the last. A
    line that slid to the next page while somebody was reading comes once. A host that does not
    turn its pages at all is left alone soon.

    Args:
        size: how many lines to ask for; at least 1.
        key: what tells one line from another.
    """

    #: So many pages one after the other without anything new are the end. One may be nothing but
    #: lines that slid down.
    STALE = 2

    def __init__(self, size: int, key: Callable[[T], Hashable]) -> None:
        if size < 1:
            raise ValueError(f"a page of {size} lines has no end")
        self.size = size
        self.number = 1
        self.done = False
        self._key = key
        self._seen: set[Hashable] = set()
        self._stale = 0

    def turn(self, lines: list[T], total: int | None = None) -> list[T]:
        """Take a page in and return what is new on it. `total` is how many lines there are."""
        fresh = []
        for line in lines:
            if self._key(line) not in self._seen:
                self._seen.add(self._key(line))
                fresh.append(line)
        self._stale = 0 if fresh else self._stale + 1
        complete = total is not None and len(self._seen) >= total
        self.done = not lines or complete or self._stale >= self.STALE
        self.number += 1
        return fresh
