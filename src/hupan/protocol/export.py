"""What is derived from the table: its listing, the `.proto`, the OpenAPI document.

Nothing here is written twice: change a row or a message and write the files anew.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import descriptor_pb2

from hupan.protocol.message import Field, Message, Nothing, fields
from hupan.protocol.row import Auth, Host, Row, Wire, walk
from hupan.protocol.table import rows
from hupan.protocol.wire import protobuf_file
from hupan.version import __version__

__all__ = ["files", "openapi", "proto", "table"]


def files() -> dict[str, str]:
    """Every derived file: path → content."""
    return {
        "proto/hupan.proto": proto(),
        "docs/openapi.json": json.dumps(openapi(), ensure_ascii=False, indent=2) + "\n",
        "docs/protocol.md": reference(),
    }


def table() -> list[dict[str, Any]]:
    """Every row, as plain values."""
    return [
        {
            "name": row.name,
            "module": row.module,
            "method": list(row.methods),
            "path": row.path,
            "host": row.host.value,
            "request": _signature(row.request),
            "answer": _signature(row.answer),
            "format": row.wire.value,
            "auth": row.auth.value,
            "safe": row.safe,
            "certainty": row.certainty.value,
            "quirks": [
                {"at": place, "name": quirk.name, "reason": quirk.reason}
                for place, quirk in row.quirks
            ],
            "summary": row.summary,
        }
        for row in rows()
    ]


def _signature(message: type[Message]) -> dict[str, Any] | None:
    if message is Nothing:
        return None
    return {
        "message": message.__name__,
        "fields": [
            {"key": field.key, "type": _type(field), "number": field.number}
            for field in fields(message)
        ],
    }


def _type(field: Field) -> str:
    name = field.message.__name__ if field.message else field.scalar
    return f"list of {name}" if field.repeated else name


# ---------------------------------------------------------------- .proto

_Proto = descriptor_pb2.FieldDescriptorProto
_NAMES = {
    _Proto.TYPE_STRING: "string",
    _Proto.TYPE_DOUBLE: "double",
    _Proto.TYPE_INT32: "int32",
    _Proto.TYPE_INT64: "int64",
    _Proto.TYPE_UINT64: "uint64",
}


def proto() -> str:
    """The messages that travel as protobuf, in the language of protoc."""
    file = protobuf_file()
    lines = [
        "// Derived from the table by `hupan protocol --write`; do not edit.",
        "// An answer is its Status in field 1 followed by the fields of its own message: in",
        "// field 2 as one submessage `data`, or beside the status where the row says so.",
        'syntax = "proto3";',
        "",
        f"package {file.package};",
    ]
    for entry in file.message_type:
        lines += ["", f"message {entry.name} {{"]
        for field in entry.field:
            kind = _NAMES.get(field.type) or field.type_name.rpartition(".")[2]
            repeated = "repeated " if field.label == _Proto.LABEL_REPEATED else ""
            lines.append(f"  {repeated}{kind} {field.name} = {field.number};")
        lines.append("}")
    for row in rows():
        if row.wire is Wire.JSON or row.answer is Nothing:
            continue
        lines += ["", f"message {row.answer.__name__}Answer {{", "  Status status = 1;"]
        if row.beside:
            for own in fields(row.answer):
                assert own.message is not None
                lines.append(f"  repeated {own.message.__name__} {own.name} = {own.number};")
        else:
            lines.append(f"  {row.answer.__name__} data = 2;")
        lines.append("}")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- OpenAPI

_JSON_TYPES = {
    "string": {"type": "string"},
    "double": {"type": "number"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "uint64": {"type": "integer", "format": "int64", "minimum": 0},
}


def openapi() -> dict[str, Any]:
    """An OpenAPI 3.1 document of both hosts; protobuf bodies are binary with a named message."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {
        "Refusal": {
            "type": "object",
            "required": ["code", "msg"],
            "properties": {"code": {"type": "integer"}, "msg": {"type": "string"}},
        }
    }
    for row in rows():
        # Two hosts share one path; the web host's stands under a name of its own.
        path = row.path if row.host is Host.API else f"/{row.host.value}{row.path}"
        for method in row.methods:
            paths.setdefault(path, {})[method.lower()] = _operation(row, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hupan",
            "version": __version__,
            "description": "The Yunhu user module. Every answer is HTTP 200 with an envelope;"
            " `code` 1 is success. Paths under `/web` belong to the web host, without `/web`.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "token"}},
        },
    }


