"""The one file that knows SQLite from PostgreSQL.

Connections are in the driver's autocommit mode: a read outside `begin` is a moment of its own and
holds nothing. `begin` says BEGIN IMMEDIATE to SQLite, whose readers cannot become writers safely,
and BEGIN to PostgreSQL.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Executable,
    Insert,
    Table,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.dml import UpdateBase

from hupan.accounts.context import Found
from hupan.accounts.refusals import Busy

__all__ = ["SqlDatabase", "SqlTransaction"]

#: How long a writer waits for its turn before the caller is told to come back, in seconds.
PATIENCE = 10
_POSTGRES_PATIENCE = (
    f"-c lock_timeout={PATIENCE}s -c statement_timeout=30s"
    " -c idle_in_transaction_session_timeout=60s"
)


class SqlDatabase:
    """Implements `hupan.accounts.context.Database` on one engine."""

    def __init__(self, url: str, *, threads: int = 8) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = (
            {"timeout": PATIENCE}
            if self.is_sqlite
            else {"connect_timeout": 5, "options": _POSTGRES_PATIENCE}
        )
        self.engine: Engine = create_engine(
            self.url,
            isolation_level="AUTOCOMMIT",
            connect_args=options,
            # One for each thread of rules and of hashes, and some for post, pages and health.
            pool_size=threads + (os.cpu_count() or 1) + 4,
            max_overflow=4,
            pool_timeout=PATIENCE,
            # An error's text reaches the log, and a statement's parameters may be secrets.
            hide_parameters=True,
        )
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
        # SQLite has one writer at a time. Writers of one process wait here, in turn, rather than
        # polling the file; other processes are waited for by the driver.
        self.turn = threading.Lock() if self.is_sqlite else None

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        """One connection for one call; commits at the end, or rolls back."""
        try:
            with self.engine.connect() as connection:
                tx = SqlTransaction(self, connection)
                try:
                    yield tx
                    tx.commit()
                finally:
                    tx.rollback()
        except PoolTimeout as error:
            raise Busy(retry_after=1) from error
        except DBAPIError as error:
            # A locked, full or lost database is nobody's bug; everything else is one.
            if error.connection_invalidated or _is_passing(error):
                raise Busy(retry_after=1) from error
            raise

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


class SqlTransaction:
    """Implements `hupan.accounts.context.Transaction`."""

    def __init__(self, database: SqlDatabase, connection: Connection) -> None:
        self.database = database
        self.connection = connection
        self.begun = False

    def one(self, statement: Executable) -> Found | None:
        return self._execute(statement).first()

    def all(self, statement: Executable) -> Sequence[Found]:
        return self._execute(statement).all()

    def value(self, statement: Executable) -> Any:
        row = self._execute(statement).first()
        return None if row is None else row[0]

    def run(self, statement: Executable) -> int:
        # Without the option an INSERT on PostgreSQL tells -1, whatever it did.
        counted = statement.execution_options(preserve_rowcount=True)
        changed = int(self._execute(counted).rowcount)
        assert changed >= 0, "the driver counts"
        return changed

    def _execute(self, statement: Executable) -> CursorResult[*tuple[Any, ...]]:
        if isinstance(statement, UpdateBase):
            self.begin()
        return self.connection.execute(statement)

    def insert(self, table: Table) -> Insert:
        return sqlite.insert(table) if self.database.is_sqlite else postgresql.insert(table)

    def begin(self) -> None:
        if self.begun:
            return
        turn = self.database.turn
        if turn is None:
            self.connection.exec_driver_sql("BEGIN")
        else:
            if not turn.acquire(timeout=PATIENCE):
                raise Busy(retry_after=1)
            try:
                self.connection.exec_driver_sql("BEGIN IMMEDIATE")
            except BaseException:
                turn.release()
                raise
        self.begun = True

    @contextmanager
    def aside(self) -> Iterator[None]:
        assert not self.begun, "an aside comes before the first write"
        self.begin()
        try:
            yield
            self.commit()
        finally:
            self.rollback()

    def renumber(self, table: Table) -> None:
        # SQLite does so by itself.
        if not self.database.is_sqlite:
            sequence = func.pg_get_serial_sequence(table.name, "id")
            largest = select(func.max(table.c.id)).scalar_subquery()
            self.begin()
            self.one(select(func.setval(sequence, largest)))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        if self.begun:
            # A writer sees one moment and its own changes already.
            yield
            return
        mode = "" if self.database.is_sqlite else " ISOLATION LEVEL REPEATABLE READ READ ONLY"
        driver: Any = self.connection.connection.driver_connection
        self.connection.exec_driver_sql(f"BEGIN{mode}")
        if self.database.is_sqlite:
            # A damaged text is to be read and found wrong, rather than to stop the reader.
            driver.text_factory = partial(str, encoding="utf-8", errors="replace")
        try:
            yield
        finally:
            if self.database.is_sqlite:
                driver.text_factory = str
            self.connection.exec_driver_sql("ROLLBACK")

    @contextmanager
    def unique(self, refusal: Exception) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise refusal from error

    def commit(self) -> None:
        if self.begun:
            self.connection.exec_driver_sql("COMMIT")
            self._done()

    def rollback(self) -> None:
        if self.begun:
            try:
                self.connection.exec_driver_sql("ROLLBACK")
            except DBAPIError:
                # The connection is gone, and the transaction with it.
                self.connection.invalidate()
            finally:
                self._done()

    def _done(self) -> None:
        self.begun = False
        if self.database.turn is not None:
            self.database.turn.release()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        # An acknowledged write survives a power cut.
        "synchronous=FULL",
        "foreign_keys=ON",
        # A REPLACE deletes; with this it meets the triggers that forbid deleting.
        "recursive_triggers=ON",
        f"busy_timeout={PATIENCE * 1000}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


#: SQLite's codes for busy, locked, read-only, I/O error, full and cannot open.
_PASSING_SQLITE = {5, 6, 8, 10, 13, 14}
#: PostgreSQL's classes for lost connections, broken deadlocks, lack of room, a lock that was not
#: to be had, a standby that only reads, and shutting down.
_PASSING_POSTGRES = ("08", "25006", "40", "53", "55P03", "57", "58")


def _is_passing(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        # The low byte is the primary code; the rest only details it.
        return code & 0xFF in _PASSING_SQLITE
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # The server could not even be asked.
        return isinstance(error, OperationalError)
    return str(state).startswith(_PASSING_POSTGRES)
