"""Faults: what a network or a server may do to a client, on demand.

A fault is `{match, fault, probability, times, …}`. `match` is a path, a path with `*`, or a row's
name; the first fault that matches a request acts, until its `times` are used up.
"""

from __future__ import annotations

import difflib
import itertools
import threading
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import msgspec

from hupan.protocol.table import rows
from hupan.sandbox.chance import SeededRandom

__all__ = ["Fault", "Faults", "UnknownFault"]


class UnknownFault(ValueError):
    """There is no such fault, or its numbers mean nothing; the text says what there is."""


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One rule.

    Attributes:
        match: `/v1/user/info`, `/v1/user/*`, `User.info` or `info`; `*` for everything.
        fault: one of `Fault.KINDS`.
        probability: of acting, 0 to 1.
        times: how often it still acts; None for always.
        seconds: how long a delay lasts.
        status: the HTTP status of `status`.
        code: the code of `refusal`.
        msg: the reason of `refusal`.
        id: its number, given when it is added.
    """

    #: What each fault does.
    KINDS: ClassVar[dict[str, str]] = {
        "delay": "answers late, after `seconds`",
        "status": "answers with the HTTP `status` and no envelope",
        "refusal": "refuses with `code` and `msg`; nothing was done",
        "drop": "does what was asked, then loses the connection in the middle of the answer",
        "truncate": "does what was asked and sends half of the answer as if it were whole",
        "bad-protobuf": "does what was asked and sends bytes that no parser accepts",
        "unknown-fields": "adds fields that a future server might send; readers must not mind",
        "dead-token": "refuses the token as if its session had ended",
    }

    match: str
    fault: str
    probability: float = 1.0
    times: int | None = None
    seconds: float = 1.0
    status: int = 503
    code: int = -1
    msg: str = "sandbox"
    id: int = 0

    def check(self) -> None:
        """Refuse what means nothing.

        Raises:
            UnknownFault: there is no such fault, or a number is out of its range.
        """
        if self.fault not in self.KINDS:
            near = difflib.get_close_matches(self.fault, self.KINDS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UnknownFault(
                f"there is no fault {self.fault[:60]!r}; {hint}there are {', '.join(self.KINDS)}"
            )
        if not self.match:
            raise UnknownFault("match is a path, a path with *, or the name of an endpoint")
        if not 0 <= self.probability <= 1:
            raise UnknownFault("probability is 0 to 1")
        if self.times is not None and self.times < 1:
            raise UnknownFault("times is 1 or more, or null for always")
        if not 0 <= self.seconds <= 600:
            raise UnknownFault("seconds is 0 to 600")
        if not 200 <= self.status <= 599:
            raise UnknownFault("status is 200 to 599")
        if self.code in (0, 1) or not -(2**31) <= self.code < 2**31:
            raise UnknownFault("code is a 32-bit number other than 0 and 1")

    def fits(self, path: str, name: str) -> bool:
        """Whether it is about this path or this row."""
        short = name.rpartition(".")[2]
        return fnmatchcase(path, self.match) or (
            bool(name) and (fnmatchcase(name, self.match) or short == self.match)
        )

    @property
    def matches(self) -> list[str]:
        """The rows it is about. None of them is a path of another module, or a slip of the pen."""
        found = [(row.path, f"{row.module}.{row.name}") for row in rows()]
        return [name for path, name in found if self.fits(path, name)]


class Faults:
    """The faults of a sandbox, in the order they were added."""

    def __init__(self, random: SeededRandom) -> None:
        self._random = random
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, match: str, fault: str, **more: Any) -> Fault:
        """Add one; `more` are the other attributes of `Fault`.

        Raises:
            UnknownFault: its name or its numbers mean nothing.
        """
        try:
            made = msgspec.convert({**more, "match": match, "fault": fault, "id": 0}, Fault)
        except msgspec.ValidationError as error:
            raise UnknownFault(f"this is no fault: {error}") from error
        made.check()
        with self._lock:
            made.id = next(self._ids)
            self._faults.append(made)
        return made

    def __iter__(self) -> Iterator[Fault]:
        with self._lock:
            return iter(list(self._faults))

    def remove(self, fault_id: int) -> bool:
        """Take one away; whether it was there."""
        with self._lock:
            before = len(self._faults)
            self._faults = [one for one in self._faults if one.id != fault_id]
            return len(self._faults) < before

    def clear(self) -> None:
        """Take all away, and draw lots from the beginning."""
        with self._lock:
            self._faults.clear()
            self._ids = itertools.count(1)
            self._random.drawn = 0

    def draw(self, path: str, name: str) -> Fault | None:
        """The fault that acts on this request, if one does; counts it."""
        with self._lock:
            for one in self._faults:
                if not one.fits(path, name):
                    continue
                if one.probability < 1 and self._random.below(10**6) >= one.probability * 10**6:
                    continue
                if one.times is not None:
                    one.times -= 1
                    if one.times == 0:
                        self._faults.remove(one)
                return one
        return None
