"""A proxy that leads to the sandbox and nowhere else.

It opens connections to the listeners it was given and to no other address, so whatever a client
asks of it, no packet leaves this machine. Everything else is refused with the reason, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

__all__ = ["API_HOST", "DOMAIN", "HOSTS", "WEB_HOST", "Proxy"]

#: The hosts of production that a sandbox stands in for, and the domain they belong to.
API_HOST, WEB_HOST = "chat-go.jwzhd.com", "chat-web-go.jwzhd.com"
HOSTS = (API_HOST, WEB_HOST)
DOMAIN = "jwzhd.com"

#: Bounds: connections at once, bytes of a head, seconds to send it and to read a refusal.
MOST, HEAD, PATIENCE, LINGER = 512, 32_768, 30.0, 2.0
#: So many different hosts are counted by name; an endless list of them takes no memory.
NAMED = 200
CHUNK = 65_536
#: Headers that are between the client and the proxy only.
OURS = ("proxy-connection", "proxy-authorization", "connection", "keep-alive")

Address = tuple[str, int]


class _Refusal(Exception):
    """What a client is told instead of being let through."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Proxy:
    """Leads (host, port) to the listeners that stand in for them.

    `refused` counts what else was asked for, `tunnels` the connections that were let through.

    Args:
        ways: the listener for each host and port; port 80 is spoken to without TLS.
    """

    def __init__(self, ways: Mapping[Address, Address]) -> None:
        self.ways = dict(ways)
        self.refused: Counter[str] = Counter()
        self.tunnels = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, bound: socket.socket) -> None:
        """Listen on a socket that has its address already."""
        self._server = await asyncio.start_server(self._begin, sock=bound, limit=HEAD)

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Either side may go away at any moment, which concerns nobody else.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                try:
                    await self._lead(reader, writer)
                except _Refusal as refusal:
                    await _refuse(reader, writer, refusal)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) > MOST:
            raise _Refusal(503, f"more than {MOST} connections at once")
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise _Refusal(408, f"no whole head within {PATIENCE:.0f} s") from None
        except asyncio.LimitOverrunError:
            raise _Refusal(431, f"the head is longer than {HEAD} bytes") from None
        first, *headers = head.decode("latin-1").split("\r\n")[:-2]
        method, _, rest = first.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            raise _Refusal(400, "this port speaks HTTP/1.1 as a proxy")
        if method == "CONNECT":
            here = await self._reach(*_host_and_port(target, 443))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            url = _url(target)
            host, port = _host_and_port(url.netloc.rpartition("@")[2], 80)
            # Some clients, axios among them, send even https addresses in this form.
            here = await self._reach(host, 80 if url.scheme == "https" else port)
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            kept = [line for line in headers if line.partition(":")[0].lower() not in OURS]
            # One request a connection: the next one may be for another host.
            lines = [f"{method} {path} {version}", *kept, "Connection: close", "", ""]
            here[1].write("\r\n".join(lines).encode("latin-1"))
        self.tunnels += 1
        await _join((reader, writer), here)

    async def _reach(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the listener that stands in for a host."""
        way = self.ways.get((host, port))
        if way is None:
            name = f"{host}:{port}"
            if name in self.refused or len(self.refused) < NAMED:
                self.refused[name] += 1
            raise _Refusal(403, _why(host, port))
        try:
            return await asyncio.open_connection(*way)
        except OSError as error:
            raise _Refusal(502, f"the sandbox itself cannot be reached: {error.strerror}") from None


def _why(host: str, port: int) -> str:
    """Why a host is refused."""
    if host in HOSTS:
        return f"{host}:{port}: the sandbox stands in for ports 80 and 443 only"
    if f".{host}".endswith(f".{DOMAIN}"):
        return (
            f"{host} is another host of that service; the sandbox stands in for"
            f" {' and '.join(HOSTS)} only and forwards nothing"
        )
    return f"{host} is not the sandbox's, and nothing is forwarded"


def _url(target: str) -> SplitResult:
    try:
        url = urlsplit(target)
    except ValueError:
        raise _Refusal(400, "the address cannot be read") from None
    if url.scheme not in ("http", "https") or not url.netloc:
        raise _Refusal(
            400, f"this is a proxy: set it as the proxy of a client that asks for {API_HOST}"
        )
    return url


def _host_and_port(authority: str, default: int) -> Address:
    """`host`, `host:port` or `[v6]:port`."""
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, str(default)
    if not host or not port.isascii() or not port.isdigit() or len(port) > 5:
        raise _Refusal(400, "the address has no host or no port")
    # What is repeated in an answer and in the summary must not be able to move a cursor.
    shown = "".join(sign if sign.isprintable() else "?" for sign in host[:253])
    return shown.lower().rstrip("."), int(port)


async def _refuse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: _Refusal
) -> None:
    """Say why. The status line says it too, since most clients show nothing else of it."""
    text = f"hupan run: {refusal}"
    body = f"{text}\n".encode()
    lines = [
        f"HTTP/1.1 {refusal.status} {text}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)
    await writer.drain()
    if writer.can_write_eof():
        # Some clients have left by now, which the system tells in more than one way.
        with contextlib.suppress(OSError):
            writer.write_eof()
    # Closing while there is something unread would take the answer back.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while await reader.read(CHUNK):
                pass


async def _join(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Pass bytes both ways until the listener has said everything or the client is gone."""
    up = asyncio.create_task(_pass(client[0], here[1]))
    down = asyncio.create_task(_pass(here[0], client[1]))
    try:
        await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and up.exception() is None:
            # The client has said everything, and may still be waiting for its answer.
            await asyncio.wait([down])
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        here[1].close()
        with contextlib.suppress(ConnectionError):
            await here[1].wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
