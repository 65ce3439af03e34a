"""Reading a request's body: bounded, and whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hupan.protocol.wire import LARGEST_BODY

__all__ = ["Gone", "Receive", "read"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

#: A body beyond this is not even read to its end.
LARGEST_READ = 16 * LARGEST_BODY


class Gone(Exception):
    """The client left before it had sent all; what it sent is no request."""


async def read(receive: Receive) -> bytes:
    """Read a body.

    One that is too large is read on for a while, so that the refusal arrives; only its beginning
    is kept.

    Raises:
        Gone: the connection was lost in the middle of it.
    """
    body, size = b"", 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if len(body) <= LARGEST_BODY:
            body += part
        if not message.get("more_body", False) or size > LARGEST_READ:
            return body
