"""One history of the schema, which makes the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    CheckConstraint,
    DefaultClause,
    Engine,
    create_engine,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from hupan import migrations
from hupan.accounts.tables import advert, audit_head, metadata, wallet
from tests.house import House


@pytest.fixture
def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    address = request.getfixturevalue("postgres")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrating")
    yield address.replace("/postgres?", "/migrating?").replace("postgresql:", "postgresql+psycopg:")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP DATABASE migrating WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The migrated database."""
    made = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    yield made
    made.dispose()


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return ScriptDirectory.from_config(config)


def test_head_is_the_newest_revision() -> None:
    """A starting server compares with a constant, which must not be forgotten; no forks."""
    assert scripts().get_heads() == [migrations.HEAD]
    assert len(scripts().get_bases()) == 1


def test_the_history_makes_the_tables_as_they_are_written(engine: Engine) -> None:
    """Alembic's own comparison finds nothing to do, types included."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_defaults_are_there_as_they_are_written(engine: Engine) -> None:
    """Alembic compares their spelling, which is each database's own; this compares their value."""
    found = inspect(engine)
    defaults = 0
    for table in metadata.sorted_tables:
        there = {one["name"]: one["default"] for one in found.get_columns(table.name)}
        for column in table.columns:
            if isinstance(column.server_default, DefaultClause):
                defaults += 1
                found_text = re.sub(r"::.*$", "", str(there[column.name])).strip("'")
                assert found_text == str(column.server_default.arg), column
            elif column.identity is None:
                assert there[column.name] is None, column
    assert defaults > 40


def normal(condition: str) -> str:
    """A condition as both databases would write it."""
    condition = re.sub(r"::\w+", "", condition.lower())
    return re.sub(r"[\s()\"]", "", condition)


def test_checks_uniques_and_keys_are_there_by_name(engine: Engine) -> None:
    """What Alembic does not compare: check constraints, and the names of the others."""
    found = inspect(engine)
    checks = 0
    for table in metadata.sorted_tables:
        written = {
            str(one.name): normal(str(one.sqltext))
            for one in table.constraints
            if isinstance(one, CheckConstraint)
        }
        checks += len(written)
        there = {
            one["name"]: normal(one["sqltext"]) for one in found.get_check_constraints(table.name)
        }
        assert there == written, table.name
        assert found.get_pk_constraint(table.name)["constrained_columns"] == [
            column.name for column in table.primary_key.columns
        ]
        keys = {one["name"] for one in found.get_foreign_keys(table.name)}
        assert keys == {one.name for one in table.foreign_key_constraints}, table.name
    assert checks >= 2
    assert set(found.get_table_names()) == {*metadata.tables, "alembic_version"}


def test_the_first_rows_are_there(engine: Engine) -> None:
    """The counterpart of every posting, the head of the audit, and nobody's advertisement."""
    with engine.connect() as connection:
        assert connection.execute(select(wallet)).all() == [(1, None, 0, 0, bytes(32))]
        assert connection.execute(select(audit_head)).all() == [(1, 0, bytes(32))]
        assert connection.execute(select(advert.c.is_show)).scalars().all() == [0, 0]


def test_what_is_only_added_to_cannot_be_changed(house: House) -> None:
    """A1 and coins: the database itself refuses, whoever asks."""
    me = house.login()
    me.edit_nickname(name="一")
    columns = {"posting": "created_at = 1", "entry": "reason = 'x'", "audit": "actor = 'x'"}
    engine = house.world.database.engine  # type: ignore[attr-defined]  # It is the real one.
    for table, column in columns.items():
        for change in (f"UPDATE {table} SET {column}", f"DELETE FROM {table}"):
            with engine.connect() as connection:
                count = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
                assert count > 0
                with pytest.raises(DBAPIError, match="append-only"):
                    connection.execute(text(change))
    assert me.info().name == "一"


