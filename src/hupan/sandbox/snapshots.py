"""States of the sandbox's database, kept in memory and put back in milliseconds."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, closing

from hupan.outside.database import SqlDatabase

__all__ = ["NoSnapshot", "Snapshots"]


class NoSnapshot(LookupError):
    """There is no snapshot of this name, or no way to make one."""


class Snapshots:
    """Copies of one SQLite database, by name."""

    def __init__(self, database: SqlDatabase) -> None:
        if not database.is_sqlite:
            raise NoSnapshot("snapshots need SQLite: start `hupan dev` without a database_url")
        self._database = database
        self._path = str(database.url.database)
        self._kept: dict[str, sqlite3.Connection] = {}

    @property
    def names(self) -> list[str]:
        """The snapshots there are, oldest first."""
        return list(self._kept)

    def save(self, name: str) -> None:
        """Keep the present state under a name; a former one of this name goes."""
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        with self._alone(), closing(sqlite3.connect(self._path)) as live:
            live.backup(copy)
        former = self._kept.pop(name, None)
        if former is not None:
            former.close()
        self._kept[name] = copy

    def restore(self, name: str) -> None:
        """Put a state back; requests that are under way see the old or the new one.

        Raises:
            NoSnapshot: nothing was kept under this name.
        """
        if name not in self._kept:
            raise NoSnapshot(f"there is no snapshot {name!r}; there are {', '.join(self._kept)}")
        with self._alone(), closing(sqlite3.connect(self._path)) as live:
            self._kept[name].backup(live)

    def _alone(self) -> AbstractContextManager[object]:
        assert self._database.turn is not None, "SQLite's writers take turns"
        return self._database.turn

    def close(self) -> None:
        """Forget all states."""
        for copy in self._kept.values():
            copy.close()
        self._kept.clear()
