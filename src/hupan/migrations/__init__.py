"""The one history of the schema, for SQLite and PostgreSQL.

`HEAD` is written here so that a starting server can compare without importing Alembic; a test
holds it to the newest revision.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

__all__ = ["HEAD", "current", "upgrade"]

HEAD = "0.1.1"


def current(engine: Engine) -> str | None:
    """The revision a database has, or None where there is none."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
        return None if row is None else str(row[0])


def upgrade(url: str) -> None:
    """Bring a database to `HEAD`, all of it or nothing."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        # One explicit transaction around the whole history: both databases roll DDL back. On
        # PostgreSQL a second migrating process waits at the lock.
        sqlite = engine.dialect.name == "sqlite"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "BEGIN")
        if not sqlite:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(750331)")
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
    engine.dispose()
