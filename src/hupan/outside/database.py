"""The one file that knows SQLite from PostgreSQL.

Connections are in the driver's autocommit mode: a read outside `begin` is a moment of its own and
holds nothing. `begin` says BEGIN IMMEDIATE to SQLite, whose readers cannot become writers safely,
and BEGIN to PostgreSQL.

A statement that comes with values is one that a rule made once: it is compiled once for this
database and then run on the driver's own cursor, which costs a quarter of the other way.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, Protocol, Self

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Executable,
    Insert,
    Table,
    create_engine,
    delete,
    event,
    func,
    literal,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.dml import UpdateBase

from hupan.accounts.context import Found
from hupan.accounts.refusals import Busy
from hupan.accounts.tables import changed

__all__ = ["EVERYBODY", "PATIENCE", "SqlDatabase", "SqlTransaction", "Watch", "Writes"]

#: The log of changes is begun anew when it is longer.
MOST_CHANGES = 100_000
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
        self.driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        dialect = self.engine.dialect.name
        #: An INSERT with the dialect's own ON CONFLICT, which SQLAlchemy's common one has not.
        self.insert: Callable[[Table], Insert] = import_module(
            f"sqlalchemy.dialects.{dialect}"
        ).insert
        self.compiled = _Statements(self)
        #: Told of each compiled statement and how many rows it changed; SQLAlchemy tells of others.
        self.overhears: Callable[[str, int], None] | None = None
        self._here = threading.local()
        self._kept: list[Connection] = []
        self._reader: _Reader | None = None

    def transaction(self) -> SqlTransaction:
        """One connection for one call; commits at the end, or rolls back."""
        group: _Group | None = getattr(self._here, "group", None)
        return SqlTransaction(self, self._lend()) if group is None else _Member(group)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let the transactions that this thread begins inside share one commit, at the end.

        Each can be rolled back without the others. None of them is durable before the end, so
        that nobody may be told of a success before. PostgreSQL gathers the commits of many
        connections by itself, and there this does nothing.

        Raises:
            Busy: nothing of all of them was kept.
        """
        if not self.is_sqlite:
            yield
            return
        with _Group(self, self._lend()) as group:
            self._here.group = group
            try:
                yield
            finally:
                self._here.group = None

    @contextmanager
    def reading(self) -> Iterator[SqlTransaction]:
        """What only reads, all of it at one moment; for the event loop, on SQLite.

        Raises:
            Writes: the other way tells what is wrong with the database.
        """
        try:
            if self._reader is None:
                self._reader = _Reader(self, self.keep())
            reader = self._reader
            if reader.driver.in_transaction:
                reader.cursor.execute("ROLLBACK")
            reader.cursor.execute("BEGIN")
            yield reader
            reader.cursor.execute("ROLLBACK")
        except (sqlite3.Error, DBAPIError, PoolTimeout) as error:
            raise Writes from error

    def _lend(self) -> Connection:
        try:
            return self.engine.connect()
        except (PoolTimeout, DBAPIError) as error:
            if _is_excused(error):
                raise Busy(retry_after=1) from error
            raise

    def watch(self) -> Watch:
        """What tells which accounts have changed; for one thread at a time."""
        return SqliteWatch(self) if self.is_sqlite else PostgresWatch(self)

    def keep(self) -> Connection:
        """A connection for as long as the database is open."""
        connection = self.engine.connect()
        self._kept.append(connection)
        return connection

    def give_up(self, connection: Connection) -> None:
        """A kept connection was lost."""
        self._kept.remove(connection)
        connection.invalidate()
        connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._kept:
            connection.close()
        self._kept.clear()
        self.engine.dispose()


