"""The servers that are measured: how each is started, asked, accounted for and ended."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import inspect
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import data
from benchmarks.load import DIGITS, Kind, Prepared
from benchmarks.load import http as request
from hupan.protocol.user import NewAvatar, NewName, User, UserId
from hupan.protocol.wire import encode_request
from hupan.server import run as hupan_run

__all__ = [
    "Ceiling",
    "FastapiUsers",
    "Hupan",
    "PocketBase",
    "Server",
    "cpu_seconds",
    "interface_of_ours",
    "machine_seconds",
]

ROOT = Path(__file__).parent.parent
RIVALS = ROOT / ".venv-bench" / "bin"
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
TICK = os.sysconf("SC_CLK_TCK")
JSON = {"Content-Type": "application/json"}


# ---------------------------------------------------------------- the kernel's accounting


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process tree, with that of its threads and of children that have ended."""
    ticks = 0
    for one in _family(pid):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(part) for part in stat[11:15])
    return ticks / TICK


def machine_seconds() -> float:
    """CPU time that anybody on this machine has used, and that its host took away."""
    spent = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    # The fourth and fifth are idle.
    return sum(int(part) for place, part in enumerate(spent) if place not in (3, 4)) / TICK


def memory_mib(pid: int) -> float:
    """Proportional memory of a process tree."""
    kib = 0
    for one in _family(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            kib += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])  # type: ignore[index]
    return kib / 1024


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------- any server


class Server:
    """A server in a process of its own, with a folder of its own."""

    #: The path that answers 200 when the server is ready.
    ready = "/"
    #: So many people log in at once.
    logins = 32

    def __init__(self, name: str, folder: Path, cores: set[int]) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.cores = cores
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start_seconds = 0.0

    def command(self) -> list[str]:
        """What is run."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What is added to the environment."""
        return {}

    def prepare(self) -> None:
        """What is done before the first start."""

    def furnish(self) -> None:
        """What is done after the first start."""

    def start(self) -> None:
        """Start, and wait until it answers."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HUPAN_")}
        with (self.folder / "log").open("ab") as log:
            begun = time.perf_counter()
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=clean | self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=self._settle,
            )
        while not self._answers():
            if self.process.poll() is not None or time.perf_counter() - begun > 60:
                tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} did not start:\n{tail}")
            time.sleep(0.002)
        self.start_seconds = time.perf_counter() - begun

    def _settle(self) -> None:
        """In the new process: keep to the cores, and do not outlive a benchmark that was killed."""
        os.sched_setaffinity(0, self.cores)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def _answers(self) -> bool:
        connection = http_client(self.port, timeout=5)
        try:
            connection.request("GET", self.ready)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End it and everything that it started."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            # The group is ours: it began with this process.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """Stop, and remove what it wrote."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process that the others descend from."""
        assert self.process is not None
        return self.process.pid

    def cpu(self) -> float:
        """CPU seconds of the server so far."""
        return cpu_seconds(self.pid)

    def database_cpu(self) -> float:
        """CPU seconds of a database in processes of its own, which is counted apart."""
        return 0.0

    def memory(self) -> float:
        """MiB that it holds now."""
        return memory_mib(self.pid)

    def freshen(self, sessions: Sequence[int]) -> None:
        """Say that these sessions were seen just now."""

    def ask(self, row: str, numbers: Sequence[int]) -> list[Prepared]:
        """Requests of a row for sessions or people with these numbers."""
        raise NotImplementedError

    def call(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> Any:
        """Ask once, in JSON, for what furnishing needs."""
        connection = http_client(self.port, timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {**JSON, **(headers or {})})
            answer = connection.getresponse()
            told = answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{self.name} {path}: {answer.status} {told[:300]!r}")
            return json.loads(told or b"null")
        finally:
            connection.close()


def http_client(port: int, timeout: float) -> http.client.HTTPConnection:
    """A connection on loopback."""
    return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)


# ---------------------------------------------------------------- ours


def _field(number: int, text: str) -> bytes:
    """A text as a protobuf field, short enough for a length of one byte."""
    raw = text.encode()
    return bytes([number << 3 | 2, len(raw)]) + raw


