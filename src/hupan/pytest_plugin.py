"""The pytest plugin: `hupan`, `hupan_redirect` and `hupan_asgi`, loaded by its entry point.

A test that asks for `hupan` gets a whole server on this machine, with the same people and nothing
else in it, whatever other tests did:

    def test_login(hupan, hupan_redirect):
        bot = MyBot()                                  # speaks to https://chat-go.jwzhd.com
        bot.request_code("13800000001")
        bot.login("13800000001", hupan.outbox.wait_for(to="13800000001").code)
        assert hupan.requests.unimplemented == []

pytest loads this file in every run, so nothing of the server is imported before a fixture is used.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, overload

import pytest

if TYPE_CHECKING:
    import asyncio

    from granian.server.embed import Server

    from hupan.accounts.outbox import Letter
    from hupan.client import Client
    from hupan.sandbox.clock import SandboxClock
    from hupan.sandbox.faults import Faults
    from hupan.sandbox.journal import Entry
    from hupan.sandbox.people import Person
    from hupan.sandbox.stand import Stand
    from hupan.server.app import App

__all__ = ["Outbox", "People", "Request", "Requests", "Sandbox"]

#: The two names under which pytest may come across this file.
NAMES = ("hupan", "hupan.pytest_plugin")
#: So many requests and letters are shown below a test that failed, so much of each, and so much
#: of a text in it.
SHOWN, WIDEST, LONGEST = 10, 400, 80
#: How often something awaited is looked for, in seconds, and how long a start may take.
LOOK, LONGEST_START = 0.01, 30.0
#: A test that moves the clock by a year, to see a VIP end, does not want to be logged out by it.
SESSION_DAYS = 3650
#: Settings that `hupan_settings` may not change.
FIXED = ("data_dir", "database_url", "secret_file", "host", "port", "web_port", "workers")


# ---------------------------------------------------------------- what a test sees


class People(list["Person"]):
    """The fixed people, in the order of their ids: `users[0]`, or `users[7000001]` by id."""

    @overload
    def __getitem__(self, key: SupportsIndex) -> Person: ...
    @overload
    def __getitem__(self, key: slice) -> list[Person]: ...
    def __getitem__(self, key: SupportsIndex | slice) -> Person | list[Person]:
        if isinstance(key, slice) or int(key) < self.first.id:
            return super().__getitem__(key)
        place = int(key) - self.first.id
        if place >= len(self):
            raise LookupError(f"{key} is nobody: there are {self.first.id} to {self.last.id}")
        return super().__getitem__(place)

    @property
    def first(self) -> Person:
        return super().__getitem__(0)

    @property
    def last(self) -> Person:
        return super().__getitem__(-1)


class Outbox:
    """What the server sent by short message and by mail."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._given: dict[str, int] = {}

    def messages(self, to: str = "") -> list[Letter]:
        """Everything that was sent, newest first; `to` is a number or an address."""
        return self._stand.letters(to)

    def wait_for(self, to: str, timeout: float = 5) -> Letter:
        """The newest letter to somebody that was not returned before; has `.code` and `.text`.

        Raises:
            TimeoutError: there was none within so many seconds; the text says what there is.
        """
        # Steps are counted, because a test may have stopped the machine's clock.
        for step in range(int(timeout / LOOK) + 1):
            if step:
                time.sleep(LOOK)
            for letter in self.messages(to)[:1]:
                # Kept by the address as it was sent to, which a test may write in many ways.
                if letter.id > self._given.get(letter.destination, 0):
                    self._given[letter.destination] = letter.id
                    return letter
        there = [f"{letter.channel} to {letter.destination}" for letter in self.messages()]
        raise TimeoutError(
            f"nothing new was sent to {to} within {timeout} s;"
            f" in the outbox: {', '.join(there[:SHOWN]) or 'nothing'}"
        )

    def forget_given(self) -> None:
        """Letters are numbered anew after a change of the whole state."""
        self._given.clear()


