"""`/__dev`: what a client writer may look up and change, on the API host of a sandbox."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hupan.accounts import captchas
from hupan.accounts.outbox import Letter
from hupan.accounts.refusals import Refusal
from hupan.protocol.row import Host
from hupan.protocol.wire import LARGEST_BODY
from hupan.sandbox import magic, page, people
from hupan.sandbox.clock import LATEST, moment_of
from hupan.sandbox.faults import Fault
from hupan.sandbox.journal import Entry, as_curl, as_pytest, as_sdk
from hupan.sandbox.snapshots import NoSnapshot
from hupan.sandbox.stand import FRESH, Stand
from hupan.server.body import Gone, read

__all__ = ["routes"]

#: How often a long poll looks, in seconds, and the longest it waits.
LOOK, LONGEST = 0.02, 60.0
#: The longest name of a snapshot.
LONGEST_NAME = 64
#: Endings of names that no stranger can point at this machine, and the production hosts, under
#: which an intercepted client comes.
OURS = (".localhost", ".test", ".example", ".local", ".internal")
PRODUCTION = ("chat-go.jwzhd.com", "chat-web-go.jwzhd.com")

Handler = Callable[[Request], Awaitable[Any]]
_LINK = re.compile(r"https?://\S+")


class Unusable(ValueError):
    """The call makes no sense; the text says why."""


def told(letter: Letter) -> dict[str, Any]:
    """A letter as the look-ups show it. `ended` says that its code is over."""
    link = _LINK.search(letter.text)
    return {
        "id": letter.id,
        "channel": letter.channel,
        "to": letter.destination,
        "purpose": letter.purpose,
        "code": letter.code,
        "link": link[0] if link else "",
        "text": letter.text,
        "at": letter.created_at,
        "ended": letter.ended,
    }


def fault_told(one: Fault) -> dict[str, Any]:
    """A fault with the endpoints it is about."""
    return {**msgspec.to_builtins(one), "matches": one.matches}


def routes(stand: Stand) -> list[BaseRoute]:
    """Every look-up and every switch."""

    async def poll(
        request: Request, look: Callable[[], Awaitable[list[Any]]], timeout: str
    ) -> list[Any]:
        """What is found, or what is found within `timeout` seconds."""
        seconds = min(_seconds(request.query_params.get("timeout", timeout)), LONGEST)
        deadline = time.monotonic() + seconds
        while True:
            found = await look()
            if found or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(LOOK)

    # ------------------------------------------------------------ post and captchas

    async def look_outbox(request: Request) -> list[Any]:
        after = _number(request, "after")
        to = request.query_params.get("to", "")
        letters = await asyncio.to_thread(stand.letters, to)
        return [told(letter) for letter in letters if letter.id > after]

    async def outbox(request: Request) -> Any:
        return {"messages": await look_outbox(request)}

    async def wait(request: Request) -> Any:
        return {"messages": await poll(request, lambda: look_outbox(request), "5")}

    async def captcha(request: Request) -> Any:
        captcha_id = request.path_params["id"]
        solution = captchas.solution(stand.world, captcha_id)
        if solution is None:
            return _json({"error": "no captcha of this server has this id"}, 404)
        return {"id": captcha_id, "solution": solution}

    async def list_captchas(request: Request) -> Any:
        after = _number(request, "after")

        async def look() -> list[Any]:
            found = []
            for entry in reversed(stand.journal.entries(after)):
                decoded = entry.answer.decoded
                if entry.row != "User.captcha" or entry.code != 1 or not decoded:
                    continue
                captcha_id = decoded["data"]["id"]
                solution = captchas.solution(stand.world, captcha_id)
                found.append(
                    {"id": captcha_id, "solution": solution, "at": entry.at, "request": entry.id}
                )
            return found

        return {"captchas": await poll(request, look, "0")}

    # ------------------------------------------------------------ clock

    def clock_told() -> dict[str, Any]:
        now, end = stand.clock.now(), stand.next_expiry()
        return {
            "now": now,
            "text": stand.world.local_text(now),
            "frozen": stand.clock.frozen,
            "next_expiry": end,
            "zone": stand.settings.time_zone,
        }

    async def read_clock(_: Request) -> Any:
        return await asyncio.to_thread(clock_told)

    async def move_clock(request: Request) -> Any:
        body = await _body(request)
        clock, before = stand.clock, stand.clock.state
        try:
            for word, value in body.items():
                await asyncio.to_thread(turn, word, value)
        except (ValueError, OverflowError):
            # All of a call, or nothing.
            clock.state = before
            raise
        if not body:
            raise Unusable("write freeze, advance, set or run")
        return await asyncio.to_thread(clock_told)

    def turn(word: str, value: Any) -> None:
        clock, zone = stand.clock, stand.settings.zone
        if word == "freeze" and value is True:
            clock.freeze()
        elif (word == "freeze" and value is False) or (word == "run" and value is True):
            clock.run()
        elif word == "freeze":
            clock.freeze(moment_of(value, zone))
        elif word == "advance" and value == "next-expiry":
            end = stand.next_expiry()
            if end is None or end > LATEST:
                raise Unusable("nothing ends by itself from here on")
            clock.set(end)
        elif word == "advance":
            clock.advance(value)
        elif word == "set":
            clock.set(moment_of(value, zone))
        elif word == "run":
            raise Unusable('write {"run": true}')
        else:
            raise Unusable(f"{word[:40]!r} is no word for the clock: freeze, advance, set, run")

    # ------------------------------------------------------------ faults

    def faults_told() -> dict[str, Any]:
        return {"faults": [fault_told(one) for one in stand.faults], "kinds": Fault.KINDS}

    async def list_faults(_: Request) -> Any:
        return faults_told()

    async def add_fault(request: Request) -> Any:
        body = await _body(request)
        # What was read can be written back.
        body.pop("id", None)
        body.pop("matches", None)
        if "match" not in body or "fault" not in body:
            raise Unusable('a fault is {"match": "/v1/user/info", "fault": "truncate", "times": 1}')
        return fault_told(stand.faults.add(**body))

    async def drop_faults(request: Request) -> Any:
        if "id" not in request.query_params:
            stand.faults.clear()
        elif not stand.faults.remove(_number(request, "id")):
            raise Unusable(f"there is no fault {request.query_params['id'][:20]}")
        return faults_told()

    # ------------------------------------------------------------ requests

    def address(request: Request, host: str) -> str:
        """Where a host of ours can be reached, seen from whoever asks."""
        settings = stand.settings
        if host == Host.API.value:
            return settings.api_url.rstrip("/") or f"http://{request.url.netloc}"
        name = request.url.hostname or settings.host
        name = f"[{name}]" if ":" in name else name
        return settings.web_url.rstrip("/") or f"http://{name}:{settings.web_port}"

    def entry_told(entry: Entry, request: Request) -> dict[str, Any]:
        copies = {
            "curl": as_curl(entry, address(request, entry.host)),
            "sdk": as_sdk(entry),
            "pytest": as_pytest(entry),
        }
        return {**msgspec.to_builtins(entry), "copy": copies}

    async def list_requests(request: Request) -> Any:
        after, path = _number(request, "after"), request.query_params.get("path", "*")

        async def look() -> list[Entry]:
            found = stand.journal.entries(after)
            return [
                one for one in found if fnmatchcase(one.path, path) or (one.row and one.row == path)
            ]

        return {
            "requests": [entry_told(entry, request) for entry in await poll(request, look, "0")],
            "unimplemented": stand.journal.unimplemented,
            "counts": stand.journal.counts,
            # Whoever reads on from a number learns that the numbers begin anew.
            "era": stand.journal.era,
        }

    async def clear_requests(_: Request) -> Any:
        stand.journal.clear()
        return {"requests": [], "unimplemented": [], "counts": {}, "era": stand.journal.era}

    # ------------------------------------------------------------ states

    async def reset(_: Request) -> Any:
        started = time.perf_counter()
        await asyncio.to_thread(stand.reset)
        return {"ms": round((time.perf_counter() - started) * 1000, 1)}

    async def list_snapshots(_: Request) -> Any:
        return {"snapshots": stand.snapshots.names}

    async def snapshot(request: Request) -> Any:
        body = await _body(request)
        word, name = next(iter(body.items()), ("", ""))
        acts = {"save": stand.save, "restore": stand.restore, "forget": stand.forget}
        if len(body) != 1 or word not in acts or not isinstance(name, str):
            raise Unusable('write {"save": "name"}, {"restore": "name"} or {"forget": "name"}')
        if word == "save" and (not name.strip() or len(name) > LONGEST_NAME):
            raise Unusable(f"a snapshot needs a name of at most {LONGEST_NAME} letters")
        if word != "restore" and name == FRESH:
            raise Unusable(f"{FRESH!r} is what a reset goes back to; choose another name")
        started = time.perf_counter()
        await asyncio.to_thread(acts[word], name)
        spent = round((time.perf_counter() - started) * 1000, 1)
        return {"snapshots": stand.snapshots.names, "ms": spent}

    # ------------------------------------------------------------ people

    async def list_people(_: Request) -> Any:
        return {
            "people": [asdict(one) for one in people.everybody()],
            "magic": [
                {"name": one.name, "phone": one.phone, "email": one.email, "note": one.note}
                for one in magic.IDENTITIES
            ],
        }

    guard = _Guard(stand)
    return [
        *page.routes(),
        Route("/__dev/outbox", guard.call(outbox)),
        Route("/__dev/outbox/wait", guard.call(wait)),
        Route("/__dev/captchas", guard.call(list_captchas)),
        Route("/__dev/captchas/{id}", guard.call(captcha)),
        Route("/__dev/clock", guard.call(read_clock)),
        Route("/__dev/clock", guard.call(move_clock), methods=["POST"]),
        Route("/__dev/faults", guard.call(list_faults)),
        Route("/__dev/faults", guard.call(add_fault), methods=["POST"]),
        Route("/__dev/faults", guard.call(drop_faults), methods=["DELETE"]),
        Route("/__dev/requests", guard.call(list_requests)),
        Route("/__dev/requests", guard.call(clear_requests), methods=["DELETE"]),
        Route("/__dev/reset", guard.call(reset), methods=["POST"]),
        Route("/__dev/snapshots", guard.call(list_snapshots)),
        Route("/__dev/snapshots", guard.call(snapshot), methods=["POST"]),
        Route("/__dev/people", guard.call(list_people)),
    ]


class _Guard:
    """Keeps other people's pages out, which the same browser may have open."""

    def __init__(self, stand: Stand) -> None:
        own = (stand.settings.api_url, stand.settings.web_url)
        self.names = {*PRODUCTION, *(urlsplit(one).hostname for one in own if one)}

    def call(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            origin = request.headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
                return _json({"error": "this is for pages of the sandbox only"}, 403)
            if not self._ours(request.url.hostname or ""):
                # A stranger's name that was pointed at this machine makes a stranger's page look
                # like ours; addresses and reserved names cannot be pointed anywhere.
                return _json(
                    {"error": "open this as 127.0.0.1, as localhost or as the api_url"}, 403
                )
            try:
                answer = await handler(request)
            except (ValueError, OverflowError, NoSnapshot, Gone, Refusal) as error:
                return _json({"error": str(error) or "the request was not whole"}, 400)
            return answer if isinstance(answer, Response) else _json(answer)

        return run

    def _ours(self, name: str) -> bool:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            name = name.lower().rstrip(".")
            return "." not in name or name.endswith(OURS) or name in self.names
        return True


def _json(value: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(msgspec.json.encode(value), status, headers, "application/json")


async def _body(request: Request) -> dict[str, Any]:
    raw = await read(request.receive)
    if len(raw) > LARGEST_BODY:
        raise Unusable("the body is too large")
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Unusable(f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Unusable("the body is no JSON object")
    return body


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise Unusable(f"{name} is a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise Unusable("timeout is a number of seconds")
    return seconds
