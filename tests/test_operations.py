"""A server as its operator meets it: real processes of `hupan serve`."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import psycopg
import pytest
import structlog
from sqlalchemy import text, update

from hupan.accounts import captchas
from hupan.accounts.context import World
from hupan.accounts.tables import account
from hupan.client import Client, Refused
from hupan.migrations import HEAD, upgrade
from hupan.server import logs
from hupan.server.run import check_ports, run
from hupan.settings import Settings, SettingsError, load
from tests.conftest import KINDS
from tests.house import HandClock, House, free_ports, make_house

HUPAN = str(Path(sys.executable).parent / "hupan")
PATIENCE = 30.0


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait for something to become true, and hand it back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def environment(url: str, folder: Path, **settings: Any) -> dict[str, str]:
    """What a server is started with: nothing of this test run's own settings."""
    outside = {name: text for name, text in os.environ.items() if not name.startswith("HUPAN_")}
    plain = {"data_dir": folder, "database_url": url, "deliver_sms": "file"}
    plain |= {"deliver_email": "file", "limit_sources": "false", **settings}
    return outside | {f"HUPAN_{name.upper()}": str(value) for name, value in plain.items()}


@dataclass
class Server:
    """One running `hupan serve`, its two addresses and what it wrote."""

    process: subprocess.Popen[bytes]
    url: str
    web_url: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "stderr").read_text("utf-8")

    def status(self, path: str) -> int:
        """The HTTP status of a page over a new connection, or 0 where nobody answers."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=20)
        with closing(connection):
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return 0

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Stop it; its exit code and how long that took."""
        started = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        return code, time.monotonic() - started


