"""The sandbox's one clock: codes, VIP, bans, online days and sessions all follow it."""

from __future__ import annotations

import re
import time

__all__ = ["SandboxClock", "seconds_of"]

_DURATION = re.compile(
    r"^(?P<sign>-?)P(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?"
    r"(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)S)?)?$"
)
_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}


def seconds_of(span: str | int | float) -> int:
    """Read a span of time: seconds, or an ISO 8601 duration such as `P7D` or `PT90S`.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(span, int | float) and not isinstance(span, bool):
        return int(span)
    match = _DURATION.match(span) if isinstance(span, str) else None
    parts = {name: match[name] for name in _UNITS if match[name]} if match else {}
    if not match or not parts:
        raise ValueError(f"{span!r} is no span of time: write seconds, P7D or PT90S")
    total = sum(int(value) * _UNITS[name] for name, value in parts.items())
    return -total if match["sign"] else total


class SandboxClock:
    """Runs with the machine's clock until it is moved, set or frozen."""

    def __init__(self) -> None:
        self._offset = 0
        self._frozen: int | None = None

    def now(self) -> int:
        if self._frozen is not None:
            return self._frozen
        return int(time.time()) + self._offset

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self._frozen is not None

    def freeze(self, at: int | None = None) -> None:
        """Stand still, at a moment or now."""
        self._frozen = self.now() if at is None else at

    def run(self) -> None:
        """Run on from where it stands."""
        if self._frozen is not None:
            self._offset = self._frozen - int(time.time())
            self._frozen = None

    def set(self, at: int) -> None:
        """Go to a moment; a frozen clock stays frozen."""
        if self._frozen is not None:
            self._frozen = at
        else:
            self._offset = at - int(time.time())

    def advance(self, seconds: int) -> None:
        """Go on by so many seconds."""
        self.set(self.now() + seconds)

    def reset(self) -> None:
        """Be the machine's clock again."""
        self._offset, self._frozen = 0, None
