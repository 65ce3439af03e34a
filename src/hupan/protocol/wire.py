"""Bytes to messages and back, in both formats and for both sides.

JSON is msgspec's; protobuf is Google's runtime, fed with descriptors that are built from the same
messages in a pool of their own. Neither codec is written here: this file only chooses between
them, loosens what clients are loose about, and puts the envelope around an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cache, partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from hupan.protocol.message import LONGEST_TEXT, Message, Nothing, fields
from hupan.protocol.row import Row, Wire
from hupan.protocol.table import rows

__all__ = [
    "DONE",
    "LARGEST_BODY",
    "Format",
    "Refused",
    "Unreadable",
    "answer_format",
    "class_of",
    "decode_answer",
    "decode_request",
    "encode_answer",
    "encode_data",
    "encode_refusal",
    "encode_request",
    "protobuf_file",
    "request_format",
    "statuses",
    "trim",
]

M = TypeVar("M", bound=Message)
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

#: The code of an answer that did what was asked.
DONE = 1
#: Bodies over this many bytes are refused.
LARGEST_BODY = 64 * 1024
#: JSON nested deeper than this is refused.
DEEPEST = 16

PACKAGE = "hupan"


class Format(Enum):
    """What the bytes are."""

    JSON = "application/json"
    PROTOBUF = "application/x-protobuf"


class Unreadable(ValueError):
    """The bytes are no message of this row."""


class Refused(Exception):
    """The server understood and refused.

    Attributes:
        code: the code of the envelope, never 1.
        msg: the reason, for people.
        retry_after: seconds to wait, where the server said so.
    """

    def __init__(self, code: int, msg: str, retry_after: int | None = None) -> None:
        super().__init__(f"{msg} (code {code})")
        self.code = code
        self.msg = msg
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[Refused], tuple[int, str, int | None]]:
        return type(self), (self.code, self.msg, self.retry_after)


# ---------------------------------------------------------------- reading a request


def request_format(row: Row[..., Any, Any], body: bytes) -> Format:
    """Tell the format from the first byte; what clients claim in `Content-Type` is ignored."""
    if row.wire is Wire.JSON or body[:1] == b"{":
        return Format.JSON
    return Format.PROTOBUF


def answer_format(row: Row[..., Any, Any], body: bytes, accept: str) -> Format:
    """Choose the format of the answer, which is known even when the request cannot be read."""
    if row.wire is Wire.JSON:
        return Format.JSON
    if row.wire is Wire.MIRROR:
        return request_format(row, trim(body))
    if row.wire is Wire.ACCEPT and "application/json" in accept:
        wider = "*/*" in accept or "x-protobuf" in accept
        return Format.PROTOBUF if wider else Format.JSON
    return Format.PROTOBUF


def decode_request(row: Row[..., Q, Any], body: bytes, query: str, *, get: bool) -> Q:
    """Read the parameters of one call.

    Raises:
        Unreadable: the bytes are malformed, or a value has the wrong type or is out of range.
    """
    request = row.request
    if request is Nothing:
        # Clients send all kinds of fillers where there are no parameters; none can matter.
        return row.make()
    if get:
        return _from_json_value(dict(parse_qsl(query)), request)
    body = trim(body)
    if not body:
        return row.make()
    if len(body) > LARGEST_BODY:
        raise Unreadable("the body is too large")
    if request_format(row, body) is Format.JSON:
        return _from_json_value(_load_json(body), request)
    try:
        parsed = class_of(request).FromString(body)
    except DecodeError as error:
        raise Unreadable("malformed protobuf") from error
    return _checked(_from_protobuf(parsed, request))


def trim(body: bytes) -> bytes:
    """Drop the byte-order mark that .NET writers put first, and white space before JSON."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    start = body.lstrip(b" \t\r\n")
    return start if start[:1] in (b"{", b"") else body


def _load_json(body: bytes) -> Any:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("malformed JSON") from error
    if body.count(b"{") + body.count(b"[") > DEEPEST and _depth(value) > DEEPEST:
        raise Unreadable("JSON is nested too deep")
    return value


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside.extend(item.values())
            elif isinstance(item, list):
                inside.extend(item)
        level = [item for item in inside if isinstance(item, dict | list)]
    return deepest


def _from_json_value(value: Any, message: type[M]) -> M:
    try:
        return _checked(msgspec.convert(_loosen(value, message), message, strict=False))
    except msgspec.ValidationError as error:
        raise Unreadable(str(error)) from error


