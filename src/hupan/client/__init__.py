"""Who asks: typed calls of every row, over httpx2.

>>> from hupan.client import Client
>>> with Client("http://127.0.0.1:8790") as client:  # doctest: +SKIP
...     client.token = client.email_login(email="user1@example.com", password="…").token
...     client.info().name

Transport errors keep httpx2's names; a refusal of the server is `Refused`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from hupan.protocol import Message, Refused, Row
from hupan.protocol.misc import Misc
from hupan.protocol.row import AsyncCaller, Host, SyncCaller
from hupan.protocol.user import Invite, User
from hupan.protocol.verification import Verification
from hupan.protocol.web import Web
from hupan.protocol.wire import Format, decode_answer, encode_request

__all__ = ["AsyncClient", "Client", "Refused"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

TIMEOUT = 30.0


class _Rows(User, Verification, Invite, Misc, Web):
    """Every row, and what both clients do alike."""

    token: str

    def __init__(self, url: str, web_url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.web_url = web_url.rstrip("/")
        self.token = token

    def _request(self, row: Row[..., Q, Any], ask: Q) -> dict[str, Any]:
        body, format = encode_request(row, ask)
        base = self.url if row.host is Host.API else self.web_url
        request: dict[str, Any] = {"method": row.methods[0], "url": base + row.path}
        headers = {"token": self.token} if self.token else {}
        if row.methods[0] == "GET":
            request["params"] = _query(ask)
        elif body:
            headers["content-type"] = format.value
            request["content"] = body
        if row.wire.value == "accept":
            headers["accept"] = Format.PROTOBUF.value
        request["headers"] = headers
        return request

    @staticmethod
    def _answer(row: Row[..., Any, A], answer: httpx2.Response) -> A:
        if answer.status_code != 200:
            answer.raise_for_status()
        wait = answer.headers.get("retry-after", "")
        return decode_answer(row, answer.content, int(wait) if wait.isdigit() else None)


def _query(ask: Message) -> dict[str, str]:
    from hupan.protocol.message import fields

    return {field.key: str(getattr(ask, field.name)) for field in fields(type(ask))}


class Client(_Rows, SyncCaller):
    """Plain calls.

    Args:
        url: the API host, such as `http://127.0.0.1:8790`.
        web_url: the web host; needed for its two rows only.
        token: a token from an earlier login.
        http: an `httpx2.Client` with proxies, certificates or timeouts of one's own.
    """

    def __init__(
        self, url: str, *, web_url: str = "", token: str = "", http: httpx2.Client | None = None
    ) -> None:
        super().__init__(url, web_url, token)
        self.http = http or httpx2.Client(timeout=TIMEOUT)

    def call(self, row: Row[..., Q, A], ask: Q) -> A:
        return self._answer(row, self.http.request(**self._request(row, ask)))

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(_Rows, AsyncCaller):
    """The same calls, awaitable; `http` is an `httpx2.AsyncClient`."""

    def __init__(
        self,
        url: str,
        *,
        web_url: str = "",
        token: str = "",
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, web_url, token)
        self.http = http or httpx2.AsyncClient(timeout=TIMEOUT)

    async def call(self, row: Row[..., Q, A], ask: Q) -> A:
        return self._answer(row, await self.http.request(**self._request(row, ask)))

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
