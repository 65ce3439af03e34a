"""The sandbox's one clock: codes, VIP, bans, online days and sessions all follow it."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

__all__ = ["LATEST", "SandboxClock", "moment_of", "seconds_of"]

_DURATION = re.compile(
    r"(?P<sign>[+-]?)P(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)S)?)?",
    re.ASCII,
)
_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
#: The last moment that every part of a server can still show: the end of the year 9998.
LATEST = 253_370_764_799


def seconds_of(span: Any) -> int:
    """Read a span of time: seconds, or an ISO 8601 duration such as `P7D` or `PT90S`.

    Months and years are not read, because nobody can say how long they are.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(span, int | float) and not isinstance(span, bool) and abs(span) <= LATEST:
        return int(span)
    match = _DURATION.fullmatch(span) if isinstance(span, str) else None
    parts = {name: match[name] for name in _UNITS if match[name]} if match else {}
    # A duration of thousands of digits would take long to read and lead nowhere.
    if not match or not parts or len(match[0]) > 40:
        raise ValueError(f"{_cut(span)} is no span of time: write seconds, P7D or PT90S")
    total = sum(int(value) * _UNITS[name] for name, value in parts.items())
    return -total if match["sign"] == "-" else total


def moment_of(value: Any, zone: ZoneInfo) -> int:
    """Read a moment: Unix seconds, or a text such as `2026-01-01 08:00` in the server's zone.

    Raises:
        ValueError: it is neither, or too far away.
    """
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{_cut(value)} is no moment: write 2026-01-01 08:00") from None
        if when.tzinfo is None:
            when = when.replace(tzinfo=zone)
        return _bounded(when.timestamp())
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value)
    raise ValueError(f"{_cut(value)} is no moment: write Unix seconds or 2026-01-01 08:00")


def _bounded(at: float) -> int:
    if not 0 < at <= LATEST:
        raise ValueError("the clock goes from 1970 to 9998 only")
    return int(at)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


class SandboxClock:
    """Runs with the machine's clock until it is moved, set or frozen. Moments are Unix seconds."""

    def __init__(self) -> None:
        self._offset = 0
        self._frozen: int | None = None

    def now(self) -> int:
        frozen = self._frozen
        return int(time.time()) + self._offset if frozen is None else frozen

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self._frozen is not None

    def freeze(self, at: int | None = None) -> None:
        """Stand still, at a moment or now."""
        self._frozen = self.now() if at is None else _bounded(at)

    def run(self) -> None:
        """Run on from where it stands."""
        if self._frozen is not None:
            self._offset = self._frozen - int(time.time())
            self._frozen = None

    def set(self, at: int) -> None:
        """Go to a moment; a frozen clock stays frozen.

        Raises:
            ValueError: no server could show this moment.
        """
        at = _bounded(at)
        if self._frozen is not None:
            self._frozen = at
        else:
            self._offset = at - int(time.time())

    def advance(
        self,
        span: int | float | str = 0,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Go on by a span of time: seconds or `P7D`, and whatever the words add; back if negative.

        Raises:
            ValueError: it is no span, or no server could show the moment it leads to.
        """
        more = weeks * 604_800 + days * 86_400 + hours * 3600 + minutes * 60 + seconds
        if not abs(more) <= LATEST:
            raise ValueError("the clock goes from 1970 to 9998 only")
        self.set(self.now() + seconds_of(span) + int(more))

    def reset(self) -> None:
        """Be the machine's clock again."""
        self._offset, self._frozen = 0, None

    @property
    def state(self) -> tuple[int, int | None]:
        """How far it is from the machine's clock, and where it stands if it stands still."""
        return self._offset, self._frozen

    @state.setter
    def state(self, state: tuple[int, int | None]) -> None:
        self._offset, self._frozen = state
