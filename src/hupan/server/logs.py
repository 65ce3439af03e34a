"""Structured logs on standard error: one line a call, JSON in production."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from select import PIPE_BUF
from typing import Any, BinaryIO

import msgspec
import structlog

from hupan.settings import Settings

__all__ = ["configure"]


def configure(settings: Settings) -> None:
    """Send our own log and the libraries' through one chain."""
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    level = getattr(logging, settings.log_level.upper())
    wrapper = structlog.make_filtering_bound_logger(level)
    renderer: Any
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_to_text)
        # Ours is written without the detour by the standard library's handlers, which costs more
        # than many a call that the line tells of.
        lines = _Lines(sys.stderr.buffer)
        structlog.configure(
            processors=[*shared, structlog.processors.JSONRenderer(serializer=_to_bytes)],
            logger_factory=lambda *_: lines,
            wrapper_class=wrapper,
            cache_logger_on_first_use=True,
        )
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The fancy ones print the values of variables, which may be secrets.
            exception_formatter=structlog.dev.plain_traceback,
        )
        structlog.configure(
            processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=wrapper,
            cache_logger_on_first_use=True,
        )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Its messages at this level are about itself, not about what it does.
    logging.getLogger("alembic").setLevel(logging.WARNING)


class _Lines:
    """Writes lines; those of one turn of the event loop together, in the next.

    Every write lets another thread have the interpreter's lock, which costs the loop more than the
    line. So an answer may leave before its line is written, and a process that is killed takes the
    last few along. What happened has happened, even where its line finds no room.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.lock = threading.Lock()
        self.waiting = b""
        #: The loop that will write what waits.
        self.due: asyncio.AbstractEventLoop | None = None

    def msg(self, message: bytes) -> None:
        line = message + b"\n"
        with self.lock:
            if len(self.waiting) + len(line) > PIPE_BUF:
                # A pipe takes no more than this without mixing it with other processes' lines.
                self._write()
            self.waiting += line
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            if self.due is not loop:
                self.due = loop
                loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits."""
        with self.lock:
            self.due = None
            self._write()

    def _write(self) -> None:
        lines, self.waiting = self.waiting, b""
        if lines:
            with contextlib.suppress(OSError, ValueError):
                self.file.write(lines)
                self.file.flush()

    debug = info = warning = error = critical = fatal = exception = msg


def _to_bytes(line: Any, **_: Any) -> bytes:
    return msgspec.json.encode(line, enc_hook=repr)


def _to_text(line: Any, **_: Any) -> str:
    return _to_bytes(line).decode()
