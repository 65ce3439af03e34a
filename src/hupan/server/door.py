"""The door: one request, from top to bottom.

The door is neutral to the transport: `Ask` in, `Reply` out. A thin face turns a server's own words
into these. What can block runs in worker threads; password hashes have a lane of their own, so
that a storm of logins cannot keep reads from being answered.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import itertools
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog

from hupan.accounts import sessions
from hupan.accounts.context import Actor, Context, Source, World
from hupan.accounts.operation import operation
from hupan.accounts.refusals import BadParameters, Busy, NotLoggedIn, Refusal
from hupan.protocol.row import Auth, Host, Row
from hupan.protocol.wire import (
    LARGEST_BODY,
    Format,
    Unreadable,
    answer_format,
    decode_request,
    encode_answer,
    encode_refusal,
)
from hupan.server.answers import Answer, all_answers

__all__ = ["Ask", "Door", "Lanes", "Reply", "broken", "not_found"]

log = structlog.get_logger("hupan.door")

T = TypeVar("T")

#: The longest a password may wait for its turn, in seconds; after that the caller is sent away.
LONGEST_QUEUE = 2.0
#: Answers from this size on are compressed for clients that asked for it.
WORTH_GZIP = 1024
#: Longer than any token, and short enough to compare.
LONGEST_TOKEN = 64

#: Some proxies write `1.2.3.4:5555` or `[2001:db8::1]:5555`.
_PORT = re.compile(r"^(?:\[([^\]]*)\]|([0-9.]+))(?::\d+)?$")

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. Header names are lower case; `peer` is the address of the connection."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    headers: Headers
    body: bytes


class Lanes:
    """The worker threads of a process: many for rules, as many as cores for password hashes."""

    def __init__(self, threads: int, workers: int = 1) -> None:
        self.rules = ThreadPoolExecutor(threads, thread_name_prefix="rules")
        cores = max(1, (os.cpu_count() or 1) // workers)
        self.hashes = ThreadPoolExecutor(cores, thread_name_prefix="hashes")
        self.waiting = 0
        # More than these cannot have their turn in time, at 50 ms a hash.
        self.most_waiting = int(cores * LONGEST_QUEUE / 0.05)

    async def hash(self, work: Callable[[], T]) -> T:
        """Run something that hashes a password, when its turn comes.

        Raises:
            Busy: too many wait already, or its turn came too late.
        """
        if self.waiting >= self.most_waiting:
            raise Busy(retry_after=2)
        queued = time.perf_counter()

        def in_turn() -> T:
            if time.perf_counter() - queued > LONGEST_QUEUE:
                raise Busy(retry_after=2)
            return work()

        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.hashes, in_turn)
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Let what runs come to its end."""
        self.rules.shutdown()
        self.hashes.shutdown()


