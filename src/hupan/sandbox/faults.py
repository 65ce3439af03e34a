"""Faults: what a network or a server may do to a client, on demand.

A fault is `{match, fault, probability, times, …}`. `match` is a path, a path with `*`, or a row's
name; the first fault that matches a request acts, until its `times` are used up.
"""

from __future__ import annotations

import itertools
import threading
from fnmatch import fnmatch
from typing import Any, ClassVar

import msgspec

from hupan.accounts.context import Random

__all__ = ["Fault", "Faults", "UnknownFault"]


class UnknownFault(ValueError):
    """There is no such fault; the text lists those there are."""


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One rule.

    Attributes:
        match: `/v1/user/info`, `/v1/user/*`, `User.info` or `info`; `*` for everything.
        fault: one of `Fault.KINDS`.
        probability: of acting, 0 to 1.
        times: how often it acts; None for always.
        seconds: how long a delay lasts.
        status: the HTTP status of `status`.
        code: the code of `refusal`.
        msg: the reason of `refusal`.
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

    def __post_init__(self) -> None:
        if self.fault not in self.KINDS:
            raise UnknownFault(
                f"there is no fault {self.fault!r}; there are {', '.join(self.KINDS)}"
            )
        if not 0 <= self.probability <= 1 or (self.times is not None and self.times < 1):
            raise UnknownFault("probability is 0 to 1, times 1 or more")
        if not 200 <= self.status <= 599 or not 0 <= self.seconds <= 600 or self.code in (0, 1):
            raise UnknownFault("status is 200 to 599, seconds 0 to 600, code neither 0 nor 1")

    def fits(self, path: str, name: str) -> bool:
        """Whether it is about this path or this row."""
        return (
            fnmatch(path, self.match)
            or fnmatch(name, self.match)
            or (name.rpartition(".")[2] == self.match)
        )


class Faults:
    """The faults of a sandbox, in the order they were added."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, match: str, fault: str, **more: Any) -> Fault:
        """Add one.

        Raises:
            UnknownFault: its name or its numbers mean nothing.
        """
        made = Fault(match=match, fault=fault, **more)
        made.id = next(self._ids)
        with self._lock:
            self._faults.append(made)
        return made

    def __iter__(self) -> Any:
        return iter(list(self._faults))

    def remove(self, fault_id: int) -> bool:
        """Take one away; whether it was there."""
        with self._lock:
            before = len(self._faults)
            self._faults = [one for one in self._faults if one.id != fault_id]
            return len(self._faults) < before

    def clear(self) -> None:
        """Take all away."""
        with self._lock:
            self._faults.clear()
            self._ids = itertools.count(1)

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
