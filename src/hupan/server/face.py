"""The face that granian sees: its own words in, its own words out.

An answer that is kept is given right here, with the least there is between the socket and it.
Everything else becomes an `Ask` for the door, or a page's own business.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Protocol

import structlog
from granian.rsgi import Scope

from hupan.accounts.refusals import Busy
from hupan.outside.database import Writes
from hupan.protocol.wire import LARGEST_BODY, Format
from hupan.server.answers import Lane
from hupan.server.app import App
from hupan.server.body import LARGEST_READ
from hupan.server.door import Ask, Reply, broken, failed, typed

__all__ = ["Face"]

log = structlog.get_logger("hupan.face")

PROTOBUF = typed(Format.PROTOBUF)


class Exchange(Protocol):
    """One request's way back."""

    async def __call__(self) -> bytes: ...
    def __aiter__(self) -> Any: ...
    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...
    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class Gone(Exception):
    """The client left before it had sent all."""


class Face:
    """One host, as granian calls it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.door = app.door

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        path, method, headers, door = scope.path, scope.method, scope.headers, self.door
        try:
            body = b"" if method == "GET" else await self._read(headers, exchange)
            lane, refused, memory = None, None, door.memory
            if memory is not None and method in door.kept.get(path, ()):
                token = headers.get("token")
                # Whoever may get JSON, or is told whose pages may read it, goes the longer way.
                if token and not headers.get("origin") and "json" not in headers.get("accept", ""):
                    if not memory.asked and (wait := memory.turn()) is not None:
                        await wait
                    data = memory.recall(path, token, body)
                    try:
                        data = data or await door.fresh(path, token, body)
                    except Writes:
                        # Now and then a visit is noted.
                        lane = Lane.WRITE
                    except Busy as busy:
                        refused = busy
                    if data is not None:
                        number, status = next(door.statuses)
                        exchange.response_bytes(200, PROTOBUF, status + data)
                        if door.tells:
                            door.tell_kept(number, path)
                        return
            if self.app.knows(path):
                ask = Ask(
                    method,
                    path,
                    scope.query_string,
                    _joined(headers.items()),
                    body,
                    scope.client.rpartition(":")[0].strip("[]"),
                )
                self._send(await door.handle(ask, lane, refused), exchange)
            else:
                await self._page(scope, body, exchange)
        except Gone:
            # Usually nobody reads this any more; a body that is no HTTP has a sender who does.
            self._send(broken(door.language), exchange)
        except Exception:
            # granian would answer as well, but nobody would hear of it.
            log.exception("bug", path=path[:200])
            self._send(failed(Format.JSON, 0, door.language), exchange)

    async def _read(self, headers: Any, exchange: Exchange) -> bytes:
        """Read a body: one that is too large for a while, of which only the beginning is kept."""
        try:
            length = headers.get("content-length", "")
            if length.isdigit() and len(length) < 9 and int(length) <= LARGEST_BODY:
                return await exchange()
            body, size, ends = b"", 0, 0
            async for part in exchange:
                size += len(part)
                # granian tells the end by one part without bytes, and a broken body by two.
                ends += not part
                if len(body) <= LARGEST_BODY:
                    body += part
                if size > LARGEST_READ:
                    return body
        except RuntimeError as error:
            # granian's own errors of a lost connection are of this kind.
            raise Gone from error
        if ends > 1 or (length.isdigit() and size < int(length)):
            raise Gone
        return body

    def _send(self, reply: Reply, exchange: Exchange) -> None:
        if reply.body:
            exchange.response_bytes(reply.status, reply.headers, reply.body)
        else:
            exchange.response_empty(reply.status, reply.headers)

    async def _page(self, scope: Scope, body: bytes, exchange: Exchange) -> None:
        """Let Starlette answer, which speaks ASGI: one body in, one body out."""
        said: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            said.append(message)

        address = scope.client.rpartition(":")
        asked = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": scope.method,
            "scheme": scope.scheme,
            "path": scope.path,
            "raw_path": scope.path.encode(),
            "query_string": scope.query_string.encode(),
            "root_path": "",
            "headers": [
                (name.encode("latin-1"), text.encode("latin-1"))
                for name, text in scope.headers.items()
            ],
            "client": (address[0].strip("[]"), int(address[2] or 0)),
            "server": None,
        }
        await self.app.other(asked, receive, send)
        headers = [
            (name.decode("latin-1"), text.decode("latin-1"))
            for name, text in said[0]["headers"]
            # granian writes the length itself.
            if name != b"content-length"
        ]
        whole = b"".join(part.get("body", b"") for part in said[1:])
        self._send(Reply(said[0]["status"], headers, whole), exchange)


def _joined(sent: list[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, text in sent:
        # A chain of proxies may write a line each; together they are one list.
        if name == "x-forwarded-for" and name in headers:
            text = f"{headers[name]},{text}"
        headers[name] = text
    return headers