class _Compiled:
    """A statement that a rule made once, ready for the driver."""

    def __init__(self, database: SqlDatabase, statement: Executable) -> None:
        dialect: Any = database.engine.dialect
        made: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]  # Core's are.
        self.sql: str = made.string
        self.writes = isinstance(statement, UpdateBase)
        self.constants = {
            name: value for name, value in made.params.items() if not made.binds[name].required
        }
        # SQLite's driver takes values by their place; PostgreSQL's takes their names.
        self.places: list[str] | None = made.positiontup if made.positional else None
        returned = getattr(statement, "exported_columns", None)
        columns = [column.key for column in returned] if returned is not None else []
        self.returns = bool(columns)
        # The names of columns are attributes of a row, as they are on SQLAlchemy's own.
        # mypy knows no namedtuple whose names come at run time.
        make: Callable[..., Any] = namedtuple
        # What its `_make` does, without a frame of Python.
        self.row: Callable[[Any], Any] = partial(tuple.__new__, make("found", columns, rename=True))

    def values(self, given: Mapping[str, Any]) -> Any:
        if self.constants:
            given = {**self.constants, **given}
        return given if self.places is None else tuple(map(given.__getitem__, self.places))


class _Statements(dict[Executable, _Compiled]):
    """Statements as a database's driver takes them, each made when it is first asked for."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database

    def __missing__(self, statement: Executable) -> _Compiled:
        made = self[statement] = _Compiled(self.database, statement)
        return made


class Writes(Exception):
    """A call on a reader has to write, or to do what its other way is for."""


def _is_excused(error: BaseException | None) -> bool:
    """A locked, full or lost database is nobody's bug; every other error is one."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _is_passing(error)
    return isinstance(error, PoolTimeout)


class SqlTransaction:
    """Implements `hupan.accounts.context.Transaction`."""

    def __init__(self, database: SqlDatabase, connection: Connection) -> None:
        self.database = database
        self.connection = connection
        self.driver: Any = connection.connection.driver_connection
        self.begun = False
        self.afterwards: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Commit, or roll back; what is the database's own trouble is told as `Busy`."""
        try:
            if error is None:
                self.commit()
        except DBAPIError as failed:
            error = failed
            raise
        finally:
            try:
                self.rollback()
            finally:
                self.release()
            if _is_excused(error):
                raise Busy(retry_after=1) from error

    def release(self) -> None:
        """Give the connection back."""
        self.connection.close()

    def one(self, statement: Executable, **values: Any) -> Found | None:
        if values:
            rows = self._run_compiled(statement, values)[0]
            return rows[0] if rows else None
        return self._execute(statement).first()

    def all(self, statement: Executable, **values: Any) -> Sequence[Found]:
        if values:
            return self._run_compiled(statement, values)[0]
        return self._execute(statement).all()

    def value(self, statement: Executable, **values: Any) -> Any:
        row = self.one(statement, **values)
        return None if row is None else row[0]

    def run(self, statement: Executable, **values: Any) -> int:
        if values:
            changed = self._run_compiled(statement, values)[1]
        else:
            # Without the option an INSERT on PostgreSQL tells -1, whatever it did.
            counted = statement.execution_options(preserve_rowcount=True)
            changed = int(self._execute(counted).rowcount)
        assert changed >= 0, "the driver counts"
        return changed

    def after(self, callback: Callable[[], None]) -> None:
        self.afterwards.append(callback)

    def _run_compiled(
        self, statement: Executable, values: Mapping[str, Any]
    ) -> tuple[list[Any], int]:
        """The rows that it returns, and the number of those that it changed."""
        made = self.database.compiled[statement]
        if made.writes and not self.begun:
            self.begin()
        try:
            cursor = self.driver.execute(made.sql, made.values(values))
            rows = [made.row(row) for row in cursor.fetchall()] if made.returns else []
            if self.database.overhears is not None:
                self.database.overhears(made.sql, cursor.rowcount)
            return rows, cursor.rowcount
        except self.database.driver_error as error:
            raise self._wrapped(made.sql, error) from error

    def _wrapped(self, sql: str, error: Exception) -> BaseException:
        """The driver's error as SQLAlchemy raises it; a lost connection is given up."""
        dialect: Any = self.database.engine.dialect
        lost = dialect.is_disconnect(error, self.connection.connection, None)
        if lost:
            self.connection.invalidate(error)
            # So are, most likely, all others that wait in the pool.
            self.database.engine.dispose()
        return DBAPIError.instance(
            sql, None, error, self.database.driver_error,
            hide_parameters=True, connection_invalidated=lost, dialect=dialect,
        )  # fmt: skip

    def _execute(self, statement: Executable) -> CursorResult[*tuple[Any, ...]]:
        if isinstance(statement, UpdateBase):
            self.begin()
        return self.connection.execute(statement)

    @property
    def insert(self) -> Callable[[Table], Insert]:
        return self.database.insert

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

    def trim_changes(self) -> None:
        oldest, newest = self.connection.execute(
            select(func.min(changed.c.id), func.max(changed.c.id))
        ).one()
        if newest is None or newest - oldest < MOST_CHANGES:
            return
        # Whoever has not read all of it yet reads instead that everybody has changed.
        self.begin()
        self.connection.execute(delete(changed))
        xid = literal(0) if self.database.is_sqlite else text("pg_current_xact_id()::text::bigint")
        self.connection.execute(changed.insert().values(account_id=EVERYBODY, xid=xid))

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
        self.connection.exec_driver_sql(f"BEGIN{mode}")
        if self.database.is_sqlite:
            # A damaged text is to be read and found wrong, rather than to stop the reader.
            self.driver.text_factory = partial(str, encoding="utf-8", errors="replace")
        try:
            yield
        finally:
            if self.database.is_sqlite:
                self.driver.text_factory = str
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
        for callback in self.afterwards:
            callback()
        self.afterwards.clear()

    def rollback(self) -> None:
        if self.begun:
            try:
                # What is gone, or was rolled back by SQLite itself, cannot be rolled back.
                if not (self.connection.invalidated or self.lost()):
                    self.connection.exec_driver_sql("ROLLBACK")
            except DBAPIError:
                self.connection.invalidate()
            finally:
                self._done()

    def lost(self) -> bool:
        """Whether SQLite has rolled back by itself, as it does on a full or a failing disk."""
        return self.begun and self.database.is_sqlite and not self.driver.in_transaction

    def _done(self) -> None:
        self.begun = False
        if self.database.turn is not None:
            self.database.turn.release()