def test_ids_begin_with_seven_digits(house: House) -> None:
    """Wire: ids of people, groups and bots; a deleted one is never given again."""
    assert house.person(1) == 1_000_001
    assert house.person(2) == 1_000_002


def dump(url: str) -> list[Any]:
    """The schema, as the database itself describes it."""
    engine = create_engine(url)
    found = inspect(engine)
    told = [
        (name, [str(column) for column in found.get_columns(name)], found.get_indexes(name))
        for name in sorted(found.get_table_names())
    ]
    engine.dispose()
    return told


def revision(url: str) -> str | None:
    engine = create_engine(url)
    try:
        return migrations.current(engine)
    finally:
        engine.dispose()


def test_an_upgrade_twice_is_an_upgrade_once(empty_url: str) -> None:
    """It may be run before every start."""
    assert revision(empty_url) is None
    migrations.upgrade(empty_url)
    assert revision(empty_url) == migrations.HEAD
    first = dump(empty_url)
    migrations.upgrade(empty_url)
    assert dump(empty_url) == first
    assert len(first) == len(metadata.tables) + 1


def test_an_upgrade_that_breaks_leaves_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it or nothing: a half-made schema could neither be used nor made again."""
    seen = []

    def break_late(_c: object, _u: object, statement: str, *_: object) -> None:
        seen.append(statement)
        if "sqlite_sequence" in statement or "FUNCTION append_only" in statement:
            raise RuntimeError("the machine went away")

    event.listen(Engine, "before_cursor_execute", break_late)
    try:
        with pytest.raises(RuntimeError, match="went away"):
            migrations.upgrade(empty_url)
    finally:
        event.remove(Engine, "before_cursor_execute", break_late)
    assert len(seen) > 20
    assert dump(empty_url) == []
    migrations.upgrade(empty_url)
    assert revision(empty_url) == migrations.HEAD


#: Migrates, and stops at its first table for another to come as far; `mutant` takes the lock away.
RACER = """
import pathlib, sys, time
from sqlalchemy import Engine, event
from hupan.migrations import upgrade

url, mine, other, mutant = sys.argv[1], *map(pathlib.Path, sys.argv[2:4]), sys.argv[4] == "mutant"

@event.listens_for(Engine, "before_cursor_execute", retval=True)
def look(connection, cursor, statement, parameters, context, executemany):
    if mutant:
        statement = statement.replace("pg_advisory_xact_lock", "abs").replace(" IMMEDIATE", "")
    if "CREATE TABLE" in statement and not mine.exists():
        mine.touch()
        end = time.monotonic() + (20 if mutant else 0.5)
        while not other.exists() and time.monotonic() < end:
            time.sleep(0.01)
    return statement, parameters

upgrade(url)
"""


def migrate_at_once(url: str, folder: Path, mutant: str = "") -> list[int]:
    """Migrate in two processes at once; their exit codes, the better one first."""
    flags = [folder / "first", folder / "second"]
    if mutant and url.startswith("sqlite"):
        url += "?timeout=1"
    running = [
        subprocess.Popen([sys.executable, "-c", RACER, url, *order, mutant], stderr=subprocess.PIPE)
        for order in (flags, flags[::-1])
    ]
    for process in running:
        process.communicate(timeout=60)
    return sorted(process.returncode for process in running)


def test_two_processes_may_migrate_at_once(empty_url: str, tmp_path: Path) -> None:
    """Two nodes that start together: one does it, the other waits, both are content."""
    assert migrate_at_once(empty_url, tmp_path) == [0, 0]
    assert revision(empty_url) == migrations.HEAD
    assert len(dump(empty_url)) == len(metadata.tables) + 1


def test_the_race_finds_a_migration_without_its_lock(empty_url: str, tmp_path: Path) -> None:
    """The mutant: both begin to make the same tables."""
    assert migrate_at_once(empty_url, tmp_path, "mutant")[1] != 0
