"""The redirection alone: what it takes over, what it refuses, and that it goes without a trace."""

from __future__ import annotations

import ast
import asyncio
import errno
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp.resolver
import anyio
import httpx
import pytest
import truststore
import uvloop

from hupan.sandbox import redirect
from hupan.sandbox.authority import Authority

API, WEB = "chat-go.jwzhd.com", "chat-web-go.jwzhd.com"
#: A host of the service that no sandbox stands in for.
OTHER = "chat-ws-go.jwzhd.com"
SOURCE = Path(redirect.__file__)


class Place:
    """A listener on this machine that says its name to whoever connects, perhaps through TLS."""

    def __init__(self, name: str, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.tls = tls
        #: The names that clients asked for in their handshakes.
        self.asked: list[str | None] = []
        if tls is not None:
            tls.sni_callback = lambda _, name, __: self.asked.append(name)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            one.settimeout(10)
            try:
                if self.tls is not None:
                    one = self.tls.wrap_socket(one, server_side=True)
                one.sendall(self.name.encode())
            except OSError:
                # A client that does not believe the certificate goes away.
                pass
            one.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place("here")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    redirect.uninstall()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[Place]:
    """A listener with a certificate for the real host."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.certificate([API]))
    made = Place("here", context)
    yield made
    made.close()


def heard(one: socket.socket) -> str:
    with one:
        one.settimeout(10)
        return one.recv(100).decode()


# ---------------------------------------------------------------- ways to connect


def by_name(host: str, port: int) -> str:
    """Connect to the name itself, which is resolved in C."""
    with socket.socket() as one:
        one.connect((host, port))
        return heard(one)


def by_code(host: str, port: int) -> str:
    """Connect as servers' health checks do, which want a number instead of an exception."""
    with socket.socket() as one:
        assert one.connect_ex((host, port)) == 0
        return heard(one)


def by_create_connection(host: str, port: int) -> str:
    return heard(socket.create_connection((host, port), timeout=10))


def by_old_look_up(host: str, port: int) -> str:
    with socket.socket() as one:
        one.connect((socket.gethostbyname(host), port))
        return heard(one)


def by_older_look_up(host: str, port: int) -> str:
    with socket.socket() as one:
        one.connect((socket.gethostbyname_ex(host)[2][0], port))
        return heard(one)


def by_service(host: str, port: int) -> str:
    """Look up with the name of the service instead of the number."""
    assert port == 443
    *_, address = socket.getaddrinfo(host, "https", type=socket.SOCK_STREAM)[0]
    with socket.socket() as one:
        one.connect(address)
        return heard(one)


def by_asyncio(host: str, port: int) -> str:
    return asyncio.run(_stream(host, port))


def by_uvloop(host: str, port: int) -> str:
    return uvloop.run(_stream(host, port))


async def _stream(host: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    said = (await reader.read(100)).decode()
    writer.close()
    await writer.wait_closed()
    return said


def by_anyio(host: str, port: int) -> str:
    return anyio.run(_anyio, host, port)


def by_anyio_on_uvloop(host: str, port: int) -> str:
    return anyio.run(_anyio, host, port, backend_options={"use_uvloop": True})


async def _anyio(host: str, port: int) -> str:
    async with await anyio.connect_tcp(host, port) as stream:
        return (await stream.receive(100)).decode()


def by_socket_of_a_loop(host: str, port: int) -> str:
    """As aiohttp does it: resolve, make a socket, let the loop connect it."""
    return asyncio.run(_of_a_loop(host, port))


def by_socket_of_uvloop(host: str, port: int) -> str:
    return uvloop.run(_of_a_loop(host, port))


async def _of_a_loop(host: str, port: int) -> str:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket() as one:
        one.setblocking(False)
        await loop.sock_connect(one, found[0][4])
        return (await loop.sock_recv(one, 100)).decode()


WAYS: list[Callable[[str, int], str]] = [
    by_name,
    by_code,
    by_create_connection,
    by_old_look_up,
    by_older_look_up,
    by_service,
    by_asyncio,
    by_uvloop,
    by_anyio,
    by_anyio_on_uvloop,
    by_socket_of_a_loop,
    by_socket_of_uvloop,
]


@pytest.mark.parametrize("connect", WAYS)
def test_every_way_to_connect_leads_to_the_place(
    connect: Callable[[str, int], str], place: Place
) -> None:
    """`sandbox.md`: the production host is answered on this machine; other hosts raise."""
    redirect.install({f"{API}:443": place.address})
    assert connect(API, 443) == "here"
    # Written in another way it is the same host.
    assert connect(API.upper(), 443) == "here"
    assert connect(API + ".", 443) == "here"
    with pytest.raises(OSError, match=OTHER) as refused:
        connect(OTHER, 443)
    assert refused.value.errno == errno.EHOSTUNREACH
    assert API in str(refused.value)


@pytest.mark.parametrize("connect", [by_anyio, by_anyio_on_uvloop, by_create_connection])
def test_answering_look_ups_alone_is_not_enough(
    connect: Callable[[str, int], str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: without the second half of the technique, these ways do not arrive."""

    def half(one: redirect._Redirect, owner: Any, name: str, new: Any) -> None:
        if name not in ("connect", "connect_ex", "create_connection"):
            patch(one, owner, name, new)

    patch = redirect._Redirect.patch
    monkeypatch.setattr(redirect._Redirect, "patch", half)
    redirect.install({f"{API}:443": place.address})
    with pytest.raises(OSError, match=r"refused|attempts failed"):
        connect(API, 443)


def test_each_host_has_a_place_and_each_port_too() -> None:
    places = [Place(name) for name in ("api", "api plain", "web")]
    redirect.install(
        {
            f"{API}:443": places[0].address,
            f"{API}:80": places[1].address,
            f"{WEB}:443": places[2].address,
        }
    )
    try:
        assert by_create_connection(API, 443) == "api"
        assert by_create_connection(API, 80) == "api plain"
        assert by_create_connection(WEB, 443) == "web"
        assert socket.gethostbyname(API) != socket.gethostbyname(WEB)
        assert socket.gethostbyname(API).startswith("127.83.")
        for connect in (by_name, by_create_connection, by_asyncio, by_uvloop):
            with pytest.raises(OSError, match=f"{WEB}:80 belongs to the real service"):
                connect(WEB, 80)
        # A port that nobody knows at the look-up is refused at the connection.
        marker = socket.gethostbyname(WEB)
        with pytest.raises(OSError, match=f"{WEB}:80 belongs"):
            by_name(marker, 80)
    finally:
        for place in places:
            place.close()


@pytest.mark.parametrize(
    "host", ["jwzhd.com", "www.jwzhd.com", "JWZHD.COM.", b"chat-ws-go.jwzhd.com"]
)
def test_hosts_of_the_service_are_refused(host: Any) -> None:
    redirect.install({f"{API}:443": ("127.0.0.1", 9)})
    for look_up in (
        lambda: socket.getaddrinfo(host, 443),
        lambda: socket.gethostbyname(host),
        lambda: socket.gethostbyname_ex(host),
    ):
        with pytest.raises(OSError, match="belongs to the real service") as refused:
            look_up()
        assert not isinstance(refused.value, socket.gaierror)


def test_everything_else_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that only look alike, and other ports of a target that is not of the service."""
    asked: list[tuple[Any, Any]] = []

    def look_up(host: Any, port: Any, *more: Any) -> list[Any]:
        asked.append((host, port))
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    redirect.install({f"{API}:443": place.address, "lake.example:443": place.address})
    for host, port in (
        ("notjwzhd.com", 443),
        ("jwzhd.com.example", 443),
        ("example.com", 443),
        ("lake.example", 80),
        (None, 80),
        ("127.0.0.1", 80),
    ):
        socket.getaddrinfo(host, port)
        assert asked[-1] == (host, port)
    socket.getaddrinfo("lake.example", 443)
    assert asked[-1][0].startswith("127.83.")
    assert by_name(*place.address) == "here"
    assert by_asyncio(*place.address) == "here"
    assert by_uvloop(*place.address) == "here"


def test_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    redirect.install({f"{API}:443": ("127.0.0.1", 9)})
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as one:
        listener.bind(path)
        listener.listen()
        one.connect(path)


def test_asking_for_a_number_asks_no_name_server() -> None:
    """A name is no number, and being told so takes no packet."""
    redirect.install({f"{API}:443": ("127.0.0.1", 9)})
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(OTHER, 443, flags=socket.AI_NUMERICHOST)
    # There is no IPv6 address to answer.
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(API, 443, socket.AF_INET6)


def test_a_resolver_of_its_own_is_led_here_too(place: Place) -> None:
    """With aiodns installed, aiohttp asks name servers without Python's look-ups."""

    async def ask() -> tuple[Any, Any]:
        # Made without its look-ups, so that using them would fail at once.
        one = aiohttp.resolver.AsyncResolver.__new__(aiohttp.resolver.AsyncResolver)
        found = await one.resolve(API, 443)
        with pytest.raises(OSError, match=OTHER):
            await one.resolve(OTHER, 443)
        with pytest.raises(AttributeError):
            await one.resolve("example.com", 443)
        return found[0]["host"], found[0]["hostname"]

    redirect.install({f"{API}:443": place.address})
    for run in (asyncio.run, uvloop.run):
        address, name = run(ask())
        assert address.startswith("127.83.")
        assert name == API


# ---------------------------------------------------------------- TLS


def tls_of_a_socket(context: ssl.SSLContext) -> str:
    with socket.create_connection((API, 443), timeout=10) as one:
        return heard(context.wrap_socket(one, server_hostname=API))


def tls_of_asyncio(context: ssl.SSLContext) -> str:
    return asyncio.run(_tls_stream(context))


def tls_of_uvloop(context: ssl.SSLContext) -> str:
    return uvloop.run(_tls_stream(context))


async def _tls_stream(context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection(API, 443, ssl=context)
    said = (await reader.read(100)).decode()
    writer.close()
    await writer.wait_closed()
    return said


def tls_of_anyio(context: ssl.SSLContext) -> str:
    async def run() -> str:
        async with await anyio.connect_tcp(
            API, 443, ssl_context=context, tls_standard_compatible=False
        ) as stream:
            return (await stream.receive(100)).decode()

    return anyio.run(run)


TLS = [tls_of_a_socket, tls_of_asyncio, tls_of_uvloop, tls_of_anyio]
CONTEXTS: dict[str, Callable[[], ssl.SSLContext]] = {
    "default": ssl.create_default_context,
    # It trusts nobody at all.
    "bare": lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    "truststore": lambda: truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
}


@pytest.mark.parametrize("connect", TLS)
@pytest.mark.parametrize("kind", CONTEXTS)
def test_the_certificate_is_believed_and_the_real_name_asked_for(
    connect: Callable[[ssl.SSLContext], str], kind: str, secure: Place, authority: Authority
) -> None:
    """TLS keeps the real host's name; contexts from before and from during work alike."""
    before = CONTEXTS[kind]()
    redirect.install({f"{API}:443": secure.address})
    # The mutant: the connection arrives, but nobody has a reason to believe it.
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(CONTEXTS[kind]())
    redirect.trust(str(authority.ca_pem))
    assert connect(before) == "here"
    assert connect(CONTEXTS[kind]()) == "here"
    assert secure.asked == [API] * 3
    redirect.uninstall()
    redirect.install({f"{API}:443": secure.address})
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(before)


def test_trust_ends_at_the_host_and_at_the_certificate(
    secure: Place, authority: Authority, tmp_path: Path
) -> None:
    """Only the redirected hosts are believed, and only with a certificate of this authority."""
    redirect.install({f"{API}:443": secure.address, "lake.example:443": secure.address})
    redirect.trust(str(authority.ca_pem))
    # The certificate names another host.
    with (
        socket.create_connection(("lake.example", 443), timeout=10) as one,
        pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"),
    ):
        ssl.create_default_context().wrap_socket(one, server_hostname="lake.example")
    # The name is none of the redirected ones.
    with (
        socket.create_connection(secure.address, timeout=10) as one,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(one, server_hostname="localhost")
    redirect.uninstall()
    redirect.install({f"{API}:443": secure.address})
    redirect.trust(str(Authority(tmp_path / "another").ca_pem))
    with pytest.raises(ssl.SSLCertVerificationError):
        tls_of_a_socket(ssl.create_default_context())


def test_whoever_checks_nothing_and_servers_are_left_alone(
    secure: Place, authority: Authority
) -> None:
    redirect.install({f"{API}:443": secure.address})
    redirect.trust(str(authority.ca_pem))
    careless = ssl._create_unverified_context()
    with socket.create_connection((API, 443), timeout=10) as one:
        wrapped = careless.wrap_socket(one, server_hostname=API)
        assert wrapped.context is careless
        assert heard(wrapped) == "here"
    assert secure.tls is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    assert secure.tls.wrap_bio(incoming, outgoing, server_side=True).context is secure.tls


def test_a_session_of_another_context_does_no_harm(secure: Place, authority: Authority) -> None:
    """A client that resumes sessions has one from its own context."""
    redirect.install({f"{API}:443": secure.address})
    redirect.trust(str(authority.ca_pem))
    context = ssl.create_default_context()
    with socket.create_connection((API, 443), timeout=10) as one:
        first = context.wrap_socket(one, server_hostname=API)
        heard(first)
    with socket.create_connection((API, 443), timeout=10) as one:
        session = first.session
        assert heard(context.wrap_socket(one, server_hostname=API, session=session)) == "here"


# ---------------------------------------------------------------- without a trace


def look() -> dict[str, Any]:
    """Everything that is patched, as it is now."""
    found: dict[str, Any] = {"meta_path": list(sys.meta_path)}
    for owner, names in (
        (socket, ("getaddrinfo", "gethostbyname", "gethostbyname_ex")),
        (socket.socket, ("connect", "connect_ex")),
        (uvloop.Loop, ("getaddrinfo", "create_connection")),
        (aiohttp.resolver.AsyncResolver, ("resolve",)),
        (ssl.SSLContext, ("wrap_socket", "wrap_bio")),
        (truststore.SSLContext, ("wrap_socket", "wrap_bio")),
    ):
        for name in names:
            found[f"{owner.__name__}.{name}"] = vars(owner).get(name, "inherited")
    return found


def test_nothing_stays_behind(authority: Authority) -> None:
    """After `uninstall` every patched thing is the very one that it was."""
    before = look()
    for _ in range(2):
        redirect.install({f"{API}:443": ("127.0.0.1", 9)})
        redirect.trust(str(authority.ca_pem))
        during = look()
        assert all(during[name] is not before[name] for name in before)
        assert redirect.installed()
        redirect.uninstall()
        assert look() == before
        assert not redirect.installed()
    # Once more does nothing.
    redirect.uninstall()


def test_bad_uses_get_a_clear_word(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"call install\(\) first"):
        redirect.trust(str(authority.ca_pem))
    redirect.install({f"{API}:443": ("127.0.0.1", 9)})
    with pytest.raises(RuntimeError, match=r"already in this process; call uninstall\(\) first"):
        redirect.install({})
    with pytest.raises(FileNotFoundError):
        redirect.trust(str(tmp_path / "absent.pem"))
    # What failed changed nothing.
    with pytest.raises(OSError, match=f"answered on this machine: {API}:443"):
        socket.getaddrinfo(OTHER, 443)


@pytest.mark.parametrize(
    ("key", "place", "says"),
    [
        (API, ("127.0.0.1", 1), "is no host and port"),
        (":443", ("127.0.0.1", 1), "is no host and port"),
        (f"{API}:https", ("127.0.0.1", 1), "is no host and port"),
        # A documentation address and a name: neither is asked for anything.
        (f"{API}:443", ("192.0.2.1", 443), "no IPv4 address of this machine"),
        (f"{API}:443", ("example.com", 443), "no IPv4 address of this machine"),
        (f"{API}:443", ("::1", 443), "no IPv4 address of this machine"),
        (f"{API}:443", ("127.0.0.1", 0), "no IPv4 address of this machine"),
        (f"{API}:443", ("127.0.0.1", 70_000), "no IPv4 address of this machine"),
    ],
)
def test_targets_that_make_no_sense(key: str, place: tuple[str, int], says: str) -> None:
    """Whatever is redirected stays on this machine."""
    before = look()
    with pytest.raises(ValueError, match=says):
        redirect.install({key: place})
    assert look() == before


def test_more_hosts_than_a_byte_counts() -> None:
    targets = {f"host-{number}.example:443": ("127.0.0.1", 9) for number in range(600)}
    redirect.install(targets)
    found = {socket.gethostbyname(f"host-{number}.example") for number in range(600)}
    assert len(found) == 600
    assert not any(address.endswith((".0", ".255")) for address in found)


# ---------------------------------------------------------------- in other Pythons


def bare_python() -> str:
    """A Python without this environment's packages."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


def run(
    *arguments: str, folders: tuple[Path, ...] = (), variable: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != redirect.VARIABLE}
    if folders:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    if variable is not None:
        environment[redirect.VARIABLE] = variable
    return subprocess.run(
        [*arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the file as Python loads it at every start."""
    made = tmp_path / "for python"
    made.mkdir()
    shutil.copyfile(SOURCE, made / "sitecustomize.py")
    return made


CONNECT = f"""
import socket, sys
assert "hupan" not in sys.modules
try:
    socket.create_connection(({OTHER!r}, 443))
except OSError as error:
    print(error)
print(socket.create_connection(({API!r}, 443), 10).recv(100).decode())
"""


def test_it_is_one_file_of_the_standard_library() -> None:
    """It is dropped into Pythons that have no hupan, and may be older than ours."""
    tree = ast.parse(SOURCE.read_text("utf-8"), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("form", ["targets", "whole"])
def test_as_sitecustomize(folder: Path, place: Place, form: str) -> None:
    """`HUPAN_REDIRECT` installs it, in a Python that has no hupan."""
    targets = {f"{API}:443": place.address}
    said: dict[str, Any] = dict(targets) if form == "targets" else {"targets": targets}
    done = run(bare_python(), "-c", CONNECT, folders=(folder,), variable=json.dumps(said))
    assert done.returncode == 0, done.stderr
    refused, arrived = done.stdout.splitlines()
    assert f"{OTHER}:443 belongs to the real service" in refused
    assert arrived == "here"
    assert done.stderr == ""


def test_as_sitecustomize_with_a_certificate(
    folder: Path, secure: Place, authority: Authority
) -> None:
    said = {"targets": {f"{API}:443": secure.address}, "ca": str(authority.ca_pem), "refuse": []}
    code = (
        "import socket, ssl\n"
        f"one = socket.create_connection(({API!r}, 443), 10)\n"
        f"one = ssl.create_default_context().wrap_socket(one, server_hostname={API!r})\n"
        "print(one.recv(100).decode())\n"
    )
    done = run(bare_python(), "-c", code, folders=(folder,), variable=json.dumps(said))
    assert done.stdout == "here\n", done.stderr


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("{", "Expecting"),
        ("[]", "no JSON object"),
        (json.dumps({API: ["127.0.0.1", 1]}), "is no host and port"),
        (json.dumps({f"{API}:443": 1}), "cannot unpack"),
        (json.dumps({"targets": {}, "ca": "absent.pem"}), "absent.pem"),
    ],
)
def test_a_value_that_cannot_be_used_stops_python(folder: Path, variable: str, says: str) -> None:
    """Going on would mean going to the real hosts."""
    done = run(bare_python(), "-c", "print('ran')", folders=(folder,), variable=variable)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("hupan: HUPAN_REDIRECT cannot be used: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("variable", [None, "", json.dumps({f"{API}:443": ["127.0.0.1", 9]})])
def test_it_does_not_hide_another_sitecustomize(
    folder: Path, tmp_path: Path, variable: str | None
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("print('the other one ran')\n")
    code = "import socket; print(socket.getaddrinfo.__module__)"
    done = run(bare_python(), "-c", code, folders=(folder, other), variable=variable)
    assert done.stderr == ""
    ran, module = done.stdout.splitlines()
    assert ran == "the other one ran"
    assert module == ("sitecustomize" if variable else "socket")


LATER = """
import sys
from hupan.sandbox import redirect

names = ("ssl", "truststore", "uvloop", "aiohttp.resolver")
assert not set(names) & set(sys.modules), set(names) & set(sys.modules)
redirect.install({"chat-go.jwzhd.com:443": ("127.0.0.1", 9)})
redirect.trust(sys.argv[1])
import aiohttp.resolver, ssl, truststore, uvloop

patched = [
    (uvloop.Loop, "getaddrinfo"), (uvloop.Loop, "create_connection"),
    (aiohttp.resolver.AsyncResolver, "resolve"), (ssl.SSLContext, "wrap_socket"),
    (truststore.SSLContext, "wrap_bio"),
]
for owner, name in patched:
    assert vars(owner)[name].__module__ == redirect.__name__, (owner, name)
for name in names:
    module = sys.modules[name]
    assert module.__loader__ is module.__spec__.loader
    assert type(module.__loader__).__module__ != redirect.__name__
redirect.uninstall()
for owner, name in patched:
    assert vars(owner).get(name) is None or vars(owner)[name].__module__ != redirect.__name__
print("as it was")
"""


def test_what_is_imported_later_is_patched_then(authority: Authority) -> None:
    done = run(sys.executable, "-W", "error", "-c", LATER, str(authority.ca_pem))
    assert done.stdout == "as it was\n", done.stderr


def test_a_module_that_is_only_looked_for_is_not_disturbed() -> None:
    """Some programs ask whether uvloop is there, and never import it."""
    code = (
        "import importlib.util\n"
        "from hupan.sandbox import redirect\n"
        "redirect.install({})\n"
        "spec = importlib.util.find_spec('uvloop')\n"
        "print(spec.origin.endswith('__init__.py'), spec.loader.is_package('uvloop'))\n"
        "print(importlib.util.find_spec('uvloop_that_is_not_there'))\n"
    )
    done = run(sys.executable, "-c", code)
    assert done.stdout == "True True\nNone\n", done.stderr


INJECTED = """
import asyncio, socket, ssl, sys
import truststore
old = ssl.create_default_context()
truststore.inject_into_ssl()
from hupan.sandbox import redirect

host, address, ca = sys.argv[1], ("127.0.0.1", int(sys.argv[2])), sys.argv[3]
redirect.install({f"{host}:443": address})
redirect.trust(ca)
for context in (old, ssl.create_default_context()):
    one = socket.create_connection((host, 443), 10)
    print(context.wrap_socket(one, server_hostname=host).recv(100).decode())
"""


def test_truststore_in_the_place_of_the_standard_class(secure: Place, authority: Authority) -> None:
    port = str(secure.address[1])
    done = run(sys.executable, "-c", INJECTED, API, port, str(authority.ca_pem))
    assert done.stdout == "here\nhere\n", done.stderr


def test_both_at_once(folder: Path, place: Place) -> None:
    """`hupan_redirect` under `hupan run`: the inner redirection wins, and the outer comes back."""
    outer = Place("outer")
    code = (
        "import asyncio, socket, sys, uvloop\n"
        "from hupan.sandbox import redirect\n"
        "async def ask():\n"
        "    reader, writer = await asyncio.open_connection(sys.argv[1], 443)\n"
        "    said = (await reader.read(100)).decode()\n"
        "    writer.close()\n"
        "    return said\n"
        "def heard():\n"
        "    one = socket.create_connection((sys.argv[1], 443), 10)\n"
        "    return one.recv(100).decode(), asyncio.run(ask()), uvloop.run(ask())\n"
        "print(*heard())\n"
        "redirect.install({f'{sys.argv[1]}:443': ('127.0.0.1', int(sys.argv[2]))})\n"
        "print(*heard())\n"
        "redirect.uninstall()\n"
        "print(*heard())\n"
    )
    variable = json.dumps({f"{API}:443": outer.address})
    try:
        done = run(
            sys.executable, "-c", code, API, str(place.address[1]),
            folders=(folder,), variable=variable,
        )  # fmt: skip
    finally:
        outer.close()
    assert done.stdout.splitlines() == [
        "outer " * 2 + "outer",
        "here here here",
        "outer outer outer",
    ], done.stderr


def test_the_error_reaches_a_client_as_its_own_kind() -> None:
    """Clients map errors of the network; the sentence survives that."""
    redirect.install({f"{API}:443": ("127.0.0.1", 9)})
    with pytest.raises(httpx.ConnectError, match=f"{OTHER}:443 belongs to the real service"):
        httpx.get(f"https://{OTHER}/")

    async def ask() -> None:
        async with aiohttp.ClientSession() as session:
            await session.get(f"https://{OTHER}/")

    runs: list[Callable[[Awaitable[None]], None]] = [asyncio.run, uvloop.run]  # type: ignore[list-item]
    for one in runs:
        with pytest.raises(aiohttp.ClientConnectorError, match=f"{OTHER}:443 belongs"):
            one(ask())
