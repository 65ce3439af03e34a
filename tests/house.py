"""A server for tests: in this process through its ASGI face, or as real processes."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
from starlette.testclient import TestClient

from hupan.accounts import captchas, limits, outbox, people, sessions
from hupan.accounts.context import Actor, Context, World
from hupan.accounts.operation import operation
from hupan.cli import main, parser
from hupan.cli.common import Parser
from hupan.client import Client
from hupan.protocol import Row
from hupan.server.app import Hosts, build_hosts, build_world
from hupan.settings import Settings

#: Monday 2026-03-02, 12:00 in Shanghai.
NOON = 1_772_424_000
DAY = 86_400


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: int = NOON) -> None:
        self.time = now

    def now(self) -> int:
        return self.time

    def advance(self, seconds: int) -> None:
        self.time += seconds


@dataclass
class House:
    """A whole server in this process. `api` and `web` send real HTTP requests to its two faces."""

    world: World
    hosts: Hosts
    clock: HandClock
    api: TestClient
    web: TestClient
    clients: list[Client] = field(default_factory=list)

    def client(self, token: str = "") -> Client:
        """The SDK, speaking to this server."""
        made = Client("http://api.test", web_url="http://web.test", token=token, http=self.http)
        self.clients.append(made)
        return made

    @property
    def http(self) -> Any:
        return _BothHosts(self)

    @contextlib.contextmanager
    def rules(self, actor: str = "test") -> Iterator[Context]:
        """Call rules directly, where the wire has no way to."""
        with operation(self.world, Actor(actor)) as ctx:
            yield ctx

    def person(self, number: int = 1, *, email: bool = True, password: str = "") -> int:
        """Open an account with a phone, an e-mail address and perhaps a password."""
        from argon2 import PasswordHasher
        from sqlalchemy import update

        from hupan.accounts.tables import account

        with self.rules() as ctx:
            made = people.create(
                ctx,
                phone=f"139{number:08d}",
                email=f"person{number}@example.org" if email else None,
                name=f"人{number}",
            )
            if password:
                weak = PasswordHasher(memory_cost=8, time_cost=1, parallelism=1)
                ctx.tx.run(
                    update(account)
                    .where(account.c.id == made)
                    .values(password_hash=weak.hash(password))
                )
        return made

    def token(self, account_id: int, device: str = "device") -> str:
        """A live token of an account, without going through a login."""
        with self.rules() as ctx:
            return sessions.open_session(ctx, account_id, device, "test", by="test")

    def login(self, number: int = 1) -> Client:
        """A new person, logged in."""
        return self.client(self.token(self.person(number)))

    def fail(self, key: str, free: int, times: int) -> None:
        """Count failures, each after the longest wait that the one before can have brought."""
        for left in reversed(range(times)):
            with self.rules() as ctx:
                limits.count_failure(ctx, key, free)
            if left:
                self.clock.advance(limits.LONGEST_WAIT)

    def captcha(self) -> tuple[str, str]:
        """A captcha from the wire, with its solution."""
        made = self.client().captcha()
        return made.id, captchas.solution(self.world, made.id) or ""

    def letters(self, to: str = "") -> list[outbox.Letter]:
        """What was queued, newest first."""
        with self.rules() as ctx:
            return outbox.letters(ctx, to)

    def code_for(self, to: str, typ: str = "") -> str:
        """Ask for a code over the wire, and read it where it was sent."""
        captcha_id, solution = self.captcha()
        if "@" in to:
            self.client().get_email_verification_code(
                email=to, id=captcha_id, code=solution, typ=typ
            )
        else:
            self.client().get_verification_code(mobile=to, id=captcha_id, code=solution)
        return self.letters(to)[0].code

    def post(self, path: str, body: bytes | str = b"", **headers: str) -> httpx2.Response:
        """Raw bytes to the API host."""
        return self.api.post(path, content=body, headers=headers)

    def close(self) -> None:
        self.hosts.lanes.close()
        self.world.database.close()  # type: ignore[attr-defined]  # It is the real one.


class _BothHosts:
    """Sends to the face that an address names, as one httpx2 client would."""

    def __init__(self, house: House) -> None:
        self.house = house

    def request(self, **request: Any) -> httpx2.Response:
        face = self.house.web if "web.test" in request["url"] else self.house.api
        return face.request(**request)

    def close(self) -> None:
        pass


def make_house(url: str, folder: Path, clock: HandClock | None = None, **more: Any) -> House:
    """Put a server together on a migrated database."""
    clock = clock or HandClock()
    more.setdefault("limit_sources", False)
    more.setdefault("argon2_memory_kib", 8)
    more.setdefault("argon2_time", 1)
    more.setdefault("deliver_sms", ["file"])
    more.setdefault("deliver_email", ["file"])
    settings = Settings(data_dir=folder, database_url=url, **more)
    world, _ = build_world(settings, clock=clock, key=b"k" * 32)
    hosts = build_hosts(world)
    return House(
        world,
        hosts,
        clock,
        TestClient(hosts.api, base_url="http://api.test"),
        TestClient(hosts.web, base_url="http://web.test"),
    )


# ---------------------------------------------------------------- real processes


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Process:
    """One real server process."""

    process: subprocess.Popen[bytes]
    url: str
    web_url: str

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def start_processes(
    url: str, folder: Path, count: int = 1, *, mutant: str = "", **settings: Any
) -> list[Process]:
    """Start server processes on one database; `mutant` names a guard to take away in them.

    Each has ports of its own, and they share the database and the key: as several nodes do.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("HUPAN_")
    } | {
        "HUPAN_DATA_DIR": str(folder),
        "HUPAN_DATABASE_URL": url,
        "HUPAN_LOG_LEVEL": "warning",
        "HUPAN_DELIVER_SMS": "file",
        "HUPAN_DELIVER_EMAIL": "file",
        "HUPAN_LIMIT_SOURCES": "false",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        **{f"HUPAN_{name.upper()}": str(value) for name, value in settings.items()},
    }
    started = []
    for _ in range(count):
        port, web_port = free_ports(2)
        with (folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.mutants", mutant],
                env=environment | {"HUPAN_PORT": str(port), "HUPAN_WEB_PORT": str(web_port)},
                cwd=folder,
                stderr=log,
                stdout=subprocess.DEVNULL,
            )
        started.append(Process(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}"))
    for one in started:
        _await_ready(one)
    return started


def _await_ready(one: Process) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(one.url + "/readyz").status_code == 200:
                return
        if one.process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"{one.url} did not start; see server.log")


# ---------------------------------------------------------------- the command line


@dataclass
class Done:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def hupan(*words: object, given: str = "") -> Done:
    """Run the command line in this process. A traceback is an error of the test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "stdin", io.StringIO(given)),
    ):
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def commands(one: Parser | None = None) -> Iterator[Parser]:
    """Every command and every group; `prog` is the full name."""
    one = one or parser()
    yield one
    for below in one.commands.values():
        yield from commands(below)


def arguments_of(command: Parser) -> dict[str, argparse.Action]:
    """What a command takes, by the spelling in its help."""
    return {
        (one.option_strings or [str(one.metavar)])[0]: one
        for one in command._actions
        if one.dest not in ("help", "version")
    }


# ---------------------------------------------------------------- small helpers


def png_of(b64s: str) -> bytes:
    """The bytes of a data URL."""
    head, _, data = b64s.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data, validate=True)


def shaped_like_token(text: str) -> bool:
    """Whether a text is shaped `8-4-4-12`."""
    return re.fullmatch(r"[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){2}-[0-9A-Za-z]{12}", text) is not None


def describe(row: Row[Any, Any, Any]) -> str:
    """A row's name, as test ids show it."""
    return f"{row.module}.{row.name}"
