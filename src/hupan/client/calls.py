"""The two clients: every row as a typed call, plain or awaitable."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from hupan.client.login import NAME, AsyncHuman, Human, Question, Script, by_phone
from hupan.client.tokens import TokenStore
from hupan.protocol.message import Message, fields
from hupan.protocol.misc import Misc
from hupan.protocol.row import AsyncCaller, Host, Row, SyncCaller, Wire
from hupan.protocol.user import CoinRecord, Group, Invite, User
from hupan.protocol.verification import Verification
from hupan.protocol.web import Web
from hupan.protocol.wire import Format, decode_answer, encode_request

__all__ = ["AsyncClient", "Client"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")

TIMEOUT = 30.0
#: The connection was lost, so that nobody knows whether the server acted. Only a row that merely
#: reads is asked again.
LOST = (httpx2.NetworkError, httpx2.RemoteProtocolError)
#: How often a read is asked again, and the first wait in seconds; each later one is twice as long.
RETRIES = 2
FIRST_WAIT = 0.2


class _Rows(User, Verification, Invite, Misc, Web):
    """Every row, and what both clients do alike."""

    def __init__(self, url: str, web_url: str, token: str, store: TokenStore | None) -> None:
        self.url = url.rstrip("/")
        self.web_url = web_url.rstrip("/")
        self.store = store
        self._token = token or (store.load(self.url) if store else "")

    @property
    def token(self) -> str:
        """The token that calls carry; empty for none. Setting it also stores it."""
        return self._token

    @token.setter
    def token(self, token: str) -> None:
        self._token = token
        if self.store is not None:
            self.store.save(self.url, token)

    def _request(self, row: Row[..., Q, Any], ask: Q) -> dict[str, Any]:
        base = self.url if row.host is Host.API else self.web_url
        if not base:
            raise ValueError(f"{row.path} is a row of the web host: give the client its web_url")
        body, format = encode_request(row, ask)
        headers = {"token": self.token} if self.token else {}
        request: dict[str, Any] = {
            "method": row.methods[0],
            "url": base + row.path,
            "headers": headers,
        }
        if row.methods[0] == "GET":
            request["params"] = {
                field.key: str(getattr(ask, field.name)) for field in fields(type(ask))
            }
        elif body:
            headers["content-type"] = format.value
            request["content"] = body
        if row.wire is Wire.ACCEPT:
            headers["accept"] = Format.PROTOBUF.value
        return request

    @staticmethod
    def _answer(row: Row[..., Any, A], answer: httpx2.Response) -> A:
        answer.raise_for_status()
        wait = answer.headers.get("retry-after", "")
        return decode_answer(row, answer.content, int(wait) if wait.isdigit() else None)


class Client(_Rows, SyncCaller):
    """Plain calls.

    Args:
        url: the API host, such as `http://127.0.0.1:8790`.
        web_url: the web host; only `web_info` and `homepage` need it.
        token: a token from an earlier login.
        store: keeps the token between runs; see `TokenFile` and `KeyringStore`.
        timeout: seconds to wait for an answer.
        proxy: the address of a proxy; without one, the environment's are used.
        http: an `httpx2.Client` of one's own, instead of timeout and proxy.

    Raises:
        Refused: from every call, when the server says no.
        httpx2.TransportError: from every call, when there was no answer.
    """

    def __init__(
        self,
        url: str,
        *,
        web_url: str = "",
        token: str = "",
        store: TokenStore | None = None,
        timeout: float = TIMEOUT,
        proxy: str | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        super().__init__(url, web_url, token, store)
        self.http = http or httpx2.Client(timeout=timeout, proxy=proxy)

    def call(self, row: Row[..., Q, A], ask: Q) -> A:
        """Send one request; `client.edit_nickname(name=…)` is `call` with the row filled in."""
        wait = FIRST_WAIT
        for again in reversed(range(RETRIES + 1)):
            try:
                return self._answer(row, self.http.request(**self._request(row, ask)))
            except LOST:
                if not row.safe or not again:
                    raise
            time.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def login_with_password(
        self, email: str, password: str, *, device_id: str = NAME, platform: str = NAME
    ) -> str:
        """Log in and keep the token; returns it."""
        self.token = self.email_login(
            email=email, password=password, device_id=device_id, platform=platform
        ).token
        return self.token

    def login_with_phone(
        self, mobile: str, human: Human, *, device_id: str = NAME, platform: str = NAME
    ) -> str:
        """Log in by short message and keep the token; returns it.

        `human` is called twice with a `Question`: to read the captcha, and to read the code.
        """
        self.token = self._play(by_phone(mobile, device_id, platform), human)
        return self.token

    def _play(self, script: Script[T], human: Human) -> T:
        try:
            step = next(script)
            while True:
                said = human(step) if isinstance(step, Question) else self.call(*step)
                step = script.send(said)
        except StopIteration as end:
            result: T = end.value
            return result

    def iter_coin_records(self, size: int = 50) -> Iterator[CoinRecord]:
        """Every line of one's own coin book, newest first, page by page."""
        page = 1
        while True:
            found = self.gold_coin_increase_decrease_record(size=size, page=page)
            yield from found.gold_coin_record
            if len(found.gold_coin_record) < size:
                return
            page += 1

    def iter_groups(self, category: str = "", keyword: str = "", size: int = 30) -> Iterator[Group]:
        """Every group of a section (all of them by default), page by page."""
        page = 1
        while True:
            found = self.recommend_list(
                category=category, keyword=keyword, size=size, page=page
            ).group_list
            yield from found
            if len(found) < size:
                return
            page += 1

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
    """The same calls, awaitable; `http` is an `httpx2.AsyncClient`. Otherwise as `Client`."""

    def __init__(
        self,
        url: str,
        *,
        web_url: str = "",
        token: str = "",
        store: TokenStore | None = None,
        timeout: float = TIMEOUT,
        proxy: str | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, web_url, token, store)
        self.http = http or httpx2.AsyncClient(timeout=timeout, proxy=proxy)

    async def call(self, row: Row[..., Q, A], ask: Q) -> A:
        """Send one request; `await client.info()` is `call` with the row filled in."""
        wait = FIRST_WAIT
        for again in reversed(range(RETRIES + 1)):
            try:
                return self._answer(row, await self.http.request(**self._request(row, ask)))
            except LOST:
                if not row.safe or not again:
                    raise
            await asyncio.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    async def login_with_password(
        self, email: str, password: str, *, device_id: str = NAME, platform: str = NAME
    ) -> str:
        """Log in and keep the token; returns it."""
        answer = await self.email_login(
            email=email, password=password, device_id=device_id, platform=platform
        )
        self.token = answer.token
        return self.token

    async def login_with_phone(
        self, mobile: str, human: AsyncHuman, *, device_id: str = NAME, platform: str = NAME
    ) -> str:
        """Log in by short message and keep the token; `human` may be a coroutine function."""
        self.token = await self._play(by_phone(mobile, device_id, platform), human)
        return self.token

    async def _play(self, script: Script[T], human: AsyncHuman) -> T:
        try:
            step = next(script)
            while True:
                said = human(step) if isinstance(step, Question) else self.call(*step)
                step = script.send(await said if inspect.isawaitable(said) else said)
        except StopIteration as end:
            result: T = end.value
            return result

    async def iter_coin_records(self, size: int = 50) -> AsyncIterator[CoinRecord]:
        """Every line of one's own coin book, newest first, page by page."""
        page = 1
        while True:
            found = await self.gold_coin_increase_decrease_record(size=size, page=page)
            for record in found.gold_coin_record:
                yield record
            if len(found.gold_coin_record) < size:
                return
            page += 1

    async def iter_groups(
        self, category: str = "", keyword: str = "", size: int = 30
    ) -> AsyncIterator[Group]:
        """Every group of a section (all of them by default), page by page."""
        page = 1
        while True:
            found = await self.recommend_list(
                category=category, keyword=keyword, size=size, page=page
            )
            for group in found.group_list:
                yield group
            if len(found.group_list) < size:
                return
            page += 1

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
