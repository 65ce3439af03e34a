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

__all__ = ["Made", "Memory", "Name"]

#: Under what an answer is kept: the token, where one asks about oneself; else what was asked, and
#: who asked, where that makes a difference.
Name: TypeAlias = str | bytes | tuple[bytes, int]
#: So many tokens, and so many answers of a row, are kept; then the oldest leave.
MOST = 250_000
#: So many accounts are remembered as changed; then everything older is stale.
MOST_CHANGED = 50_000


# Plain tuples of plain values, which the garbage collector need not look into.
#: Whose a token is: until when that holds, the stamp, the account, whether it has noted remarks.
Known: TypeAlias = tuple[int, int, int, bool]
#: An answer without its status: until when it holds, the stamp, the account that it is about.
Kept: TypeAlias = tuple[int, int, int, bytes]


class Made(NamedTuple):
    """An answer that was just made: for whom, until when it holds, about whom it is.

    `plain` tells whether it was asked for in the one way in which this is written.
    """

    by: Caller
    until: int
    about: int
    data: bytes
    plain: bool


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

    # ------------------------------------------------------------ what is kept

    def recall(self, path: str, token: str, asked: bytes) -> bytes | None:
        """The answer without its status; None where it is not kept.

        Only after `turn`. This is the hot path, and so it calls nothing of ours.
        """
        now, floor, changed = self.now, self.floor, self.changed.get
        if not asked:
            # About oneself: whose token it is and whom it is about are one.
            kept = self.answers[path].get(token)
            has_remarks = False
        else:
            known = self.tokens.get(token)
            if known is None:
                return None
            until, stamp, account_id, has_remarks = known
            if until <= now or stamp < floor or changed(account_id, 0) > stamp:
                return None
            kept = self.answers[path].get((asked, account_id) if has_remarks else asked)
        if kept is None:
            return None
        until, stamp, about, data = kept
        if until <= now or stamp < floor or changed(about, 0) > stamp:
            return None
        if has_remarks and changed(account_id, 0) > stamp:
            # It holds what the caller noted about the person, who is another account.
            return None
        return data

    def keep(self, path: str, token: str, asked: bytes, made: Made, stamp: int) -> None:
        """Keep an answer whose making began at this stamp."""
        by, until, about, data, _ = made
        answers = self.answers[path]
        if not asked:
            assert about == by.account_id, "who asks for nobody asks for oneself"
            name: Name = token
        else:
            self.tokens[token] = (until, stamp, by.account_id, by.has_remarks)
            name = (asked, by.account_id) if by.has_remarks else asked
        answers[name] = (until, stamp, about, data)
        for kept in (self.tokens, answers):
            if len(kept) > MOST:
                _shorten(kept)


def _shorten(kept: dict[Any, Any]) -> None:
    for name in list(islice(kept, MOST // 10)):
        del kept[name]