class Request:
    """One request and its answer, decoded."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def method(self) -> str:
        return self.entry.method

    @property
    def token(self) -> str:
        return self.entry.token

    @property
    def decoded(self) -> Any:
        """What was sent, by the names of the fields; None for junk."""
        return self.entry.request.decoded

    @property
    def answer(self) -> Any:
        """What was answered, with the envelope under `status`; None for junk."""
        return self.entry.answer.decoded

    @property
    def code(self) -> int | None:
        """The code of the envelope: 1 is a success."""
        return self.entry.code

    @property
    def msg(self) -> str:
        return self.entry.msg

    @property
    def warnings(self) -> list[str]:
        """What was odd about the request."""
        return list(self.entry.warnings)

    def __str__(self) -> str:
        entry = self.entry
        lines = [
            f"#{entry.id} {entry.method} {entry.path} {_short(self.decoded)}",
            f"   -> {entry.status} {_short(self.answer)}  {entry.ms} ms"
            + (f"  [fault: {entry.fault}]" if entry.fault else ""),
            *(f"   ! {warning}" for warning in entry.warnings),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.method} {self.path} {_short(self.decoded)} -> {self.code}>"


def _short(value: Any) -> str:
    """A decoded message in one line, without what nobody reads, such as a picture."""

    def cut(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: cut(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [cut(inner) for inner in part]
        return part[:LONGEST] + "…" if isinstance(part, str) and len(part) > LONGEST else part

    said = "" if value in (None, {}) else json.dumps(cut(value), ensure_ascii=False, default=repr)
    return said if len(said) <= WIDEST else said[:WIDEST] + " …"


class Requests(Sequence[Request]):
    """The requests since the test began, oldest first."""

    def __init__(self, stand: Stand) -> None:
        self._journal = stand.journal

    @overload
    def __getitem__(self, key: int) -> Request: ...
    @overload
    def __getitem__(self, key: slice) -> list[Request]: ...
    def __getitem__(self, key: int | slice) -> Request | list[Request]:
        return [Request(entry) for entry in self._journal.entries()][key]

    def __len__(self) -> int:
        return len(self._journal.entries())

    @property
    def paths(self) -> list[str]:
        """The path of every request."""
        return [entry.path for entry in self._journal.entries()]

    @property
    def unimplemented(self) -> list[str]:
        """The paths that are not of the user module, each once; they answered 404."""
        return self._journal.unimplemented

    def __repr__(self) -> str:
        return repr(list(self))


class Sandbox:
    """A whole server in this process, and everything that a test may look at or change.

    Attributes:
        url: of the API host, such as `http://127.0.0.1:40123`.
        web_url: of the web host.
        users: the fixed people, with their passwords and tokens.
        outbox: what was sent.
        clock: the one clock of codes, VIP, bans and sessions: `advance(days=…)`, `freeze()`, `set`.
        faults: late, broken and refused answers: `add("/v1/user/info", "truncate", times=1)`.
        requests: what was asked.
        asgi: the API host as an ASGI application.
    """

    def __init__(self, stand: Stand, url: str, web_url: str) -> None:
        from hupan.sandbox import people

        self._stand = stand
        self.url = url
        self.web_url = web_url
        self.users = People(people.everybody())
        self.outbox = Outbox(stand)
        self.clock: SandboxClock = stand.clock
        self.faults: Faults = stand.faults
        self.requests = Requests(stand)
        self.asgi: App = stand.hosts.api
        self._clients: list[Client] = []

    def client(self, token: str = "", user: Person | int | None = None) -> Client:
        """The SDK, speaking to this server, with a token or as one of the people or ids."""
        import httpx2

        from hupan.client import Client

        if token and user is not None:
            raise ValueError("a token or a user, not both")
        if user is not None:
            token = (self.users[user] if isinstance(user, int) else user).token
        # A proxy that the environment names could not reach this machine.
        http = httpx2.Client(timeout=30, trust_env=False)
        self._clients.append(Client(self.url, web_url=self.web_url, token=token, http=http))
        return self._clients[-1]

    def captcha(self, captcha_id: str) -> str:
        """What the picture of this id shows.

        Raises:
            LookupError: this server made no such captcha.
        """
        from hupan.accounts import captchas

        found = captchas.solution(self._stand.world, captcha_id)
        if found is None:
            raise LookupError(f"no captcha of this server has the id {captcha_id!r}")
        return found

    def reset(self) -> None:
        """Begin anew, as before each test."""
        self._stand.reset()
        self.outbox.forget_given()

    def snapshot(self, name: str) -> None:
        """Keep the present state under a name, for this test and for later ones."""
        from hupan.sandbox.stand import FRESH

        if not name or name == FRESH:
            raise ValueError(f"a snapshot needs a name, other than {FRESH!r}")
        self._stand.save(name)

    def restore(self, name: str) -> None:
        """Put a kept state back.

        Raises:
            LookupError: nothing was kept under this name.
        """
        self._stand.restore(name)
        self.outbox.forget_given()

    @contextlib.contextmanager
    def clients_closed(self) -> Iterator[None]:
        """Close what `client` makes meanwhile; those of wider fixtures stay open."""
        before = len(self._clients)
        try:
            yield
        finally:
            while len(self._clients) > before:
                self._clients.pop().http.close()

    def report(self) -> list[tuple[str, str]]:
        """What is shown below a test that failed: titles and texts."""
        asked = [str(one) for one in self.requests[-SHOWN:]]
        sent = [
            f"{letter.channel} to {letter.destination} ({letter.purpose}): {letter.text}"
            for letter in reversed(self.outbox.messages()[:SHOWN])
        ]
        return [
            ("hupan: the last requests", "\n".join(asked) or "none"),
            ("hupan: outbox", "\n".join(sent) or "empty"),
        ]


# ---------------------------------------------------------------- the server behind it


class _Running:
    """The one server of a process: a stand, and a thread in which its listeners run."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from hupan.sandbox.routes import routes
        from hupan.sandbox.stand import Stand

        self._end = contextlib.ExitStack()
        with contextlib.ExitStack() as end:
            self.folder = Path(
                end.enter_context(tempfile.TemporaryDirectory(prefix="hupan-pytest-"))
            )
            end.enter_context(_own_log())
            ports = [self._reserve(end) for _ in range(2)]
            self.stand = Stand(
                _settings(self.folder / "data", port=ports[0], web_port=ports[1], **settings)
            )
            end.callback(self.stand.close)
            self.stand.open(routes(self.stand))
            self._listen_in_thread(end)
            hosts = self.stand.hosts
            for app, port in zip((hosts.api, hosts.web), ports, strict=True):
                self._listen(app, port)
            self.sandbox = Sandbox(self.stand, *(f"http://127.0.0.1:{port}" for port in ports))
            end.enter_context(self.sandbox.clients_closed())
            self.ports = {80: ports}
            self._end = end.pop_all()

    def close(self) -> None:
        """End everything."""
        self._end.close()

    @staticmethod
    def _reserve(end: contextlib.ExitStack) -> int:
        """A port of our own. It stays bound here, without listening, so that nobody else gets it
        before the server does, which shares it."""
        holder = end.enter_context(socket.socket())
        if hasattr(socket, "SO_REUSEPORT"):
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if not hasattr(socket, "SO_REUSEPORT"):
            holder.close()
        return port

    def _listen_in_thread(self, end: contextlib.ExitStack) -> None:
        import asyncio

        # Not the loop of the test run's policy, which a test may have changed.
        self._loop = asyncio.SelectorEventLoop()
        self._servers: list[tuple[Server, asyncio.Task[None]]] = []
        end.callback(self._loop.close)
        thread = threading.Thread(target=self._loop.run_forever, name="hupan", daemon=True)
        end.callback(thread.join, 10)
        end.callback(self._loop.call_soon_threadsafe, self._loop.stop)
        end.callback(
            lambda: asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result(10)
        )
        thread.start()

    async def _end_all(self) -> None:
        """Stop listening; whatever still waits for its time, as a delayed answer does, is cut."""
        import asyncio

        for server, _ in self._servers:
            server.stop()  # type: ignore[no-untyped-call]  # granian annotates no methods here.
        tasks = [task for _, task in self._servers]
        if tasks:
            await asyncio.wait(tasks, timeout=3)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()

    def _listen(self, app: App, port: int, certificate: tuple[Path, Path] | None = None) -> None:
        """Start a listener and wait until it answers."""
        import asyncio

        from granian.constants import Interfaces, SSLProtocols
        from granian.server.embed import Server

        async def start() -> asyncio.Task[None]:
            cert, key = certificate or (None, None)
            with _no_logging_by_granian():
                server = Server(
                    app,
                    address="127.0.0.1",
                    port=port,
                    interface=Interfaces.ASGINL,
                    websockets=False,
                    log_enabled=False,
                    ssl_cert=cert,
                    ssl_key=key,
                    ssl_protocol_min=SSLProtocols.tls12,
                )
            task = asyncio.create_task(server.serve())
            self._servers.append((server, task))
            return task

        task = asyncio.run_coroutine_threadsafe(start(), self._loop).result(LONGEST_START)
        for _ in range(int(LONGEST_START / LOOK)):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if task.done():
                break
            time.sleep(LOOK)
        raise RuntimeError(f"the sandbox's server does not listen on port {port}")

    def targets(self) -> tuple[dict[str, tuple[str, int]], Path]:
        """Where the hosts of production are answered, and the certificate to trust."""
        from hupan.sandbox.authority import Authority
        from hupan.sandbox.proxy import HOSTS

        authority = Authority(self.folder / "authority")
        if 443 not in self.ports:
            certificate = authority.certificate(HOSTS)
            ports = [self._reserve(self._end) for _ in HOSTS]
            hosts = self.stand.hosts
            for app, port in zip((hosts.api, hosts.web), ports, strict=True):
                self._listen(app, port, certificate)
            self.ports[443] = ports
        targets = {
            f"{host}:{official}": ("127.0.0.1", port)
            for official, ports in self.ports.items()
            for host, port in zip(HOSTS, ports, strict=True)
        }
        return targets, authority.ca_pem