def _loosen(value: Any, message: type[Message]) -> Any:
    """Accept what clients really send: numbers for text, booleans for switches, null (or no
    digits) for nothing, a second spelling.

    (Text for numbers is msgspec's own lax mode.)
    """
    if not isinstance(value, dict):
        return value
    loose = {}
    for field in fields(message):
        found = value.get(field.key)
        for quirk in field.quirks:
            if found is None and quirk.also is not None:
                found = value.get(quirk.also)
        if found is None and field.repeated:
            # A host written in Go says null, or nothing, for a list without entries.
            found = []
        if found is None or (found == "" and field.type is int):
            continue
        if field.message is not None:
            inside = partial(_loosen, message=field.message)
            found = [inside(item) for item in found] if isinstance(found, list) else inside(found)
        elif field.type is str and isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        elif field.type is int and isinstance(found, bool):
            found = int(found)
        loose[field.key] = found
    return loose


def _checked(message: M) -> M:
    for field in fields(type(message)):
        text = getattr(message, field.name)
        if isinstance(text, str):
            if "\0" in text or len(text) > LONGEST_TEXT:
                raise Unreadable(f"{field.key} holds a NUL or is too long")
            try:
                # A lone surrogate survives JSON parsing but is no text that UTF-8 can carry.
                text.encode()
            except UnicodeEncodeError as error:
                raise Unreadable(f"{field.key} is not valid text") from error
    return message


# ---------------------------------------------------------------- writing an answer


def encode_answer(row: Row[..., Any, A], format: Format, number: int, answer: A) -> bytes:
    """Put the success envelope around an answer. `number` is the id of the request."""
    if format is Format.JSON:
        if isinstance(answer, Nothing):
            return b'{"code":1,"msg":"success"}'
        return b'{"code":1,"data":' + msgspec.json.encode(answer) + b',"msg":"success"}'
    return encode_status(number) + encode_data(row, answer)


def encode_status(number: int) -> bytes:
    """The status of a success, which stands in front of an answer's fields."""
    return _status(number, DONE, "success")


def statuses(first: int) -> Iterator[tuple[int, bytes]]:
    """Numbers from `first` on, each with the status of a success that carries it.

    A number is written seven bits a byte, the lowest first: 128 neighbours differ in one byte, and
    the codec is asked once for all of them.
    """
    number = first
    while True:
        whole = encode_status(number)
        if number < 128 or number & 127:
            yield number, whole
            number += 1
            continue
        # The status' own tag and length and the tag of the number stand before that byte.
        before, after = whole[:3], whole[4:]
        for low in _LOW:
            yield number, before + low + after
            number += 1


#: The last seven bits of a number that goes on.
_LOW = [bytes([128 | low]) for low in range(128)]


def encode_data(row: Row[..., Any, A], answer: A) -> bytes:
    """The protobuf fields of an answer without its status.

    A protobuf message is the concatenation of its fields, so that these bytes can be kept and the
    status of each request be put in front of them.
    """
    if isinstance(answer, Nothing):
        return b""
    inside: bytes = class_of(row.answer)(**msgspec.to_builtins(answer)).SerializeToString()
    if row.beside:
        return inside
    wrapper: bytes = _wrapper()(data=inside).SerializeToString()
    return wrapper


def encode_refusal(format: Format, number: int, code: int, msg: str) -> bytes:
    """Write a failure: a code and a reason, and nothing that could pass for data."""
    if format is Format.JSON:
        return b'{"code":%d,"msg":%s}' % (code, msgspec.json.encode(msg))
    return _status(number, code, msg)


def _status(number: int, code: int, msg: str) -> bytes:
    status = {"number": number, "code": code, "msg": msg}
    data: bytes = _envelope()(status=status).SerializeToString()
    return data


# ---------------------------------------------------------------- the client's side


def encode_request(row: Row[..., Q, Any], ask: Q) -> tuple[bytes, Format]:
    """Write the parameters of one call in the documented format of the row."""
    if row.wire in (Wire.JSON,):
        return msgspec.json.encode(ask), Format.JSON
    if isinstance(ask, Nothing):
        return b"", Format.PROTOBUF
    data: bytes = class_of(type(ask))(**msgspec.to_builtins(ask)).SerializeToString()
    return data, Format.PROTOBUF