def _person(person: int) -> bytes:
    """How an answer about a person begins: id and name, up to the digits that change."""
    whole = _field(1, str(data.user_id(person))) + _field(2, data.name(person))
    return whole[: -len(DIGITS)]


#: How a success without data ends, in protobuf and in JSON.
DONE = bytes([2 << 3, 1]) + _field(3, "success")
DONE_JSON = b'"code":1'


class Hupan(Server):
    """Ours, on SQLite or on PostgreSQL."""

    ready = "/healthz"

    def __init__(
        self,
        name: str,
        folder: Path,
        cores: set[int],
        *,
        people: int,
        workers: int = 1,
        postgres: data.Postgres | None = None,
    ) -> None:
        super().__init__(name, folder, cores)
        self.people, self.workers, self.postgres = people, workers, postgres
        self.web_port = free_port()
        self.address = ""

    def prepare(self) -> None:
        if self.postgres is None:
            data.copy_sqlite(self.people, self.folder)
        else:
            database = re.sub(r"\W", "_", self.name)
            self.address = self.postgres.database(self.people, database)

    def command(self) -> list[str]:
        return [sys.executable, "-c", "from hupan.cli import main; main()", "serve"]

    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT / "src"),
            "HUPAN_DATA_DIR": str(self.folder),
            "HUPAN_PORT": str(self.port),
            "HUPAN_WEB_PORT": str(self.web_port),
            "HUPAN_WORKERS": str(self.workers),
            "HUPAN_DATABASE_URL": self.address,
            # All of the load comes from one address.
            "HUPAN_LIMIT_SOURCES": "false",
        }

    def database_cpu(self) -> float:
        return cpu_seconds(self.postgres.pid) if self.postgres else 0.0

    def freshen(self, sessions: Sequence[int]) -> None:
        if self.postgres is None:
            data.freshen_sqlite(self.folder / "hupan.db", sessions)
        else:
            data.freshen_postgres(self.address, sessions)

    def close(self) -> None:
        super().close()
        if self.postgres is not None and self.address:
            with psycopg.connect(self.postgres.address, autocommit=True) as connection:
                name = re.sub(r"\W", "_", self.name)
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def ask(self, row: str, numbers: Sequence[int]) -> list[Prepared]:
        make = getattr(self, "_" + row.replace("-", "_"))
        if row == "mixed":
            return [make(number) for number in numbers]
        # The popular ones come thousands of times.
        made = {number: make(number) for number in set(numbers)}
        return [made[number] for number in numbers]

    def _call(self, row: Any, number: int, body: bytes | None) -> bytes:
        return request(row.methods[0], row.path, {"token": data.token(number)}, body)

    def _info(self, number: int, kind: Kind = Kind.PLAIN) -> Prepared:
        person = data.owner(number)
        return Prepared(self._call(User.info, number, None), _person(person), kind, person)

    _info_cold = _info

    def _get_user(self, number: int, kind: Kind = Kind.PLAIN, caller: int = -1) -> Prepared:
        person = data.owner(number)
        body, _ = encode_request(User.get_user, UserId(str(data.user_id(person))))
        # One person asks for another.
        caller = caller if caller >= 0 else number ^ 2
        if data.owner(caller) >= self.people:
            caller = number
        return Prepared(self._call(User.get_user, caller, body), _person(person), kind, person)

    def _edit_nickname(self, number: int, kind: Kind = Kind.NUMBERED) -> Prepared:
        person = data.owner(number)
        body, _ = encode_request(User.edit_nickname, NewName(data.name(person)))
        return Prepared(self._call(User.edit_nickname, number, body), DONE, kind, person)

    def _edit_avatar(self, number: int) -> Prepared:
        body, _ = encode_request(User.edit_avatar, NewAvatar(f"https://img.example.com/{number}"))
        return Prepared(self._call(User.edit_avatar, number, body), DONE)

    def _save_user_data(self, number: int) -> Prepared:
        told = {
            "introduction": f"我是测试用户 .{DIGITS}",
            "gender": 1,
            "birthday": 946_684_800,
            "province": "北京市",
            "city": "北京城区",
            "district": "东城区",
            "locationCode": "110101",
        }
        body = json.dumps(told, ensure_ascii=False).encode()
        return Prepared(self._call(User.save_user_data, number, body), DONE_JSON, Kind.NUMBERED)

    def _email_login(self, number: int) -> Prepared:
        told = {
            "email": data.email(data.owner(number)),
            "password": data.PASSWORD,
            "deviceId": f"device-{number}",
            "platform": "benchmark",
        }
        body = json.dumps(told).encode()
        row = User.email_login
        return Prepared(
            request(row.methods[0], row.path, JSON, body), b'{"code":1,"data":{"token":"'
        )

    def _mixed(self, number: int) -> Prepared:
        """Mostly reads; whoever reads a name must see the last one that was acknowledged."""
        turn = secrets.randbelow(100)
        if turn < 45:
            return self._get_user(number, Kind.READ, caller=number)
        if turn < 90:
            return self._info(number, Kind.READ)
        if turn < 95:
            return self._edit_nickname(number, Kind.RENAME)
        return self._save_user_data(number)

    def info_answer(self) -> tuple[list[tuple[str, str]], bytes]:
        """The headers and the body of an answer to `info`, for the ceiling to repeat."""
        connection = http_client(self.port, timeout=10)
        try:
            connection.request("GET", User.info.path, headers={"token": data.token(0)})
            answer = connection.getresponse()
            # Those that granian writes by itself are not written twice.
            own = ("date", "server", "content-length")
            kept = [(k.lower(), v) for k, v in answer.getheaders() if k.lower() not in own]
            return kept, answer.read()
        finally:
            connection.close()


