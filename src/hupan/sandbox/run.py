"""One command beside a sandbox: its production addresses lead here, and nowhere else.

The stand listens on this machine, with and without TLS; the command gets an environment in which
its clients find the proxy, the certificate and, for Python and Node, a redirection below all of
their libraries. When the command ends, so does the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from hupan.outside.post import Post
from hupan.sandbox.authority import TRUSTSTORE_PASSWORD, Authority, NoTruststore
from hupan.sandbox.journal import Entry
from hupan.sandbox.proxy import API_HOST, HOSTS, WEB_HOST, Proxy
from hupan.sandbox.stand import Stand
from hupan.server.app import App, Receive, Scope, Send
from hupan.settings import SettingsError

__all__ = ["PROXIES", "ByHost", "Ports", "Summary", "environment", "reason_against", "run"]

#: Every variable by which a proxy is named, or passed by.
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
#: The address of `--host` that lets devices in; it is the caller who asks for it.
EVERYWHERE = "0.0.0.0"  # noqa: S104
LOOPBACK = "localhost,127.0.0.1,::1"
#: Variables that name a file of certificates, and whose file replaces the normal ones.
BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: Variables that name a file of certificates beside the normal ones.
EXTRAS = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
#: Exit codes of a command that cannot be started, as shells have them.
NOT_EXECUTABLE, NOT_FOUND, KILLED = 126, 127, 128
#: Lines of each list in the summary, and seconds that requests get to come to their end.
LISTED, DRAIN = 20, 2.0
#: What is handed on to the command.
PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

Say = Callable[[str], None]


# ---------------------------------------------------------------- ports


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the sandbox of a run listens, held until it does.

    `near` is the address at which this machine reaches them.
    """

    host: str
    api: int
    web: int
    tls: int
    proxy: int
    held: Mapping[str, socket.socket]

    @classmethod
    def hold(
        cls,
        host: str = "127.0.0.1",
        *,
        api: int | None = None,
        web: int | None = None,
        tls: int | None = None,
        proxy: int | None = None,
    ) -> Ports:
        """Take these ports, and free ones for those that are None.

        Raises:
            SettingsError: one of them is taken, or there is no such address here.
        """
        held: dict[str, socket.socket] = {}
        wanted = {"api": api, "web": web, "tls": tls, "proxy": proxy}
        host = "127.0.0.1" if host == "localhost" else host
        if host != EVERYWHERE and not host.startswith("127."):
            raise SettingsError(f"--host is an address of 127.0.0.0/8, or {EVERYWHERE} for devices")
        try:
            for name, port in wanted.items():
                held[name] = _hold(host, name, port)
        except SettingsError:
            for one in held.values():
                one.close()
            raise
        numbers = {name: int(one.getsockname()[1]) for name, one in held.items()}
        return cls(host=host, **numbers, held=held)

    @property
    def near(self) -> str:
        return "127.0.0.1" if self.host == EVERYWHERE else self.host

    @property
    def ways(self) -> dict[tuple[str, int], tuple[str, int]]:
        """The listener that stands in for each host and port."""
        return {
            (API_HOST, 443): (self.near, self.tls),
            (WEB_HOST, 443): (self.near, self.tls),
            (API_HOST, 80): (self.near, self.api),
            (WEB_HOST, 80): (self.near, self.web),
        }

    def release(self, *names: str) -> None:
        """Give them up, or only these."""
        for name in names or tuple(self.held):
            self.held[name].close()


def _hold(host: str, name: str, port: int | None) -> socket.socket:
    try:
        if port is not None:
            # A listener that shares its port with others would quietly share this one too.
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        one = socket.socket()
        if hasattr(socket, "SO_REUSEPORT"):
            # Nobody else gets it, and the listener, which shares too, takes it over.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((host, port or 0))
    except OSError as error:
        where = f"{host}:{port}" if port else host
        option = "--port" if name == "api" else f"--{name}-port"
        choose = f"{option}, or leave it out for a free one" if port else "--host"
        raise SettingsError(
            f"{where} cannot be listened on ({error.strerror}); choose another {choose}"
        ) from error
    return one


