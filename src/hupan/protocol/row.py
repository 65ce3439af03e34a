"""A row of the table: one endpoint, declared once.

On a class a row is itself: `User.edit_nickname` is the declaration that the server answers and
the exports describe. On an instance it is a typed call: `client.edit_nickname(name="新名")`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from enum import Enum
from typing import Any, Generic, ParamSpec, TypeVar, overload

from hupan.protocol.message import Field, Message, Quirk, fields

__all__ = [
    "AsyncCaller",
    "Auth",
    "Certainty",
    "Host",
    "Module",
    "Row",
    "SyncCaller",
    "Wire",
    "walk",
]

P = ParamSpec("P")
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


class Wire(Enum):
    """The format of a row's bodies."""

    JSON = "json"
    PROTOBUF = "protobuf"
    #: The answer has the format of the request.
    MIRROR = "mirror"
    #: Protobuf, unless the `Accept` header asks for JSON and for nothing that covers protobuf.
    ACCEPT = "accept"


class Auth(Enum):
    """Who may call a row."""

    #: Anybody; a token is ignored, a dead one too.
    PUBLIC = "public"
    #: Any non-empty token will do; a live one tells who is asking.
    NAMED = "named"
    #: A live token only.
    LIVE = "live"


class Host(Enum):
    """The listener a row belongs to."""

    API = "api"
    WEB = "web"


class Certainty(Enum):
    """How sure we are that production behaves as the row says."""

    DOCUMENTED = "documented"
    OBSERVED = "observed"
    ASSUMED = "assumed"


class SyncCaller:
    """Something on which rows are plain calls."""

    def call(self, row: Row[..., Q, A], ask: Q) -> A:
        """Send one request and wait for its answer."""
        raise TypeError(f"{type(self).__name__} cannot send {ask!r} to {row.path}")


class AsyncCaller:
    """Something on which rows are awaitable calls."""

    # What it yields and is sent is not `Any`, for which mypy takes `gather` of two calls for `Any`.
    def call(self, row: Row[..., Q, A], ask: Q) -> Coroutine[object, None, A]:
        """Send one request; await its answer."""
        raise TypeError(f"{type(self).__name__} cannot send {ask!r} to {row.path}")


class Row(Generic[P, Q, A]):
    """One endpoint.

    Args:
        methods: the HTTP methods, most usual first, separated by a space.
        path: the exact path.
        request: the class of the request message; its signature becomes the call's.
        answer: the class of what stands in the answer beside the envelope.
        summary: one sentence for people.
        wire: the format of the bodies.
        auth: who may call it.
        safe: whether it only reads, so that a client may repeat it after a lost connection.
        host: the listener it belongs to.
        certainty: how sure we are that production does the same.
        beside: the answer's protobuf fields stand beside the status instead of in `data`.
        quirks: what is odd about the row as a whole.
    """

    name: str
    module: str

    def __init__(
        self,
        methods: str,
        path: str,
        request: Callable[P, Q],
        answer: type[A],
        summary: str,
        *,
        wire: Wire = Wire.JSON,
        auth: Auth = Auth.LIVE,
        safe: bool = False,
        host: Host = Host.API,
        certainty: Certainty = Certainty.DOCUMENTED,
        beside: bool = False,
        quirks: tuple[Quirk, ...] = (),
    ) -> None:
        self.methods = tuple(methods.split())
        self.path = path
        self.make = request
        self.answer = answer
        self.summary = summary
        self.wire = wire
        self.auth = auth
        self.safe = safe
        self.host = host
        self.certainty = certainty
        self.beside = beside
        self.own_quirks = quirks

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.module = owner.__name__

    def __repr__(self) -> str:
        return f"<Row {self.module}.{self.name} {'/'.join(self.methods)} {self.path}>"

    @property
    def request(self) -> type[Q]:
        """The class of the request message."""
        assert isinstance(self.make, type)
        return self.make

    @property
    def quirks(self) -> Iterator[tuple[str, Quirk]]:
        """Every oddity of the row and of its fields, each with the place where it stands."""
        for quirk in self.own_quirks:
            yield "", quirk
        for side, message in (("request", self.request), ("answer", self.answer)):
            for path, field in walk(message):
                for quirk in field.quirks:
                    yield f"{side}.{path}", quirk

    @overload
    def __get__(self, caller: None, owner: type) -> Row[P, Q, A]: ...
    @overload
    def __get__(self, caller: SyncCaller, owner: type) -> Callable[P, A]: ...
    @overload
    def __get__(
        self, caller: AsyncCaller, owner: type
    ) -> Callable[P, Coroutine[object, None, A]]: ...
    def __get__(self, caller: SyncCaller | AsyncCaller | None, owner: type) -> Any:
        if caller is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return caller.call(self, self.make(*args, **kwargs))

        call.__name__ = self.name
        call.__doc__ = self.summary
        return call


class Module:
    """A group of rows, written as the attributes of a class."""


def walk(message: type[Message], prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Every field of a message and of the messages inside it, with its dotted path."""
    for field in fields(message):
        yield prefix + field.key, field
        if field.message is not None:
            yield from walk(field.message, f"{prefix}{field.key}.")