class Door:
    """Answers the rows of one host."""

    def __init__(self, world: World, host: Host, lanes: Lanes) -> None:
        self.world = world
        self.lanes = lanes
        answers = all_answers()
        self.rows: dict[str, tuple[Row[..., Any, Any], Answer]] = {
            row.path: (row, answer) for row, answer in answers.items() if row.host is host
        }
        # The id of a request stays below 2**53, which JavaScript can count to.
        self.numbers = itertools.count(world.random.below(2**48) + 1)
        self.language = world.settings.language
        self.trusted = [ipaddress.ip_network(one) for one in world.settings.trusted_proxies]
        self.origins = frozenset(world.settings.cors_origins)

    async def handle(self, ask: Ask) -> Reply:
        """Answer one request."""
        found = self.rows.get(ask.path)
        if found is None:
            return self._no_row(ask)
        row, answer = found
        started = time.perf_counter()
        if ask.method not in row.methods:
            return self._other_method(row, ask)
        number = next(self.numbers)
        work = partial(self._serve, row, answer, ask, number)
        try:
            if answer.hashes:
                reply, outcome, who = await self.lanes.hash(work)
            else:
                loop = asyncio.get_running_loop()
                reply, outcome, who = await loop.run_in_executor(self.lanes.rules, work)
        except Busy as busy:
            reply, outcome, who = self._refuse(row, ask, number, busy)
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        log.info("call", number=number, path=ask.path, code=outcome, account=who, ms=milliseconds)
        return self._dress(reply, ask)

    # ------------------------------------------------------------ in a worker thread

    def _serve(
        self, row: Row[..., Any, Any], answer: Answer, ask: Ask, number: int
    ) -> tuple[Reply, int, int]:
        """Read, admit, answer, commit, write. Returns the reply, its code, and whose it is."""
        who = 0
        try:
            with operation(self.world, source=self._source(ask)) as ctx:
                request = self._read(row, ask)
                self._admit(ctx, row, ask)
                who = ctx.caller.account_id if ctx.caller else 0
                result = answer.run(ctx, request)
            format = answer_format(row, ask.body, ask.headers.get("accept", ""))
            body = encode_answer(row, format, number, result)
        except Refusal as refusal:
            reply, code, _ = self._refuse(row, ask, number, refusal)
            return reply, code, who
        except Exception:
            # A bug is never a refusal: it is loud in the log and plain to the client.
            log.exception("bug", number=number, path=ask.path)
            format = answer_format(row, ask.body, ask.headers.get("accept", ""))
            text = "Internal error" if self.language == "en" else "服务器内部错误"
            body = encode_refusal(format, number, 500, text)
            return Reply(500, _typed(format), body), 500, who
        return Reply(200, _typed(format), body), 1, who

    def _read(self, row: Row[..., Any, Any], ask: Ask) -> Any:
        if len(ask.body) > LARGEST_BODY:
            raise BadParameters()
        try:
            return decode_request(row, ask.body, ask.query, get=ask.method == "GET")
        except Unreadable as error:
            raise BadParameters() from error

    def _admit(self, ctx: Context, row: Row[..., Any, Any], ask: Ask) -> None:
        token = _token(ask.headers)
        if row.auth is Auth.PUBLIC:
            return
        ctx.caller = sessions.admit(ctx, token) if token else None
        if ctx.caller is not None:
            ctx.actor = Actor("user", str(ctx.caller.account_id))
        elif row.auth is Auth.LIVE or not token:
            raise NotLoggedIn()

    def _refuse(
        self, row: Row[..., Any, Any], ask: Ask, number: int, refusal: Refusal
    ) -> tuple[Reply, int, int]:
        format = answer_format(row, ask.body, ask.headers.get("accept", ""))
        body = encode_refusal(format, number, refusal.code, refusal.text(self.language))
        headers = _typed(format)
        if refusal.retry_after is not None:
            headers.append(("retry-after", str(refusal.retry_after)))
        return Reply(200, headers, body), refusal.code, 0

    # ------------------------------------------------------------ around the answer

    def _no_row(self, ask: Ask) -> Reply:
        """Other modules are not ours: counted in the log, and never forwarded anywhere."""
        if ask.method == "OPTIONS":
            return self._preflight("GET, POST, OPTIONS", ask)
        log.info("not ours", path=ask.path[:200], method=ask.method)
        return self._dress(not_found(self.language), ask)

    def _preflight(self, allowed: str, ask: Ask) -> Reply:
        headers = [
            ("allow", allowed),
            ("access-control-allow-methods", allowed),
            ("access-control-allow-headers", "token, content-type, authorization"),
            ("access-control-max-age", "86400"),
        ]
        return self._dress(Reply(204, headers, b""), ask)

    def _other_method(self, row: Row[..., Any, Any], ask: Ask) -> Reply:
        allowed = ", ".join((*row.methods, "OPTIONS"))
        if ask.method == "OPTIONS":
            return self._preflight(allowed, ask)
        text = "Method not allowed" if self.language == "en" else "请求方法不被允许"
        body = encode_refusal(Format.JSON, 0, 405, text)
        return self._dress(Reply(405, [*_typed(Format.JSON), ("allow", allowed)], body), ask)

    def _dress(self, reply: Reply, ask: Ask) -> Reply:
        """Add what depends on the client: compression and the permission for its page."""
        headers, body = reply.headers, reply.body
        if len(body) >= WORTH_GZIP and _takes_gzip(ask.headers.get("accept-encoding", "")):
            body = gzip.compress(body, 4, mtime=0)
            headers.append(("content-encoding", "gzip"))
            headers.append(("vary", "accept-encoding"))
        origin = ask.headers.get("origin")
        if origin and ("*" in self.origins or origin in self.origins):
            # No cookie exists here, so that an allowed page has only the token its user gave it.
            headers.append(("access-control-allow-origin", "*" if "*" in self.origins else origin))
            headers.append(("vary", "origin"))
        return Reply(reply.status, headers, body)

    def _source(self, ask: Ask) -> Source:
        """Where the call came from: the connection's address, unless that is a listed proxy."""
        address = _address(ask.peer)
        if address is None:
            return Source()
        # Only what a trusted proxy appended is believed, read from the nearest hop outwards.
        hops = ask.headers.get("x-forwarded-for", "").split(",")
        while hops and any(address in network for network in self.trusted):
            further = _address(_PORT.sub(r"\1\2", hops.pop().strip()))
            if further is None:
                break
            address = further
        if address.version == 6:
            network = str(ipaddress.ip_network((address, 64), strict=False))
            return Source(network, network)
        return Source(str(address), str(ipaddress.ip_network((address, 24), strict=False)))


def not_found(language: str, status: int = 404) -> Reply:
    """What is said of a path that nobody here answers."""
    text = "No such endpoint" if language == "en" else "接口不存在"
    return Reply(status, _typed(Format.JSON), encode_refusal(Format.JSON, 0, status, text))


def broken(language: str) -> Reply:
    """What is said of a request that ended before its end."""
    refusal = BadParameters()
    body = encode_refusal(Format.JSON, 0, refusal.code, refusal.text(language))
    return Reply(400, [*_typed(Format.JSON), ("connection", "close")], body)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _token(headers: Mapping[str, str]) -> str:
    token = headers.get("token", "").strip()
    if not token:
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        token = rest.strip() if scheme.lower() == "bearer" else ""
    return token[:LONGEST_TOKEN]


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.split(","):
        name, _, weight = one.replace(" ", "").partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" if weight else True
    return False


def _typed(format: Format) -> Headers:
    return [("content-type", format.value), ("cache-control", "no-store")]