def _settings(folder: Path, **more: Any) -> Any:
    """Settings that come from here alone: a test must not depend on whose machine it runs on."""
    from hupan.settings import Settings

    class Ours(Settings):
        @classmethod
        def settings_customise_sources(cls, *_: Any, **sources: Any) -> Any:
            return (sources["init_settings"],)

    given: dict[str, Any] = {
        "data_dir": folder,
        "limit_sources": False,
        "session_idle_days": SESSION_DAYS,
        "session_life_days": SESSION_DAYS,
        # Strong hashes protect nobody here, and cost a test 50 ms each.
        "argon2_memory_kib": 8,
        "argon2_time": 1,
        # Nothing leaves: letters are read where they are queued.
        "deliver_sms": [],
        "deliver_email": [],
    }
    return Ours(**(given | more))


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """Log into pytest's report, and only what is wrong, however the tested code sets up its own."""
    import structlog

    from hupan.server import door

    before, level = door.log, logging.getLogger("alembic").level
    logging.getLogger("alembic").setLevel(logging.WARNING)
    door.log = structlog.wrap_logger(
        logging.getLogger("hupan.door"),
        processors=[
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            )
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=True,
    )
    try:
        yield
    finally:
        door.log = before
        logging.getLogger("alembic").setLevel(level)