# ---------------------------------------------------------------- the command


def reason_against(command: Sequence[str]) -> tuple[int, str]:
    """An exit code and the reason where there is no such program; else 0 and nothing."""
    name = command[0]
    if shutil.which(name) is not None:
        return 0, ""
    if os.sep not in name:
        return NOT_FOUND, f"{name}: there is no such command on the PATH"
    if not Path(name).exists():
        return NOT_FOUND, f"{name}: there is no such file"
    return NOT_EXECUTABLE, f"{name} cannot be executed"


def environment(
    ports: Ports, authority: Authority, folder: Path, caller: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The environment of the command, and what a person should know about it.

    Args:
        ports: where the sandbox listens.
        authority: the one whose certificates it shows.
        folder: where the files go that the variables name; it has to outlive the command.
        caller: the environment of whoever starts the command.
    """
    ours, words = dict(caller), list[str]()
    replaced = sorted(
        name for name in caller if name.upper() in PROXIES and caller[name] not in ("", LOOPBACK)
    )
    if replaced:
        # Their values may hold a password, so only the names are said.
        words.append(f"{', '.join(replaced)}: replaced for the command by the sandbox's own proxy")
    proxy = f"http://{ports.near}:{ports.proxy}"
    for name in PROXIES:
        value = LOOPBACK if name == "NO_PROXY" else proxy
        ours[name] = ours[name.lower()] = value

    # Copies, so that nothing changes under the command if the authority is made anew meanwhile.
    ca_pem = folder / "ca.pem"
    shutil.copyfile(authority.ca_pem, ca_pem)
    bundle = authority.bundle(folder / "bundle.pem")
    for name in BUNDLES:
        ours[name] = str(_extended(authority, folder, name, caller) or bundle)
    for name in EXTRAS:
        ours[name] = str(_extended(authority, folder, name, caller) or ca_pem)

    ways = {f"{host}:{port}": list(way) for (host, port), way in ports.ways.items()}
    ours["HUPAN_REDIRECT"] = json.dumps({"targets": ways, "ca": str(ca_pem)})
    python = str(_python_folder(folder))
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, (python, caller.get("PYTHONPATH"))))
    preload = str(Path(__file__).with_name("preload.js"))
    escaped = preload.replace("\\", "\\\\").replace('"', '\\"')
    ours["NODE_OPTIONS"] = _added(caller.get("NODE_OPTIONS"), f'--require "{escaped}"')
    ours["NODE_USE_ENV_PROXY"] = "1"

    store: Path | None = None
    try:
        store = authority.truststore(folder / "truststore.p12")
    except NoTruststore as error:
        words.append(str(error))
    # Without a trust store Java still has to come here, to fail, and not to go to production.
    ours["JAVA_TOOL_OPTIONS"] = _added(
        caller.get("JAVA_TOOL_OPTIONS"), *_java(ports, store, _java_hosts(folder))
    )
    return ours, words


def _extended(
    authority: Authority, folder: Path, name: str, caller: Mapping[str, str]
) -> Path | None:
    """The caller's own file of certificates with ours, if there is one."""
    own = Path(caller.get(name) or folder)
    return authority.bundle(folder / f"{name.lower()}.pem", own) if own.is_file() else None


def _added(had: str | None, *more: str) -> str:
    return " ".join(filter(None, (had, *more)))


def _python_folder(folder: Path) -> Path:
    """A folder for `PYTHONPATH`, from which every Python loads the redirection at its start."""
    made = folder / "python"
    made.mkdir(exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("redirect.py"), made / "sitecustomize.py")
    return made


def _java(ports: Ports, store: Path | None, hosts: Path) -> list[str]:
    """Options of a Java machine; words with a blank in them are quoted as it reads them."""
    properties = {
        **{
            f"{scheme}.proxy{part}": value
            for scheme in ("https", "http")
            for part, value in (("Host", ports.near), ("Port", str(ports.proxy)))
        },
        # Its look-ups go to this file and to no name server.
        "jdk.net.hosts.file": str(hosts),
    }
    if store is not None:
        properties |= {
            "javax.net.ssl.trustStore": str(store),
            "javax.net.ssl.trustStoreType": "PKCS12",
            "javax.net.ssl.trustStorePassword": TRUSTSTORE_PASSWORD,
        }
    words = [f"-D{name}={value}" for name, value in properties.items()]
    return [f'"{word}"' if " " in word else word for word in words]


def _java_hosts(folder: Path) -> Path:
    path = folder / "java-hosts"
    path.write_text(f"127.0.0.1 localhost {socket.gethostname()}\n::1 localhost\n", "utf-8")
    return path


# ---------------------------------------------------------------- what is told at the end


class Summary:
    """Counts what the command asked for. It listens to the stand, so a reset takes nothing away."""

    def __init__(self) -> None:
        self.requests = self.refused = self.warned = 0
        self.endpoints: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.foreign: Counter[str] = Counter()

    def note(self, entry: Entry) -> None:
        """Count a request."""
        self.requests += 1
        name = f"{entry.method} {entry.path}"
        _count(self.endpoints if entry.implemented else self.foreign, name)
        if entry.implemented and entry.code != 1:
            self.refused += 1
        self.warned += len(entry.warnings)
        for warning in entry.warnings:
            _count(self.warnings, f"{entry.path}: {warning}")

    def lines(self, proxy: Proxy, code: int) -> list[str]:
        """What is told."""
        parts = [
            _many(self.requests, "request"),
            _many(len(self.endpoints), "endpoint"),
            f"{self.refused} refused",
            _many(self.warned, "warning"),
            f"the command ended with {code}",
        ]
        lines = [f"hupan run: {', '.join(parts)}"]
        lines += _list("", self.endpoints)
        lines += _list("warnings", self.warnings)
        lines += _list("not of the user module, answered with 404", self.foreign)
        lines += _list("other hosts, refused and never contacted", proxy.refused)
        if not self.requests and proxy.tunnels:
            lines.append(
                "  connections came, but no request: the command may not trust the certificate"
                " (`hupan intercept hosts` tells where it is)"
            )
        elif not self.requests and not proxy.refused:
            lines.append(
                "  nothing came: the command may take no notice of the proxy variables"
                " (`hupan intercept hosts` tells other ways)"
            )
        return lines


def _count(counter: Counter[str], name: str) -> None:
    # What a program makes up without end is counted together.
    counter[name if name in counter or len(counter) < 1000 else "…"] += 1


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _list(title: str, counter: Counter[str]) -> list[str]:
    if not counter:
        return []
    lines = [f"  {title}:"] if title else []
    for name, count in counter.most_common(LISTED):
        shown = "".join(sign if sign.isprintable() else "?" for sign in name)
        lines.append(f"  {count:>6}  {shown}")
    left = len(counter) - LISTED
    return [*lines, f"          … and {left} more"] if left > 0 else lines


# ---------------------------------------------------------------- running


class ByHost:
    """One listener for both hosts: the request says which of them is meant."""

    def __init__(self, api: App, web: App) -> None:
        self.api = api
        self.web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1")
        host = named.partition(":")[0].lower()
        await (self.web if host == WEB_HOST else self.api)(scope, receive, send)


async def run(
    stand: Stand,
    ports: Ports,
    authority: Authority,
    command: Sequence[str],
    *,
    folder: Path,
    say: Say,
) -> int:
    """Run a command beside an open stand and tell what it did. Returns the exit code.

    Args:
        stand: with its hosts made; it is closed in the end.
        ports: held ones, given up in the end.
        authority: whose certificate the TLS listener shows.
        command: the program and its words.
        folder: for the files that the command's variables name.
        say: takes what a person should read.
    """
    summary, proxy = Summary(), Proxy(ports.ways)
    stand.listeners.append(summary.note)
    ours, words = environment(ports, authority, folder, os.environ)
    for word in (authority.note, *words):
        if word:
            say(f"hupan run: {word}")
    cert_pem, key_pem = authority.certificate(HOSTS)
    both = ByHost(stand.hosts.api, stand.hosts.web)
    servers = [
        _listener(both, ports.host, ports.api),
        _listener(stand.hosts.web, ports.host, ports.web),
        _listener(both, ports.host, ports.tls, ssl_cert=cert_pem, ssl_key=key_pem,
                  ssl_protocol_min=SSLProtocols.tls12),
    ]  # fmt: skip
    post = Post(stand.world, stand.bell)
    code = 1
    if sys.platform != "linux":
        # Only there a port can be held and taken over.
        ports.release("api", "web", "tls")
    running = [asyncio.create_task(server.serve()) for server in servers]
    running.append(asyncio.create_task(post.run()))
    try:
        with _Signals() as signals:
            begun = asyncio.create_task(_begin(proxy, ports))
            await asyncio.wait([begun, *running], return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                begun.cancel()
            else:
                begun.result()
                code = await _run_command(command, ours, signals, running)
    finally:
        await proxy.close()
        for server in servers:
            server.stop()  # type: ignore[no-untyped-call]  # granian annotates no methods here.
        await asyncio.wait(running[:-1], timeout=DRAIN)
        await post.drain()
        failed = [task.exception() for task in running if task.done() and not task.cancelled()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        ports.release()
        stand.close()
    for error in failed:
        if error is not None:
            raise error
    for line in summary.lines(proxy, code):
        say(line)
    return code


def _listener(app: Any, host: str, port: int, **tls: Any) -> Server:
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        websockets=False,
        log_enabled=False,
        backlog=1024,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        **tls,
    )


async def _begin(proxy: Proxy, ports: Ports) -> None:
    """Open the proxy, and wait until the listeners take connections."""
    await proxy.open(ports.held["proxy"])
    for port in (ports.api, ports.web, ports.tls):
        while True:
            try:
                _, writer = await asyncio.open_connection(ports.near, port)
            except OSError:
                await asyncio.sleep(0.005)
                continue
            writer.close()
            break


class _Signals:
    """Hands signals on to the command: those that came before it, as soon as it is there."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.early: list[int] = []
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (getattr(signal, name) for name in PASSED_ON if hasattr(signal, name)):
            self.before[number] = signal.signal(number, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def lead_to(self, process: asyncio.subprocess.Process) -> None:
        """From now on they are for this one."""
        self.process = process
        for number in self.early:
            self._send(number)

    def _come(self, number: int, _: FrameType | None) -> None:
        if self.process is None:
            self.early.append(number)
        elif not _typed(number):
            self._send(number)

    def _send(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


def _typed(number: int) -> bool:
    """Whether a signal was typed at a terminal, which sent it to the command as well."""
    if signal.Signals(number).name not in ("SIGINT", "SIGQUIT"):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False


async def _run_command(
    command: Sequence[str],
    ours: Mapping[str, str],
    signals: _Signals,
    running: list[asyncio.Task[None]],
) -> int:
    """Start it, and wait for its end or for that of the sandbox."""
    process = await asyncio.create_subprocess_exec(*command, env=ours)
    signals.lead_to(process)
    ended = asyncio.create_task(process.wait())
    await asyncio.wait([ended, *running], return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        # Without the sandbox it could only fail, and slowly.
        process.terminate()
    code = await ended
    # A shell says it in the same way.
    return KILLED - code if code < 0 else code
