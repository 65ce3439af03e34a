"""`/__dev`: what a client writer may look up, on the API host of a dev server."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hupan.accounts import captchas, contact, outbox
from hupan.accounts.context import World
from hupan.accounts.operation import operation
from hupan.accounts.refusals import Refusal

__all__ = ["routes"]


def routes(world: World) -> list[BaseRoute]:
    """The look-ups."""

    def read(to: str) -> list[dict[str, Any]]:
        with operation(world) as ctx:
            return [
                {
                    "id": letter.id,
                    "channel": letter.channel,
                    "to": letter.destination,
                    "purpose": letter.purpose,
                    "code": letter.code,
                    "text": letter.text,
                    "at": letter.created_at,
                }
                for letter in outbox.letters(ctx, to)
            ]

    async def messages(request: Request) -> Response:
        to = _normalised(request.query_params.get("to", ""))
        return JSONResponse({"messages": await asyncio.to_thread(read, to)})

    async def captcha(request: Request) -> Response:
        captcha_id = request.path_params["id"]
        solution = captchas.solution(world, captcha_id)
        if solution is None:
            return JSONResponse({"error": "no captcha of this server has this id"}, 404)
        return JSONResponse({"id": captcha_id, "solution": solution})

    return [
        Route("/__dev/outbox", messages),
        Route("/__dev/captchas/{id}", captcha),
    ]


def _normalised(to: str) -> str:
    """Look for a destination as the rules write it, however it was typed."""
    try:
        return contact.email(to) if "@" in to else contact.phone(to)
    except Refusal:
        return to
