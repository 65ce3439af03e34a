"""The journal: every request, decoded beside its bytes, with what was wrong about it."""

from __future__ import annotations

import difflib
import gzip
import json
import threading
from collections import deque
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
from google.protobuf import message_factory
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from hupan.protocol.message import Field, Nothing, fields
from hupan.protocol.row import Auth, Host, Row, Wire
from hupan.protocol.table import rows
from hupan.protocol.user import Me
from hupan.protocol.wire import (
    Format,
    Refused,
    Unreadable,
    class_of,
    decode_answer,
    decode_request,
    request_format,
    trim,
)
from hupan.sandbox.faults import Fault
from hupan.server.door import Ask, Reply

__all__ = ["Entry", "Journal", "Part", "as_curl", "as_pytest", "as_sdk", "decode", "warn"]

#: So many requests are kept; older ones go.
KEPT = 1000
#: So many different paths of other modules are counted.
MOST_PATHS = 1000
DEAD = -101


class Part(msgspec.Struct):
    """A request or an answer: its bytes and what they mean. `decoded` is None for junk."""

    format: str
    hex: str
    decoded: Any = None


class Entry(msgspec.Struct, kw_only=True):
    """One request and its answer.

    Attributes:
        id: counts from 1 since the journal was cleared.
        at: the sandbox's clock, Unix seconds.
        host: `api` or `web`.
        row: the endpoint, such as `User.info`; empty for what is not ours.
        token: what the client sent, in either header.
        accept: the header of this name, where it decides about the answer's format.
        code: the envelope's, or None where the answer has none.
        ms: how long it took.
        fault: the fault that acted, and `rule` all of it.
        identity: the magic identity that it was about.
        warnings: what a careful reader would say about the request.
        changed: what it wrote and did not roll back, such as `update account`.
    """

    id: int = 0
    at: int
    host: str
    method: str
    path: str
    query: str
    row: str
    token: str
    accept: str = ""
    status: int
    code: int | None
    msg: str
    ms: float
    request: Part
    answer: Part
    fault: str = ""
    rule: Fault | None = None
    identity: str = ""
    warnings: list[str] = msgspec.field(default_factory=list)
    changed: list[str] = msgspec.field(default_factory=list)

    @property
    def implemented(self) -> bool:
        """Whether the path is one of ours."""
        return bool(self.row)


