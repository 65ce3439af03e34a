"""What each row answers: a request message becomes a rule's arguments, its result a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from hupan.accounts.context import Context
from hupan.protocol import Message, Row

__all__ = ["Answer", "Lane", "all_answers", "answers"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


class Lane(Enum):
    """Where a row is answered."""

    #: Beside others, for it only reads, or does something slow that is no secret's hash.
    READ = "read"
    #: One after the other, so that many share a commit.
    WRITE = "write"
    #: It spends tens of milliseconds on a password.
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a row is answered. `about` tells of whose data an answer is made, if it may be kept."""

    run: Callable[[Context, Any], Any]
    lane: Lane
    about: Callable[[Any], int] | None


_ANSWERS: dict[Row[..., Any, Any], Answer] = {}


def answers(
    row: Row[..., Q, A], *, lane: Lane | None = None, about: Callable[[A], int] | None = None
) -> Callable[[Callable[[Context, Q], A]], Callable[[Context, Q], A]]:
    """Say that a function answers a row; mypy holds its types to the row's."""

    def register(run: Callable[[Context, Q], A]) -> Callable[[Context, Q], A]:
        assert row not in _ANSWERS, f"{row} has two answers"
        _ANSWERS[row] = Answer(run, lane or (Lane.READ if row.safe else Lane.WRITE), about)
        return run

    return register


def all_answers() -> dict[Row[..., Any, Any], Answer]:
    """Every answer there is."""
    from hupan.server.answers import misc, user, verification, web  # noqa: F401  # They register.

    return _ANSWERS
