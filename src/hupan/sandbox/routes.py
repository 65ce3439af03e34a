"""`/__dev`: what a client writer may look up and change, on the API host of a sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hupan.accounts import captchas
from hupan.accounts.outbox import Letter
from hupan.protocol.wire import LARGEST_BODY
from hupan.sandbox import magic, page, people
from hupan.sandbox.clock import seconds_of
from hupan.sandbox.faults import Fault
from hupan.sandbox.journal import as_curl, as_pytest, as_sdk
from hupan.sandbox.snapshots import NoSnapshot
from hupan.sandbox.stand import FRESH, Stand
from hupan.server.body import read

__all__ = ["routes"]

#: How often a long poll looks, in seconds, and the longest it waits.
LOOK, LONGEST = 0.02, 60.0

Handler = Callable[[Request], Awaitable[Any]]


class Unusable(ValueError):
    """The call makes no sense; the text says why."""


def told(letter: Letter) -> dict[str, Any]:
    """A letter as the look-ups show it."""
    return {
        "id": letter.id,
        "channel": letter.channel,
        "to": letter.destination,
        "purpose": letter.purpose,
        "code": letter.code,
        "text": letter.text,
        "at": letter.created_at,
    }


def routes(stand: Stand) -> list[BaseRoute]:
    """Every look-up and every switch."""

    # ------------------------------------------------------------ post and captchas

    async def outbox(request: Request) -> Any:
        letters = await asyncio.to_thread(stand.letters, request.query_params.get("to", ""))
        return {"messages": [told(letter) for letter in letters]}

    async def wait(request: Request) -> Any:
        to = request.query_params.get("to", "")
        after = _number(request.query_params.get("after", "0"), "after")
        seconds = min(_number(request.query_params.get("timeout", "5"), "timeout"), LONGEST)
        deadline = time.monotonic() + seconds
        while True:
            letters = await asyncio.to_thread(stand.letters, to)
            found = [told(letter) for letter in letters if letter.id > after]
            if found or time.monotonic() >= deadline:
                return {"messages": found}
            await asyncio.sleep(LOOK)

    async def captcha(request: Request) -> Any:
        captcha_id = request.path_params["id"]
        solution = captchas.solution(stand.world, captcha_id)
        if solution is None:
            return _json({"error": "no captcha of this server has this id"}, 404)
        return {"id": captcha_id, "solution": solution}

    # ------------------------------------------------------------ clock

    def clock_told() -> dict[str, Any]:
        now = stand.clock.now()
        return {
            "now": now,
            "text": stand.world.local_text(now),
            "frozen": stand.clock.frozen,
            "next_expiry": stand.next_expiry(),
        }

    async def read_clock(_: Request) -> Any:
        return await asyncio.to_thread(clock_told)

    async def move_clock(request: Request) -> Any:
        body = await _body(request)
        for word, value in body.items():
            if word == "freeze":
                if value is False:
                    stand.clock.run()
                else:
                    stand.clock.freeze(None if value is True else _whole(value, "freeze"))
            elif word == "advance" and value == "next-expiry":
                end = await asyncio.to_thread(stand.next_expiry)
                if end is None:
                    raise Unusable("nothing ends by itself from here on")
                stand.clock.set(end)
            elif word == "advance":
                stand.clock.advance(seconds_of(value))
            elif word == "set":
                stand.clock.set(_whole(value, "set"))
            else:
                raise Unusable(f"{word!r} is no word for the clock: freeze, advance, set")
        return await asyncio.to_thread(clock_told)

    # ------------------------------------------------------------ faults

    async def list_faults(_: Request) -> Any:
        return {"faults": [msgspec.to_builtins(one) for one in stand.faults], "kinds": Fault.KINDS}

    async def add_fault(request: Request) -> Any:
        body = await _body(request)
        body.pop("id", None)
        fault = msgspec.convert(body, Fault)
        made = stand.faults.add(**{**msgspec.structs.asdict(fault), "id": 0})
        return msgspec.to_builtins(made)

    async def drop_faults(request: Request) -> Any:
        given = request.query_params.get("id")
        if given is None:
            stand.faults.clear()
        elif not stand.faults.remove(_number(given, "id")):
            raise Unusable(f"there is no fault {given}")
        return {"faults": [msgspec.to_builtins(one) for one in stand.faults]}

    # ------------------------------------------------------------ requests

    async def list_requests(request: Request) -> Any:
        after = _number(request.query_params.get("after", "0"), "after")
        base = f"http://{request.url.netloc}"
        return {
            "requests": [
                {
                    **msgspec.to_builtins(entry),
                    "copy": {
                        "curl": as_curl(entry, base),
                        "sdk": as_sdk(entry),
                        "pytest": as_pytest(entry),
                    },
                }
                for entry in stand.journal.entries(after)
            ],
            "unimplemented": stand.journal.unimplemented,
        }

    async def clear_requests(_: Request) -> Any:
        stand.journal.clear()
        return {"requests": []}

    # ------------------------------------------------------------ states

    async def reset(_: Request) -> Any:
        started = time.perf_counter()
        await asyncio.to_thread(stand.reset)
        return {"ms": round((time.perf_counter() - started) * 1000, 1)}

    async def list_snapshots(_: Request) -> Any:
        return {"snapshots": [] if stand.snapshots is None else stand.snapshots.names}

    async def snapshot(request: Request) -> Any:
        body = await _body(request)
        word, name = next(iter(body.items()), ("", ""))
        if len(body) != 1 or word not in ("save", "restore") or not isinstance(name, str):
            raise Unusable('write {"save": "name"} or {"restore": "name"}')
        if stand.snapshots is None:
            raise Unusable("snapshots need SQLite: start `hupan dev` without a database_url")
        if word == "save" and (not name or name == FRESH):
            raise Unusable(f"a snapshot needs a name, other than {FRESH!r}")
        await asyncio.to_thread(stand.save if word == "save" else stand.restore, name)
        return {"snapshots": stand.snapshots.names}

    # ------------------------------------------------------------ people

    async def list_people(_: Request) -> Any:
        return {
            "people": [asdict(one) for one in people.everybody()],
            "magic": [
                {"name": one.name, "phone": one.phone, "email": one.email, "note": one.note}
                for one in magic.IDENTITIES
            ],
        }

    return [
        *page.routes(),
        Route("/__dev/outbox", _call(outbox)),
        Route("/__dev/outbox/wait", _call(wait)),
        Route("/__dev/captchas/{id}", _call(captcha)),
        Route("/__dev/clock", _call(read_clock)),
        Route("/__dev/clock", _call(move_clock), methods=["POST"]),
        Route("/__dev/faults", _call(list_faults)),
        Route("/__dev/faults", _call(add_fault), methods=["POST"]),
        Route("/__dev/faults", _call(drop_faults), methods=["DELETE"]),
        Route("/__dev/requests", _call(list_requests)),
        Route("/__dev/requests", _call(clear_requests), methods=["DELETE"]),
        Route("/__dev/reset", _call(reset), methods=["POST"]),
        Route("/__dev/snapshots", _call(list_snapshots)),
        Route("/__dev/snapshots", _call(snapshot), methods=["POST"]),
        Route("/__dev/people", _call(list_people)),
    ]


def _call(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            # A page of somebody else, open in the same browser, has no business here.
            return _json({"error": "this is for pages of the sandbox only"}, 403)
        try:
            answer = await handler(request)
        except (Unusable, NoSnapshot, ValueError) as error:
            return _json({"error": str(error)}, 400)
        return answer if isinstance(answer, Response) else _json(answer)

    return run


def _json(value: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status, headers, "application/json")


async def _body(request: Request) -> dict[str, Any]:
    raw = await read(request.receive)
    try:
        body = msgspec.json.decode(raw) if len(raw) <= LARGEST_BODY else None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unusable(f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Unusable("the body is no JSON object")
    return body


def _number(text: str, name: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError) as error:
        raise Unusable(f"{name} is a number") from error


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**40:
        raise Unusable(f"{name} takes Unix seconds")
    return value
