"""The journal: every request, decoded beside its bytes, with what was wrong about it."""

from __future__ import annotations

import difflib
import gzip
import json
import threading
from collections import deque
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from hupan.protocol.message import Nothing, fields
from hupan.protocol.row import Auth, Host, Row, Wire
from hupan.protocol.table import rows
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
from hupan.server.door import Ask, Reply

__all__ = ["Entry", "Journal", "Part", "as_curl", "as_pytest", "as_sdk", "decode", "warn"]

#: So many requests are kept; older ones go.
KEPT = 1000


class Part(msgspec.Struct):
    """A request or an answer: its bytes and what they mean. `decoded` is None for junk."""

    format: str
    hex: str
    decoded: Any = None


class Entry(msgspec.Struct):
    """One request and its answer. `ms` is how long it took, `code` the envelope's."""

    id: int
    at: int
    host: str
    method: str
    path: str
    query: str
    row: str
    token: str
    status: int
    code: int | None
    msg: str
    ms: float
    request: Part
    answer: Part
    fault: str = ""
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
        self._lock = threading.Lock()
        self._last = 0

    def add(self, entry: Entry) -> None:
        """Keep one and number it."""
        with self._lock:
            self._last += 1
            entry.id = self._last
            self._entries.append(entry)

    def entries(self, after: int = 0) -> list[Entry]:
        """What came after the request of this number."""
        with self._lock:
            return [one for one in self._entries if one.id > after]

    @property
    def unimplemented(self) -> list[str]:
        """The paths that were asked for and are not ours, each once."""
        return list(dict.fromkeys(one.path for one in self.entries() if not one.row))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._last = 0


# ---------------------------------------------------------------- decoding


def decode(row: Row[..., Any, Any] | None, ask: Ask, reply: Reply) -> tuple[Part, Part]:
    """Both sides of an exchange, as far as they can be read."""
    headers = dict(reply.headers)
    if headers.get("content-encoding") == "gzip":
        reply = replace(reply, body=gzip.decompress(reply.body))
    request = Part(format=_format_name(row, ask), hex=ask.body.hex(), decoded=_sent(row, ask))
    kind = headers.get("content-type", "").partition(";")[0]
    answer = Part(format=kind, hex=reply.body.hex())
    answer.decoded = _json_or_none(reply.body) if row is None else _decode_answer(row, reply)
    return request, answer


def _format_name(row: Row[..., Any, Any] | None, ask: Ask) -> str:
    if not ask.body:
        return ""
    return (request_format(row, trim(ask.body)) if row else Format.JSON).value


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
        parsed = class_of(row.request).FromString(ask.body)
    except DecodeError:
        return None
    return {field.name: value for field, value in parsed.ListFields()}


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _decode_answer(row: Row[..., Any, Any], reply: Reply) -> Any:
    if not dict(reply.headers).get("content-type", "").startswith(Format.PROTOBUF.value):
        return _json_or_none(reply.body)
    try:
        answer = decode_answer(row, reply.body)
    except Refused as refused:
        return {"status": {"code": refused.code, "msg": refused.msg}}
    except Unreadable:
        return None
    data = {} if isinstance(answer, Nothing) else {"data": msgspec.to_builtins(answer)}
    return {"status": {"code": 1, "msg": "success"}, **data}


# ---------------------------------------------------------------- warnings


def warn(row: Row[..., Any, Any] | None, ask: Ask, host: Host) -> list[str]:
    """What a careful reader would say about a request that came to this host."""
    if row is None:
        return _near(ask.path, host)
    found = []
    if ask.method not in row.methods:
        found.append(f"{ask.method} is not {' or '.join(row.methods)}")
    token = ask.headers.get("token") or ask.headers.get("authorization")
    if row.auth is not Auth.PUBLIC and not token:
        found.append("the token is missing")
    if "token=" in ask.query or "token=" in ask.headers.get("cookie", ""):
        found.append("a token belongs into the header `token`, neither into a query nor a cookie")
    if not ask.body or ask.method == "GET":
        return found
    if row.request is Nothing:
        # Many clients send an empty object where there are no parameters.
        return found if trim(ask.body) in (b"", b"{}") else [*found, "this endpoint takes no body"]
    body = trim(ask.body)
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
    unknown = _json_oddities if format is Format.JSON else _protobuf_oddities
    return found + unknown(row, body)


def _near(path: str, host: Host) -> list[str]:
    for row in rows():
        if row.path == path:
            return [f"this endpoint is on the {row.host.value} host, not on the {host.value} host"]
    close = difflib.get_close_matches(path, [row.path for row in rows()], n=1, cutoff=0.85)
    return [f"did you mean {close[0]}?"] if close else ["this endpoint is not of the user module"]


def _json_oddities(row: Row[..., Any, Any], body: bytes) -> list[str]:
    sent = json.loads(body)
    known = {field.key: field for field in fields(row.request)}
    known |= {
        quirk.also: field
        for field in fields(row.request)
        for quirk in field.quirks
        if quirk.also is not None
    }
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
    numbers = [unknown[place].field_number for place in range(len(unknown))]
    return [f"unknown field {number}" for number in numbers]


# ---------------------------------------------------------------- copying


def _find(entry: Entry) -> Row[..., Any, Any] | None:
    named = (row for row in rows() if f"{row.module}.{row.name}" == entry.row)
    return next(named, None)


def as_curl(entry: Entry, base: str) -> str:
    """The request as a command line."""
    words = ["curl", "-sS"]
    if entry.method != "GET":
        words += ["-X", entry.method]
    if entry.token:
        words += ["-H", _quoted(f"token: {entry.token}")]
    url = _quoted(base + entry.path + (f"?{entry.query}" if entry.query else ""))
    body = bytes.fromhex(entry.request.hex)
    if not body:
        return " ".join([*words, url])
    words += ["-H", _quoted(f"Content-Type: {entry.request.format}")]
    if entry.request.format == Format.JSON.value:
        return " ".join([*words, "--data-raw", _quoted(body.decode(errors="replace")), url])
    return f"printf %s {entry.request.hex} | xxd -r -p | {' '.join(words)} --data-binary @- {url}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def as_sdk(entry: Entry) -> str:
    """The request as a call of the SDK."""
    row = _find(entry)
    if row is None:
        return f"# {entry.path} is not an endpoint of the user module"
    names = {word: field.name for field in fields(row.request) for word in (field.key, field.name)}
    given = entry.request.decoded if isinstance(entry.request.decoded, dict) else {}
    words = ", ".join(f"{names[key]}={value!r}" for key, value in given.items() if key in names)
    return f"client.{row.name}({words})"


def as_pytest(entry: Entry) -> str:
    """The request as a test."""
    row = _find(entry)
    name = row.name if row else "unknown"
    head = f"def test_{name}(hupan):\n    client = hupan.client(token={entry.token!r})\n"
    if entry.code == 1:
        return f"{head}    assert {as_sdk(entry)}\n"
    return (
        f"{head}    with pytest.raises(Refused) as refused:\n        {as_sdk(entry)}\n"
        f"    assert refused.value.code == {entry.code}\n"
    )
