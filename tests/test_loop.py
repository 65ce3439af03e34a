"""The event loop of a server: no call from a thread is overheard, and many wake it once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from hupan.server.loop import Loop, run_in_loop

THREADS, CALLS = 4, 1_500


@contextlib.contextmanager
def running(loop: Loop) -> Iterator[None]:
    """Run the loop in a thread of its own."""
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        # Whoever overheard everything hears a second byte.
        loop.call_soon_threadsafe(loop.stop)
        loop._csock.send(b"\0")  # type: ignore[attr-defined]  # An inner part of asyncio's.
        thread.join()
        loop.close()


def ask_and_wait(loop: Loop) -> None:
    """From several threads, ask and wait for the answer, so that the loop sleeps now and then.

    Raises:
        TimeoutError: somebody was not heard.
    """
    unheard: list[int] = []

    def ask(place: int) -> None:
        for _ in range(CALLS):
            heard = threading.Event()
            loop.call_soon_threadsafe(heard.set)
            if not heard.wait(3):
                unheard.append(place)
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(place,)) for place in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if unheard:
        raise TimeoutError(f"threads {unheard} were not heard")


def test_every_call_from_a_thread_is_heard() -> None:
    loop = Loop()
    with running(loop):
        ask_and_wait(loop)


class Interrupted(Loop):
    """While it reads, a thread calls: here always, and in life now and then."""

    interrupted = False

    def _process_self_data(self, data: bytes) -> None:
        super()._process_self_data(data)  # type: ignore[misc]  # An inner part of asyncio's.
        if not self.interrupted:
            self.interrupted = True
            self.call_soon_threadsafe(int)


class Hasty(Interrupted):
    """The mutant: forgets that a byte is on its way before it has read it."""

    def _read_from_self(self) -> None:
        self._woken = False
        asyncio.SelectorEventLoop._read_from_self(self)  # type: ignore[attr-defined]  # Inner.


@pytest.mark.parametrize(("kind", "hears"), [(Interrupted, True), (Hasty, False)])
def test_a_call_that_comes_while_it_reads_is_followed_by_others(
    kind: type[Loop], hears: bool
) -> None:
    loop, first, second = kind(), threading.Event(), threading.Event()
    with running(loop):
        loop.call_soon_threadsafe(first.set)
        assert first.wait(5)
        # What it does before it sleeps again is soon done.
        time.sleep(0.2)
        loop.call_soon_threadsafe(second.set)
        assert second.wait(5 if hears else 1) == hears


def test_many_calls_wake_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is busy, a hundred calls from a thread write one byte together."""
    written: list[int] = []
    wake = asyncio.SelectorEventLoop._write_to_self  # type: ignore[attr-defined]  # Inner.

    def counted(loop: Loop) -> None:
        written.append(1)
        wake(loop)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "_write_to_self", counted)
    loop, heard, busy, go = Loop(), threading.Semaphore(0), threading.Event(), threading.Event()

    def keep_busy() -> None:
        busy.set()
        go.wait()

    with running(loop):
        loop.call_soon_threadsafe(keep_busy)
        busy.wait()
        for _ in range(100):
            loop.call_soon_threadsafe(heard.release)
        go.set()
        for _ in range(100):
            assert heard.acquire(timeout=5)
        # One for the call that keeps it busy, and one for all others at the most.
        assert len(written) <= 2


def test_signals_are_heard() -> None:
    """A signal writes a byte of its own, which is read with those of threads."""

    async def main() -> None:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        assert isinstance(loop, Loop)
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        for _ in range(200):
            called = loop.run_in_executor(None, os.kill, os.getpid(), signal.SIGUSR1)
            async with asyncio.timeout(3):
                await heard.wait()
                await called
            heard.clear()

    run_in_loop(main())