@contextmanager
def serving(url: str, folder: Path, *flags: str, **settings: Any) -> Iterator[Server]:
    """A running server."""
    folder.mkdir(exist_ok=True)
    port, web_port = free_ports(2)
    addresses = ["--port", str(port), "--web-port", str(web_port)]
    with (folder / "stderr").open("wb") as err, (folder / "stdout").open("wb") as out:
        process = subprocess.Popen(
            [HUPAN, "serve", *addresses, *flags],
            env=environment(url, folder, **settings), cwd=folder, stdout=out, stderr=err,
        )  # fmt: skip
    server = Server(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}", folder)
    try:
        until(lambda: process.poll() is not None or server.status("/readyz") == 200)
        assert process.poll() is None, server.log
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def refused_start(url: str, folder: Path, *flags: str, **settings: Any) -> str:
    """Start a server that must not start; the one line it says."""
    done = subprocess.run(
        [HUPAN, "serve", *flags], env=environment(url, folder, **settings), cwd=folder,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("hupan: ")
    return done.stderr.strip()


@pytest.fixture(scope="module", params=KINDS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[Server]:
    """One server for every test that only looks, on each database."""
    folder = tmp_path_factory.mktemp("shared")
    if request.param == "sqlite":
        shutil.copyfile(sqlite_template, folder / "hupan.db")
        with serving(f"sqlite:///{folder / 'hupan.db'}", folder) as server:
            yield server
        return
    address = request.getfixturevalue("postgres")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE operations TEMPLATE template_hupan")
    with serving(address.replace("/postgres?", "/operations?"), folder) as server:
        yield server
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP DATABASE operations WITH (FORCE)")


def execute(url: str, statement: str) -> None:
    """Change a database behind the server's back."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection:
            connection.execute(statement)
            connection.commit()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]  # The statement is ours.


# ---------------------------------------------------------------- what it says of itself


def test_health_is_told_on_both_hosts(shared: Server) -> None:
    """`/healthz`: it lives. `/readyz`: it can do its work. Neither is the wire's."""
    for base in (shared.url, shared.web_url):
        for page in ("/healthz", "/readyz"):
            answer = httpx2.get(base + page)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_production_server_has_nothing_of_the_sandbox(shared: Server) -> None:
    """`/__dev` exists in dev mode only."""
    for base in (shared.url, shared.web_url):
        for page in ("", "/", "/outbox?to=13800000001", "/captchas/x", "/people", "/requests"):
            answer = httpx2.get(f"{base}/__dev{page}")
            assert answer.status_code == 404
            assert answer.json()["code"] == 404
        for page in ("clock", "reset", "snapshots", "faults"):
            assert httpx2.post(f"{base}/__dev/{page}", json={}).status_code == 404
    assert "7000001" not in (shared.folder / "stdout").read_text()
    with Client(shared.url) as client, pytest.raises(Refused):
        client.email_login(email="user1@example.com", password="password-1")


def test_the_log_is_json_and_holds_no_secret(shared: Server) -> None:
    """C8, T2: one line for each call that changed something or was refused, with the number that
    stands in the answer; no code, no token.
    """
    key = bytes.fromhex((shared.folder / "secret.key").read_text().strip())
    # Only the key matters to what a captcha shows.
    nothing = cast(Any, None)
    world = World(settings=nothing, database=nothing, clock=nothing, random=nothing, key=key)
    secrets: list[str] = []

    def code_for(client: Client, to: str) -> str:
        captcha = client.captcha().id
        solution = captchas.solution(world, captcha) or ""
        if "@" in to:
            client.get_email_verification_code(email=to, id=captcha, code=solution)
        else:
            client.get_verification_code(mobile=to, id=captcha, code=solution)
        written = shared.folder / "outbox.jsonl"
        line = until(
            lambda: (
                next(
                    (one for one in written.read_text("utf-8").splitlines() if f'"{to}"' in one), ""
                )
                if written.exists()
                else ""
            )
        )
        secrets.extend([captcha, re.findall(r"\d{6}", json.loads(line)["text"])[0]])
        return secrets[-1]

    phone, email, password = "13911112222", "canary@example.org", "canary-湖畔-password"
    with Client(shared.url, web_url=shared.web_url) as client:
        client.token = client.verification_login(
            mobile=phone, captcha=code_for(client, phone), device_id="canary-device"
        ).token
        secrets.append(client.token)
        mine = {"token": client.token}
        client.bind_email(email=email, captcha=code_for(client, email))
        with pytest.raises(Refused):
            client.email_login(email=email, password="canary-wrong")
        with pytest.raises(Refused):
            client.forget_password(email=email, captcha="000000", password=password)
        answer = httpx2.post(
            shared.url + "/v1/user/edit-nickname", content=b"\x1a\x03abc", headers=mine
        )
        httpx2.get(shared.url + "/v1/user/info", headers=mine)
        httpx2.get(f"{shared.url}/v1/msg/list?token={client.token}")
        httpx2.get(f"{shared.web_url}/v1/user/info", headers=mine)
        broken = httpx2.post(
            shared.url + "/v1/user/email-login", content='{"password":"canary-broken'
        )
    assert broken.json()["code"] == 1002
    # Field 1 of the answer is the status, whose field 1 is the number, seven bits a byte.
    assert answer.content[0] == 0x0A
    number, shift = 0, 0
    for byte in answer.content[3:]:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break

    def calls() -> list[dict[str, Any]]:
        # The last line may not be whole yet.
        return [json.loads(line) for line in shared.log.splitlines(keepends=True) if "\n" in line]

    logged = until(lambda: [one for one in calls() if one.get("number") == number])
    assert len(logged) == 1
    assert logged[0]["path"] == "/v1/user/edit-nickname"
    assert logged[0]["code"] == 1
    assert logged[0]["ms"] >= 0

    def codes() -> set[int]:
        return {one["code"] for one in calls() if one.get("path") == "/v1/user/email-login"}

    # A line may be written a moment after the answer that it tells of.
    until(lambda: codes() == {-1, 1002})
    numbers = [one["number"] for one in calls() if "number" in one]
    assert len(numbers) == len(set(numbers)) >= 10
    everything = shared.log + (shared.folder / "stdout").read_text("utf-8")
    for secret in (*secrets, password, "canary"):
        # Six digits may stand in a number or a time by chance; as a word of their own they do not.
        assert re.search(rf"(?<![\w.]){re.escape(secret)}(?![\w.])", everything) is None, secret


# ---------------------------------------------------------------- when it cannot work


def test_an_older_schema_is_not_ready(shared: Server) -> None:
    """A server that was left running over a change of the schema says so, and recovers."""
    url = next(
        part.removeprefix("HUPAN_DATABASE_URL=")
        for part in Path(f"/proc/{shared.process.pid}/environ").read_text().split("\0")
        if part.startswith("HUPAN_DATABASE_URL=")
    )
    execute(url, "UPDATE alembic_version SET version_num = '0000'")
    try:
        answer = httpx2.get(shared.url + "/readyz")
        assert answer.status_code == 503
        assert answer.json()["problems"] == [
            f"the schema is 0000, this server needs {HEAD}; run `hupan migrate`"
        ]
        assert shared.status("/healthz") == 200
    finally:
        execute(url, f"UPDATE alembic_version SET version_num = '{HEAD}'")
    assert shared.status("/readyz") == 200


def test_a_database_that_cannot_be_written_is_not_ready(
    house: House, kind: str, database_url: str, request: pytest.FixtureRequest
) -> None:
    """R12: reads go on, writes are refused politely, and nothing is a crash."""
    me = house.login()
    me.edit_nickname(name="先")
    if kind == "sqlite":
        path = database_url.removeprefix("sqlite:///")
        more = {"database_url": f"sqlite:///file:{path}?mode=ro&uri=true"}
    else:
        name = re.findall(r"/(test_\d+)\?", database_url)[0]
        execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        more = {}
    frozen = make_house(more.get("database_url", database_url), house.world.settings.data_dir)
    try:
        assert frozen.api.get("/healthz").status_code == 200
        answer = frozen.api.get("/readyz")
        assert answer.status_code == 503
        assert len(answer.json()["problems"]) == 1
        guest = frozen.client(me.token)
        assert guest.info().name == "先"
        raw = frozen.post("/v1/user/edit-nickname", '{"name":"后"}', token=me.token)
        assert raw.status_code == 200
        assert raw.json()["code"] == -1
        assert me.info().name == "先"
    finally:
        frozen.close()


def test_a_full_disk_is_not_ready_and_passes(tmp_path: Path, sqlite_template: Path) -> None:
    """R12: a server whose file can grow no more says so, and recovers without a restart."""
    shutil.copyfile(sqlite_template, tmp_path / "hupan.db")
    with serving(f"sqlite:///{tmp_path / 'hupan.db'}", tmp_path) as server:
        pid = server.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, usual[1]))
        answer = httpx2.get(server.url + "/readyz", timeout=30)
        assert answer.status_code == 503
        assert server.status("/healthz") == 200
        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
        until(lambda: server.status("/readyz") == 200)
        assert server.stop()[0] == 0


