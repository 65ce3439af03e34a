"""States of the sandbox's database, kept in memory and put back in milliseconds."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from hupan.outside.database import SqlDatabase

__all__ = ["MOST", "NoSnapshot", "Snapshots"]

#: So many states may be kept at once; each holds a whole database in memory.
MOST = 100


class NoSnapshot(LookupError):
    """There is no snapshot of this name, or no room for one more."""


class Snapshots:
    """Copies of one SQLite database, by name."""

    def __init__(self, database: SqlDatabase) -> None:
        assert database.turn is not None, "a sandbox keeps its data in SQLite"
        self._turn: threading.Lock = database.turn
        self._kept: dict[str, sqlite3.Connection] = {}
        self._live = sqlite3.connect(
            str(database.url.database), check_same_thread=False, isolation_level=None
        )
        # A state that is put back is in memory all the same: nothing is lost in a power cut.
        self._live.execute("PRAGMA synchronous=OFF")

    @property
    def names(self) -> list[str]:
        """The snapshots there are, oldest first."""
        return list(self._kept)

    def save(self, name: str) -> None:
        """Keep the present state under a name; a former one of this name goes.

        Raises:
            NoSnapshot: there are too many already.
        """
        if name not in self._kept and len(self._kept) >= MOST:
            raise NoSnapshot(f"there are {MOST} snapshots already; forget one first")
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        with self._turn:
            self._live.backup(copy)
        former = self._kept.pop(name, None)
        if former is not None:
            former.close()
        self._kept[name] = copy

    def restore(
        self, name: str, then: Callable[[sqlite3.Connection], object] | None = None
    ) -> None:
        """Put a state back; `then` may change it before anybody else writes.

        Raises:
            NoSnapshot: nothing was kept under this name.
        """
        kept = self._find(name)
        with self._turn:
            kept.backup(self._live)
            if then is not None:
                then(self._live)
            # Otherwise the log of SQLite grows by a whole database each time.
            self._live.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def forget(self, name: str) -> None:
        """Drop a state.

        Raises:
            NoSnapshot: nothing was kept under this name.
        """
        self._find(name).close()
        del self._kept[name]

    def _find(self, name: str) -> sqlite3.Connection:
        if name not in self._kept:
            raise NoSnapshot(f"there is no snapshot {name!r}; there are {', '.join(self._kept)}")
        return self._kept[name]

    def close(self) -> None:
        """Forget all states."""
        for copy in self._kept.values():
            copy.close()
        self._kept.clear()
        self._live.close()
