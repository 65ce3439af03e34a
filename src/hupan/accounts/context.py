"""What every rule is given: the world it works in, and the one call it works for.

The Protocols below are all that the rules ask of the outside; `hupan.outside` implements them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

from sqlalchemy import Executable, Row, Table

from hupan.accounts.record import Account
from hupan.settings import Settings

__all__ = [
    "FOREVER",
    "NOBODY",
    "NOWHERE",
    "Actor",
    "Caller",
    "Clock",
    "Context",
    "Database",
    "Found",
    "Insert",
    "Random",
    "Source",
    "Transaction",
    "World",
]


#: The end of what does not end: late in the year 9999, in every time zone.
FOREVER = 253_402_128_000

#: Makes an INSERT of the database's own dialect, which has `on_conflict_do_update`.
Insert: TypeAlias = Callable[[Table], Any]
#: A row of a result, whatever its columns are.
Found: TypeAlias = Row[*tuple[Any, ...]]


class Clock(Protocol):
    """The only way to learn the time."""

    def now(self) -> int:
        """Unix seconds."""
        ...


class Random(Protocol):
    """The only source of randomness."""

    def bytes(self, count: int) -> bytes:
        """So many unpredictable bytes."""
        ...

    def below(self, limit: int) -> int:
        """A uniform whole number from 0 up to, not including, `limit`."""
        ...


class Transaction(Protocol):
    """One connection for one call. Reads before `begin` see what is committed at that moment.

    A statement that is made once, at a module's top, takes its values by name beside it; it is
    compiled once and costs a tenth of one that is made in every call.
    """

    @property
    def insert(self) -> Insert:
        """Makes an INSERT that knows what to do on a conflict."""
        ...

    def one(self, statement: Executable, **values: Any) -> Found | None:
        """The first row, or None."""
        ...

    def all(self, statement: Executable, **values: Any) -> Sequence[Found]:
        """All rows."""
        ...

    def value(self, statement: Executable, **values: Any) -> Any:
        """The first column of the first row, or None."""
        ...

    def run(self, statement: Executable, **values: Any) -> int:
        """Change something, beginning first; the number of rows that changed."""
        ...

    def after(self, callback: Callable[[], None]) -> None:
        """Do something after the commit."""
        ...

    def begin(self) -> None:
        """Become a writer. A rule that reads in order to write calls this before it reads."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """A short transaction of its own that a later refusal does not undo.

        Only before `begin`: one connection holds one transaction.
        """
        ...

    def trim_changes(self) -> None:
        """Shorten the log of changes, when it has become long."""
        ...

    def renumber(self, table: Table) -> None:
        """Let the next id follow the largest, after rows with ids of their own were put in."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Reads inside see one moment, whatever is written meanwhile; nothing is locked."""
        ...

    def unique(self, refusal: Exception) -> AbstractContextManager[None]:
        """Turn the violation of a unique constraint into a refusal."""
        ...


class Database(Protocol):
    """Where transactions come from."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commits at the end, or rolls back when something is raised."""
        ...


class Source(NamedTuple):
    """Where a call came from, as far as limits care. Empty for the command line."""

    address: str = ""
    network: str = ""


class Actor(NamedTuple):
    """Who acts, for the audit: a user, an operator, or nobody known yet."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


NOWHERE = Source()
NOBODY = Actor("nobody")


class Caller(NamedTuple):
    """The live session a call was made with, and whose it is."""

    session_id: int
    device_id: str
    coin_anchor: int
    #: Whether they have noted anything about anybody.
    has_remarks: bool
    #: The account as it was when the call was let in. A rule that writes reads it anew.
    account: Account

    @property
    def account_id(self) -> int:
        return self.account.id

    @property
    def vip_until(self) -> int:
        return self.account.vip_until


@dataclass(frozen=True)
class World:
    """Everything outside the rules, put together once. `wake` is called when mail was queued."""

    settings: Settings
    database: Database
    clock: Clock
    random: Random
    key: bytes = field(repr=False)
    wake: Callable[[], None] = field(default=lambda: None)
    _today: dict[str, tuple[int, int, int]] = field(default_factory=dict, repr=False)

    def derive(self, *parts: bytes | str | int) -> bytes:
        """32 bytes that only the holder of the key can compute from these parts."""
        text = b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
        return hmac.digest(self.key, text, hashlib.sha256)

    def local(self, seconds: int) -> datetime:
        """A moment in the configured time zone."""
        return datetime.fromtimestamp(seconds, self.settings.zone)

    def local_text(self, seconds: int) -> str:
        """A moment as clients show it, or nothing for 0."""
        return self.local(seconds).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""

    def day(self, seconds: int) -> int:
        """The local day as a number that grows by one at each midnight."""
        return self._day(seconds)[0]

    def midnight(self, seconds: int) -> int:
        """The moment at which the local day of a moment ends."""
        return self._day(seconds)[1]

    def _day(self, seconds: int) -> tuple[int, int]:
        """A day's number and its end. Nearly always it is today, which is remembered."""
        known = self._today.get("day")
        if known is not None and known[2] <= seconds < known[1]:
            return known[0], known[1]
        begins = datetime.combine(self.local(seconds).date(), time(), self.settings.zone)
        ends = datetime.combine(begins.date() + timedelta(days=1), time(), self.settings.zone)
        found = begins.toordinal(), int(ends.timestamp())
        self._today["day"] = (*found, int(begins.timestamp()))
        return found


class Context:
    """One call: a transaction, a moment, who acts, and what to do after the commit."""

    def __init__(
        self, world: World, tx: Transaction, actor: Actor = NOBODY, source: Source = NOWHERE
    ) -> None:
        self.world = world
        self.settings = world.settings
        self.tx = tx
        self.actor = actor
        self.source = source
        self.now = world.clock.now()
        self.caller: Caller | None = None
        self.notes: list[tuple[str, int, dict[str, object]]] = []
        self.posted = False
        # What was said so far depends on no moment to come, on no account, and may be kept.
        self.holds_until = FOREVER

    def ahead(self, moment: int) -> bool:
        """Whether a moment is still to come. If so, what is said may change by itself then."""
        if moment <= self.now:
            return False
        if moment < self.holds_until:
            self.holds_until = moment
        return True

    def note(self, action: str, account_id: int = 0, **detail: object) -> None:
        """Put a row into the audit, in this very transaction."""
        self.notes.append((action, account_id, detail))
