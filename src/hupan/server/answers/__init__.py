"""What each row answers: a request message becomes a rule's arguments, its result a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hupan.accounts.context import Context
from hupan.protocol import Message, Row

__all__ = ["Answer", "all_answers", "answers"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a row is answered. `hashes` tells that it spends tens of milliseconds on a password."""

    run: Callable[[Context, Any], Any]
    hashes: bool


_ANSWERS: dict[Row[..., Any, Any], Answer] = {}


def answers(
    row: Row[..., Q, A], *, hashes: bool = False
) -> Callable[[Callable[[Context, Q], A]], Callable[[Context, Q], A]]:
    """Say that a function answers a row; mypy holds its types to the row's."""

    def register(run: Callable[[Context, Q], A]) -> Callable[[Context, Q], A]:
        assert row not in _ANSWERS, f"{row} has two answers"
        _ANSWERS[row] = Answer(run, hashes)
        return run

    return register


def all_answers() -> dict[Row[..., Any, Any], Answer]:
    """Every answer there is."""
    from hupan.server.answers import misc, user, verification, web  # noqa: F401  # They register.

    return _ANSWERS