@contextlib.contextmanager
def _no_logging_by_granian() -> Iterator[None]:
    """Keep granian from setting up logging, which closes all handlers of the test run."""
    import granian.server.common

    common: Any = granian.server.common
    before = common.configure_logging
    common.configure_logging = lambda *_: None
    logging.getLogger("_granian").setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        common.configure_logging = before


# ---------------------------------------------------------------- fixtures

_running: _Running | None = None
_USED = pytest.StashKey[Sandbox]()


@pytest.fixture(scope="session")
def hupan_server(pytestconfig: pytest.Config) -> Iterator[Sandbox]:
    """The server of the whole run, for fixtures of a wider scope. It is not reset for them."""
    global _running
    wrong = ""
    if _running is not None:
        wrong = (
            "a hupan server runs in this process already, for the pytest run around this one;"
            " run the inner one in a process of its own: pytester.runpytest_subprocess()"
        )
    else:
        try:
            _running = _Running(_settings_of(pytestconfig))
        except ImportError as error:
            wrong = _missing(error)
        except ValueError as error:
            if not pytestconfig.getini("hupan_settings"):
                raise
            wrong = f"hupan_settings: {_reason(error)}"
    if wrong or _running is None:
        _stop(wrong)
    try:
        yield _running.sandbox
    finally:
        running, _running = _running, None
        running.close()


