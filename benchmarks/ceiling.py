"""The ceiling: what granian does when there is nothing to do.

The same granian, set up by the same lines, answers every request with constant bytes, in asyncio's
own event loop or in ours; no server of ours can be faster than the latter. The body of a POST is
read, because whoever answers one has to.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from hupan.server.loop import run_in_loop


class Rsgi:
    """Answers in granian's own words."""

    def __init__(self, headers: list[tuple[str, str]], body: bytes) -> None:
        self.headers, self.body = headers, body

    async def __rsgi__(self, scope: Any, exchange: Any) -> None:
        if scope.method == "POST":
            await exchange()
        exchange.response_bytes(200, self.headers, self.body)


class Asgi:
    """Answers in ASGI's words."""

    def __init__(self, headers: list[tuple[str, str]], body: bytes) -> None:
        length = ("content-length", str(len(body)))
        sent = [(key.encode(), value.encode()) for key, value in (*headers, length)]
        self.start = {"type": "http.response.start", "status": 200, "headers": sent}
        self.body = {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await receive()
        await send(self.start)
        await send(self.body)


async def main(interface: str, port: int, answer: Path) -> None:
    """Serve until the process is ended."""
    told = json.loads(answer.read_text())
    headers = [(key, value) for key, value in told["headers"]]
    face = Asgi if interface == "asgi" else Rsgi
    server = Server(
        face(headers, bytes.fromhex(told["body"])),
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL if interface == "asgi" else Interfaces.RSGI,
        websockets=False,
        log_enabled=False,
        backlog=1024,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
    )
    await server.serve()


if __name__ == "__main__":
    run = run_in_loop if sys.argv[1] == "loop" else asyncio.run
    run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