# ---------------------------------------------------------------- the ceiling


def interface_of_ours() -> str:
    """The interface that our own listeners use: `rsgi` or `asgi`."""
    found = re.search(r"Interfaces\.(RSGI|ASGI)", inspect.getsource(hupan_run))
    return found[1].lower() if found else "rsgi"


class Ceiling(Server):
    """granian with a constant answer, which is one of ours."""

    def __init__(
        self, name: str, folder: Path, cores: set[int], *, interface: str, like: Hupan
    ) -> None:
        super().__init__(name, folder, cores)
        self.interface, self.like = interface, like

    def prepare(self) -> None:
        headers, body = self.like.info_answer()
        told = {"headers": headers, "body": body.hex()}
        (self.folder / "answer.json").write_text(json.dumps(told))

    def command(self) -> list[str]:
        script = str(Path(__file__).with_name("ceiling.py"))
        answer = str(self.folder / "answer.json")
        return [sys.executable, script, self.interface, str(self.port), answer]

    def ask(self, row: str, numbers: Sequence[int]) -> list[Prepared]:
        # The same requests as ours gets, and always the answer about person 0.
        asked = self.like.ask("get-user" if row == "post" else "info", numbers)
        return [made._replace(expect=_person(0)) for made in asked]


# ---------------------------------------------------------------- PocketBase


