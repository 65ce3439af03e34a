"""Takes letters out of the outbox and sends them, after the commit and off every request.

A relay that is slow or dead delays nobody: requests only write rows. Each channel is a coroutine
that returns when a letter left and raises when it did not; further channels are further entries of
`CHANNELS`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from hupan.accounts import outbox
from hupan.accounts.context import Actor, World
from hupan.accounts.operation import operation
from hupan.accounts.outbox import Letter
from hupan.accounts.refusals import Refusal
from hupan.settings import Settings

__all__ = ["CHANNELS", "Bell", "Post"]

log = logging.getLogger(__name__)

#: How often the outbox is looked at without being called, in seconds: other processes write too.
IDLE = 1.0
#: So many letters may be on their way at once; their claims outlast any relay's time-out.
MOST_LEAVING = 64


class Bell:
    """Rung from any thread when something was queued."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None

    def attach(self) -> None:
        """Listen in the running loop."""
        self._loop, self._event = asyncio.get_running_loop(), asyncio.Event()

    def ring(self) -> None:
        """Something was queued."""
        if self._loop is not None and self._event is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Until the next ring, or so long."""
        assert self._event is not None, "attach first"
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()


async def _to_console(letter: Letter, settings: Settings) -> None:
    line = f"[{letter.channel}] {letter.destination}: {letter.text}\n"

    def write() -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    await asyncio.to_thread(write)


async def _to_file(letter: Letter, settings: Settings) -> None:
    line = json.dumps(
        {
            "id": letter.id,
            "at": letter.created_at,
            "channel": letter.channel,
            "to": letter.destination,
            "purpose": letter.purpose,
            "text": letter.text,
        },
        ensure_ascii=False,
    )

    def append() -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        path = settings.data_dir / "outbox.jsonl"
        with os.fdopen(os.open(path, flags, 0o600), "a") as file:
            file.write(line + "\n")

    await asyncio.to_thread(append)


async def _to_smtp(letter: Letter, settings: Settings) -> None:
    # Loaded where somebody has configured a relay, and not at every start.
    import aiosmtplib

    mail = EmailMessage()
    mail["From"] = settings.smtp_from or settings.smtp_user
    mail["To"] = letter.destination
    mail["Subject"] = letter.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(letter.created_at, UTC))
    # The same id for every attempt, so that a receiver can drop a second copy.
    mail["Message-ID"] = f"<{letter.id}.{letter.created_at}@hupan>"
    mail.set_content(letter.text)
    await aiosmtplib.send(
        mail,
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        username=settings.smtp_user or None,
        password=settings.smtp_password.get_secret_value() or None,
        use_tls=settings.smtp_security == "tls",
        start_tls=settings.smtp_security == "starttls",
        timeout=settings.smtp_timeout,
    )


Send = Callable[[Letter, Settings], Awaitable[None]]
CHANNELS: dict[str, Send] = {"console": _to_console, "file": _to_file, "smtp": _to_smtp}


class Post:
    """The sender of one process."""

    def __init__(self, world: World, bell: Bell) -> None:
        self.world = world
        self.bell = bell
        self.actor = Actor("post")
        self.leaving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until cancelled."""
        self.bell.attach()
        while True:
            try:
                letters = await asyncio.to_thread(self._claim)
            except Refusal:
                # The database is away or busy; the letters wait in it.
                letters = []
            except Exception:
                log.exception("the outbox cannot be read")
                letters = []
            for letter in letters:
                # Each leaves on its own: a silent relay keeps no short message waiting.
                task = asyncio.create_task(self._send(letter))
                self.leaving.add(task)
                task.add_done_callback(self.leaving.discard)
            if not letters:
                await self.bell.wait(IDLE)
            elif len(self.leaving) >= MOST_LEAVING:
                await asyncio.wait(self.leaving, return_when=asyncio.FIRST_COMPLETED)

    async def drain(self, seconds: float = 2.0) -> None:
        """Let letters that are on their way leave, for a short while."""
        if self.leaving:
            await asyncio.wait(self.leaving, timeout=seconds)

    async def _send(self, letter: Letter) -> None:
        settings = self.world.settings
        if letter.ended:
            await asyncio.to_thread(self._settle, letter, "the code has ended")
            return
        names = settings.deliver_sms if letter.channel == "sms" else settings.deliver_email
        error = "" if names else "no channel is configured"
        for name in names:
            try:
                await CHANNELS[name](letter, settings)
            except Exception as failure:  # A channel that breaks ends neither post nor server.
                # The class says enough; a relay's own words may repeat the letter.
                error = f"{name}: {type(failure).__name__}"
                log.warning("letter %s did not leave by %s", letter.id, error)
        try:
            await asyncio.to_thread(self._settle, letter, error)
        except Exception:
            log.warning("letter %s is sent again, its state could not be written", letter.id)

    def _claim(self) -> list[Letter]:
        with operation(self.world, self.actor) as ctx:
            return outbox.claim(ctx)

    def _settle(self, letter: Letter, error: str) -> None:
        with operation(self.world, self.actor) as ctx:
            if error:
                outbox.failed(ctx, letter, error)
            else:
                outbox.sent(ctx, letter)
