"""The words a message is written with.

A message is a `msgspec.Struct`. One class serves both directions and both formats: JSON takes the
(renamed) attribute names, protobuf takes the numbers that `at` puts on a field. Whatever is odd
about a field stands at the field as a `Quirk` with its reason, so that no compatibility lives in a
place where somebody can forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

__all__ = [
    "Coin",
    "Field",
    "Int",
    "Int32",
    "Message",
    "Nothing",
    "Quirk",
    "Text",
    "UInt64",
    "at",
    "fields",
    "quirk",
]

#: The longest text any request may carry in one field; rules set tighter bounds of their own.
LONGEST_TEXT = 4096


@dataclass(frozen=True)
class At:
    """The protobuf number of a field."""

    number: int


@dataclass(frozen=True)
class Scalar:
    """The protobuf type of an integer, which Python's one `int` does not tell."""

    name: str


@dataclass(frozen=True)
class Quirk:
    """An oddity of this wire: its name, and why it must stay.

    `also` is a second JSON key under which the same value is accepted.
    """

    name: str
    reason: str
    also: str | None = None


def at(number: int) -> At:
    """Give a field its protobuf number."""
    return At(number)


def quirk(name: str, reason: str, *, also: str | None = None) -> Quirk:
    """Name an oddity of a field and say why clients need it."""
    return Quirk(name, reason, also)


#: Integers stay inside 64 bits, which is what databases and other languages can hold.
Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1), Scalar("int32")]
UInt64 = Annotated[int, Meta(ge=0, le=2**63 - 1), Scalar("uint64")]
Text = str
#: An amount of coins as the wire shows it: a JSON number or a double, two decimals.
Coin = float


class Message(msgspec.Struct, kw_only=True):
    """The base of everything that is sent or received."""


class Nothing(Message):
    """A request without parameters, or an answer without data."""

    if TYPE_CHECKING:
        # mypy derives no signature where there are no fields, and would let every argument pass.
        def __init__(self) -> None: ...


@dataclass(frozen=True)
class Field:
    """One field of a message, as the codecs and the exports see it."""

    name: str
    key: str
    type: Any
    number: int | None
    scalar: str
    repeated: bool
    message: type[Message] | None
    quirks: tuple[Quirk, ...]
    default: Any


_FIELDS: dict[type[Message], tuple[Field, ...]] = {}


def fields(message: type[Message]) -> tuple[Field, ...]:
    """Walk the fields of a message, in the order they are written in the class."""
    if message not in _FIELDS:
        hints = get_type_hints(message, include_extras=True)
        _FIELDS[message] = tuple(
            _field(info, hints[info.name]) for info in msgspec.structs.fields(message)
        )
    return _FIELDS[message]


def _field(info: msgspec.structs.FieldInfo, hint: Any) -> Field:
    base, marks = _unwrap(hint)
    repeated = get_origin(base) is list
    if repeated:
        base, inner = _unwrap(get_args(base)[0])
        marks = (*marks, *inner)
    # An optional submessage is written `Part | None`.
    parts = [part for part in get_args(base) if part is not type(None)]
    if parts and get_origin(base) is not list:
        base, inner = _unwrap(parts[0])
        marks = (*marks, *inner)
    message = base if isinstance(base, type) and issubclass(base, Message) else None
    scalar = next((mark.name for mark in marks if isinstance(mark, Scalar)), None)
    if scalar is None:
        scalar = {str: "string", float: "double", int: "int64"}.get(base, "message")
    return Field(
        name=info.name,
        key=info.encode_name,
        type=base,
        number=next((mark.number for mark in marks if isinstance(mark, At)), None),
        scalar=scalar,
        repeated=repeated,
        message=message,
        quirks=tuple(mark for mark in marks if isinstance(mark, Quirk)),
        default=None if info.required else info.default,
    )


def _unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        return base, tuple(marks)
    return hint, ()