def decode_answer(row: Row[..., Any, A], body: bytes, retry_after: int | None = None) -> A:
    """Open an envelope.

    Raises:
        Refused: the envelope's code is not 1.
        Unreadable: the bytes are no answer of this row.
    """
    if row.wire is Wire.JSON or body[:1] == b"{":
        # Gateways refuse in JSON before they know what a row speaks.
        value = _load_json(body)
        if not isinstance(value, dict):
            raise Unreadable("the answer is no object")
        _accept(value.get("code"), value.get("msg"), retry_after)
        try:
            data = _loosen(value.get("data") or {}, row.answer)
            return msgspec.convert(data, row.answer, strict=False)
        except msgspec.ValidationError as error:
            raise Unreadable(str(error)) from error
    try:
        status = _envelope().FromString(body).status
        _accept(status.code, status.msg, retry_after)
        if row.answer is Nothing:
            return row.answer()
        inside = body if row.beside else _wrapper().FromString(body).data
        return _from_protobuf(class_of(row.answer).FromString(inside), row.answer)
    except DecodeError as error:
        raise Unreadable("malformed protobuf") from error


def _accept(code: Any, msg: Any, retry_after: int | None) -> None:
    try:
        number = int(code)
    except (TypeError, ValueError) as error:
        raise Unreadable("the answer has no code") from error
    if number == 0 and not msg:
        # Protobuf's way of saying that there is no status at all.
        raise Unreadable("the answer has no code")
    if number != DONE:
        raise Refused(number, str(msg or ""), retry_after)


# ---------------------------------------------------------------- protobuf classes


def _from_protobuf(parsed: Protobuf, message: type[M]) -> M:
    values: dict[str, Any] = {}
    for field in fields(message):
        value = getattr(parsed, field.name)
        if field.message is not None:
            if field.repeated:
                value = [_from_protobuf(item, field.message) for item in value]
            elif parsed.HasField(field.name):
                value = _from_protobuf(value, field.message)
            else:
                continue
        values[field.name] = value
    return message(**values)


def class_of(message: type[Message]) -> Any:
    """The protobuf class of a message, built from the same fields."""
    return _classes()[message.__name__]


def _envelope() -> Any:
    return _classes()["Envelope"]


def _wrapper() -> Any:
    return _classes()["Wrapper"]


@cache
def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    file = protobuf_file()
    # The wrapper is the same bytes as a submessage, read and written without knowing which one.
    wrapper = file.message_type.add(name="Wrapper")
    wrapper.field.add(name="data", number=2, type=_TYPES["bytes"], label=_OPTIONAL)
    # Serialised, because the pool takes a file only whole and validates it on the way in.
    pool.AddSerializedFile(file.SerializeToString())
    return {
        entry.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{PACKAGE}.{entry.name}")
        )
        for entry in file.message_type
    }


_Proto = descriptor_pb2.FieldDescriptorProto
_OPTIONAL, _REPEATED = _Proto.LABEL_OPTIONAL, _Proto.LABEL_REPEATED
_TYPES = {
    "string": _Proto.TYPE_STRING,
    "double": _Proto.TYPE_DOUBLE,
    "int32": _Proto.TYPE_INT32,
    "int64": _Proto.TYPE_INT64,
    "uint64": _Proto.TYPE_UINT64,
    "bytes": _Proto.TYPE_BYTES,
    "message": _Proto.TYPE_MESSAGE,
}


def protobuf_file() -> descriptor_pb2.FileDescriptorProto:
    """Describe every message that travels as protobuf, derived from the rows."""
    file = descriptor_pb2.FileDescriptorProto(name="hupan.proto", package=PACKAGE, syntax="proto3")
    status = file.message_type.add(name="Status")
    for number, (name, kind) in enumerate(
        (("number", "uint64"), ("code", "int32"), ("msg", "string")), start=1
    ):
        status.field.add(name=name, number=number, type=_TYPES[kind], label=_OPTIONAL)
    envelope = file.message_type.add(name="Envelope")
    envelope.field.add(
        name="status",
        number=1,
        type=_TYPES["message"],
        type_name=f".{PACKAGE}.Status",
        label=_OPTIONAL,
    )
    done: set[type[Message]] = set()

    def describe(message: type[Message]) -> None:
        if message in done or message is Nothing:
            return
        done.add(message)
        for field in fields(message):
            if field.message is not None:
                describe(field.message)
        entry = file.message_type.add(name=message.__name__)
        for field in fields(message):
            assert field.number is not None, f"{message.__name__}.{field.name} has no number"
            entry.field.add(
                name=field.name,
                number=field.number,
                type=_TYPES[field.scalar],
                type_name=f".{PACKAGE}.{field.message.__name__}" if field.message else None,
                label=_REPEATED if field.repeated else _OPTIONAL,
            )

    for row in rows():
        if row.wire is not Wire.JSON:
            describe(row.request)
            describe(row.answer)
    return file
