"""The stand: a whole server with a clock that can be moved, faults, a journal and snapshots.

It puts another face on an ordinary server; the server itself does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, event, func, select, update
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from hupan.accounts import captchas, contact, outbox, sessions
from hupan.accounts.context import Actor
from hupan.accounts.operation import operation
from hupan.accounts.people import FOREVER
from hupan.accounts.refusals import NotLoggedIn, Refusal
from hupan.accounts.tables import account, code, link, notification, session
from hupan.migrations import upgrade
from hupan.outside.database import SqlDatabase
from hupan.protocol.row import Row, Wire
from hupan.protocol.wire import (
    Format,
    Unreadable,
    answer_format,
    decode_request,
    encode_refusal,
    statuses,
)
from hupan.sandbox import magic, people
from hupan.sandbox.chance import SeededRandom
from hupan.sandbox.clock import SandboxClock
from hupan.sandbox.faults import Fault, Faults
from hupan.sandbox.journal import Entry, Journal, decode, warn
from hupan.sandbox.snapshots import Snapshots
from hupan.server.app import App, Send, build_hosts, build_world
from hupan.server.door import Ask, Door, Reply
from hupan.server.run import MARK
from hupan.settings import Settings, SettingsError

__all__ = ["FRESH", "Stand"]

log = logging.getLogger(__name__)

#: The snapshot that `reset` goes back to.
FRESH = "fresh"
GZIP = "accept-encoding"
#: What a server of the future might add: field 999 (a text) and field 1000 (a number).
FUTURE = b"\xba\x3e\x06future" + b"\xc0\x3e\x01"
#: Statuses whose answers have no body.
BODILESS = (204, 205, 304)


# ---------------------------------------------------------------- what a request writes


@dataclass
class _Writes:
    """What the request in hand has written: begun, and committed."""

    begun: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)

    def told(self) -> list[str]:
        return [what if count == 1 else f"{what} ×{count}" for what, count in self.done.items()]


_writes: ContextVar[_Writes | None] = ContextVar("writes", default=None)
_VERB = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM)\s+\"?(\w+)", re.IGNORECASE)


def _note_write(_connection: Any, cursor: Any, statement: str, *_more: Any) -> None:
    _note_count(statement, cursor.rowcount)


def _note_count(statement: str, changed: int) -> None:
    writes = _writes.get()
    if writes is None:
        return
    if statement == "COMMIT":
        for what, count in writes.begun.items():
            writes.done[what] = writes.done.get(what, 0) + count
    if statement in ("COMMIT", "ROLLBACK"):
        writes.begun.clear()
        return
    match = _VERB.match(statement)
    # A driver that does not count says -1 or, where rows come back, nothing yet: one at least.
    returning = match is not None and "RETURNING" in statement
    count = max(changed, 0) or int(returning)
    if match and count:
        what = f"{match[1].split()[0].lower()} {match[2]}"
        writes.begun[what] = writes.begun.get(what, 0) + count


# ---------------------------------------------------------------- turns


class _Gate:
    """Many requests may be at work at once, or one change of the whole state alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Be one of many; waits while the state is changed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one: those inside come to their end first, and others wait outside."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class _Lane(ThreadPoolExecutor):
    """Worker threads that know which request they work for, and let a reset have its turn."""

    def __init__(self, gate: _Gate, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="sandbox")
        self._gate = gate

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(copy_context().run, self._in_turn, fn, *args, **kwargs)

    def _in_turn(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        with self._gate.together():
            return fn(*args, **kwargs)


# ---------------------------------------------------------------- faces


class Cut(Reply):
    """An answer whose connection is lost in the middle; `body` is what arrives."""

    __slots__ = ()


class Face(App):
    """One host of the stand."""

    def __init__(self, stand: Stand, door: Door, other: Starlette) -> None:
        super().__init__(door, other)
        self.stand = stand

    async def answer(self, ask: Ask) -> Reply:
        return await self.stand.answer(self.door, ask)

    async def send(self, reply: Reply, send: Send) -> None:
        if not isinstance(reply, Cut):
            await super().send(reply, send)
            return
        headers = [(b"content-length", str(2 * len(reply.body) + 1).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": True})
        raise ConnectionAbortedError("a fault of the sandbox")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What belongs to a state beside its data."""

    drawn: int
    clock: tuple[int, int | None]
    now: int


class Stand:
    """A sandbox in this process.

    Args:
        settings: of the server under it; its data are in SQLite.
        seed: what everything random comes from; anything but empty adds more people.
        clock: the clock to begin with.

    Raises:
        SettingsError: these settings belong to a real server.
    """

    def __init__(
        self, settings: Settings, *, seed: str = "", clock: SandboxClock | None = None
    ) -> None:
        if settings.database_url.get_secret_value():
            raise SettingsError("a sandbox keeps its data in its own folder: no database_url")
        self.settings = settings
        self.clock = clock or SandboxClock()
        self.random = SeededRandom(seed or "hupan")
        self.faults = Faults(SeededRandom(f"{seed} faults"))
        self.journal = Journal()
        self.listeners: list[Callable[[Entry], None]] = []
        starts = _count_start(settings)
        upgrade(settings.sqlalchemy_url)
        key = SeededRandom(f"{seed} key").bytes(32)
        self.world, self.bell = build_world(settings, clock=self.clock, random=self.random, key=key)
        assert isinstance(self.world.database, SqlDatabase)
        self.database = self.world.database
        event.listen(self.database.engine, "connect", _hurry)
        event.listen(self.database.engine, "after_cursor_execute", _note_write)
        self.database.overhears = _note_count
        with operation(self.world, Actor("sandbox")) as ctx:
            self._seeded = people.seed(ctx, seed)
        if starts:
            # The data are of an earlier start: read the stream where that one did not, so that no
            # token comes twice.
            self.random.drawn = starts << 40
        self.snapshots = Snapshots(self.database)
        self._gate = _Gate()
        self._kept: dict[str, _Kept] = {}
        self._doors: list[Door] = []
        self._fixed = [sessions.token_hash(one.token) for one in people.everybody()]

    def open(self, routes: list[BaseRoute]) -> None:
        """Make the two hosts; `routes` are those of `/__dev`."""
        self.hosts = build_hosts(self.world, face=self._face, more_routes=routes, hurries=False)
        self.hosts.lanes.rules = _Lane(self._gate, self.settings.threads)
        self.hosts.lanes.hashes = _Lane(self._gate, 2)
        self._number_anew()
        self.save(FRESH)

    def _face(self, door: Door, other: Starlette) -> Face:
        self._doors.append(door)
        return Face(self, door, other)

    # ------------------------------------------------------------ states

    def save(self, name: str) -> None:
        """Keep the present state: data, randomness and clock. Requests come to their end first."""
        with self._gate.alone():
            self.snapshots.save(name)
            self._kept[name] = _Kept(self.random.drawn, self.clock.state, self.clock.now())

    def restore(self, name: str) -> None:
        """Put a kept state back. Requests see the state before or the one after, never both.

        Raises:
            NoSnapshot: nothing was kept under this name.
        """
        with self._gate.alone():
            self._restore(name)

    def reset(self) -> None:
        """Begin anew: the fixed people, no faults, nothing in the journal."""
        with self._gate.alone():
            self._restore(FRESH)
            self.faults.clear()
            self.journal.clear()

    def forget(self, name: str) -> None:
        """Drop a kept state.

        Raises:
            NoSnapshot: nothing was kept under this name.
        """
        with self._gate.alone():
            self.snapshots.forget(name)
            del self._kept[name]

    def _restore(self, name: str) -> None:
        kept = self._kept.get(name)
        if kept is None or name != FRESH:
            self.snapshots.restore(name)
        else:
            before, self.clock.state = self.clock.state, kept.clock
            try:
                self.snapshots.restore(name, self._as_if_now(self.clock.now() - kept.now))
            except BaseException:
                self.clock.state = before
                raise
        assert kept is not None, "whatever has data has a clock"
        self.random.drawn = kept.drawn
        if name != FRESH:
            # It is as late as it was; whether the clock stands still is as it was, too.
            self.clock.state = kept.clock
            self.clock.set(kept.now)
        self._number_anew()

    def _as_if_now(self, later: int) -> Callable[[sqlite3.Connection], object] | None:
        """Move what is described relative to the start, such as a ban of a week, to today."""
        if later <= 0 or not self._seeded:
            return None

        def move(live: sqlite3.Connection) -> None:
            by, most = {"later": later}, {"later": later, "most": FOREVER}
            live.execute(
                "UPDATE account SET vip_until = vip_until + :later WHERE vip_until > 0", by
            )
            live.execute(
                "UPDATE account SET banned_until = banned_until + :later"
                " WHERE banned_until > 0 AND banned_until < :most",
                most,
            )
            live.execute(
                "UPDATE session SET created_at = created_at + :later, seen_at = seen_at + :later",
                by,
            )

        return move

    def _number_anew(self) -> None:
        for door in self._doors:
            door.statuses = statuses(1)

    def next_expiry(self) -> int | None:
        """The nearest moment at which something ends by itself."""
        now = self.clock.now()
        idle = self.settings.session_idle_days * 86_400
        life = self.settings.session_life_days * 86_400
        ends = [
            select(func.min(column)).where(column > now, *where)
            for column, *where in (
                (code.c.expires_at, code.c.used_at == 0),
                (account.c.vip_until,),
                (account.c.banned_until, account.c.banned_until < FOREVER),
                (link.c.expires_at, link.c.used_at == 0),
            )
        ]
        ends.append(
            select(func.min(session.c.seen_at) + idle).where(session.c.seen_at > now - idle)
        )
        born = session.c.created_at
        ends.append(select(func.min(born) + life).where(born > now - life))
        with operation(self.world) as ctx:
            found = [ctx.tx.value(end) for end in ends]
        return min((end for end in found if end is not None), default=None)

    def close(self) -> None:
        """Close everything."""
        self.hosts.lanes.close()
        self.snapshots.close()
        self.database.close()

    # ------------------------------------------------------------ one request

    async def answer(self, door: Door, ask: Ask) -> Reply:
        """Answer as the server does, or as a fault or a magic identity says; write it down."""
        era = self.journal.era
        row = door.rows[ask.path][0] if ask.path in door.rows else None
        name = f"{row.module}.{row.name}" if row else ""
        # What a browser asks before the request itself is neither spoiled nor counted.
        fault = self.faults.draw(ask.path, name) if ask.method != "OPTIONS" else None
        asked = row is not None and ask.method in row.methods
        identity = _identity(row, ask) if row is not None and asked else None
        writes = _Writes()
        _writes.set(writes)
        started = time.perf_counter()
        reply = await self._answer(door, row, ask, fault, identity)
        spent = round((time.perf_counter() - started) * 1000, 1)
        # Nothing about looking at a request may keep its answer from the client.
        try:
            entry = _entry(door, row, ask, reply)
            entry.at, entry.ms, entry.changed = self.clock.now(), spent, writes.told()
            entry.fault, entry.rule = (fault.fault, fault) if fault else ("", None)
            entry.identity = identity.name if identity else ""
            if self.journal.add(entry, era):
                for listener in self.listeners:
                    listener(entry)
        except Exception:
            log.exception("a request could not be written down")
        return reply

    async def _answer(
        self,
        door: Door,
        row: Row[..., Any, Any] | None,
        ask: Ask,
        fault: Fault | None,
        identity: magic.Identity | None,
    ) -> Reply:
        if fault is not None:
            if fault.fault == "delay":
                await asyncio.sleep(fault.seconds)
            if fault.fault == "status":
                body = b"" if fault.status in BODILESS else b"sandbox\n"
                return self._dress(
                    door, ask, Reply(fault.status, [("content-type", "text/plain")], body)
                )
            if fault.fault == "refusal":
                return self._refuse(door, row, ask, fault.code, fault.msg)
            if fault.fault == "dead-token":
                return self._refusal(door, row, ask, NotLoggedIn())
            # A spoiled answer is spoiled as such, not as a broken gzip stream.
            plain = {name: value for name, value in ask.headers.items() if name != GZIP}
            ask = ask._replace(headers=plain)
        reply = await self._serve(door, row, ask, identity)
        return _spoil(reply, fault) if fault else reply

    async def _serve(
        self, door: Door, row: Row[..., Any, Any] | None, ask: Ask, identity: magic.Identity | None
    ) -> Reply:
        if row is None:
            return await door.handle(ask)
        refused = identity.refuses.get(row.name) if identity else None
        if refused is not None:
            if row.name in magic.SENDS:
                # As everywhere, the captcha comes first and is used up.
                refused = await self._work(self._spend_captcha, row, ask) or refused
            return self._refusal(door, row, ask, refused)
        alive = await self._work(self._fixed_sessions) if row.name in magic.ENTERS else None
        reply = await door.handle(ask)
        if alive:
            await self._work(self._keep, alive)
        if identity is not None and identity.expired and row.name in magic.SENDS:
            await self._work(self._expire, identity)
        return reply

    async def _work(self, what: Callable[..., Any], *given: Any) -> Any:
        """Do something in a worker thread; a database that is busy leaves it undone."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.hosts.lanes.rules, what, *given)
        except Refusal:
            return None

    def _refusal(
        self, door: Door, row: Row[..., Any, Any] | None, ask: Ask, refused: Refusal
    ) -> Reply:
        reply = self._refuse(door, row, ask, refused.code, refused.text(self.settings.language))
        if refused.retry_after is not None:
            reply.headers.append(("retry-after", str(refused.retry_after)))
        return reply

    def _refuse(
        self, door: Door, row: Row[..., Any, Any] | None, ask: Ask, code: int, msg: str
    ) -> Reply:
        format = answer_format(row, ask.body, ask.headers.get("accept", "")) if row else Format.JSON
        body = encode_refusal(format, next(door.statuses)[0], code, msg)
        headers = [("content-type", format.value), ("cache-control", "no-store")]
        return self._dress(door, ask, Reply(200, headers, body))

    def _dress(self, door: Door, ask: Ask, reply: Reply) -> Reply:
        """Let the pages read it that may read the server's own answers."""
        origin = ask.headers.get("origin")
        if origin and ("*" in door.origins or origin in door.origins):
            allowed = "*" if "*" in door.origins else origin
            reply.headers.append(("access-control-allow-origin", allowed))
        return reply

    def _spend_captcha(self, row: Row[..., Any, Any], ask: Ask) -> Refusal | None:
        said = decode_request(row, ask.body, ask.query, get=False)
        try:
            with operation(self.world, Actor("sandbox")) as ctx:
                captchas.spend(ctx, said.id, said.code)
        except Refusal as refusal:
            return refusal
        return None

    def _fixed_sessions(self) -> list[tuple[Table, dict[str, Any]]]:
        """The sessions of the printed tokens, as far as they live, and what hangs on them."""
        fixed = session.c.token_hash.in_(self._fixed)
        with operation(self.world) as ctx:
            alive = ctx.tx.all(select(session).where(fixed))
            told = ctx.tx.all(
                select(notification)
                .join(
                    session,
                    (session.c.account_id == notification.c.account_id)
                    & (session.c.device_id == notification.c.device_id),
                )
                .where(fixed)
            )
        return [(session, dict(row._mapping)) for row in alive] + [
            (notification, dict(row._mapping)) for row in told
        ]

    def _keep(self, alive: list[tuple[Table, dict[str, Any]]]) -> None:
        """Put a printed token back that a login has just pushed out.

        Clients log in at every start, and the longest idle session leaves first: without this a
        printed token would be dead after a person's twentieth login.
        """
        with operation(self.world) as ctx:
            full = {
                row.account_id
                for row in ctx.tx.all(
                    select(session.c.account_id)
                    .group_by(session.c.account_id)
                    .having(func.count() >= self.settings.max_sessions)
                )
            }
            for table, row in alive:
                # Whoever has fewer sessions was not short of room: this one ended in another way.
                if row["account_id"] in full:
                    there = select(table.c.id).where(table.c.id == row["id"])
                    if ctx.tx.value(there) is None:
                        ctx.tx.run(table.insert().values(**row))

    def _expire(self, identity: magic.Identity) -> None:
        with operation(self.world, Actor("sandbox")) as ctx:
            ctx.tx.run(
                update(code)
                .where(
                    code.c.destination.in_((identity.phone, identity.email)),
                    code.c.expires_at > ctx.now,
                )
                .values(expires_at=ctx.now)
            )

    def letters(self, to: str = "") -> list[outbox.Letter]:
        """What was sent, newest first; `to` may be written in any way."""
        with contextlib.suppress(Refusal):
            to = contact.email(to) if "@" in to else contact.phone(to)
        with operation(self.world) as ctx:
            return outbox.letters(ctx, to)


def _count_start(settings: Settings) -> int:
    """Mark the folder as a sandbox's; how often one was started in it before."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    mark = settings.data_dir / MARK
    real = [name for name in ("hupan.db", "secret.key") if (settings.data_dir / name).exists()]
    if real and not mark.exists():
        raise SettingsError(f"{settings.data_dir} holds the data of a real server")
    told = mark.read_text("utf-8").strip() if mark.exists() else ""
    # An empty mark was written by an older version, which did not count.
    starts = int(told) if told.isascii() and told.isdigit() else int(mark.exists())
    mark.write_text(f"{starts + 1}\n", "utf-8")
    return starts


def _hurry(connection: Any, _record: Any) -> None:
    """A commit need not survive a power cut here, only stay whole."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _identity(row: Row[..., Any, Any], ask: Ask) -> magic.Identity | None:
    """The magic identity that a request names, if it is about one."""
    if row.name not in (*magic.SENDS, *magic.ENTERS):
        return None
    try:
        said = decode_request(row, ask.body, ask.query, get=ask.method == "GET")
    except Unreadable:
        return None
    address = getattr(said, "mobile", "") or getattr(said, "email", "")
    try:
        return magic.find(contact.email(address) if "@" in address else contact.phone(address))
    except Refusal:
        return None


def _entry(door: Door, row: Row[..., Any, Any] | None, ask: Ask, reply: Reply) -> Entry:
    request, answer = decode(row, ask, reply)
    code, msg = _outcome(answer.decoded)
    host = next(iter(door.rows.values()))[0].host
    scheme, _, rest = ask.headers.get("authorization", "").partition(" ")
    token = ask.headers.get("token", "").strip()
    return Entry(
        at=0,
        host=host.value,
        method=ask.method,
        # What is no text in any encoding is shown as such.
        path=ask.path.encode("utf-8", "replace").decode(),
        query=ask.query,
        row=f"{row.module}.{row.name}" if row else "",
        token=token or (rest.strip() if scheme.lower() == "bearer" else ""),
        accept=ask.headers.get("accept", "") if row and row.wire is Wire.ACCEPT else "",
        status=reply.status,
        code=code,
        msg=msg,
        ms=0.0,
        request=request,
        answer=answer,
        warnings=warn(row, ask, host, code),
    )


def _outcome(decoded: Any) -> tuple[int | None, str]:
    status = decoded.get("status", decoded) if isinstance(decoded, dict) else {}
    if not isinstance(status, dict) or not isinstance(status.get("code"), int):
        return None, ""
    return status["code"], str(status.get("msg", ""))


def _spoil(reply: Reply, fault: Fault) -> Reply:
    body = reply.body
    is_json = body[:1] == b"{"
    if fault.fault == "drop":
        return Cut(reply.status, reply.headers, body[: len(body) // 2])
    if fault.fault == "truncate":
        body = body[: len(body) // 2]
    elif fault.fault == "bad-protobuf":
        # Field 1 with a length that runs past the end of everything.
        body = b"\x0a\xff\xff\xff\x7f"
    elif fault.fault == "unknown-fields":
        body = body[:-1] + b',"future":{"a":[1]}}' if is_json else body + FUTURE
    return Reply(reply.status, reply.headers, body)
