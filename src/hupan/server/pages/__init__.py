"""Pages of the web host: one, which opens the one-time links that mails and operators hand out.

The secret stands behind the `#` of the address, so that it reaches no log; the page's script reads
it there and sends it in a body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hupan.accounts import contact, links, passwords
from hupan.accounts.context import Context, World
from hupan.accounts.operation import operation
from hupan.accounts.refusals import BadLink, BadParameters, Refusal
from hupan.protocol.wire import LARGEST_BODY
from hupan.server.body import Gone, read
from hupan.server.door import Lanes

__all__ = ["routes"]

_FILES = {
    "/account/link": ("link.html", "text/html"),
    "/account/link.js": ("link.js", "text/javascript"),
    "/account/link.css": ("link.css", "text/css"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Opened(msgspec.Struct):
    """What the page sends: the secret, and a password where one is chosen."""

    secret: str
    password: str = ""
    look: bool = False


def routes(world: World, lanes: Lanes) -> list[BaseRoute]:
    """The page, its files, and the one call it makes."""

    def run(opened: Opened) -> dict[str, str]:
        with operation(world) as ctx:
            return _open(ctx, opened)

    async def call(request: Request) -> Response:
        try:
            body = await read(request.receive)
            if len(body) > LARGEST_BODY:
                raise BadParameters()
            opened = msgspec.json.decode(body, type=Opened)
            if opened.look:
                answer = await asyncio.to_thread(run, opened)
            else:
                answer = await lanes.hash(partial(run, opened))
            return _json({"code": 1, "data": answer, "msg": "success"})
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            refusal: Refusal = BadParameters()
        except Refusal as raised:
            refusal = raised
        except Gone:
            return Response()
        answered = _json({"code": refusal.code, "msg": refusal.text(world.settings.language)})
        if refusal.retry_after is not None:
            answered.headers["retry-after"] = str(refusal.retry_after)
        return answered

    return [
        *(Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()),
        Route("/account/link", call, methods=["POST"]),
    ]


def _open(ctx: Context, opened: Opened) -> dict[str, str]:
    if opened.look:
        return {"kind": links.look(ctx, opened.secret).kind}
    kind = links.look(ctx, opened.secret).kind
    if kind == "setup":
        passwords.choose_by_link(ctx, opened.secret, opened.password)
    elif kind in ("undo-phone", "undo-email"):
        contact.undo(ctx, opened.secret)
    else:
        raise BadLink()
    return {"kind": kind}


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (Path(__file__).parent / name).read_bytes()

    async def send(_: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return send


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=_HEADERS)
