"""The door: one request, from top to bottom.

The door is neutral to the transport: `Ask` in, `Reply` out. A thin face turns a server's own words
into these. What can block runs in worker threads; password hashes have a lane of their own, so
that a storm of logins cannot keep reads from being answered.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import structlog

from hupan.accounts import sessions
from hupan.accounts.context import Actor, Context, Source, Transaction, World
from hupan.accounts.operation import operation
from hupan.accounts.refusals import BadParameters, Busy, NotLoggedIn, Refusal
from hupan.outside.database import PATIENCE, SqlDatabase, Writes
from hupan.protocol.message import Nothing
from hupan.protocol.row import Auth, Host, Row
from hupan.protocol.wire import (
    LARGEST_BODY,
    Format,
    Unreadable,
    answer_format,
    decode_request,
    encode_answer,
    encode_data,
    encode_refusal,
    encode_request,
    statuses,
)
from hupan.server.answers import Answer, Lane, all_answers
from hupan.server.memory import Made, Memory

__all__ = ["Ask", "Door", "Lanes", "Reply", "broken", "failed", "not_found", "typed"]

log = structlog.get_logger("hupan.door")

T = TypeVar("T")

#: The longest a password may wait for its turn, in seconds; after that the caller is sent away.
LONGEST_QUEUE = 2.0
#: Answers from this size on are compressed for clients that asked for it.
WORTH_GZIP = 1024
#: So many answers are kept that none may be larger.
LARGEST_KEPT = WORTH_GZIP
#: So much of a chain of proxies is read, from its end.
LONGEST_CHAIN = 1024
#: Longer than any token, and short enough to compare.
LONGEST_TOKEN = 64
#: So many share a transaction at the most, so that others come to their turn.
MOST_TOGETHER = 64

#: Some proxies write `1.2.3.4:5555` or `[2001:db8::1]:5555`.
_PORT = re.compile(r"^(?:\[([^\]]*)\]|([0-9.]+))(?::\d+)?$")

Headers = list[tuple[str, str]]
Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class Ask(NamedTuple):
    """A request. Header names are lower case; `peer` is the address of the connection."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    peer: str = ""


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Headers
    body: bytes


class Lanes:
    """The worker threads of a process.

    Many for rules that read, as many as cores for password hashes, and one for rules that write,
    which takes what has queued up meanwhile and lets it share a commit. PostgreSQL shares commits
    between connections by itself; there, writers are like readers.
    """

    def __init__(
        self, database: SqlDatabase, threads: int, workers: int = 1, *, shares: bool = True
    ) -> None:
        self.database = database
        self.shares = shares and database.is_sqlite
        self.rules = ThreadPoolExecutor(threads, thread_name_prefix="rules")
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.watch = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self.queue: deque[tuple[float, Callable[[], Any], asyncio.Future[Any]]] = deque()
        self.writing = False
        self.soon: list[tuple[Callable[[Transaction], Any], asyncio.Future[Any]]] = []
        cores = max(1, len(os.sched_getaffinity(0)) // workers)
        # A hash is patient, and the answers to everybody else are not.
        self.hashes = ThreadPoolExecutor(cores, thread_name_prefix="hashes", initializer=_be_nice)
        self.waiting = 0
        # More than these cannot have their turn in time, at 50 ms a hash.
        self.most_waiting = int(cores * LONGEST_QUEUE / 0.05)

    async def read(self, work: Callable[[], T]) -> T:
        """Run something beside others."""
        return await asyncio.get_running_loop().run_in_executor(self.rules, work)

    async def read_soon(self, work: Callable[[Transaction], T]) -> T:
        """Run a few quick reads: on SQLite at the end of this turn of the event loop, together with
        what else came in it, because a thread would cost as much again.

        Raises:
            Writes: it has to write, and was to read only.
        """
        if not self.database.is_sqlite:
            return await self.read(partial(self._read_in_transaction, work))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self.soon:
            loop.call_soon(self._read_together)
        self.soon.append((work, future))
        return await future

    def _read_in_transaction(self, work: Callable[[Transaction], T]) -> T:
        with self.database.transaction() as tx:
            return work(tx)

    def _read_together(self) -> None:
        """Read for all at one moment. They are answered together as well: each answer wakes the
        thread that sends it, and one that is awake sends many.
        """
        waiting, self.soon = self.soon[:MOST_TOGETHER], self.soon[MOST_TOGETHER:]
        if self.soon:
            asyncio.get_running_loop().call_soon(self._read_together)
        try:
            with self.database.reading() as tx:
                for work, future in waiting:
                    if not future.done():
                        done, result = _attempt(partial(work, tx))
                        future.set_result(result) if done else future.set_exception(result)
        except Exception as error:
            # Nobody waits for what does not come, whatever has failed.
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)

    async def write(self, work: Callable[[], T]) -> T:
        """Run something after what has queued up before it; it is durable when this returns.

        Raises:
            Busy: the commit that it shared with others failed, and nothing of it was kept.
        """
        if not self.shares:
            return await self.read(work)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.queue.append((time.perf_counter(), work, future))
        if not self.writing:
            self._write_together()
        return await future

    def _write_together(self) -> None:
        """Let the writer take what has queued up, and go on with what queues up meanwhile."""
        loop = asyncio.get_running_loop()
        batch: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        late = time.perf_counter() - PATIENCE
        while self.queue and len(batch) < MOST_TOGETHER:
            queued, work, future = self.queue.popleft()
            if future.done():
                continue
            if queued < late:
                # Somebody else holds the database; waiting on would only make the queue longer.
                future.set_exception(Busy(retry_after=1))
            else:
                batch.append((work, future))
        self.writing = bool(batch)
        if not batch:
            return

        def answered(results: list[tuple[bool, Any]]) -> None:
            try:
                # The next ones are begun first, because the writer has nothing to do.
                self._write_together()
            finally:
                for (_, future), (done, result) in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result) if done else future.set_exception(result)

        def run() -> None:
            try:
                with self.database.together():
                    results = [_attempt(work) for work, _ in batch]
            except BaseException as error:
                # Nobody of them was told anything, and nothing of them was kept.
                if not isinstance(error, Busy):
                    log.exception("bug", calls=len(batch))
                results = [(False, Busy(retry_after=1))] * len(batch)
            loop.call_soon_threadsafe(answered, results)

        self.writer.submit(run)

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
        self.writer.shutdown()
        self.watch.shutdown()
        self.hashes.shutdown()