@pytest.fixture
def hupan(hupan_server: Sandbox, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A server with the fixed people and nothing else, fresh for this test."""
    request.node.stash[_USED] = hupan_server
    hupan_server.reset()
    with hupan_server.clients_closed():
        yield hupan_server


@pytest.fixture
def hupan_redirect(hupan: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """The real hosts lead to this server, with TLS, in this process and during this test.

    Other hosts of the service raise an OSError.
    """
    from hupan.sandbox import redirect
    from hupan.sandbox.proxy import DOMAIN

    assert _running is not None
    if redirect.installed():
        _stop("hosts are redirected already in this process; call redirect.uninstall() first")
    wrong = ""
    try:
        targets, ca = _running.targets()
    except ImportError as error:
        wrong = _missing(error)
    if wrong:
        _stop(wrong)
    # A proxy of the environment would be asked for the real hosts.
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), DOMAIN))))
    redirect.install(targets)
    try:
        redirect.trust(str(ca))
        yield hupan
    finally:
        redirect.uninstall()


@pytest.fixture
def hupan_asgi(hupan: Sandbox) -> App:
    """The API host as an ASGI application, for the ASGI transports of httpx and httpx2."""
    return hupan.asgi


def _stop(text: str) -> NoReturn:
    """End a fixture with one sentence; where in this file it was said helps nobody."""
    pytest.fail(text, pytrace=False)


def _missing(error: ImportError) -> str:
    return f'this fixture needs the sandbox: pip install "hupan[sandbox]" ({error})'


def _reason(error: Exception) -> str:
    """What was wrong with a setting, in one line and without the class that found it."""
    found = getattr(error, "errors", None)
    if found is None:
        return str(error)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found())


# ---------------------------------------------------------------- hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "hupan_settings",
        type="linelist",
        default=[],
        help="Settings of the sandbox's server, `name = value` a line, such as `language = en`.",
    )


def _settings_of(config: pytest.Config) -> dict[str, Any]:
    """The lines of `hupan_settings`, read.

    Raises:
        ValueError: a line is no setting, or one that a test run cannot choose.
    """
    from hupan.settings import Settings

    read = {}
    for line in config.getini("hupan_settings"):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ValueError(f"{line!r} is not `name = value`")
        if name in FIXED:
            raise ValueError(f"{name} is the plugin's own business")
        if name not in Settings.model_fields:
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no setting {name}{hint}")
        read[name] = value
    return read


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Be loaded once: by the entry point, by `-p hupan.pytest_plugin` or by `pytest_plugins`."""
    if plugin is sys.modules[__name__]:
        for name in NAMES:
            if manager.get_plugin(name) is None:
                manager.set_blocked(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the last requests and the outbox below a test that failed."""
    report = yield
    if report.failed and _running is not None:
        # Fixtures of a wider scope use the server without asking for `hupan`.
        wide = "hupan_server" in getattr(item, "fixturenames", ())
        sandbox = item.stash.get(_USED, _running.sandbox if wide else None)
        if sandbox is not None:
            report.sections += _report(sandbox)
    return report


def _report(sandbox: Sandbox) -> list[tuple[str, str]]:
    try:
        return sandbox.report()
    except Exception as error:
        # Whatever a test did to the server, its own failure is what must be shown.
        return [("hupan", f"the requests cannot be shown: {error!r}")]
