"""Clients with the production hosts written into them, unchanged, each logging in and reading."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import uvloop

from hupan.protocol.user import User
from hupan.protocol.web import Web
from hupan.protocol.wire import decode_answer
from hupan.sandbox import redirect

if TYPE_CHECKING:
    from hupan.pytest_plugin import Sandbox

pytest_plugins = ("hupan.pytest_plugin",)

API = "https://chat-go.jwzhd.com"
WEB = "https://chat-web-go.jwzhd.com"
LOGIN, INFO, HOMEPAGE = "/v1/user/email-login", "/v1/user/info", "/v1/user/homepage?userId=7000002"
ME = {"email": "user1@example.com", "password": "password-1", "deviceId": "d", "platform": "bot"}

#: What a client read: its own account, and somebody's page on the web host.
Read = tuple[bytes, bytes]

#: Made when the module is imported, as many programs do; with pools and contexts of their own.
SESSION = requests.Session()
HTTPX = httpx.Client()
HTTPX2 = httpx2.Client()


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    for client in (SESSION, HTTPX, HTTPX2):
        client.close()


def by_requests(api: str = API, web: str = WEB) -> Read:
    token = requests.post(api + LOGIN, json=ME, timeout=10).json()["data"]["token"]
    info = requests.get(api + INFO, headers={"token": token}, timeout=10)
    return info.content, requests.get(web + HOMEPAGE, timeout=10).content


def by_old_session(api: str = API, web: str = WEB) -> Read:
    token = SESSION.post(api + LOGIN, json=ME, timeout=10).json()["data"]["token"]
    info = SESSION.get(api + INFO, headers={"token": token}, timeout=10)
    return info.content, SESSION.get(web + HOMEPAGE, timeout=10).content


def by_careless_requests(api: str = API, web: str = WEB) -> Read:
    """Some clients check no certificate at all."""
    with requests.Session() as session:
        session.verify = False
        pytest.importorskip("urllib3").disable_warnings()
        token = session.post(api + LOGIN, json=ME, timeout=10).json()["data"]["token"]
        info = session.get(api + INFO, headers={"token": token}, timeout=10)
        return info.content, session.get(web + HOMEPAGE, timeout=10).content


def by_httpx(api: str = API, web: str = WEB) -> Read:
    with httpx.Client() as client:
        return _by_client(client, api, web)


def by_old_httpx(api: str = API, web: str = WEB) -> Read:
    return _by_client(HTTPX, api, web)


def by_httpx2(api: str = API, web: str = WEB) -> Read:
    with httpx2.Client() as client:
        return _by_client(client, api, web)


def by_old_httpx2(api: str = API, web: str = WEB) -> Read:
    return _by_client(HTTPX2, api, web)


def _by_client(client: Any, api: str, web: str) -> Read:
    token = client.post(api + LOGIN, json=ME).json()["data"]["token"]
    info = client.get(api + INFO, headers={"token": token})
    return info.content, client.get(web + HOMEPAGE).content


async def _by_async_client(client: Any, api: str, web: str) -> Read:
    async with client:
        token = (await client.post(api + LOGIN, json=ME)).json()["data"]["token"]
        info = await client.get(api + INFO, headers={"token": token})
        return info.content, (await client.get(web + HOMEPAGE)).content


async def _by_aiohttp(api: str, web: str) -> Read:
    async with aiohttp.ClientSession() as session:
        async with session.post(api + LOGIN, json=ME) as answer:
            token = (await answer.json())["data"]["token"]
        async with session.get(api + INFO, headers={"token": token}) as answer:
            info = await answer.read()
        async with session.get(web + HOMEPAGE) as answer:
            return info, await answer.read()


def by_async_httpx(api: str = API, web: str = WEB) -> Read:
    return asyncio.run(_by_async_client(httpx.AsyncClient(), api, web))


def by_async_httpx_on_uvloop(api: str = API, web: str = WEB) -> Read:
    return uvloop.run(_by_async_client(httpx.AsyncClient(), api, web))


def by_async_httpx2(api: str = API, web: str = WEB) -> Read:
    return asyncio.run(_by_async_client(httpx2.AsyncClient(), api, web))


def by_async_httpx2_on_uvloop(api: str = API, web: str = WEB) -> Read:
    return uvloop.run(_by_async_client(httpx2.AsyncClient(), api, web))


def by_aiohttp(api: str = API, web: str = WEB) -> Read:
    return asyncio.run(_by_aiohttp(api, web))


def by_aiohttp_on_uvloop(api: str = API, web: str = WEB) -> Read:
    return uvloop.run(_by_aiohttp(api, web))


def by_urllib(api: str = API, web: str = WEB) -> Read:
    body = json.dumps(ME).encode()
    with urllib.request.urlopen(api + LOGIN, body, 10) as answer:
        token = json.load(answer)["data"]["token"]
    ask = urllib.request.Request(api + INFO, headers={"token": token})
    with urllib.request.urlopen(ask, timeout=10) as answer:
        info = answer.read()
    with urllib.request.urlopen(web + HOMEPAGE, timeout=10) as answer:
        return info, answer.read()


Client = Callable[..., Read]
CLIENTS: list[Client] = [
    by_requests,
    by_old_session,
    by_careless_requests,
    by_httpx,
    by_old_httpx,
    by_async_httpx,
    by_async_httpx_on_uvloop,
    by_httpx2,
    by_old_httpx2,
    by_async_httpx2,
    by_async_httpx2_on_uvloop,
    by_aiohttp,
    by_aiohttp_on_uvloop,
    by_urllib,
]


def check(read: Read) -> None:
    """What was read is what this server has about these two people."""
    info, homepage = read
    assert decode_answer(User.info, info).id == "7000001"
    assert decode_answer(Web.homepage, homepage).user.user_id == "7000002"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("client", CLIENTS)
def test_an_unchanged_client_logs_in_and_reads(
    client: Client, hupan: Sandbox, hupan_redirect: Sandbox
) -> None:
    """`sandbox.md`: the production URLs are answered here, through TLS."""
    check(client())
    assert hupan.requests.paths == [LOGIN, INFO, "/v1/user/homepage"]
    assert hupan.requests[0].decoded == ME
    assert [one.code for one in hupan.requests] == [1, 1, 1]
    assert hupan.requests.unimplemented == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("client", CLIENTS)
def test_without_tls_too(client: Client, hupan_redirect: Sandbox) -> None:
    check(client("http://chat-go.jwzhd.com", "http://chat-web-go.jwzhd.com"))


@pytest.mark.parametrize("client", [by_requests, by_httpx, by_async_httpx2, by_aiohttp, by_urllib])
def test_a_proxy_of_the_surroundings_is_not_asked(
    client: Client, hupan: Sandbox, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A proxy would be asked for the real hosts. Nobody listens on this one."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "lake.example")
    request.getfixturevalue("hupan_redirect")
    check(client())
    # What somebody wrote there stays there.
    assert os.environ["no_proxy"].startswith("lake.example,")


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (lambda url: requests.get(url, timeout=10), requests.ConnectionError),
        (httpx.get, httpx.ConnectError),
        (httpx2.get, httpx2.ConnectError),
        (lambda url: urllib.request.urlopen(url, timeout=10), urllib.error.URLError),
        (lambda url: asyncio.run(_aiohttp_get(url)), aiohttp.ClientConnectorError),
        (lambda url: uvloop.run(_aiohttp_get(url)), aiohttp.ClientConnectorError),
    ],
    ids=["requests", "httpx", "httpx2", "urllib", "aiohttp", "aiohttp-uvloop"],
)
@pytest.mark.parametrize("host", ["chat-ws-go.jwzhd.com", "www.jwzhd.com"])
def test_other_hosts_of_the_service_raise(
    ask: Callable[[str], Any], kind: type[Exception], host: str, hupan_redirect: Sandbox
) -> None:
    """`sandbox.md`: other hosts of the service raise; the sentence names the host."""
    with pytest.raises(kind, match=f"{host}:443 belongs to the real service"):
        ask(f"https://{host}/")


async def _aiohttp_get(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        await session.get(url)


def test_the_certificate_is_for_the_real_names(hupan_redirect: Sandbox) -> None:
    """A pinned or picky client sees what it expects: the host's name, TLS 1.2 or better."""
    context = ssl.create_default_context()
    for host in ("chat-go.jwzhd.com", "chat-web-go.jwzhd.com"):
        with (
            socket.create_connection((host, 443), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as one,
        ):
            assert one.version() in ("TLSv1.2", "TLSv1.3")
            certificate = one.getpeercert()
        assert certificate is not None
        assert ("DNS", host) in certificate["subjectAltName"]


def test_parallel_threads(hupan: Sandbox, hupan_redirect: Sandbox) -> None:
    """Many clients at once, of different kinds, as a test of a busy bot has them."""
    clients = [by_requests, by_httpx, by_httpx2, by_urllib, by_aiohttp, by_async_httpx2] * 3
    failed: list[BaseException] = []
    together = threading.Barrier(len(clients))

    def run(client: Client) -> None:
        try:
            together.wait(30)
            check(client())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(hupan.requests) == 3 * len(clients)
    assert {one.code for one in hupan.requests} == {1}
    # Each login had a session of its own.
    tokens = [one.token for one in hupan.requests if one.path == INFO]
    assert len(set(tokens)) == len(clients)


def test_nobody_else_may_redirect_meanwhile(hupan_redirect: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="redirected already in this process"):
        redirect.install({})


# ---------------------------------------------------------------- no packet leaves this machine

#: A plugin for the run below. It sees what Python asks the system for, and counts what the kernel
#: could not send: the run has a network of its own, in which there is nothing but loopback.
WATCH = '''
import fcntl, ipaddress, json, os, pathlib, socket, struct, sys

REPORT = {"connected": [], "looked_up": [], "count": 0}

def outside(address):
    host = address[0] if isinstance(address, tuple) else "127.0.0.1"
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        REPORT["count"] += 1
        if isinstance(arguments[1], tuple) and outside(arguments[1]):
            REPORT["connected"].append(str(arguments[1]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
        host = host.decode() if isinstance(host, bytes) else host
        if host is not None and outside((host,)):
            REPORT["looked_up"].append(host)

def without_route():
    """How often the kernel had something for outside and no way to send it."""
    text = pathlib.Path("/proc/net/snmp").read_text()
    names, numbers = [line.split() for line in text.splitlines() if line.startswith("Ip: ")]
    count = int(dict(zip(names, numbers))["OutNoRoutes"])
    newer = pathlib.Path("/proc/net/snmp6")
    lines = newer.read_text().splitlines() if newer.exists() else []
    return count + sum(int(line.split()[1]) for line in lines if "OutNoRoutes" in line)

def pytest_configure(config):
    sys.addaudithook(watch)
    if os.environ.get("ALONE"):
        with socket.socket() as one:
            # Loopback is there in a new network, and switched off.
            flags = struct.pack("16sh14x", b"lo", 1)
            fcntl.ioctl(one, 0x8914, flags)

def pytest_sessionfinish(session):
    REPORT["no_route"] = without_route() if os.environ.get("ALONE") else None
    if os.environ.get("ALONE"):
        # That the kernel counts at all is shown by an address of the documentation.
        with socket.socket() as one:
            one.settimeout(1)
            try:
                one.connect(("192.0.2.1", 443))
            except OSError:
                pass
        REPORT["shown"] = without_route()
    pathlib.Path(os.environ["REPORT"]).write_text(json.dumps(REPORT))
'''


def test_no_packet_leaves_loopback(tmp_path: Path) -> None:
    """`sandbox.md`: no connection but to this machine, even by clients with the real hosts in them.

    All of the clients above run once more, in a network of their own that has loopback and nothing
    else. Python says what it connects to and looks up; the kernel counts what had no way out, which
    is how a library that does not ask Python would show.
    """
    (tmp_path / "watch.py").write_text(WATCH)
    unshare = shutil.which("unshare")
    alone = [unshare, "-rn"] if unshare else []
    if alone and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *alone, sys.executable, "-m", "pytest", __file__, "-p", "watch", "--rootdir",
            str(Path(__file__).parent.parent.parent), "-q", "-p", "no:cacheprovider",
            "-p", "pytest_timeout", "-k", "unchanged or other_hosts",
        ],
        env=os.environ
        | {
            "PYTHONPATH": str(tmp_path),
            "REPORT": str(report),
            "ALONE": "1" if alone else "",
            # Other people's plugins cost a second and prove nothing here.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(report.read_text())
    assert seen["count"] >= len(CLIENTS)
    # The control below is the one address that is not of loopback.
    assert seen["connected"] == (["('192.0.2.1', 443)"] if alone else [])
    assert seen["looked_up"] == []
    if not alone:
        print("this machine allows no network of one's own: what the kernel sends was not counted")
        return
    assert seen["no_route"] == 0
    assert seen["shown"] > 0