def _attempt(work: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, work()
    except Exception as error:
        return False, error


def _be_nice() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)


class Served(NamedTuple):
    """What came of a request: its reply and code, and whose it was."""

    reply: Reply
    code: int
    who: int = 0


class Door:
    """Answers the rows of one host. Without a memory, it asks the database every time."""

    def __init__(
        self, world: World, host: Host, lanes: Lanes, memory: Memory | None = None
    ) -> None:
        self.world = world
        self.lanes = lanes
        self.run_in = {Lane.READ: lanes.read, Lane.WRITE: lanes.write, Lane.HASH: lanes.hash}
        self.memory = memory
        answers = all_answers()
        self.rows: dict[str, tuple[Row[..., Any, Any], Answer]] = {
            row.path: (row, answer) for row, answer in answers.items() if row.host is host
        }
        # The id of a request stays below 2**53, which JavaScript can count to.
        self.statuses = statuses(world.random.below(2**48) + 1)
        #: Whose answers are kept: path → methods.
        self.kept: dict[str, tuple[str, ...]] = {}
        if memory is not None:
            about = ((path, row) for path, (row, answer) in self.rows.items() if answer.about)
            self.kept = {path: row.methods for path, row in about}
            memory.answers.update({path: {} for path in self.kept})
        self.tells = world.settings.log_level == "debug"
        self.language = world.settings.language
        self.trusted = tuple(map(ipaddress.ip_network, world.settings.trusted_proxies))
        self.origins = frozenset(world.settings.cors_origins)

    async def handle(
        self, ask: Ask, lane: Lane | None = None, refused: Busy | None = None
    ) -> Reply:
        """Answer one request.

        Args:
            ask: the request.
            lane: another than its row's, where that is known to be better.
            refused: why it was sent away already, if so.
        """
        found = self.rows.get(ask.path)
        if found is None:
            return self._no_row(ask)
        row, answer = found
        started = time.perf_counter()
        if ask.method not in row.methods:
            return self._other_method(row, ask)
        number, status = next(self.statuses)
        try:
            if refused is not None:
                raise refused
            served = await self.run_in[lane or answer.lane](
                partial(self._serve, row, answer, ask, number, status)
            )
        except Busy as busy:
            served = self._refuse(row, ask, number, busy)
        # A line costs as much as a small read. Those that went well are for whoever looks closely.
        if self.tells or served.code != 1 or not row.safe:
            log.info(
                "call",
                number=number,
                path=ask.path,
                code=served.code,
                account=served.who,
                ms=round((time.perf_counter() - started) * 1000, 1),
            )
        return self._dress(served.reply, ask)

    # ------------------------------------------------------------ what is kept

    async def fresh(self, path: str, token: str, body: bytes) -> bytes | None:
        """Make an answer that may be kept, and keep it.

        Returns:
            The answer without its status; None for whatever goes the longer way, as refusals do.

        Raises:
            Writes: there is something to be noted first.
            Busy: the database cannot be asked now.
        """
        memory = self.memory
        assert memory is not None, "only what has a memory keeps answers"
        row, answer = self.rows[path]
        if answer_format(row, body, "") is not Format.PROTOBUF:
            return None
        if body and row.request is Nothing:
            # A filler would be the same name for answers about different people.
            return None
        make = partial(self._make, row, answer, token, body)
        stamp = memory.news
        try:
            made = await self.lanes.read_soon(make)
        except (Writes, Busy):
            raise
        except Exception:
            # A refusal, or a bug: the longer way tells of both.
            return None
        if made is None:
            return None
        if made.plain and len(made.data) <= LARGEST_KEPT:
            memory.keep(path, token, body, made, stamp)
        return made.data

    def _make(
        self, row: Row[..., Any, Any], answer: Answer, token: str, body: bytes, tx: Transaction
    ) -> Made | None:
        ctx = Context(self.world, tx)
        caller = ctx.caller = sessions.admit(ctx, token)
        if caller is None:
            return None
        assert answer.about is not None, "it may be kept"
        asked = decode_request(row, body, "", get=not body)
        # What was asked is a name here. One question has one name, however it may be written.
        plain = not body or encode_request(row, asked)[0] == body
        result = answer.run(ctx, asked)
        return Made(caller, ctx.holds_until, answer.about(result), encode_data(row, result), plain)

    def tell_kept(self, number: int, path: str) -> None:
        """A line costs as much as a kept answer; it is for whoever looks closely."""
        log.debug("call", number=number, path=path, code=1, kept=True)

    # ------------------------------------------------------------ in a worker thread

    def _serve(
        self, row: Row[..., Any, Any], answer: Answer, ask: Ask, number: int, status: bytes
    ) -> Served:
        """Read, admit, answer, commit, write."""
        who = 0
        try:
            with operation(self.world, source=self._source(ask)) as ctx:
                request = self._read(row, ask)
                who = self._admit(ctx, row, ask)
                result = answer.run(ctx, request)
            format = answer_format(row, ask.body, ask.headers.get("accept", ""))
            if format is Format.PROTOBUF:
                body = status + encode_data(row, result)
            else:
                body = encode_answer(row, format, number, result)
        except Refusal as refusal:
            return self._refuse(row, ask, number, refusal)._replace(who=who)
        except Exception:
            # A bug is never a refusal: it is loud in the log and plain to the client.
            log.exception("bug", number=number, path=ask.path)
            format = answer_format(row, ask.body, ask.headers.get("accept", ""))
            return Served(failed(format, number, self.language), 500, who)
        return Served(Reply(200, typed(format), body), 1, who)

    def _read(self, row: Row[..., Any, Any], ask: Ask) -> Any:
        if len(ask.body) > LARGEST_BODY:
            raise BadParameters()
        try:
            return decode_request(row, ask.body, ask.query, get=ask.method == "GET")
        except Unreadable as error:
            raise BadParameters() from error

    def _admit(self, ctx: Context, row: Row[..., Any, Any], ask: Ask) -> int:
        """Find out whose call it is; 0 where a row does not care."""
        if row.auth is Auth.PUBLIC:
            return 0
        token = _token(ask.headers)
        ctx.caller = sessions.admit(ctx, token) if token else None
        if ctx.caller is not None:
            ctx.actor = Actor("user", str(ctx.caller.account_id))
            return ctx.caller.account_id
        if row.auth is Auth.LIVE or not token:
            raise NotLoggedIn()
        return 0

    def _refuse(self, row: Row[..., Any, Any], ask: Ask, number: int, refusal: Refusal) -> Served:
        format = answer_format(row, ask.body, ask.headers.get("accept", ""))
        body = encode_refusal(format, number, refusal.code, refusal.text(self.language))
        headers = typed(format)
        if refusal.retry_after is not None:
            headers.append(("retry-after", str(refusal.retry_after)))
        return Served(Reply(200, headers, body), refusal.code)

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
        return self._dress(Reply(405, [*typed(Format.JSON), ("allow", allowed)], body), ask)

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
        forwarded = ask.headers.get("x-forwarded-for", "") if self.trusted else ""
        return _source(ask.peer, forwarded[-LONGEST_CHAIN:], self.trusted)


@lru_cache(4096)
def _source(peer: str, forwarded: str, trusted: Networks) -> Source:
    """Where a call came from: the connection's address, unless that is a listed proxy.

    The same few say it again and again, and reading an address costs as much as a statement.
    """
    address = _address(peer)
    if address is None:
        return Source()
    # Only what a trusted proxy appended is believed, read from the nearest hop outwards.
    hops = forwarded.split(",")
    while hops and any(address in network for network in trusted):
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
    return Reply(status, typed(Format.JSON), encode_refusal(Format.JSON, 0, status, text))


def failed(format: Format, number: int, language: str) -> Reply:
    """What is said when we made a mistake."""
    text = "Internal error" if language == "en" else "服务器内部错误"
    return Reply(500, typed(format), encode_refusal(format, number, 500, text))


def broken(language: str) -> Reply:
    """What is said of a request that ended before its end."""
    refusal = BadParameters()
    body = encode_refusal(Format.JSON, 0, refusal.code, refusal.text(language))
    return Reply(400, [*typed(Format.JSON), ("connection", "close")], body)


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


def typed(format: Format) -> Headers:
    """The headers of every answer in a format."""
    return [("content-type", format.value), ("cache-control", "no-store")]