class _Group(SqlTransaction):
    """What the members of a group share: one connection, one BEGIN and one COMMIT."""

    broken = False

    def begin(self) -> None:
        self._check()
        try:
            super().begin()
        except BaseException:
            # The others of the group are not to wait as long, one after the other.
            self.broken = True
            raise

    def commit(self) -> None:
        self._check()
        super().commit()

    def _check(self) -> None:
        if self.broken or self.lost():
            # Of all of them nothing is left, and nothing more may begin.
            self.broken = True
            raise Busy(retry_after=1)


class _Member(SqlTransaction):
    """One call of a group, between savepoints."""

    def __init__(self, group: _Group) -> None:
        super().__init__(group.database, group.connection)
        self.group = group

    def begin(self) -> None:
        if not self.begun:
            self.group.begin()
            self._say("SAVEPOINT member")
            self.begun = True

    def release(self) -> None:
        """It is the group's."""

    def commit(self) -> None:
        if self.begun:
            self._say("RELEASE member")
            self.begun = False
        self.group.afterwards += self.afterwards
        self.afterwards.clear()

    def rollback(self) -> None:
        if self.begun:
            self.begun = False
            try:
                self._say("ROLLBACK TO member")
                self._say("RELEASE member")
            except DBAPIError:
                # A full disk, for one, undoes all of the transaction, and so all of the group.
                self.group.broken = True

    def _say(self, words: str) -> None:
        try:
            self.driver.execute(words)
        except self.database.driver_error as error:
            raise self._wrapped(words, error) from error


