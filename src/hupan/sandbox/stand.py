"""The stand: a whole server with a clock that can be moved, faults, a journal and snapshots.

It puts another face on an ordinary server; the server itself does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import event, func, select, update
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from hupan.accounts import contact, outbox, sessions
from hupan.accounts.context import Actor
from hupan.accounts.operation import operation
from hupan.accounts.refusals import NotLoggedIn, Refusal
from hupan.accounts.tables import account, code, link, session
from hupan.migrations import upgrade
from hupan.outside.database import SqlDatabase
from hupan.protocol.row import Row
from hupan.protocol.wire import (
    Format,
    Unreadable,
    answer_format,
    decode_request,
    encode_refusal,
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

#: The snapshot that `reset` goes back to.
FRESH = "fresh"
#: Rows that may push the oldest session out.
LOGINS = {"email_login", "verification_login"}
GZIP = "accept-encoding"
#: What a server of the future might add: field 999 (a text) and field 1000 (a number).
FUTURE = b"\xba\x3e\x06future" + b"\xc0\x3e\x01"

#: What the request in hand has written so far.
_written: ContextVar[list[str] | None] = ContextVar("written", default=None)
_VERB = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM)\s+\"?(\w+)", re.IGNORECASE)


class _Lane(ThreadPoolExecutor):
    """Worker threads that know which request they work for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(copy_context().run, fn, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class Cut(Reply):
    """An answer whose connection is lost in the middle."""


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
        headers = [(b"content-length", str(len(reply.body) + 1).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = reply.body[: len(reply.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        raise ConnectionAbortedError("a fault of the sandbox")


class Stand:
    """A sandbox in this process.

    Args:
        settings: of the server under it.
        seed: what everything random comes from; anything but empty adds more people.
        clock: the clock to begin with.
    """

    def __init__(
        self, settings: Settings, *, seed: str = "", clock: SandboxClock | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock or SandboxClock()
        self.random = SeededRandom(seed or "hupan")
        self.faults = Faults(SeededRandom(f"{seed} faults"))
        self.journal = Journal()
        self.listeners: list[Callable[[Entry], None]] = []
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if list(settings.data_dir.glob("hupan.db")) and not (settings.data_dir / MARK).exists():
            raise SettingsError(f"{settings.data_dir} holds the data of a real server")
        (settings.data_dir / MARK).touch()
        upgrade(settings.sqlalchemy_url)
        key = SeededRandom(f"{seed} key").bytes(32)
        self.world, self.bell = build_world(settings, clock=self.clock, random=self.random, key=key)
        assert isinstance(self.world.database, SqlDatabase)
        self.database = self.world.database
        event.listen(self.database.engine, "after_cursor_execute", _note_write)
        with operation(self.world, Actor("sandbox")) as ctx:
            if not people.seed(ctx, seed):
                # The data are of an earlier start: read the stream where that one did not, so
                # that no token comes twice.
                self.random.drawn = ctx.now * 1000
        self.snapshots = Snapshots(self.database) if self.database.is_sqlite else None
        self._drawn: dict[str, tuple[int, int, bool]] = {}
        self._doors: list[Door] = []

    def open(self, routes: list[BaseRoute]) -> None:
        """Make the two hosts; `routes` are those of `/__dev`."""
        self.hosts = build_hosts(self.world, face=self._face, more_routes=routes)
        self.hosts.lanes.rules = _Lane(self.settings.threads)
        self.hosts.lanes.hashes = _Lane(2)
        self._number_anew()
        self.save(FRESH)

    def _face(self, door: Door, other: Starlette) -> Face:
        self._doors.append(door)
        return Face(self, door, other)

    # ------------------------------------------------------------ states

    def save(self, name: str) -> None:
        """Keep the present state: data, randomness and clock."""
        if self.snapshots is not None:
            self.snapshots.save(name)
        self._drawn[name] = (self.random.drawn, self.clock.now(), self.clock.frozen)

    def restore(self, name: str) -> None:
        """Put a kept state back."""
        if self.snapshots is not None:
            self.snapshots.restore(name)
        self.random.drawn, at, frozen = self._drawn[name]
        if name == FRESH:
            self.clock.reset()
            if frozen:
                self.clock.freeze(at)
        else:
            self.clock.set(at)
        self._number_anew()

    def _number_anew(self) -> None:
        for door in self._doors:
            door.numbers = itertools.count(1)

    def reset(self) -> None:
        """Begin anew: the fixed people, no faults, nothing in the journal."""
        self.faults.clear()
        self.journal.clear()
        self.restore(FRESH)

    def next_expiry(self) -> int | None:
        """The nearest moment at which something ends by itself."""
        now = self.clock.now()
        ends = [
            select(func.min(column)).where(column > now)
            for column in (
                code.c.expires_at,
                account.c.vip_until,
                account.c.banned_until,
                link.c.expires_at,
            )
        ]
        idle = self.settings.session_idle_days * 86_400
        ends.append(select(func.min(session.c.seen_at) + idle))
        with operation(self.world) as ctx:
            found = [ctx.tx.value(end) for end in ends]
        later = [end for end in found if end is not None and end > now]
        return min(later) if later else None

    def close(self) -> None:
        """Close everything."""
        if self.snapshots is not None:
            self.snapshots.close()
        self.hosts.lanes.close()
        self.database.close()

    # ------------------------------------------------------------ one request

    async def answer(self, door: Door, ask: Ask) -> Reply:
        """Answer as the server does, or as a fault or a magic identity says; write it down."""
        row = door.rows[ask.path][0] if ask.path in door.rows else None
        name = f"{row.module}.{row.name}" if row else ""
        fault = self.faults.draw(ask.path, name)
        written: list[str] = []
        _written.set(written)
        started = time.perf_counter()
        reply = await self._answer(door, row, ask, fault)
        spent = round((time.perf_counter() - started) * 1000, 1)
        request, answer = decode(row, ask, reply)
        code, msg = _outcome(answer.decoded)
        entry = Entry(
            id=0,
            at=self.clock.now(),
            host=next(iter(door.rows.values()))[0].host.value,
            method=ask.method,
            path=ask.path,
            query=ask.query,
            row=name,
            token=ask.headers.get("token", ""),
            status=reply.status,
            code=code,
            msg=msg,
            ms=spent,
            request=request,
            answer=answer,
            fault=fault.fault if fault else "",
            warnings=warn(row, ask, next(iter(door.rows.values()))[0].host),
            changed=written,
        )
        self.journal.add(entry)
        for listener in self.listeners:
            listener(entry)
        return reply

    async def _answer(
        self, door: Door, row: Row[..., Any, Any] | None, ask: Ask, fault: Fault | None
    ) -> Reply:
        if fault is not None:
            if fault.fault == "delay":
                await asyncio.sleep(fault.seconds)
            if fault.fault == "status":
                return Reply(fault.status, [("content-type", "text/plain")], b"sandbox\n")
            if fault.fault == "refusal":
                return self._refuse(row, ask, fault.code, fault.msg)
            if fault.fault == "dead-token":
                return self._refusal(row, ask, NotLoggedIn())
            # A spoiled answer is spoiled as such, not as a broken gzip stream.
            plain = {name: value for name, value in ask.headers.items() if name != GZIP}
            ask = replace(ask, headers=plain)
        if row is None:
            return await door.handle(ask)
        identity = _identity(row, ask)
        refused = magic.refusal(identity, row.name) if identity else None
        if refused is not None:
            reply = self._refusal(row, ask, refused)
        elif row.name in LOGINS:
            alive = await asyncio.to_thread(self._fixed_sessions)
            reply = await door.handle(ask)
            await asyncio.to_thread(self._keep, alive)
        else:
            reply = await door.handle(ask)
        if identity is not None and identity.expired:
            await asyncio.to_thread(self._expire, identity)
        return _spoil(reply, fault) if fault else reply

    def _refusal(self, row: Row[..., Any, Any] | None, ask: Ask, refused: Refusal) -> Reply:
        reply = self._refuse(row, ask, refused.code, refused.text(self.settings.language))
        if refused.retry_after is not None:
            reply.headers.append(("retry-after", str(refused.retry_after)))
        return reply

    def _refuse(self, row: Row[..., Any, Any] | None, ask: Ask, code: int, msg: str) -> Reply:
        format = answer_format(row, ask.body, ask.headers.get("accept", "")) if row else Format.JSON
        body = encode_refusal(format, 0, code, msg)
        return Reply(200, [("content-type", format.value), ("cache-control", "no-store")], body)

    def _fixed_sessions(self) -> list[dict[str, Any]]:
        """The sessions of the printed tokens, as far as they live."""
        hashes = [sessions.token_hash(one.token) for one in people.everybody()]
        with operation(self.world) as ctx:
            rows = ctx.tx.all(select(session).where(session.c.token_hash.in_(hashes)))
        return [dict(row._mapping) for row in rows]

    def _keep(self, alive: list[dict[str, Any]]) -> None:
        """Put a printed token back that a login has just pushed out.

        Clients log in at every start, and the longest idle session leaves first: without this a
        printed token would be dead after a person's twentieth login.
        """
        with operation(self.world) as ctx:
            there = {row.id for row in ctx.tx.all(select(session.c.id))}
            for gone in (one for one in alive if one["id"] not in there):
                ctx.tx.run(session.insert().values(**gone))

    def _expire(self, identity: magic.Identity) -> None:
        with operation(self.world, Actor("sandbox")) as ctx:
            ctx.tx.run(
                update(code)
                .where(code.c.destination.in_((identity.phone, identity.email)))
                .values(expires_at=ctx.now)
            )

    def letters(self, to: str = "") -> list[outbox.Letter]:
        """What was sent, newest first; `to` may be written in any way."""
        with contextlib.suppress(Refusal):
            to = contact.email(to) if "@" in to else contact.phone(to)
        with operation(self.world) as ctx:
            return outbox.letters(ctx, to)


def _note_write(_connection: Any, cursor: Any, statement: str, *_more: Any) -> None:
    written = _written.get()
    match = _VERB.match(statement) if written is not None else None
    if match and written is not None and cursor.rowcount:
        verb = match[1].split()[0].lower()
        line = f"{verb} {match[2]}"
        if line not in written:
            written.append(line)


def _identity(row: Row[..., Any, Any], ask: Ask) -> magic.Identity | None:
    """The magic identity that a request names, if it names one."""
    try:
        said = decode_request(row, ask.body, ask.query, get=ask.method == "GET")
    except Unreadable:
        return None
    address = getattr(said, "mobile", "") or getattr(said, "email", "")
    try:
        return magic.find(contact.email(address) if "@" in address else contact.phone(address))
    except Refusal:
        return None


def _outcome(decoded: Any) -> tuple[int | None, str]:
    status = decoded.get("status", decoded) if isinstance(decoded, dict) else {}
    if not isinstance(status, dict) or not isinstance(status.get("code"), int):
        return None, ""
    return status["code"], str(status.get("msg", ""))


def _spoil(reply: Reply, fault: Fault) -> Reply:
    body = reply.body
    is_json = body[:1] == b"{"
    if fault.fault == "drop":
        return Cut(reply.status, reply.headers, body)
    if fault.fault == "truncate":
        body = body[: len(body) // 2]
    elif fault.fault == "bad-protobuf":
        # Field 1 with a length that runs past the end of everything.
        body = b"\x0a\xff\xff\xff\x7f"
    elif fault.fault == "unknown-fields":
        body = body[:-1] + b',"future":{"a":[1]}}' if is_json else body + FUTURE
    return Reply(reply.status, reply.headers, body)
