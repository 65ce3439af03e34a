"""`/__dev/`: the sandbox in a browser. It only calls the look-ups that programs call too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

__all__ = ["routes"]

_FILES = {
    "/__dev/": ("page.html", "text/html"),
    "/__dev/page.js": ("page.js", "text/javascript"),
    "/__dev/page.css": ("page.css", "text/css"),
    "/__dev/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def routes() -> list[BaseRoute]:
    """The page and its files."""

    async def bare(_: Request) -> Response:
        return RedirectResponse("/__dev/")

    return [
        Route("/__dev", bare),
        *(Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()),
    ]


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (Path(__file__).parent / name).read_bytes()

    async def send(_: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return send