class _Reader(SqlTransaction):
    """What only reads, and quickly: statements that are compiled already."""

    def __init__(self, database: SqlDatabase, connection: Connection) -> None:
        super().__init__(database, connection)
        self.cursor = self.driver.cursor()

    def begin(self) -> None:
        raise Writes

    def _execute(
        self,
        statement: Executable,  # noqa: ARG002  # It is not even looked at.
    ) -> CursorResult[*tuple[Any, ...]]:
        raise Writes

    def _run_compiled(
        self, statement: Executable, values: Mapping[str, Any]
    ) -> tuple[list[Any], int]:
        made = self.database.compiled[statement]
        if made.writes:
            raise Writes
        try:
            found = self.cursor.execute(made.sql, made.values(values)).fetchall()
        except sqlite3.Error as error:
            raise Writes from error
        return [made.row(row) for row in found], 0


#: What a watch says when it cannot tell: every account may have changed.
EVERYBODY = 0


class Watch(Protocol):
    """Tells which accounts changed since it was last asked, whoever changed them and where.

    The database's own triggers write the log that it reads. What it was asked before an answer
    is kept, and what it says before a kept answer is given, cannot both miss a change.
    """

    #: Whether asking costs a few microseconds, rather than a journey to another machine.
    instant: ClassVar[bool]

    def news(self) -> Sequence[int]:
        """The accounts that changed; `EVERYBODY` stands for all of them.

        Raises:
            Busy: the database could not be asked; nothing may be trusted.
        """
        ...


class SqliteWatch:
    """Asks the log only when somebody has committed, which SQLite tells without reading a page.

    `PRAGMA data_version` moves with every commit of another connection, in this process or any
    other. It stands still inside an open transaction, so that this connection never has one.
    """

    instant: ClassVar[bool] = True

    def __init__(self, database: SqlDatabase) -> None:
        driver: Any = database.keep().connection.driver_connection
        self.cursor = driver.cursor()
        self.version, self.last = -1, -1

    def news(self) -> Sequence[int]:
        try:
            (version,) = self.cursor.execute("PRAGMA data_version").fetchone()
            if version == self.version:
                return ()
            if self.last < 0:
                (newest,) = self.cursor.execute("SELECT max(id) FROM changed").fetchone()
                self.version, self.last = version, newest or 0
                return (EVERYBODY,)
            sql = "SELECT id, account_id FROM changed WHERE id > ? ORDER BY id"
            rows = self.cursor.execute(sql, (self.last,)).fetchall()
        except sqlite3.Error as error:
            raise Busy(retry_after=1) from error
        self.version = version
        if rows:
            self.last = rows[-1][0]
        return [row[1] for row in rows]


class PostgresWatch:
    """Asks for what was committed between two snapshots.

    Ids are handed out before the commit, so that they do not tell what was there at the last
    question; the transactions that were under way then do.
    """

    instant: ClassVar[bool] = False
    _SQL = (
        "SELECT pg_current_snapshot()::text, changed.xid, changed.account_id"
        " FROM (SELECT 1) AS one LEFT JOIN changed"
        " ON changed.xid >= %s OR changed.xid = ANY(%s)"
    )

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database
        self.connection: Connection | None = None
        self.next, self.under_way = 0, frozenset[int]()

    def news(self) -> Sequence[int]:
        new: list[int] = []
        try:
            if self.connection is None:
                # Another server may stand there now, whose transactions count from elsewhere.
                self.connection = self.database.keep()
                self.next, self.under_way, new = 2**62, frozenset(), [EVERYBODY]
            driver: Any = self.connection.connection.driver_connection
            asked = (self.next, list(self.under_way))
            rows = driver.execute(self._SQL, asked).fetchall()
        except (self.database.driver_error, DBAPIError, PoolTimeout) as error:
            if self.connection is not None:
                self.database.give_up(self.connection)
                self.connection = None
            raise Busy(retry_after=1) from error
        new += [account_id for _, xid, account_id in rows if xid is not None]
        _, following, under_way = rows[0][0].split(":")
        self.next = int(following)
        self.under_way = frozenset(int(xid) for xid in under_way.split(",") if xid)
        return new


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
        # What a savepoint may have to bring back is kept in memory, and what is sorted: a posting
        # that shares its transaction would write 50 times to a file of its own.
        "temp_store=MEMORY",
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