def _operation(row: Row[..., Any, Any], method: str, schemas: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": f"{row.module}.{row.name}" + (".get" if method != row.methods[0] else ""),
        "summary": row.summary,
        "tags": [row.module],
        "x-certainty": row.certainty.value,
        "security": [] if row.auth is Auth.PUBLIC else [{"token": []}],
        "responses": {
            "200": {"description": "The envelope.", "content": _answer_content(row, schemas)}
        },
    }
    if row.request is Nothing:
        return told
    if method == "GET":
        told["parameters"] = [
            {"name": field.key, "in": "query", "schema": _JSON_TYPES[field.scalar]}
            for field in fields(row.request)
        ]
    else:
        content: dict[str, Any] = {}
        if row.wire is not Wire.JSON:
            content["application/x-protobuf"] = _binary(row.request.__name__)
        if row.wire is not Wire.PROTOBUF:
            content["application/json"] = {"schema": _schema(row.request, schemas)}
        told["requestBody"] = {"content": content}
    return told


def _binary(name: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "x-protobuf-message": name}}


def _answer_content(row: Row[..., Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if row.wire is not Wire.JSON:
        name = "Envelope" if row.answer is Nothing else f"{row.answer.__name__}Answer"
        content["application/x-protobuf"] = _binary(name)
    if row.wire is not Wire.PROTOBUF:
        done: dict[str, Any] = {
            "type": "object",
            "required": ["code", "msg"],
            "properties": {"code": {"const": 1}, "msg": {"type": "string"}},
        }
        if row.answer is not Nothing:
            done["required"] = ["code", "data", "msg"]
            done["properties"]["data"] = _schema(row.answer, schemas)
        refusal = {"$ref": "#/components/schemas/Refusal"}
        content["application/json"] = {"schema": {"anyOf": [done, refusal]}}
    return content


def _schema(message: type[Message], schemas: dict[str, Any]) -> dict[str, Any]:
    name = message.__name__
    if name not in schemas:
        properties: dict[str, Any] = {}
        schemas[name] = {"type": "object", "properties": properties}
        if message.__doc__:
            schemas[name]["description"] = " ".join(message.__doc__.split())
        for field in fields(message):
            inner = _schema(field.message, schemas) if field.message else _JSON_TYPES[field.scalar]
            properties[field.key] = {"type": "array", "items": inner} if field.repeated else inner
    return {"$ref": f"#/components/schemas/{name}"}


# ---------------------------------------------------------------- the reference page


def reference() -> str:
    """The protocol reference, in Markdown."""
    lines = [
        "# Protocol reference",
        "",
        "Derived from the table by `make docs`; do not edit. How each row compares with",
        "production is in [differences.md](differences.md).",
        "",
        "Certainty: *documented* in the protocol document this project was started from,",
        "*observed* where clients depend on it, *assumed* where it is ours.",
        "",
        "| method | path | format | who | certainty |",
        "|---|---|---|---|---|",
    ]
    for row in rows():
        anchor = f"{row.module}.{row.name}".lower().replace(".", "")
        lines.append(
            f"| {' '.join(row.methods)} | [`{row.path}`](#{anchor})"
            f"{' (web host)' if row.host is Host.WEB else ''}"
            f" | {row.wire.value} | {row.auth.value} | {row.certainty.value} |"
        )
    for row in rows():
        lines += _section(row)
    return "\n".join(lines) + "\n"


def _section(row: Row[..., Any, Any]) -> list[str]:
    lines = [
        "",
        f"## {row.module}.{row.name}",
        "",
        f"`{' '.join(row.methods)} {row.path}`"
        f"{' on the web host' if row.host is Host.WEB else ''}: {row.summary}"
        f"{' Only reads.' if row.safe else ''}",
    ]
    for title, message in (("Request", row.request), ("Answer", row.answer)):
        if message is Nothing:
            lines += ["", f"{title}: nothing."]
            continue
        place = " in `data`" if title == "Answer" and not row.beside else ""
        place = " beside the status" if title == "Answer" and row.beside else place
        note = " ".join((message.__doc__ or "").split())
        lines += [
            "",
            f"{title}: `{message.__name__}`{place}. {note}",
            "",
            "| field | type | number |",
            "|---|---|---|",
        ]
        for path, field in walk(message):
            lines.append(f"| `{path}` | {_type(field)} | {field.number or ''} |")
    quirks = list(row.quirks)
    if quirks:
        lines.append("")
        lines += [
            f"- **{quirk.name}**{f' ({place})' if place else ''}: {quirk.reason}"
            for place, quirk in quirks
        ]
    return lines
