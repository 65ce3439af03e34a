"""Randomness from a seed: the same calls get the same answers. Never for a real server."""

from __future__ import annotations

import hashlib
import threading

__all__ = ["SeededRandom"]


class SeededRandom:
    """A stream of bytes that a seed determines; `drawn` is how far it was read."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.drawn = 0
        self._lock = threading.Lock()

    def bytes(self, count: int) -> bytes:
        data = b""
        with self._lock:
            while len(data) < count:
                self.drawn += 1
                data += hashlib.sha256(f"{self.seed} {self.drawn}".encode()).digest()
        return data[:count]

    def below(self, limit: int) -> int:
        # 16 bytes modulo a small number: no value is likelier than another by 2**-60.
        return int.from_bytes(self.bytes(16)) % limit
