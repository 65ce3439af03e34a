"""The event loop of a server: one wake-up for all calls that come from other threads at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["Loop", "run_in_loop"]


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop, which is woken by a byte in a socket, for each call from a thread.

    granian calls from a thread for every request. Here a byte is written only where none is on its
    way; this saves a system call, and with it the interpreter's lock changing hands. Both methods
    are inner ones of asyncio's, the same in Python 3.11 to 3.13.
    """

    _woken = False

    def _write_to_self(self) -> None:
        # The call that this is for has been queued already.
        if not self._woken:
            self._woken = True
            super()._write_to_self()  # type: ignore[misc]  # Typeshed leaves inner methods out.

    def _read_from_self(self) -> None:
        try:
            super()._read_from_self()  # type: ignore[misc]  # The same.
        finally:
            # Only now: a byte that is written while the others are read is read with them. What
            # was queued meanwhile without a byte is seen before the loop sleeps.
            self._woken = False


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run until it ends, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main)
