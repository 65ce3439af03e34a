"""Answers that are kept: who a token is, and what is told of a person.

A kept answer is trusted only while the database is known not to have changed what it is made of.
That is asked once for all requests that wait at the same moment, before any of them is answered;
the reply names the accounts that changed. An answer also ends by itself, when a moment comes that
it depends on: the end of a VIP, a midnight, the time to note that somebody was here.

Nothing is removed because it changed. Each entry has a stamp, the count of news at which its
making began, and is stale where its account has later news. So an answer that is being made while
its account changes is stale from its first moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from hupan.accounts.context import Caller, Clock
from hupan.accounts.refusals import Busy
from hupan.outside.database import EVERYBODY, Watch

__all__ = ["Memory", "Name"]

#: Under what an answer is kept: what was asked, and who asked, where that makes a difference.
Name: TypeAlias = int | bytes | tuple[bytes, int]
#: So many tokens, and so many answers of a row, are kept; then the oldest leave.
MOST = 250_000
#: So many accounts are remembered as changed; then everything older is stale.
MOST_CHANGED = 50_000


class Known(NamedTuple):
    """Whose a token is. Plain values, which the garbage collector need not look into."""

    until: int
    stamp: int
    account_id: int
    has_remarks: bool


class Kept(NamedTuple):
    """An answer without its status, and the account that it is about."""

    until: int
    stamp: int
    account_id: int
    data: bytes


class Memory:
    """What one process keeps; used from its event loop only."""

    def __init__(self, watch: Watch, clock: Clock, thread: Executor) -> None:
        self.watch = watch
        self.clock = clock
        self.thread = thread
        self.now = 0
        #: How often there were news.
        self.news = 0
        self.floor = 0
        # Account → the count of news at which it changed last.
        self.changed: dict[int, int] = {}
        self.tokens: dict[str, Known] = {}
        self.answers: dict[str, dict[Name, Kept]] = {}
        self.asked = False
        self.asking: asyncio.Task[None] | None = None
        self.next_question: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ what changed

    def turn(self) -> Awaitable[None] | None:
        """Learn what changed, once for all requests of this turn of the event loop.

        Returns:
            None where it is known now; else what to wait for.
        """
        if self.asked:
            return None
        if not self.watch.instant:
            if self.next_question is None:
                self.next_question = asyncio.ensure_future(self._ask_afar())
            return asyncio.shield(self.next_question)
        # Callbacks run in the order in which they came. The one that ends this turn is put into
        # the queue before the question, so that whatever comes after the question asks again.
        self.asked = True
        asyncio.get_running_loop().call_soon(self._end_turn)
        try:
            self._learn(self.watch.news())
        except Busy:
            self._learn((EVERYBODY,))
        return None

    def _end_turn(self) -> None:
        self.asked = False

    async def _ask_afar(self) -> None:
        """Ask another machine. Requests that come while one question is under way wait for the
        next, because the first was asked before they came.
        """
        if self.asking is not None and not self.asking.done():
            await asyncio.wait([self.asking])
        self.asking, self.next_question = self.next_question, None
        loop = asyncio.get_running_loop()
        try:
            self._learn(await loop.run_in_executor(self.thread, self.watch.news))
        except Busy:
            self._learn((EVERYBODY,))

    def _learn(self, accounts: Sequence[int]) -> None:
        self.now = self.clock.now()
        if not accounts:
            return
        self.news += 1
        if EVERYBODY in accounts or len(self.changed) > MOST_CHANGED:
            self.floor = self.news
            self.changed.clear()
        for account_id in accounts:
            self.changed[account_id] = self.news

    def _stale(self, stamp: int, account_id: int) -> bool:
        return stamp < self.floor or self.changed.get(account_id, 0) > stamp

    # ------------------------------------------------------------ what is kept

    def recall(self, path: str, token: str, asked: bytes) -> tuple[int, bytes] | None:
        """Whose call it is, and its answer without the status; None where it is not kept.

        Only after `turn`.
        """
        known = self.tokens.get(token)
        if known is None or known[0] <= self.now or self._stale(known[1], known[2]):
            return None
        account_id = known[2]
        kept = self.answers[path].get(_name(asked, account_id, known[3]))
        if kept is None or kept[0] <= self.now or self._stale(kept[1], kept[2]):
            return None
        if known[3] and self._stale(kept[1], account_id):
            # It holds what the caller noted about the person, who is another account.
            return None
        return account_id, kept[3]

    def keep(
        self, path: str, token: str, asked: bytes, *, by: Caller, stamp: int, until: int,
        about: int, data: bytes,
    ) -> None:  # fmt: skip
        """Keep an answer whose making began at this stamp."""
        answers = self.answers[path]
        self.tokens[token] = Known(until, stamp, by.account_id, by.has_remarks)
        answers[_name(asked, by.account_id, by.has_remarks)] = Kept(until, stamp, about, data)
        for kept in (self.tokens, answers):
            if len(kept) > MOST:
                _shorten(kept)


def _name(asked: bytes, account_id: int, personal: bool) -> Name:
    """What was asked tells one answer from another, unless it depends on who asks."""
    if not asked:
        return account_id
    return (asked, account_id) if personal else asked


def _shorten(kept: dict[Any, Any]) -> None:
    for name in list(islice(kept, MOST // 10)):
        del kept[name]
