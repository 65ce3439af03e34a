"""The clock and the randomness of a real server; tests bring a clock of their own."""

from __future__ import annotations

import secrets
import time

__all__ = ["SystemClock", "SystemRandom"]


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return int(time.time())


class SystemRandom:
    """The operating system's CSPRNG."""

    def bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def below(self, limit: int) -> int:
        return secrets.randbelow(limit)