class Journal:
    """The newest requests, oldest first, and a count of what is not ours."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._not_ours: dict[str, int] = {}
        self._lock = threading.Lock()
        self._last = 0
        #: How often it was cleared.
        self.era = 0

    def add(self, entry: Entry, era: int | None = None) -> bool:
        """Keep one and number it.

        One that began in an era before the last clearing is of no interest to whoever cleared,
        and is left out.
        """
        with self._lock:
            if era is not None and era != self.era:
                return False
            self._last += 1
            entry.id = self._last
            self._entries.append(entry)
            counted = not entry.row and entry.method != "OPTIONS"
            if counted and (entry.path in self._not_ours or len(self._not_ours) < MOST_PATHS):
                self._not_ours[entry.path] = self._not_ours.get(entry.path, 0) + 1
        return True

    def entries(self, after: int = 0) -> list[Entry]:
        """What came after the request of this number."""
        with self._lock:
            return [one for one in self._entries if one.id > after]

    @property
    def counts(self) -> dict[str, int]:
        """How often each path was asked for that is not ours."""
        with self._lock:
            return dict(self._not_ours)

    @property
    def unimplemented(self) -> list[str]:
        """The paths that were asked for and are not ours, each once."""
        return list(self.counts)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._not_ours.clear()
            self._last = 0
            self.era += 1


# ---------------------------------------------------------------- decoding


def decode(row: Row[..., Any, Any] | None, ask: Ask, reply: Reply) -> tuple[Part, Part]:
    """Both sides of an exchange, as far as they can be read."""
    headers = dict(reply.headers)
    if headers.get("content-encoding") == "gzip":
        reply = reply._replace(body=gzip.decompress(reply.body))
    request = Part(format=_format_name(row, ask), hex=ask.body.hex(), decoded=_sent(row, ask))
    kind = headers.get("content-type", "").partition(";")[0]
    answer = Part(format=kind, hex=reply.body.hex())
    answer.decoded = _json_or_none(reply.body) if row is None else _decode_answer(row, reply)
    return request, answer


def _format_name(row: Row[..., Any, Any] | None, ask: Ask) -> str:
    if not ask.body:
        return ""
    if row is None:
        return Format.JSON.value if trim(ask.body)[:1] == b"{" else ""
    return request_format(row, trim(ask.body)).value


def _sent(row: Row[..., Any, Any] | None, ask: Ask) -> Any:
    """What the client really sent, without the defaults that the server puts in."""
    if ask.method == "GET":
        return dict(parse_qsl(ask.query, keep_blank_values=True))
    if not ask.body:
        return {}
    if row is None or request_format(row, trim(ask.body)) is Format.JSON:
        return _json_or_none(trim(ask.body))
    if row.request is Nothing:
        return None
    try:
        parsed = class_of(row.request).FromString(trim(ask.body))
    except DecodeError:
        return None
    return {field.name: value for field, value in parsed.ListFields()}


def _json_or_none(body: bytes) -> Any:
    """What JSON means; None where it is none, or where no reader of the journal could show it."""
    try:
        value = json.loads(body)
        msgspec.json.encode(value)
    except (ValueError, OverflowError, RecursionError):
        return None
    return value


@cache
def _envelope() -> Any:
    # The status has no message of its own in the table; any message leads to its file.
    file = class_of(Me).DESCRIPTOR.file
    return message_factory.GetMessageClass(file.message_types_by_name["Envelope"])


def _decode_answer(row: Row[..., Any, Any], reply: Reply) -> Any:
    if not dict(reply.headers).get("content-type", "").startswith(Format.PROTOBUF.value):
        return _json_or_none(reply.body)
    try:
        said = _envelope().FromString(reply.body).status
        status = {"number": said.number, "code": said.code, "msg": said.msg}
        answer = decode_answer(row, reply.body)
    except Refused:
        return {"status": status}
    except (Unreadable, DecodeError):
        return None
    data = {} if isinstance(answer, Nothing) else {"data": msgspec.to_builtins(answer)}
    return {"status": status, **data}


# ---------------------------------------------------------------- warnings


def warn(
    row: Row[..., Any, Any] | None, ask: Ask, host: Host, code: int | None = None
) -> list[str]:
    """What a careful reader would say about a request that came to this host.

    `code` is what it was answered with.
    """
    if ask.method == "OPTIONS":
        # A browser asks so before it sends the request itself.
        return []
    if row is None:
        return _near(ask.path, host)
    found = []
    if ask.method not in row.methods:
        found.append(f"{ask.method} is not {' or '.join(row.methods)}")
    token = ask.headers.get("token") or ask.headers.get("authorization")
    if row.auth is not Auth.PUBLIC and not token:
        found.append("the token is missing")
    elif row.auth is Auth.LIVE and code == DEAD:
        found.append("the token is not alive")
    if "token=" in ask.query or "token=" in ask.headers.get("cookie", ""):
        found.append("a token belongs into the header `token`, neither into a query nor a cookie")
    if ask.method == "GET":
        return found + _query_oddities(row, ask)
    if ask.query and row.request is not Nothing:
        found.append("parameters in the query are not read here, only those in the body")
    if not ask.body:
        return found
    body = trim(ask.body)
    if row.request is Nothing:
        # Many clients send an empty object where there are no parameters.
        return found if body in (b"", b"{}") else [*found, "this endpoint takes no body"]
    format = request_format(row, body)
    claimed = ask.headers.get("content-type", "").partition(";")[0].strip()
    # Only a claim that says the opposite: plain and form types are common, and harmless here.
    claims = {"application/json": Format.JSON, "application/x-protobuf": Format.PROTOBUF}
    if claims.get(claimed, format) is not format:
        found.append(f"the Content-Type says {claimed}, the body is {format.value}")
    if format is Format.JSON and row.wire is not Wire.JSON:
        found.append("JSON, where the document has protobuf")
    try:
        decode_request(row, ask.body, ask.query, get=False)
    except Unreadable as error:
        return [*found, f"the body cannot be read: {error}"]
    if format is Format.PROTOBUF:
        return found + _protobuf_oddities(row, body)
    return found + _json_oddities(row, json.loads(body) if body else {})


def _near(path: str, host: Host) -> list[str]:
    for row in rows():
        if row.path == path:
            return [f"this endpoint is on the {row.host.value} host, not on the {host.value} host"]
    close = difflib.get_close_matches(path, [row.path for row in rows()], n=1, cutoff=0.85)
    return [f"did you mean {close[0]}?"] if close else ["this endpoint is not of the user module"]


def _known(row: Row[..., Any, Any]) -> dict[str, Field]:
    """Every key that a row reads in JSON."""
    known = {field.key: field for field in fields(row.request)}
    also = {
        quirk.also: field
        for field in fields(row.request)
        for quirk in field.quirks
        if quirk.also is not None
    }
    return known | also


def _query_oddities(row: Row[..., Any, Any], ask: Ask) -> list[str]:
    known = _known(row)
    sent = dict(parse_qsl(ask.query, keep_blank_values=True))
    # A token in a query has a warning of its own.
    return [f"unknown key {key!r}" for key in sent if key not in known and key != "token"]


def _json_oddities(row: Row[..., Any, Any], sent: dict[str, Any]) -> list[str]:
    known = _known(row)
    found = [f"unknown key {key!r}" for key in sent if key not in known]
    for key, field in known.items():
        value = sent.get(key)
        if field.type is int and isinstance(value, str):
            found.append(f"{key} is a number and was sent as text")
        elif field.type is str and isinstance(value, int | float):
            found.append(f"{key} is text and was sent as a number")
        elif key in sent and value is None:
            found.append(f"{key} was sent as null")
    return found


def _protobuf_oddities(row: Row[..., Any, Any], body: bytes) -> list[str]:
    parsed = class_of(row.request).FromString(body)
    unknown = UnknownFieldSet(parsed)
    numbers = dict.fromkeys(unknown[place].field_number for place in range(len(unknown)))
    return [f"unknown field {number}" for number in numbers]


# ---------------------------------------------------------------- copying


def _find(entry: Entry) -> Row[..., Any, Any] | None:
    named = (row for row in rows() if f"{row.module}.{row.name}" == entry.row)
    return next(named, None)


def as_curl(entry: Entry, base: str) -> str:
    """The request as a command line; `base` is the address of its host."""
    words = ["curl", "-sS"]
    body = bytes.fromhex(entry.request.hex)
    if entry.method == "HEAD":
        words.append("-I")
    elif entry.method != ("POST" if body else "GET"):
        words += ["-X", entry.method]
    if entry.token:
        words += ["-H", _quoted(f"token: {entry.token}")]
    if entry.accept:
        words += ["-H", _quoted(f"Accept: {entry.accept}")]
    path = quote(entry.path, safe="/%:@!$&'()*+,;=~")
    url = base + path + (f"?{entry.query}" if entry.query else "")
    if set("[]{}") & set(url):
        # Otherwise curl takes them for a pattern.
        words.append("-g")
    url = _quoted(url)
    if not body:
        return " ".join([*words, url])
    words += ["-H", _quoted(f"Content-Type: {entry.request.format or 'text/plain'}")]
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    if all(letter.isprintable() or letter in "\n\t" for letter in text):
        return " ".join([*words, "--data-raw", _quoted(text), url])
    return f"printf %s {entry.request.hex} | xxd -r -p | {' '.join(words)} --data-binary @- {url}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def as_sdk(entry: Entry) -> str:
    """The request as a call of the SDK."""
    row = _find(entry)
    if row is None:
        return f"# {entry.path!r} is not an endpoint of the user module"
    if not isinstance(entry.request.decoded, dict) and row.request is not Nothing:
        return f"# what was sent to {row.path} cannot be read, so that no call says it"
    given = entry.request.decoded if isinstance(entry.request.decoded, dict) else {}
    names = _known(row) | {field.name: field for field in fields(row.request)}
    # A client may spell one parameter in two ways; the documented one is read.
    words = {names[key].name: value for key, value in reversed(given.items()) if key in names}
    told = [f"{name}={_typed(names[name], value)!r}" for name, value in reversed(words.items())
            if value is not None]  # fmt: skip
    return f"client.{row.name}({', '.join(told)})"


def _typed(field: Field, value: Any) -> Any:
    """A value as the SDK takes it, where the client was loose about its type."""
    if field.type is str and isinstance(value, int):
        return str(value)
    if field.type is int and isinstance(value, str):
        return int(value) if value.strip().lstrip("+-").isdecimal() else 0
    return value


#: What the SDK raises where a fault left no envelope to refuse with.
_RAISED = {
    "status": "httpx2.HTTPStatusError",
    "drop": "httpx2.TransportError",
    "truncate": "Unreadable",
    "bad-protobuf": "Unreadable",
}


def as_pytest(entry: Entry) -> str:
    """The request as a test, with the fault that acted on it."""
    row = _find(entry)
    call = as_sdk(entry)
    if row is None or call.startswith("#"):
        return f"{call}\n"
    raised = _RAISED.get(entry.fault) or ("" if entry.code == 1 else "Refused")
    unsaid = entry.code is None and entry.fault not in _RAISED
    if unsaid or entry.method not in row.methods:
        return f"# the SDK does not send {entry.method} {entry.path}\n"
    imports, inside = [], [f"client = hupan.client(token={entry.token!r})"]
    if entry.rule is not None:
        # A call that only reads is tried again by the SDK when the connection is lost.
        more = {"match": entry.path, "fault": entry.fault, "times": 3}
        more |= {"seconds": entry.rule.seconds} if entry.fault == "delay" else {}
        more |= {"status": entry.rule.status} if entry.fault == "status" else {}
        if entry.fault == "refusal":
            more |= {"code": entry.rule.code, "msg": entry.rule.msg}
        words = ", ".join(f"{key}={value!r}" for key, value in more.items())
        inside.append(f"hupan.faults.add({words})")
    if not raised:
        inside.append(f"assert {call}")
    else:
        imports.append("import pytest")
        if raised.startswith("httpx2"):
            imports.insert(0, "import httpx2")
        else:
            imports += ["", f"from hupan.client import {raised}"]
        if raised == "Refused":
            inside += ["with pytest.raises(Refused) as refused:", f"    {call}"]
            inside.append(f"assert refused.value.code == {entry.code}")
        else:
            inside += [f"with pytest.raises({raised}):", f"    {call}"]
    lines = [*imports, *([""] * 2 if imports else []), f"def test_{row.name}(hupan):"]
    return "\n".join([*lines, *(f"    {line}" for line in inside)]) + "\n"