def test_without_a_schema_it_does_not_start(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It never makes or changes a schema by itself; the line says who does."""
    url = f"sqlite:///{tmp_path / 'hupan.db'}"
    if kind == "postgresql":
        # The maintenance database has no table of ours.
        url = request.getfixturevalue("postgres")
    port, web_port = free_ports(2)
    line = refused_start(url, tmp_path, "--port", str(port), "--web-port", str(web_port))
    assert line == f"hupan: the schema is missing, this server needs {HEAD}; run `hupan migrate`"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The listeners share ports among our own workers, and must not with a stranger."""
    url = f"sqlite:///{tmp_path / 'hupan.db'}"
    upgrade(url)
    free, web = free_ports(2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused_start(url, tmp_path, "--port", str(port), "--web-port", str(web))
        assert line.startswith(f"hupan: 127.0.0.1:{port} cannot be listened on (Address already")
        assert line.endswith("choose another port")
        line = refused_start(url, tmp_path, "--port", str(free), "--web-port", str(port))
        assert line.endswith("choose another web_port")
    with pytest.raises(SettingsError, match="port and web_port are the same"):
        check_ports(load(port=free, web_port=free))


def test_what_a_production_server_must_not_have_is_named(tmp_path: Path) -> None:
    """C13, A2: fixed codes and the sandbox's people stay out of it."""
    url = f"sqlite:///{tmp_path / 'hupan.db'}"
    codes = {"test_codes": '{"13800000001":"123456"}', "test_codes_until": "2999-01-01"}
    assert "test_codes are for `hupan dev` only" in refused_start(url, tmp_path, **codes)
    (tmp_path / "SANDBOX").touch()
    with pytest.raises(SettingsError, match="holds a sandbox"):
        run(load(data_dir=tmp_path))


# ---------------------------------------------------------------- how it stops


def ask_slowly(server: Server, token: str) -> tuple[socket.socket, bytes]:
    """Open a request that is inside the server, and hold its body back."""
    port = int(server.url.rpartition(":")[2])
    body = b'{"name":"zuletzt"}'
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(
        b"POST /v1/user/edit-nickname HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        + f"token: {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    # The server asks for the body when it has begun to work on the request.
    assert connection.recv(4096).startswith(b"HTTP/1.1 100")
    return connection, body


@pytest.fixture
def draining(
    database_url: str, tmp_path: Path, house: House
) -> Iterator[tuple[Server, str, House]]:
    """A server of one's own with a short drain, and the token of somebody."""
    with serving(database_url, tmp_path, drain_seconds=3) as server:
        # The house's clock stands still in the past; a real session is needed.
        house.clock.time = int(time.time())
        yield server, house.token(house.person()), house


def closed(server: Server) -> bool:
    """Whether new connections are turned away."""
    try:
        port = int(server.url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_a_stop_lets_an_open_request_end(draining: tuple[Server, str, House]) -> None:
    """R10: SIGTERM closes the door; who is inside is served; exit code 0."""
    server, token, _ = draining
    connection, body = ask_slowly(server, token)
    with connection:
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: closed(server))
        connection.sendall(body)
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b'{"code":1,' in answer
    assert server.process.wait(PATIENCE) == 0
    print(f"drained in {time.monotonic() - started:.2f} s")
    assert time.monotonic() - started < 3 + 2


def test_a_stop_does_not_wait_for_ever(tmp_path: Path, sqlite_template: Path) -> None:
    """R10: a client that never finishes holds a stop up for the drain time and no longer."""
    shutil.copyfile(sqlite_template, tmp_path / "hupan.db")
    with serving(f"sqlite:///{tmp_path / 'hupan.db'}", tmp_path, drain_seconds=1) as server:
        connection, _ = ask_slowly(server, "anybody")
        with connection:
            code, took = server.stop(signal.SIGINT)
    assert code == 0
    assert took < 1 + 3


@pytest.mark.nightly  # It takes as long as a writer is patient, which is ten seconds.
@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_stop_does_not_wait_for_a_lock(draining: tuple[Server, str, House]) -> None:
    """R10: nor does a row that somebody else has locked; SQLite's waits end by themselves."""
    server, token, house = draining

    def ask() -> None:
        with Client(server.url, token=token) as client, pytest.raises((httpx2.HTTPError, Refused)):
            client.edit_nickname(name="never")

    def waiting() -> bool:
        lock = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with house.rules() as ctx:
            return bool(ctx.tx.value(lock))

    with house.rules() as ctx:
        ctx.tx.run(update(account).values(name="held"))
        thread = threading.Thread(target=ask)
        thread.start()
        until(waiting)
        code, took = server.stop()
        thread.join()
    print(f"stopped in {took:.2f} s while a row was locked")
    assert code == 0
    # As long as a writer waits for its turn, which is the longest that a thread can be busy.
    assert took < 10 + 3


def children(pid: int) -> set[int]:
    """The workers of a server."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and b"spawn_main" in command:
            found.add(int(stat.parent.name))
    return found


def test_several_workers_share_the_ports_and_are_replaced(
    tmp_path: Path, sqlite_template: Path
) -> None:
    """`--workers 2`: both serve; one that is killed is made anew; a stop ends all of them."""
    shutil.copyfile(sqlite_template, tmp_path / "hupan.db")
    url = f"sqlite:///{tmp_path / 'hupan.db'}"
    with serving(url, tmp_path, "--workers", "2") as server:
        pid = server.process.pid
        first = until(lambda: found if len(found := children(pid)) == 2 else None)
        for _ in range(20):
            assert server.status("/readyz") == 200

        # Both work, for connections are spread over them: their calls have two runs of numbers.
        def both_answer() -> bool:
            assert server.status("/v1/user/info") == 200
            numbers = [json.loads(line)["number"] for line in server.log.splitlines()]
            return bool(numbers) and max(numbers) - min(numbers) > 1_000_000

        until(both_answer)
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        second = until(lambda: found if len(found := children(pid) - {killed}) == 2 else None)
        assert len(first & second) == 1
        until(lambda: server.status("/readyz") == 200)
        for _ in range(20):
            assert server.status("/readyz") == 200
        code, took = server.stop()
        print(f"two workers stopped in {took:.2f} s")
        assert code == 0
        assert not any(Path(f"/proc/{one}").exists() for one in first | second)
        assert "Traceback" not in server.log


# ---------------------------------------------------------------- what a body and a log may be


def spoken(server: Server, said: bytes, *, leave: bool = False) -> bytes:
    """What is answered to bytes that are sent as they are; or we leave in the middle of them."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(said)
        if leave:
            line.shutdown(socket.SHUT_WR)
        heard = b""
        with suppress(OSError):
            while part := line.recv(65_536):
                heard += part
    return heard


@pytest.mark.parametrize(
    ("header", "sent", "whole"),
    [
        ("transfer-encoding: chunked", b"5\r\n\x1a\x03abc\r\n0\r\n\r\n", True),
        ("transfer-encoding: chunked", b"5\r\n\x1a\x03abc\r\nZZ\r\n", False),
        ("transfer-encoding: chunked", b"5\r\n\x1a\x03abc\r\n", False),
        ("content-length: 5", b"\x1a\x03abc", True),
        ("content-length: 100", b"\x1a\x03abc", False),
        ("content-length: 100000", b"\x1a\x03abc", False),
    ],
)
def test_a_body_that_is_not_whole_does_nothing(
    tmp_path: Path, sqlite_template: Path, header: str, sent: bytes, whole: bool
) -> None:
    """What was cut off, by the network or by its sender, is no request."""
    shutil.copyfile(sqlite_template, tmp_path / "hupan.db")
    url = f"sqlite:///{tmp_path / 'hupan.db'}"
    house = make_house(url, tmp_path, clock=HandClock(int(time.time())))
    token = house.token(house.person(1))
    with serving(url, tmp_path) as server:
        head = (
            "POST /v1/user/edit-nickname HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"token: {token}\r\n{header}\r\n\r\n"
        )
        spoken(server, head.encode() + sent, leave=not whole)
        assert house.client(token).info().name == ("abc" if whole else "人1")
        odd = b"GET /healthz?x=\xe4\xb8\xad HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        assert spoken(server, odd).startswith(b"HTTP/1.1 200")
    house.close()


def test_no_line_is_lost_or_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of one turn of an event loop share a write; others are written at once."""
    path = tmp_path / "log"
    writes: list[bytes] = []

    class File(io.BufferedWriter):
        def write(self, lines: Any) -> int:
            writes.append(lines)
            return super().write(lines)

    def busy(log: Any, name: str) -> None:
        for number in range(300):
            log.warning("said", by=name, number=number, filler="x" * (number % 90))

    def many(log: Any) -> None:
        for number in range(300):
            log.warning("said", by="many", number=number)

    async def turns(log: Any) -> None:
        for turn in range(100):
            for number in range(3):
                log.warning("said", by="loop", number=3 * turn + number)
            await asyncio.sleep(0)

    root, interval = logging.getLogger(), sys.getswitchinterval()
    handlers, level = root.handlers[:], root.level
    with File(io.FileIO(path, "w")) as file:
        monkeypatch.setattr("sys.stderr", io.TextIOWrapper(file, write_through=True))
        try:
            logs.configure(Settings(log_format="json"))
            log = structlog.get_logger("several")
            asyncio.run(turns(log))
            alone = len(writes)
            assert path.read_bytes().count(b"\n") == 300, "lines of a turn were left behind"
            # A loop that ends before its lines were written leaves them to the next one.
            stopped = asyncio.new_event_loop()
            stopped.call_soon(stopped.stop)
            stopped.call_soon(many, log)
            stopped.run_forever()
            stopped.close()
            asyncio.run(turns(log))
            assert path.read_bytes().count(b"\n") == 900, "a loop that ended keeps lines back"
            # Threads meet in the middle of a line rather than once in a while.
            sys.setswitchinterval(1e-6)
            threads = [threading.Thread(target=busy, args=(log, f"t{n}")) for n in range(4)]
            for thread in threads:
                thread.start()
            asyncio.run(turns(log))
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
            root.handlers[:] = handlers
            root.setLevel(level)
            structlog.reset_defaults()
        monkeypatch.undo()
    said = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert alone <= 101, "a turn was written in pieces"
    for name in ("t0", "t1", "t2", "t3"):
        numbers = [one["number"] for one in said if one["by"] == name]
        assert numbers == list(range(300)), f"of {name} there are {len(numbers)}"
    numbers = [one["number"] for one in said if one["by"] == "loop"]
    assert numbers == 3 * list(range(300))
    numbers = [one["number"] for one in said if one["by"] == "many"]
    assert numbers == list(range(300))
    # More would be mixed with another process' lines in a pipe.
    assert all(len(one) <= 4096 and one.endswith(b"\n") for one in writes)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_log_without_room_changes_no_answer(tmp_path: Path, sqlite_template: Path) -> None:
    """R12: what has happened is told as it happened, also where its line finds no room."""
    shutil.copyfile(sqlite_template, tmp_path / "hupan.db")
    url = f"sqlite:///{tmp_path / 'hupan.db'}"
    house = make_house(url, tmp_path, clock=HandClock(int(time.time())))
    token = house.token(house.person(1))
    api, web = free_ports(2)
    environment = {
        **os.environ, "HUPAN_DATABASE_URL": url, "HUPAN_DATA_DIR": str(tmp_path),
        "HUPAN_PORT": str(api), "HUPAN_WEB_PORT": str(web),
    }  # fmt: skip
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", "from hupan.cli import main; main()", "serve"],
            env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=full,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{api}"

        def renamed() -> Any:
            with suppress(httpx2.TransportError):
                return httpx2.post(
                    address + "/v1/user/edit-nickname", content=b"\x1a\x03abc",
                    headers={"token": token},
                )  # fmt: skip
            return None

        assert until(renamed).status_code == 200
        assert httpx2.get(address + "/nope").status_code == 404
    finally:
        process.terminate()
        process.wait(20)
    house.close()