class PocketBase(Server):
    """PocketBase as it comes: its own users, who read and change themselves."""

    ready = "/api/health"
    people = 1000

    def __init__(self, name: str, folder: Path, cores: set[int]) -> None:
        super().__init__(name, folder, cores)
        self.ids: list[str] = []
        self.tokens: list[str] = []

    def _run(self, *words: str) -> list[str]:
        return [str(RIVALS / "pocketbase"), *words, "--dir", str(self.folder / "pb_data")]

    def prepare(self) -> None:
        subprocess.run(
            self._run("superuser", "upsert", "root@example.com", data.PASSWORD),
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def command(self) -> list[str]:
        return self._run("serve", "--http", f"127.0.0.1:{self.port}")

    def furnish(self) -> None:
        login = {"identity": "root@example.com", "password": data.PASSWORD}
        told = self.call("POST", "/api/collections/_superusers/auth-with-password", None, login)
        root = {"Authorization": told["token"]}
        first = {
            "email": data.email(0),
            "password": data.PASSWORD,
            "passwordConfirm": data.PASSWORD,
            "name": data.name(0),
        }
        made = self.call("POST", "/api/collections/users/records", root, first)
        # The others are copies of the first: bcrypt would take a minute for a thousand.
        with sqlite3.connect(self.folder / "pb_data" / "data.db", timeout=10) as connection:
            for person in range(1, self.people):
                connection.execute(
                    "INSERT INTO users (id, email, name, tokenKey, password, created, updated)"
                    " SELECT ?, ?, ?, ?, password, created, updated FROM users WHERE id = ?",
                    (f"u{person:014d}", data.email(person), data.name(person),
                     secrets.token_urlsafe(37)[:50], made["id"]),
                )  # fmt: skip
        connection.close()
        self.ids = [made["id"], *(f"u{person:014d}" for person in range(1, self.people))]
        for one in self.ids:
            path = f"/api/collections/users/impersonate/{one}"
            self.tokens.append(self.call("POST", path, root, {"duration": 86_400})["token"])

    def ask(self, row: str, numbers: Sequence[int]) -> list[Prepared]:
        return [getattr(self, f"_{row}")(data.owner(number) % self.people) for number in numbers]

    def _read(self, person: int) -> Prepared:
        one = self.ids[person]
        made = request(
            "GET",
            f"/api/collections/users/records/{one}",
            {"Authorization": self.tokens[person]},
        )
        return Prepared(made, f'"id":"{one}"'.encode())

    def _update(self, person: int) -> Prepared:
        made = request(
            "PATCH",
            f"/api/collections/users/records/{self.ids[person]}",
            {"Authorization": self.tokens[person], **JSON},
            json.dumps({"name": data.name(person)}).encode(),
        )
        return Prepared(made, f'"name":"u{person:07d}.'.encode(), Kind.NUMBERED)

    def _login(self, person: int) -> Prepared:
        body = json.dumps({"identity": data.email(person), "password": data.PASSWORD}).encode()
        path = "/api/collections/users/auth-with-password"
        return Prepared(request("POST", path, JSON, body), b'"token":"')


# ---------------------------------------------------------------- fastapi-users


class FastapiUsers(Server):
    """fastapi-users as its documented example has it."""

    ready = "/openapi.json"
    people = 1000
    # It hashes in its loop while a transaction is open, and more than a few lock its database.
    logins = 4

    def __init__(self, name: str, folder: Path, cores: set[int]) -> None:
        super().__init__(name, folder, cores)
        self.ids = [str(uuid.UUID(int=person + 1, version=4)) for person in range(self.people)]
        self.tokens = [secrets.token_urlsafe() for _ in self.ids]

    def command(self) -> list[str]:
        script = str(Path(__file__).with_name("fastapi_users_app.py"))
        return [str(RIVALS / "python"), script, str(self.port), str(self.folder / "test.db")]

    def furnish(self) -> None:
        first = {"email": "first@example.com", "password": data.PASSWORD}
        maker = "from fastapi_users.password import PasswordHelper as P; import sys;"
        hashed = subprocess.run(
            [str(RIVALS / "python"), "-c", f"{maker} print(P().hash(sys.argv[1]))",
             first["password"]],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        with sqlite3.connect(self.folder / "test.db", timeout=10) as connection:
            for person, (one, token) in enumerate(zip(self.ids, self.tokens, strict=True)):
                connection.execute(
                    "INSERT INTO user (id, email, hashed_password, is_active, is_superuser,"
                    " is_verified) VALUES (?, ?, ?, 1, 0, 1)",
                    (one, f"{data.name(person)}@example.com", hashed),
                )
                connection.execute(
                    "INSERT INTO accesstoken (user_id, token, created_at)"
                    " VALUES (?, ?, datetime('now', '+1 day'))",
                    (one, token),
                )
        connection.close()

    def ask(self, row: str, numbers: Sequence[int]) -> list[Prepared]:
        return [getattr(self, f"_{row}")(data.owner(number) % self.people) for number in numbers]

    def _read(self, person: int) -> Prepared:
        bearer = {"Authorization": f"Bearer {self.tokens[person]}"}
        return Prepared(request("GET", "/users/me", bearer), f'"id":"{self.ids[person]}"'.encode())

    def _update(self, person: int) -> Prepared:
        made = request(
            "PATCH",
            "/users/me",
            {"Authorization": f"Bearer {self.tokens[person]}", **JSON},
            json.dumps({"email": f"{data.name(person)}@example.com"}).encode(),
        )
        return Prepared(made, f'"email":"u{person:07d}.'.encode(), Kind.NUMBERED)

    def _login(self, person: int) -> Prepared:
        form = f"username={data.name(person)}%40example.com&password={data.PASSWORD}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Prepared(request("POST", "/auth/login", headers, form.encode()), b'"access_token":"')
