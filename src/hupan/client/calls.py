"""The two clients: every row as a typed call, plain or awaitable."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from hupan.client.login import (
    NAME,
    TRIES,
    AsyncHuman,
    Human,
    Question,
    Script,
    by_phone,
)
from hupan.client.paging import Pages
from hupan.client.tokens import TokenStore
from hupan.protocol.message import Message, fields
from hupan.protocol.misc import Misc
from hupan.protocol.row import AsyncCaller, Host, Row, SyncCaller, Wire
from hupan.protocol.user import CoinRecord, Group, Invite, User
from hupan.protocol.verification import Verification
from hupan.protocol.web import Web
from hupan.protocol.wire import Format, Refused, Unreadable, decode_answer, encode_request

__all__ = ["AsyncClient", "Client"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")

#: Seconds to wait for a connection, and for each part of an answer.
TIMEOUT = 30.0
#: How often a call that only reads is sent again, and the first wait in seconds; each later wait
#: is twice as long.
RETRIES = 2
FIRST_WAIT = 0.2
#: The connection was lost, so that nobody knows whether the server acted.
LOST = (httpx2.NetworkError, httpx2.RemoteProtocolError)
#: The code of a refusal because of the token: there is none, or it is dead.
NOT_LOGGED_IN = -101


class _Rows(User, Verification, Invite, Misc, Web):
    """Every row, and what both clients do alike."""

    #: After these rows the presented token is dead for good.
    _ENDING: tuple[Row[..., Any, Any], ...] = (User.logout, User.cancel_user)

    def __init__(
        self, url: str, web_url: str, token: str, store: TokenStore | None, retries: int
    ) -> None:
        self.url = _address(url)
        self.web_url = _address(web_url) if web_url else ""
        self.store = store
        self.retries = retries
        self._token = token or (store.load(self.url) if store else "")

    @property
    def token(self) -> str:
        """The token that calls carry; empty for none. Setting it also keeps it in the store."""
        return self._token

    @token.setter
    def token(self, token: str) -> None:
        self._token = token
        if self.store is not None:
            self.store.save(self.url, token)

    def __repr__(self) -> str:
        # The token is a secret, and a repr ends up in logs.
        return f"<{type(self).__name__} {self.url}{' with a token' if self._token else ''}>"

    def _request(self, row: Row[..., Q, Any], ask: Q) -> dict[str, Any]:
        base = self.url if row.host is Host.API else self.web_url
        if not base:
            raise ValueError(f"{row.name} is a call of the web host: give the client its web_url")
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

    def _waits(self, row: Row[..., Any, Any]) -> Iterator[float | None]:
        """How long to wait after each loss of the connection; None where one gives up."""
        for turn in range(self.retries if row.safe else 0):
            yield FIRST_WAIT * 2**turn
        yield None

    def _answer(self, row: Row[..., Any, A], request: dict[str, Any], answer: httpx2.Response) -> A:
        presented = request["headers"].get("token", "")
        try:
            opened = _open(row, answer)
        except Refused as refused:
            if row in self._ENDING and refused.code == NOT_LOGGED_IN:
                self._forget(presented)
            raise
        if row in self._ENDING:
            self._forget(presented)
        return opened

    def _forget(self, token: str) -> None:
        """Drop a dead token here and in the store, but no other that came in between."""
        if self._token == token:
            self._token = ""
        if self.store is not None and self.store.load(self.url) == token:
            self.store.save(self.url, "")


def _address(url: str) -> str:
    """A server's address in one spelling, so that a store finds its token again."""
    parsed = httpx2.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no address of a server, such as http://127.0.0.1:8790")
    return str(parsed).rstrip("/")


def _open(row: Row[..., Any, A], answer: httpx2.Response) -> A:
    """Take the answer out of its envelope.

    Raises:
        Refused: the envelope says no, with HTTP 200 or with a 4xx.
        httpx2.HTTPStatusError: the status is no success, and no envelope says why.
        Unreadable: anything else that is no answer of this row.
    """
    wait = _retry_after(answer)
    if not answer.is_success:
        # Some hosts say a refusal with a status as well; a bug (5xx) never is one.
        if answer.is_client_error:
            try:
                decode_answer(row, answer.content, wait)
            except Refused as refused:
                if refused.code and refused.msg:
                    raise
            except Unreadable:
                pass
        answer.raise_for_status()
    try:
        if _is_page(answer):
            raise Unreadable("a page for a browser")
        if not answer.content:
            raise Unreadable("nothing at all")
        return decode_answer(row, answer.content, wait)
    except Unreadable as error:
        kind = answer.headers.get("content-type", "no content type")
        raise Unreadable(
            f"{answer.request.method} {answer.request.url} was not answered as the protocol has it"
            f" (HTTP {answer.status_code}, {kind}): {error}; it begins with {answer.content[:60]!r}"
        ) from error


