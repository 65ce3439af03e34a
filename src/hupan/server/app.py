"""Composition: the world is put together here, and the two hosts are made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from hupan.accounts.context import Clock, Random, World
from hupan.outside.chance import SystemClock, SystemRandom
from hupan.outside.database import SqlDatabase
from hupan.outside.keys import load_key
from hupan.outside.post import Bell
from hupan.protocol import Host
from hupan.server import health, pages
from hupan.server.body import Gone, Receive, read
from hupan.server.door import Ask, Door, Lanes, Reply, broken, not_found
from hupan.server.memory import Memory
from hupan.settings import Settings, SettingsError

__all__ = ["App", "Hosts", "Receive", "Scope", "Send", "build_hosts", "build_world", "make_folder"]

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Paths that are the server's own, and no client's.
OWN = ("/healthz", "/readyz", "/account/", "/__dev")


def make_folder(settings: Settings) -> None:
    """Make the data folder, which only its owner may read.

    Raises:
        SettingsError: something else is in its place, or this may not be written.
    """
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{settings.data_dir} cannot be the data folder: {error}") from error


def build_world(
    settings: Settings,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    key: bytes | None = None,
) -> tuple[World, Bell]:
    """Open everything outside the rules. The bell is what the world rings when it queues."""
    make_folder(settings)
    bell = Bell()
    world = World(
        settings=settings,
        database=SqlDatabase(settings.sqlalchemy_url, threads=settings.threads),
        clock=clock or SystemClock(),
        random=random or SystemRandom(),
        key=key or load_key(settings),
        wake=bell.ring,
    )
    return world, bell


class App:
    """The ASGI face of one host: the wire by the door, everything else by the pages."""

    def __init__(self, door: Door, other: Starlette) -> None:
        self.door = door
        self.other = other

    def knows(self, path: str) -> bool:
        """Whether a path is the wire's, which every path is that is not one of our own pages."""
        return path in self.door.rows or not path.startswith(OWN)

    async def answer(self, ask: Ask) -> Reply:
        """Answer a request of the wire."""
        return await self.door.handle(ask)

    async def send(self, reply: Reply, send: Send) -> None:
        """Send an answer."""
        headers = [(name.encode(), value.encode()) for name, value in reply.headers]
        if reply.status != 204:
            headers.append((b"content-length", str(len(reply.body)).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.knows(scope["path"]):
            await self.other(scope, receive, send)
            return
        try:
            body = await read(receive)
        except Gone:
            # Usually nobody reads this any more; a body that is no HTTP has a sender who does.
            await self.send(broken(self.door.language), send)
            return
        client = scope.get("client")
        reply = await self.answer(
            Ask(
                method=scope["method"],
                path=scope["path"],
                query=scope["query_string"].decode("latin-1"),
                headers=_headers(scope["headers"]),
                body=body,
                peer=client[0] if client else "",
            )
        )
        await self.send(reply, send)


def _headers(sent: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in sent:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        # A chain of proxies may write a line each; together they are one list.
        if key == "x-forwarded-for" and key in headers:
            text = f"{headers[key]},{text}"
        headers[key] = text
    return headers


@dataclass(frozen=True)
class Hosts:
    """The two listeners of a server, and what they share."""

    world: World
    api: App
    web: App
    lanes: Lanes


def build_hosts(
    world: World,
    *,
    face: Callable[[Door, Starlette], App] = App,
    more_routes: list[BaseRoute] | None = None,
    hurries: bool = True,
) -> Hosts:
    """Make both hosts of one world. The sandbox brings a face and, for the API host, routes.

    A server hurries: it keeps answers, and lets writers share commits. A stand-in, which moves the
    time and looks at every call by itself, does not.
    """
    database = world.database
    assert isinstance(database, SqlDatabase)
    lanes = Lanes(database, world.settings.threads, world.settings.workers, shares=hurries)
    memory = Memory(database.watch(), world.clock, lanes.watch) if hurries else None

    async def unknown(_: Request, error: Exception) -> Response:
        reply = not_found(world.settings.language, getattr(error, "status_code", 404))
        return Response(reply.body, reply.status, dict(reply.headers))

    def others(*routes: BaseRoute) -> Starlette:
        return Starlette(
            routes=[*health.routes(world), *routes],
            exception_handlers={404: unknown, 405: unknown},
        )

    return Hosts(
        world=world,
        api=face(Door(world, Host.API, lanes, memory), others(*(more_routes or []))),
        web=face(Door(world, Host.WEB, lanes), others(*pages.routes(world, lanes))),
        lanes=lanes,
    )