def _is_page(answer: httpx2.Response) -> bool:
    """Gateways and captive portals answer with HTML, which can pass for protobuf."""
    typed = "html" in answer.headers.get("content-type", "")
    return typed and answer.content.lstrip()[:1] == b"<" and b"html" in answer.content[:512].lower()


def _retry_after(answer: httpx2.Response) -> int | None:
    """The seconds of `Retry-After`, which may be written as a date."""
    said = answer.headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return int(said)
    try:
        # Measured from the server's own clock, which need not be ours.
        until, now = (parsedate_to_datetime(one) for one in (said, answer.headers.get("date", "")))
        return max(0, int((until - now).total_seconds()))
    except (ValueError, TypeError):
        return None


class Client(_Rows, SyncCaller):
    """Plain calls, one for every endpoint. May be used from several threads.

    Used in a `with` statement it closes its connections at the end.

    Args:
        url: the API host, such as `http://127.0.0.1:8790`.
        web_url: the web host; only `web_info` and `homepage` need it.
        token: a token from an earlier login. It is used instead of a stored one, and not stored.
        store: keeps the token between runs: `TokenFile()`, `KeyringStore()` or one's own.
        timeout: seconds to wait for a connection and for each part of an answer; None for ever.
        proxy: the address of a proxy. Without one, `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and
            `NO_PROXY` of the environment count.
        retries: how often a call that only reads is sent again after a lost connection, with a
            wait of 0.2 s before the first time and twice as long before each further one. A call
            that changes something is never sent again.
        http: an `httpx2.Client` of one's own, with whatever else it can do. It is used instead of
            `timeout` and `proxy`, and stays open when this one is closed.

    Raises:
        Refused: from every call, when the server says no.
        Unreadable: from every call, when what came back is no answer of this protocol.
        httpx2.HTTPStatusError: from every call, when the HTTP status is no success.
        httpx2.TransportError: from every call, when there was no answer, as one of its kinds:
            `ConnectError`, `ReadTimeout`, `ProxyError` and so on.
        ValueError: the address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        web_url: str = "",
        token: str = "",
        store: TokenStore | None = None,
        timeout: float | httpx2.Timeout | None = TIMEOUT,
        proxy: str | httpx2.Proxy | None = None,
        retries: int = RETRIES,
        http: httpx2.Client | None = None,
    ) -> None:
        super().__init__(url, web_url, token, store, retries)
        _either(http, proxy)
        self._owned = http is None
        self.http = httpx2.Client(timeout=timeout, proxy=proxy) if http is None else http

    def call(self, row: Row[..., Q, A], ask: Q) -> A:
        """Send one request. `client.edit_nickname(name=…)` is this with the row filled in."""
        request = self._request(row, ask)
        for wait in self._waits(row):
            try:
                answer = self.http.request(**request)
            except LOST:
                if wait is None:
                    raise
                time.sleep(wait)
            else:
                return self._answer(row, request, answer)
        raise AssertionError("the last try returns or raises")

    def login_with_password(
        self, email: str, password: str, *, device_id: str = NAME, platform: str = NAME
    ) -> str:
        """Log in and keep the token, here and in the store; returns it."""
        answer = self.email_login(
            email=email, password=password, device_id=device_id, platform=platform
        )
        self.token = answer.token
        return self.token

    def login_with_phone(
        self,
        mobile: str,
        human: Human,
        *,
        device_id: str = NAME,
        platform: str = NAME,
        tries: int = TRIES,
    ) -> str:
        """Log in by short message and keep the token, here and in the store; returns it.

        A first login opens the account, where the server lets it.

        Args:
            mobile: the number, in any spelling that the server takes.
            human: called with a `Question`, first for the captcha and then for the code; returns
                what the person read. To give up, let it raise something.
            device_id: what the session is called in the list of devices.
            platform: likewise.
            tries: how often either is asked for. After a refusal the person is asked again, with
                the `reason`, unless there is a time to wait or the same was answered twice.

        Raises:
            Refused: the last refusal.
        """
        self.token = self._play(by_phone(mobile, device_id, platform, tries), human)
        return self.token

    def _play(self, script: Script[T], human: Human) -> T:
        said: Any = None
        refusal: Refused | None = None
        while True:
            try:
                step = script.throw(refusal) if refusal else script.send(said)
            except StopIteration as end:
                result: T = end.value
                return result
            refusal = None
            if isinstance(step, Question):
                said = _spoken(human(step))
            else:
                try:
                    said = self.call(*step)
                except Refused as refused:
                    refusal = refused

    def iter_coin_records(self, size: int = 50) -> Iterator[CoinRecord]:
        """Every line of one's own coin book, newest first. `size` lines are asked for at a time."""
        pages = Pages[CoinRecord](size, lambda record: record.id)
        while not pages.done:
            found = self.gold_coin_increase_decrease_record(size=size, page=pages.number)
            yield from pages.turn(found.gold_coin_record, found.total or None)

    def iter_groups(self, category: str = "", keyword: str = "", size: int = 30) -> Iterator[Group]:
        """Every group of a section, or of all of them. `size` groups are asked for at a time."""
        pages = Pages[Group](size, lambda group: group.chat_id)
        while not pages.done:
            found = self.recommend_list(
                category=category, keyword=keyword, size=size, page=pages.number
            )
            yield from pages.turn(found.group_list)

    def close(self) -> None:
        """Close the connections, unless they are those of an `http` of one's own."""
        if self._owned:
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
    """The same calls, to be awaited, under asyncio. Used in an `async with` statement.

    Takes what `Client` takes and raises what `Client` raises; `http` is an `httpx2.AsyncClient`.
    A `store` is asked without awaiting, which for a file is nothing to notice.
    """

    def __init__(
        self,
        url: str,
        *,
        web_url: str = "",
        token: str = "",
        store: TokenStore | None = None,
        timeout: float | httpx2.Timeout | None = TIMEOUT,
        proxy: str | httpx2.Proxy | None = None,
        retries: int = RETRIES,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, web_url, token, store, retries)
        _either(http, proxy)
        self._owned = http is None
        self.http = httpx2.AsyncClient(timeout=timeout, proxy=proxy) if http is None else http

    async def call(self, row: Row[..., Q, A], ask: Q) -> A:
        """Send one request. `await client.info()` is this with the row filled in."""
        request = self._request(row, ask)
        for wait in self._waits(row):
            try:
                answer = await self.http.request(**request)
            except LOST:
                if wait is None:
                    raise
                await asyncio.sleep(wait)
            else:
                return self._answer(row, request, answer)
        raise AssertionError("the last try returns or raises")

    async def login_with_password(
        self, email: str, password: str, *, device_id: str = NAME, platform: str = NAME
    ) -> str:
        """Log in and keep the token, here and in the store; returns it."""
        answer = await self.email_login(
            email=email, password=password, device_id=device_id, platform=platform
        )
        self.token = answer.token
        return self.token

    async def login_with_phone(
        self,
        mobile: str,
        human: AsyncHuman,
        *,
        device_id: str = NAME,
        platform: str = NAME,
        tries: int = TRIES,
    ) -> str:
        """As with `Client`. `human` may be a plain function or a coroutine function."""
        self.token = await self._play(by_phone(mobile, device_id, platform, tries), human)
        return self.token

    async def _play(self, script: Script[T], human: AsyncHuman) -> T:
        said: Any = None
        refusal: Refused | None = None
        while True:
            try:
                step = script.throw(refusal) if refusal else script.send(said)
            except StopIteration as end:
                result: T = end.value
                return result
            refusal = None
            if isinstance(step, Question):
                told = human(step)
                said = _spoken(await told if inspect.isawaitable(told) else told)
            else:
                try:
                    said = await self.call(*step)
                except Refused as refused:
                    refusal = refused

    async def iter_coin_records(self, size: int = 50) -> AsyncIterator[CoinRecord]:
        """Every line of one's own coin book, newest first. `size` lines are asked for at a time."""
        pages = Pages[CoinRecord](size, lambda record: record.id)
        while not pages.done:
            found = await self.gold_coin_increase_decrease_record(size=size, page=pages.number)
            for record in pages.turn(found.gold_coin_record, found.total or None):
                yield record

    async def iter_groups(
        self, category: str = "", keyword: str = "", size: int = 30
    ) -> AsyncIterator[Group]:
        """Every group of a section, or of all of them. `size` groups are asked for at a time."""
        pages = Pages[Group](size, lambda group: group.chat_id)
        while not pages.done:
            found = await self.recommend_list(
                category=category, keyword=keyword, size=size, page=pages.number
            )
            for group in pages.turn(found.group_list):
                yield group

    async def close(self) -> None:
        """Close the connections, unless they are those of an `http` of one's own."""
        if self._owned:
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


def _either(http: object, proxy: object) -> None:
    """A proxy that is left out without a word would show an address that it was to hide."""
    if http is not None and proxy is not None:
        raise ValueError("give either http or proxy; an http of one's own has its own proxy")


def _spoken(said: Any) -> str:
    """What a person answered, without the blanks that come with pasting."""
    if not isinstance(said, str):
        if inspect.iscoroutine(said):
            said.close()
        raise TypeError(f"the callback returned {type(said).__name__} instead of a text")
    return said.strip()
